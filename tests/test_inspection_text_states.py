"""Prompts compared token by token, the pictures of text states, and the view that asks for two prompts."""

from __future__ import annotations

import pytest
import torch

from musicgen_edu.inspection.text_states import (
    MAX_SHOWN,
    Comparison,
    compare_prompts,
    draw_caption_map,
    draw_comparison,
    draw_encoder,
    explore_prompts,
)

PAIR = "a happy piano melody", "a sad piano melody with drums"


@torch.no_grad()
def test_a_comparison_holds_the_cosines_of_states_that_were_encoded_alone(model):
    """Encoding both prompts in one batch pads the first; the padding must not show."""
    comparison = compare_prompts(model, *PAIR)
    first, second = (model.text_encoder(*model.tokenizer([prompt]))[0] for prompt in PAIR)
    assert comparison.cosines.shape == (len(comparison.first), len(comparison.second))
    for row, of_first in enumerate(first):
        expected = torch.cosine_similarity(of_first[None], second, dim=-1)
        torch.testing.assert_close(comparison.cosines[row], expected, rtol=0, atol=1e-5)


def test_a_prompt_is_like_itself(model):
    comparison = compare_prompts(model, PAIR[0], PAIR[0])
    torch.testing.assert_close(comparison.cosines.diagonal(), torch.ones(len(comparison.first)), rtol=0, atol=1e-5)
    assert [word for word, _ in comparison.same_words()] == comparison.first


@torch.no_grad()
def test_the_centre_is_taken_away(model):
    states = model.text_encoder(*model.tokenizer([PAIR[0]]))[0]
    centred = compare_prompts(model, PAIR[0], PAIR[0], states.mean(dim=0)).cosines
    offsets = states - states.mean(dim=0)
    torch.testing.assert_close(centred[0, 1], torch.cosine_similarity(offsets[0], offsets[1], dim=0), rtol=0, atol=1e-5)


def test_a_word_that_stands_twice_is_no_pair():
    comparison = Comparison(["no", "drums", "no"], ["no", "drums"], torch.eye(3)[:, :2])
    assert comparison.same_words() == [("drums", 1.0)]


@pytest.mark.parametrize("prompt", ["", "piano " * MAX_SHOWN])
def test_a_prompt_that_cannot_be_shown_is_refused(model, prompt):
    with pytest.raises(ValueError, match="prompt"):
        compare_prompts(model, PAIR[0], prompt)


def test_the_picture_of_a_comparison_names_the_shared_words(model):
    drawn = draw_comparison(compare_prompts(model, *PAIR))
    assert drawn.content.startswith(b"\x89PNG")
    assert "“piano” " in drawn.alt
    assert "happy" not in drawn.alt
    nothing = Comparison(["flute"], ["organ"], torch.tensor([[-0.01]]))
    assert draw_comparison(nothing).alt.endswith("none.")


def test_a_zero_has_no_sign():
    drawn = draw_comparison(Comparison(["flute"], ["flute"], torch.tensor([[-0.01]])))
    assert "“flute” 0.0" in drawn.alt


def test_the_map_of_captions_names_its_marks():
    names = [f"instrument {number}" for number in range(11)]
    drawn = draw_caption_map(torch.randn(22, 2), names * 2, names, "Captions")
    assert drawn.content.startswith(b"\x89PNG")
    assert "22 captions" in drawn.alt
    assert all(name in drawn.alt for name in names)


def test_the_encoder_is_drawn_with_its_layers():
    drawn = draw_encoder(12)
    assert b"12 times" in drawn.content
    assert "12 times" in drawn.alt


def test_the_view_shows_what_is_typed_and_says_what_is_wrong(model):
    first, second, centred, shown = explore_prompts(model, torch.zeros(16)).children
    start = shown.value
    assert start.startswith("<img alt=")
    second.value = "slow flute chords"
    assert shown.value != start
    first.value = " "
    assert 'role="alert"' in shown.value
    first.value = "slow flute melody"
    assert "“flute”" in shown.value
    assert centred.value and not centred.disabled
    assert all(control.tooltip for control in (first, second, centred))


def test_the_tick_box_takes_the_common_part_away(model):
    with torch.no_grad():
        centre = model.text_encoder(*model.tokenizer(list(PAIR)))[0, 0]
    *_, centred, shown = explore_prompts(model, centre).children
    without = shown.value
    centred.value = False
    assert shown.value != without


def test_without_a_centre_there_is_nothing_to_tick(model):
    assert explore_prompts(model).children[2].disabled


def test_what_is_typed_is_never_taken_for_markup(model):
    first, *_, shown = explore_prompts(model).children
    first.value = "<b>piano</b> <script>"
    assert "<script" not in shown.value
    assert "<b>" not in shown.value
