"""The live view without its page: what messages do, which sentences answer, and what the page is sent.

That it plays without a gap, by mouse and beside a running cell, is for tests/browser/live.py to see.
"""

from __future__ import annotations

import contextvars
import threading
import time

import numpy as np
import pytest
import torch

from musicgen_edu import live
from musicgen_edu.inspection.live import GUIDANCE, Speaker, play_live, say_dry, say_switch
from musicgen_edu.live import LiveSession, Switch
from musicgen_edu.model import STREAM_GAIN, MusicGen

WAIT_SECONDS = 30


class Page:
    """Stands for the page: it takes what the view sends, and says what a page would."""

    def __init__(self, view, monkeypatch):
        self.speaker, self.words, self.said = view.children
        self.messages, self.news = [], threading.Condition()
        monkeypatch.setattr(self.speaker, "send", self._take)

    def _take(self, content, buffers=None):
        with self.news:
            self.messages.append((content, buffers))
            self.news.notify_all()

    def say(self, kind: str, **content):
        if kind == "play":
            content = {"prompt": self.speaker.prompt} | content
        self.speaker._handle_custom_msg({"kind": kind, **content}, [])

    def wait(self, until):
        with self.news:
            assert self.news.wait_for(until, WAIT_SECONDS), "nothing happens"

    def of_kind(self, kind: str) -> list[dict]:
        return [content for content, _ in self.messages if content["kind"] == kind]

    def sound(self, number: int) -> torch.Tensor:
        parts = [buffers[0] for content, buffers in self.messages if content == {"kind": "sound", "number": number}]
        return torch.from_numpy(np.frombuffer(b"".join(parts), dtype=np.float32).copy())


@pytest.fixture
def page(model, monkeypatch):
    page = Page(play_live(model, "happy piano", seed=3), monkeypatch)
    yield page
    page.say("stop")
    assert not [thread for thread in threading.enumerate() if thread.name == live.THREAD]


def test_the_page_gets_the_session_a_little_ahead_until_it_says_stop(page, model):
    assert "Press Play" in page.said.value and "knows every word" in page.words.value
    page.say("play", number=7)
    page.wait(lambda: len(page.sound(7)) >= live.RESERVE * 400)
    assert "Playing “happy piano”." in page.said.value
    page.say("heard", number=7, seconds=1.0, dry=0)
    page.wait(lambda: len(page.sound(7)) >= (1.0 + live.RESERVE) * 400)
    page.say("stop")
    assert "Stopped." in page.said.value
    found, session = page.sound(7), LiveSession(model, "happy piano", seed=3, guidance_scale=GUIDANCE)
    expected = torch.cat([next(session).waveform[0, 0] for _ in page.of_kind("sound")])
    assert torch.equal(found, (expected * 10 ** (STREAM_GAIN / 20)).clamp(-1, 1))


def test_other_words_are_told_to_the_music_and_marked_in_the_page(page):
    page.say("change", prompt="sad piano")  # nothing plays yet: they are the first words
    assert page.of_kind("switch") == [] and "Press Play to hear “sad piano”." in page.said.value
    page.say("play", number=1, prompt="sad piano")
    page.wait(lambda: page.of_kind("sound"))
    assert "Playing “sad piano”." in page.said.value
    page.say("change", prompt="sad zither")
    (switch,) = page.of_kind("switch")
    assert (switch["number"], switch["prompt"]) == (1, "sad zither") and switch["seconds"] > 0
    assert "never taught: zither." in page.words.value and f"From second {switch['seconds']:.1f} on" in page.said.value
    page.say("change", prompt=" ")
    assert "The prompt is empty" in page.said.value and 'role="alert"' in page.said.value
    assert len(page.of_kind("switch")) == 1


def test_a_new_session_leaves_no_thread_of_the_last_one(page):
    for number in (1, 2):
        page.say("play", number=number)
        page.wait(lambda number=number: len(page.sound(number)))
    assert len([thread for thread in threading.enumerate() if thread.name == live.THREAD]) == 1
    page.say("heard", number=1, seconds=100.0, dry=5)  # of the session that was stopped
    assert "ran dry" not in page.said.value


def test_when_the_sound_runs_dry_the_view_says_what_helps(page):
    page.say("play", number=1)
    page.wait(lambda: page.of_kind("sound"))
    page.say("heard", number=1, seconds=0.5, dry=1)
    assert "The sound ran dry once" in page.said.value and "gets faster by model.optimize(" in page.said.value


def test_the_player_learns_how_far_the_page_is_and_how_often_it_ran_dry(page, monkeypatch):
    told = []
    monkeypatch.setattr(live.Player, "heard", lambda player, seconds, dry=0: told.append((seconds, dry)))
    page.say("play", number=1)
    page.wait(lambda: page.of_kind("sound"))
    page.say("heard", number=1, seconds=0.5, dry=2)
    assert told == [(0.5, 2)]


@pytest.mark.parametrize(("prompt", "options"), [(" ", {}), ("piano", {"temperature": -1.0})])
def test_what_cannot_be_played_is_said_and_the_page_falls_silent(model, monkeypatch, prompt, options):
    page = Page(play_live(model, prompt, **options), monkeypatch)
    page.say("play", number=4)
    assert 'role="alert"' in page.said.value and page.of_kind("end") == [{"kind": "end", "number": 4}]


def test_an_error_in_the_thread_reaches_the_reader(model_config, tokenizer, monkeypatch):
    broken = MusicGen(model_config, tokenizer)
    with torch.no_grad():
        broken.decoder.layers[0].fc1.weight.fill_(torch.nan)
    page = Page(play_live(broken), monkeypatch)
    page.say("play", number=1)
    page.wait(lambda: page.of_kind("end"))
    time.sleep(0.1)
    assert "weights are broken" in page.said.value and 'role="alert"' in page.said.value


def test_stereo_is_mixed_for_the_loudspeakers(model, monkeypatch):
    speaker, sent = Speaker(description="Play", rate=400), []
    monkeypatch.setattr(speaker, "send", lambda content, buffers: sent.append(buffers[0]))
    chunk = next(LiveSession(model, "piano"))
    chunk.waveform = torch.stack([torch.ones(1, 4), torch.zeros(1, 4)], dim=1) / 2
    speaker.deliver(1, chunk)
    assert np.frombuffer(sent[0], dtype=np.float32).tolist() == pytest.approx([0.3531] * 4, abs=1e-3)


def test_the_thread_speaks_in_the_context_of_the_message_that_started_it(page, monkeypatch):
    """By it ipykernel sends the page's next messages past a running cell, and not into the main shell behind it."""
    shell, seen = contextvars.ContextVar("shell", default="main"), []
    monkeypatch.setattr(page.speaker, "send", lambda content, buffers=None: seen.append(shell.get()))

    def beside():
        shell.set("beside")
        page.say("here")
        page.say("play", number=1)

    contextvars.copy_context().run(beside)
    while len(seen) < 3:
        time.sleep(0.01)
    assert set(seen) == {"beside"}


def test_sentences():
    assert say_switch(Switch(12.34, "sad flute")) == "From second 12.3 on: “sad flute”."
    said = say_dry(2, 0.84)
    assert said.startswith("The sound ran dry 2 times: here music is written 0.8 times as fast as it plays")
    assert 'not packed yet gets faster by model.optimize("int8")' in said, "room 12 has packed its own"


def test_without_a_kernel_the_view_is_a_sentence(model):
    said = play_live(model)._repr_mimebundle_()["text/plain"]
    assert said == "An interactive view, to be run: it needs a kernel. Its controls: prompt."
