"""Music whose words change while it plays: the plain stream until then, and a thread that keeps a little ahead."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from itertools import islice

import pytest
import torch

from musicgen_edu import live
from musicgen_edu.config import MelodyConfig, SamplingSettings
from musicgen_edu.live import LiveSession, Player
from musicgen_edu.model import MusicGen
from musicgen_edu.tokenizer import UnknownWordsWarning

LOOK_AHEAD = 8 * 8  # samples: a frame of the test model has 8, and its codec looks at so many frames to each side
WAIT_SECONDS = 30


def played(session, chunks: int) -> torch.Tensor:
    return torch.cat([chunk.waveform for chunk in islice(session, chunks)], dim=2)


def streamed(model, prompt: str, duration: float, **options) -> torch.Tensor:
    return torch.cat([chunk.waveform for chunk in model.stream(prompt, duration, **options)], dim=2)


def test_without_other_words_a_session_is_the_stream(model):
    live_chunks = list(islice(LiveSession(model, "happy piano", seed=3, window=20.0, temperature=0.7), 10))
    chunks = model.stream(
        "happy piano", 20.0, seed=3, chunk_duration=live.CHUNK, window=20.0, stride=15.0, temperature=0.7
    )
    for chunk, expected in zip(live_chunks, chunks, strict=False):
        assert torch.equal(chunk.waveform, expected.waveform)
        assert (chunk.gain, chunk.prompts, chunk.sample_rate) == (expected.gain, expected.prompts, expected.sample_rate)


def test_beyond_a_minute_and_many_windows_it_is_still_the_stream(model_config, tokenizer):
    slow = MusicGen(replace(model_config, codec=replace(model_config.codec, sample_rate=40)), tokenizer)  # 5 frames a s
    windows = {"window": 20.0, "stride": 15.0, "chunk_duration": 1.0}
    found = played(LiveSession(slow, "piano", **windows), 70)
    expected = streamed(slow, "piano", 80.0, **windows)
    assert found.shape[2] > 60 * 40
    assert torch.equal(found, expected[:, :, : found.shape[2]])


@pytest.mark.parametrize("window", [20.0, 1.0])
def test_other_words_change_only_what_comes_later(model, window):
    plain = played(LiveSession(model, "happy piano", window=window, stride=window / 2), 20)
    session = LiveSession(model, "happy piano", window=window, stride=window / 2)
    before = played(session, 10)
    switch = session.change("sad flute")
    after = played(session, 10)
    assert (switch.prompt, session.prompt, session.switches) == ("sad flute", "sad flute", [switch])
    assert switch.seconds == pytest.approx(10 * live.CHUNK)
    changed = torch.cat([before, after], dim=2)
    same = (changed == plain).all(dim=1)[0]
    first = int((~same).nonzero()[0])
    assert 0 <= first - round(switch.seconds * 400) + LOOK_AHEAD < 400, (
        "within a second, but for the codec's look ahead"
    )


def test_the_words_before_may_come_back_and_saying_them_again_changes_nothing(model):
    plain, session = played(LiveSession(model, "happy piano"), 12), LiveSession(model, "happy piano")
    first = played(session, 6)
    session.change("happy piano")
    assert torch.equal(torch.cat([first, played(session, 6)], dim=2), plain)


def test_the_first_words_may_change_before_the_first_step(model):
    session = LiveSession(model, "sad flute")
    assert session.change("happy piano").seconds == 0
    assert torch.equal(played(session, 6), played(LiveSession(model, "happy piano"), 6))


def test_a_session_takes_and_leaves_the_surroundings_as_they_are(model):
    expected, before = played(LiveSession(model, "piano"), 4), torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        session = LiveSession(model, "piano")
        session.change("piano")
        found = played(session, 4)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert torch.equal(found, expected) and found.dtype == torch.float32
    assert torch.equal(torch.get_rng_state(), before) and torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"prompt": " "}, ValueError, "The prompt is empty: describe some music"),
        ({"prompt": 3}, TypeError, "prompt"),
        ({"prompt": ["piano", "flute"]}, TypeError, "plays one prompt, a string, not \\['piano', 'flute'\\]"),
        ({"chunk_duration": 0}, ValueError, "chunk_duration must be more than 0"),
        ({"window": 2.0, "stride": 2.0}, ValueError, "stride must be shorter than the window"),
        ({"temperature": -1}, ValueError, "temperature must be 0"),
        ({"volume": 3}, TypeError, "There is no setting 'volume'"),
        ({"seed": -1}, ValueError, "A seed must be a whole number"),
    ],
)
@pytest.mark.usefixtures("unchecked_annotations")
def test_bad_input_is_one_sentence(model, change, error, message):
    with pytest.raises(error, match=message) as raised:
        LiveSession(model, **{"prompt": "piano"} | change)
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("unchecked_annotations")
@pytest.mark.parametrize(("words", "error"), [("", ValueError), (None, TypeError), (["flute"], TypeError)])
def test_bad_words_change_nothing(model, words, error):
    plain, session = played(LiveSession(model, "piano"), 6), LiveSession(model, "piano")
    first = played(session, 3)
    with pytest.raises(error):
        session.change(words)
    assert (session.prompt, session.switches) == ("piano", [])
    assert torch.equal(torch.cat([first, played(session, 3)], dim=2), plain)


def test_unknown_words_are_warned_of(model):
    session = LiveSession(model, "piano")
    with pytest.warns(UnknownWordsWarning, match='"zither"'):
        session.change("sad zither")


def test_a_model_of_melodies_has_read_its_words_when_it_begins(model_config, tokenizer):
    decoder = replace(model_config.decoder, cross_attention=False)
    melodies = MusicGen(replace(model_config, decoder=decoder, melody=MelodyConfig(length=3)), tokenizer)
    with pytest.raises(ValueError, match="reads its words before the first code: they cannot change"):
        LiveSession(melodies, "piano")


class Listener:
    """Loudspeakers that play when they are told to, and remember."""

    def __init__(self, session, **options):
        self.chunks, self.errors, self.news = [], [], threading.Condition()
        self.player = Player(session, self._note(self.chunks), self._note(self.errors), **options)

    def _note(self, notes):
        def note(what):
            with self.news:
                notes.append(what)
                self.news.notify_all()

        return note

    @property
    def seconds(self) -> float:
        return sum(chunk.duration for chunk in self.chunks)

    def wait(self, until) -> None:
        with self.news:
            assert self.news.wait_for(until, WAIT_SECONDS), "nothing happens"


def test_a_thread_writes_a_little_ahead_and_no_more(model):
    listener = Listener(LiveSession(model, "piano"), ahead=0.5)
    listener.player.start()
    listener.wait(lambda: listener.seconds >= 0.5)
    time.sleep(0.3)
    assert listener.seconds < 0.5 + 2 * live.CHUNK, "nothing is heard yet"
    listener.player.heard(2.0)
    listener.wait(lambda: listener.seconds >= 2.5)
    listener.player.stop()
    made, again = listener.seconds, played(LiveSession(model, "piano"), len(listener.chunks))
    assert made < 2.5 + WAIT_SECONDS and listener.player.speed > 0
    assert torch.equal(torch.cat([chunk.waveform for chunk in listener.chunks], dim=2), again)


def test_what_lies_ready_outlasts_the_slowest_chunk_of_late(model):
    player = Player(LiveSession(model, "piano"), print, print)
    assert player.ahead == live.AHEAD == 0.8, "nothing is known yet"
    for took, ahead in ((0.7, 0.8), (0.1, 0.8)):
        player._took.append(took)
        assert player.ahead == pytest.approx(ahead)
    player._took.extend([0.1] * (live.OF_LATE - 1))
    assert player.ahead == pytest.approx(0.35), "a slow chunk is forgotten when a window has gone by"
    player._took.append(0.3)
    assert player.ahead == pytest.approx(0.55)
    assert Player(player.session, print, print, ahead=0.3).ahead == 0.3


def test_each_time_the_sound_runs_dry_more_lies_ready(model):
    player = Player(LiveSession(model, "piano"), print, print)
    for dry, ahead in ((0, 0.8), (1, 1.0), (3, 1.4), (9, live.MOST_AHEAD)):
        player.heard(10.0, dry)
        assert player.ahead == pytest.approx(ahead)
    fixed = Player(player.session, print, print, ahead=0.3)
    fixed.heard(10.0, 3)
    assert fixed.ahead == 0.3, "who chooses has chosen"


def test_between_two_reports_the_clock_is_believed(model):
    listener = Listener(LiveSession(model, "piano"), ahead=0.3)
    listener.player.start()
    listener.player.heard(0.0)
    listener.wait(lambda: listener.seconds > 0.8)
    listener.player.stop()
    assert not listener.errors


def test_stopping_frees_the_thread_at_once_and_twice(model):
    listener = Listener(LiveSession(model, "piano"))
    listener.player.stop()  # before it has begun
    listener = Listener(LiveSession(model, "piano"))
    listener.player.start()
    listener.wait(lambda: listener.chunks)
    listener.player.stop()
    listener.player.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == live.THREAD]
    made = len(listener.chunks)
    listener.player.heard(100.0)
    time.sleep(0.2)
    assert len(listener.chunks) == made and not listener.errors


def test_words_that_change_while_it_plays_are_heard(model):
    session = LiveSession(model, "happy piano")
    listener = Listener(session, ahead=0.4)
    listener.player.start()
    listener.wait(lambda: listener.seconds >= 0.4)
    switch = session.change("sad flute")
    listener.player.heard(1.5)
    listener.wait(lambda: listener.seconds >= 1.9)
    listener.player.stop()
    found = torch.cat([chunk.waveform for chunk in listener.chunks], dim=2)
    plain = played(LiveSession(model, "happy piano"), len(listener.chunks))
    before = round(switch.seconds * 400) - LOOK_AHEAD
    assert torch.equal(found[:, :, :before], plain[:, :, :before]) and not torch.equal(found, plain)


def test_what_goes_wrong_in_the_thread_is_handed_over(model, model_config, tokenizer):
    broken = MusicGen(replace(model_config, sampling=SamplingSettings()), tokenizer)
    with torch.no_grad():
        broken.decoder.layers[0].fc1.weight.fill_(torch.nan)
    listener = Listener(LiveSession(broken, "piano"))
    listener.player.start()
    listener.wait(lambda: listener.errors)
    assert "scores are no finite numbers: weights are broken" in str(listener.errors[0])
    listener.player.stop()


def test_where_nobody_listens_the_thread_ends(model, monkeypatch):
    monkeypatch.setattr(live, "PATIENCE", 0.2)
    listener = Listener(LiveSession(model, "piano"))
    listener.player.start()
    listener.wait(lambda: listener.errors)
    assert isinstance(listener.errors[0], TimeoutError) and "Nobody has listened" in str(listener.errors[0])
    listener.player.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == live.THREAD]
