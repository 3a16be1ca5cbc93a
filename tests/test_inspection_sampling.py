"""The sampling widget: its distribution against the rooms' own functions, its picture, and its sliders and button."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import pytest
import torch

from musicgen_edu.conditioning import Condition
from musicgen_edu.inspection.sampling import (
    draw_choice,
    draw_distributions,
    entropy_bits,
    explore_sampling,
    next_code,
    score_next,
)
from musicgen_edu.sampling import create_generators, sample

PROMPT = "peaceful piano melody"


@pytest.fixture(scope="module")
def columns() -> torch.Tensor:
    codes = torch.randint(32, (1, 4, 6), generator=torch.Generator().manual_seed(0))
    return torch.cat([torch.full((1, 4, 1), 32), codes], dim=2)


@pytest.fixture(scope="module")
def scores(model, columns) -> tuple[torch.Tensor, torch.Tensor]:
    return score_next(model, PROMPT, columns)


@pytest.fixture
def view(model, columns):
    prompt, _, sliders, shown, buttons, heard = explore_sampling(model, columns, PROMPT, duration=0.1).children
    button, said = buttons.children
    return {control.description: control for control in (prompt, *sliders.children)}, shown, button, said, heard


def test_scores_are_those_of_the_last_column_with_and_without_the_prompt(model, columns, scores):
    condition = model.encode_text([PROMPT])
    with torch.inference_mode():
        torch.testing.assert_close(scores[0], model.decoder(columns, condition)[0, :, -1])
        torch.testing.assert_close(
            scores[1], model.decoder(columns, Condition(9 * condition.states, 0 * condition.mask.int()))[0, :, -1]
        )
    assert not torch.allclose(*scores)


def test_neutral_settings_are_the_models_own_distribution(scores):
    probabilities, _ = next_code(*scores, temperature=1, top_k=0, top_p=1, guidance_scale=1)
    torch.testing.assert_close(probabilities, scores[0].softmax(dim=-1))


def test_the_settings_shape_the_distribution(scores):
    shape = {"temperature": 1.0, "top_k": 0, "guidance_scale": 3.0}
    plain, _ = next_code(*scores, **shape)
    assert (next_code(*scores, **shape | {"top_k": 5})[0] > 0).sum(dim=-1).eq(5).all()
    assert ((next_code(*scores, **shape, top_p=0.5)[0] > 0) <= (plain > 0)).all()
    entropies = [entropy_bits(next_code(*scores, **shape | {"temperature": t})[0]) for t in (0.0, 0.5, 1.0, 2.0)]
    assert entropies[0].eq(0).all() and all((low < high).all() for low, high in pairwise(entropies))


def test_the_drawn_code_is_the_seeds(scores):
    settings = {"temperature": 1.0, "top_k": 0, "guidance_scale": 1.0}
    for seed in range(5):
        expected = sample(scores[0][None], create_generators(seed, 1))[0]
        assert torch.equal(next_code(*scores, **settings, seed=seed)[1], expected)


def test_entropy_counts_bits():
    assert entropy_bits(torch.full((1024,), 1 / 1024)).item() == pytest.approx(10, abs=1e-4)
    assert entropy_bits(torch.tensor([0.5, 0.5, 0.0])).item() == pytest.approx(1)
    assert entropy_bits(torch.tensor([1.0, 0.0])).item() == 0


@pytest.mark.parametrize("panels", [1, 2, 3, 4, 5])
def test_distributions_are_drawn_in_panels(panels):
    before = torch.rand(50).softmax(dim=0)
    drawn = draw_distributions(before, {f"panel {n}": before for n in range(panels)}, "Dots fall to the right.")
    assert drawn.media_type == "image/png" and drawn.content.startswith(b"\x89PNG")
    assert 'alt="Dots fall to the right."' in drawn._repr_html_()


@pytest.mark.parametrize("settings", [{}, {"temperature": 0}, {"top_k": 0, "seed": 3}, {"guidance_scale": 0.0}])
def test_a_choice_is_drawn_and_named(scores, settings):
    drawn = draw_choice(*scores, codebook=1, **{"top_k": 5} | settings)
    assert drawn.content.startswith(b"\x89PNG") and "the code that the seed draws" in drawn.alt
    assert all(name.replace("_", " ") in drawn.alt for name in settings)


def test_an_unlikely_code_may_be_drawn(scores):
    """Beyond the codes that the picture shows: the arrow stays inside it."""
    scores = torch.zeros(4, 500), torch.zeros(4, 500)
    for seed in range(5):
        assert draw_choice(*scores, top_k=0, seed=seed).content


@pytest.mark.parametrize(("name", "value"), [("temperature", -1.0), ("top_p", 0.0), ("guidance_scale", math.nan)])
def test_bad_settings_are_refused(scores, name, value):
    with pytest.raises(ValueError, match=name):
        next_code(*scores, **{"top_k": 0, name: value})


def test_every_control_has_a_label_and_a_tooltip(view):
    controls, _, button, _, _ = view
    assert list(controls) == ["prompt", "temperature", "top-k", "top-p", "guidance", "seed"]
    assert all(control.tooltip for control in controls.values()) and button.description and button.tooltip


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", 0.5), ("top-k", 5), ("top-p", 0.5), ("guidance", 0.0), ("seed", 7), ("prompt", "fast strings")],
)
def test_the_picture_follows_at_once_and_the_sound_does_not(view, name, value):
    controls, shown, _, _, heard = view
    before = shown.value
    controls[name].value = value
    assert shown.value != before and '<img alt="Probabilities' in shown.value
    assert heard.value == ""


def test_the_button_plays_what_the_sliders_say(model, view):
    controls, _, button, _, heard = view
    controls["seed"].value, controls["temperature"].value, controls["top-k"].value = 3, 0.7, 5
    button.click()
    settings = {"seed": 3, "temperature": 0.7, "top_k": 5, "guidance_scale": 3.0}
    expected = model.generate(PROMPT, 0.1, **settings)._repr_html_()
    sound = r"data:audio/\w+;base64,[^\"]+"
    assert re.search(sound, heard.value).group() == re.search(sound, expected).group()
    assert (
        'aria-label="peaceful piano melody; temperature 0.7, top k 5, top p 1, guidance scale 3, seed 3,' in heard.value
    )


def test_earlier_clips_stay_and_the_button_keeps_its_focus(view):
    controls, _, button, said, heard = view
    assert "0.1 seconds" in said.value
    disabled = []
    button.observe(lambda change: disabled.append(change), "disabled")
    for seed in (1, 2):
        controls["seed"].value = seed
        button.click()
    assert heard.value.count("<audio ") == 2 and heard.value.count("autoplay") == 1
    assert heard.value.index("seed 2") < heard.value.index("seed 1") and "Earlier ones stay" in said.value
    assert not disabled


def test_a_blank_prompt_is_answered_by_one_sentence(view):
    controls, shown, button, said, heard = view
    controls["prompt"].value = "  "
    button.click()
    assert heard.value == ""
    for answer in (shown.value, said.value):
        assert answer.startswith('<p role="alert"') and "Traceback" not in answer
    controls["prompt"].value = PROMPT
    assert "<img" in shown.value


def test_unknown_words_are_named_before_the_sound_is_made(model, columns):
    prompt, words, *_, buttons, heard = explore_sampling(model, columns, PROMPT, duration=0.1).children
    prompt.value = "piano <zither>"
    assert "never taught: zither." in words.value and heard.value == ""
    buttons.children[0].click()
    assert "piano &lt;zither&gt;; temperature" in heard.value and "Made." in buttons.children[1].value
