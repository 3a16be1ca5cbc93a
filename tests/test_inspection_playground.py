"""The playground of room 00: words named while typing, progress, sounds that stay to be compared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from musicgen_edu.config import SamplingSettings
from musicgen_edu.inspection.playground import explore_playground, play, say_next, say_unknown


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("happy piano,fast", "The model knows every word that could describe music."),
        ("I would like a happy zither and a bagpipe", "The model was never taught: zither, bagpipe."),
        ("  ", "Describe some music, for example: happy marimba arpeggio, fast."),
    ],
)
def test_unknown_words_are_said_in_a_sentence(model, prompt, said):
    assert say_unknown(model, prompt) == said


@pytest.mark.filterwarnings("error")
def test_a_clip_is_that_of_generate_and_named_by_its_settings(model):
    steps = []
    audio = play(model, "happy zither", 0.5, lambda *step: steps.append(step), seed=3, temperature=0.5)
    assert audio.prompts == ["happy zither; seed 3, temperature 0.5"]
    assert steps[-1][0] == steps[-1][1] == len(steps)
    again = play(model, "happy zither", 0.5, seed=3, temperature=0.5)
    assert (audio.codes == again.codes).all() and "<img alt=" in audio._repr_html_()


def test_the_view_names_words_plays_and_keeps_earlier_clips(model):
    view = explore_playground(model, "happy piano")
    prompt, words, sliders, below, heard = view.children
    button, said = below.children
    sliders.children[0].value = 1  # second
    prompt.value = "sad zither"
    assert "never taught: zither." in words.value
    button.click()
    assert heard.value.count("<audio ") == 1 and "Made." in said.value
    assert "sad zither; seed 0, temperature 1, guidance scale 3, 1.0 seconds" in heard.value
    prompt.value = "sad piano"
    button.click()
    assert heard.value.count("<audio ") == 2 and heard.value.index("sad piano; seed") < heard.value.index("sad zither")
    prompt.value = " "
    button.click()
    assert heard.value.count("<audio ") == 2 and "The prompt is empty" in said.value
    assert "needs a kernel" in view._repr_mimebundle_()["text/plain"]


def test_the_sliders_begin_at_the_settings_of_the_model(model, monkeypatch):
    monkeypatch.setattr(model, "config", replace(model.config, sampling=SamplingSettings(temperature=0.85)))
    _, seed, temperature, guidance = explore_playground(model).children[2].children
    assert (seed.value, temperature.value, guidance.value) == (0, 0.85, 3.0)
    assert temperature.labels[7:11] == ["0.7", "0.8", "0.85", "0.9"]


def test_what_comes_next_is_said_before_it_is_made():
    said = say_next("sad flute", 4, 7, 0.8, 2.0)
    assert said == "Next: “sad flute”, 4 s, seed 7, temperature 0.8, guidance 2."
