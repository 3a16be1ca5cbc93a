"""The blind listening test: its order, its exact statistics, its picture, and the test taken button by button."""

from __future__ import annotations

import base64
import re
from collections import Counter

import pytest
import torch
from scipy.stats import binomtest

from musicgen_edu.audio import Audio, load_audio
from musicgen_edu.inspection.blind_test import (
    SIDES,
    Trial,
    _player,
    _players,
    binomial_p_value,
    draw_score,
    draw_trials,
    explore_blind_test,
    match_levels,
    right_answers_needed,
    score,
)

RATE = 16_000


def clip(frequency: float, level: float = 0.5) -> Audio:
    return Audio(level * torch.sin(torch.arange(1_600) * frequency)[None, None], RATE)


@pytest.fixture
def pairs() -> dict[str, tuple[Audio, Audio]]:
    return {name: (clip(0.1 + place), clip(0.2 + place, 0.2)) for place, name in enumerate(("piano", "<flute>"))}


@pytest.fixture
def view(pairs):
    return parts_of(explore_blind_test(pairs, trials=3, seed=5))


def parts_of(view):
    above, _, shown, heard, below, _ = view.children
    return *above.children, heard, *below.children, shown


def sounds(heard) -> list[str]:
    return re.findall(r"base64,([^\"]+)", heard.value)


def test_the_order_is_the_seeds():
    names = ["piano", "flute", "organ"]
    assert draw_trials(names, 16, seed=1) == draw_trials(names, 16, seed=1)
    assert draw_trials(names, 16, seed=1) != draw_trials(names, 16, seed=2)


def test_every_clip_comes_about_equally_often():
    counts = Counter(trial.name for trial in draw_trials(["piano", "flute", "organ"], 16, seed=0))
    assert sorted(counts.values()) == [5, 5, 6]


def test_both_coins_are_fair_and_independent():
    pairs = Counter((trial.original, trial.answer) for trial in draw_trials(["piano"], 4_000, seed=0))
    assert set(pairs) == {(one, other) for one in SIDES for other in SIDES}
    assert all(900 < count < 1_100 for count in pairs.values())


@pytest.mark.parametrize(("names", "trials"), [([], 3), (["piano"], 0)])
def test_a_test_of_nothing_is_refused(names, trials):
    with pytest.raises(ValueError, match="at least one clip and one trial"):
        draw_trials(names, trials, seed=0)


@pytest.mark.parametrize("chance", [0.5, 0.1])
@pytest.mark.parametrize("trials", [1, 3, 16, 300])
def test_the_p_value_is_scipys(trials, chance):
    for right in {0, 1, trials // 2, trials}:
        expected = binomtest(right, trials, chance, alternative="greater").pvalue
        assert binomial_p_value(right, trials, chance) == pytest.approx(expected, rel=1e-9)


def test_known_p_values():
    assert binomial_p_value(3, 3) == 0.125
    assert binomial_p_value(0, 16) == 1
    assert binomial_p_value(12, 16) == 2517 / 65536


@pytest.mark.parametrize("figures", [(4, 3, 0.5), (-1, 3, 0.5), (0, 0, 0.5), (1, 3, 1.5)])
def test_impossible_figures_are_refused(figures):
    with pytest.raises(ValueError, match="not possible"):
        binomial_p_value(*figures)


def test_right_answers_needed():
    assert [right_answers_needed(trials) for trials in (3, 4, 5, 10, 16)] == [None, None, 5, 9, 12]
    assert right_answers_needed(16, level=0.001) == 15


def test_the_score_counts_and_judges():
    trials = [Trial("piano", "A", "A"), Trial("flute", "A", "B"), Trial("piano", "B", "B")]
    result = score(trials, ["A", "A", "B"])
    assert (result.right, result.trials, result.p_value) == (2, 3, 0.5)
    assert 0 < result.low < 2 / 3 < result.high < 1


@pytest.mark.parametrize("answers", [["A"], ["A", "B", "C"], ["A", "B", ""]])
def test_each_trial_needs_its_answer(answers):
    with pytest.raises(ValueError, match="as many answers"):
        score(draw_trials(["piano"], 3, seed=0), answers)


def test_levels_are_matched_by_turning_down():
    loud, quiet = clip(0.1, 0.8).waveform, clip(0.3, 0.2).waveform
    for first, second in (match_levels(loud, quiet), match_levels(quiet, loud)[::-1]):
        assert first.square().mean().item() == pytest.approx(second.square().mean().item(), rel=1e-4)
        assert torch.equal(second, quiet)


def test_silence_is_matched_without_nan():
    assert all(side.isfinite().all() for side in match_levels(torch.zeros(1, 1, 1_600), clip(0.1).waveform))


@pytest.mark.parametrize(("right", "trials"), [(0, 1), (3, 3), (12, 16), (0, 16), (50, 50)])
def test_the_picture_says_what_it_shows(right, trials):
    drawn = draw_score(right, trials)
    assert drawn.content.startswith(b"\x89PNG")
    assert f"{binomial_p_value(right, trials):.3f}" in drawn.alt


def test_every_control_has_a_label_and_a_tooltip(view):
    count, start, _, choice, answer, _ = view
    assert all(control.description and control.tooltip for control in (count, start, answer))
    assert choice.description and choice.tooltip and choice.labels == ["A", "B"]


def test_nothing_is_heard_before_the_start(view):
    _, _, heard, choice, answer, shown = view
    assert heard.value == "" and "press Start" in shown.value and choice.disabled and answer.disabled


def test_the_view_says_how_many_right_answers_are_needed_and_what_was_chosen(pairs):
    view = explore_blind_test(pairs, trials=3, seed=5)
    (count, start), (choice, _) = view.children[0].children, view.children[4].children
    needed, chosen = view.children[1], view.children[5]
    assert "With 3 trials even all right may be luck: take at least 5" in needed.value
    count.value = 10
    assert "gets 9 of 10 right, or more, in fewer than 1 test of 20" in needed.value and chosen.value == ""
    start.click()
    choice.value = "B"
    assert "You say B" in chosen.value


def test_x_is_the_recording_that_the_order_says(view, pairs):
    _, start, heard, choice, answer, _ = view
    start.click()
    for trial in draw_trials(list(pairs), 3, seed=5):
        a, b, x = sounds(heard)
        assert a != b and x == {"A": a, "B": b}[trial.answer] and choice.value is None
        choice.value = trial.answer
        answer.click()


@pytest.mark.parametrize("wrong", [0, 1, 3])
def test_the_test_is_scored_at_the_end_and_not_before(view, pairs, wrong):
    _, start, heard, choice, answer, shown = view
    start.click()
    said = []
    for place, trial in enumerate(draw_trials(list(pairs), 3, seed=5)):
        said.append(shown.value)
        choice.value = trial.answer if place >= wrong else {"A": "B", "B": "A"}[trial.answer]
        answer.click()
    assert not any("right" in text or "✓" in text for text in said) and len(set(said)) == 3
    assert f"{3 - wrong} of 3 right, p = {binomial_p_value(3 - wrong, 3):.3f}" in shown.value
    assert shown.value.count("✓") == 3 - wrong and "&lt;flute&gt;" in shown.value and "<img alt=" in shown.value
    assert heard.value == "" and choice.disabled and answer.disabled


def test_no_answer_is_asked_for_again(view):
    _, start, heard, _, answer, shown = view
    start.click()
    before = heard.value
    answer.click()
    assert "No answer is chosen yet" in shown.value and heard.value == before


def test_a_start_begins_again(view):
    _, start, _, choice, answer, shown = view
    start.click()
    choice.value = "A"
    answer.click()
    assert "Trial 2 of 3" in shown.value
    start.click()
    assert "Trial 1 of 3" in shown.value


def test_without_a_seed_nobody_knows_the_order(pairs):
    orders = set()
    count, start, heard, choice, answer, _ = parts_of(explore_blind_test(pairs))
    count.value = 12
    for _ in range(3):
        start.click()
        order = []
        for _ in range(12):
            a, _, x = sounds(heard)
            order.append(a == x)
            choice.value = "A"
            answer.click()
        orders.add(tuple(order))
    assert len(orders) > 1


@pytest.mark.parametrize("bad", [{}, {"piano": (clip(0.1), Audio(torch.zeros(1, 1, 10), RATE))}])
def test_bad_pairs_are_answered_by_one_sentence(bad):
    _, start, heard, choice, answer, shown = parts_of(explore_blind_test(bad))
    start.click()
    assert shown.value.startswith('<p role="alert"') and shown.value.count("<p") == 1 and "Traceback" not in shown.value
    assert heard.value == "" and choice.disabled and answer.disabled


def test_recordings_are_rounded_as_files_are(tmp_path):
    """Cut off instead, as libsndfile does, they would be up to a step of 16 bits away from what `Audio.save` writes."""
    audio = clip(0.1)
    (heard,) = re.findall(r"base64,([^\"]+)", _player("A", audio.waveform[0], RATE))
    assert base64.b64decode(heard) == audio.save(tmp_path / "a.wav").read_bytes()


def test_all_recordings_of_a_trial_are_heard_at_the_listening_level(tmp_path):
    """By one gain, which comes after that which makes them equal: no clip is turned up beyond the loudest."""
    players = _players(clip(0.1, 0.01), clip(0.3, 0.002), Trial("piano", "A", "B"))
    gains = []
    for sound in re.findall(r"base64,([^\"]+)", players):
        (tmp_path / "heard.wav").write_bytes(base64.b64decode(sound))
        gains.append(load_audio(tmp_path / "heard.wav").listening_gain())
    assert len(gains) == 3 and min(gains) == pytest.approx(0, abs=0.1) and max(gains) < 3
