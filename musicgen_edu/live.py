"""Room 12, last part: music without an end, whose words may change while it plays.

Nothing is written in another way than in room 07: codes come step by step, window after window, and the decoder looks
at the words anew in every step. So other words need no other loop, only other keys and values of cross-attention from
the next step on; what was written before them stays. For the first second guidance compares them with the words before
instead of none (`ChangingCondition`), for the past still speaks the old ones' language. A session is that stream, and
`Player` plays it: a thread that writes a little ahead of what is heard, since whatever lies ready when the words change
is still the old music.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from musicgen_edu.audio import Audio
from musicgen_edu.conditioning import ChangingCondition, Condition
from musicgen_edu.generation import iterate_windows
from musicgen_edu.model import SHORTEST_CHUNK, STREAM_GAIN, MusicGen
from musicgen_edu.request import MAX_DURATION, count_frames, read_request
from musicgen_edu.tokenizer import warn_of_unknown_words

LONGEST = 24 * 3600  # seconds of a session: it has to end somewhere
WINDOW, STRIDE = 20.0, 15.0  # seconds: reading 5 s again must take less time than lies ready
CHUNK = 0.2  # seconds that are decoded at once
AHEAD = 0.8  # seconds that lie ready: fewer, and a busy machine falls silent; more, and other words are heard later
RESERVE = 0.25  # with what the slowest chunk of late took, all that must lie ready where that is less
OF_LATE = 100  # chunks: in so many, a window has been read again
MORE_AHEAD, MOST_AHEAD = 0.2, 1.6  # what is added each time the sound runs dry, and where that ends
THREAD = "musicgen-edu live"
PATIENCE = 60.0  # seconds without a word from the listener, after which nobody listens


@dataclass(frozen=True)
class Switch:
    """From which second of a session on other words count, at the earliest, and which."""

    seconds: float
    prompt: str


class LiveSession:
    """An endless iterator of `Audio` chunks: `MusicGen.stream`, same samples, until `change` says other words.

    Args:
        model: any that hears its words by cross-attention.
        prompt: the first words.
        seed, settings: as in `MusicGen.generate`.
        chunk_duration: seconds that are decoded at once.
        window: seconds that the decoder has in view, at most; the next window starts `stride` seconds later.

    Raises what `MusicGen.stream` raises, and ValueError for more than one prompt and for a model of melodies.
    """

    def __init__(
        self,
        model: MusicGen,
        prompt: str,
        *,
        seed: int | None = 0,
        chunk_duration: float | int = CHUNK,
        window: float | int = WINDOW,
        stride: float | int = STRIDE,
        **settings: float | int | None,
    ) -> None:
        codec = model.config.codec
        request = read_request(model.config, prompt, MAX_DURATION, seed=seed, window=window, stride=stride, **settings)
        chunk_frames = max(SHORTEST_CHUNK, count_frames(chunk_duration, codec, "chunk_duration"))
        self._model = model
        self._told = ChangingCondition(self._understand(prompt))
        self._frames = 0
        self.prompt = prompt
        self.switches: list[Switch] = []
        frames = round(LONGEST * codec.frame_rate)
        pieces = iterate_windows(
            model.decoder, self._told, frames, model.pattern, request.settings,
            window=request.window, stride=request.stride, seed=request.seeds,
        )  # fmt: skip
        self._waveforms = model.decode_chunks(self._count(pieces), frames, chunk_frames)

    def __iter__(self) -> LiveSession:
        return self

    def __next__(self) -> Audio:
        """Write the next chunk."""
        waveform = next(each for each in self._waveforms if each.shape[2])
        return Audio(waveform, self._model.config.codec.sample_rate, prompts=[self.prompt], gain=STREAM_GAIN)

    def change(self, prompt: str) -> Switch:
        """Say other words, from any thread: they count from the next step on. What was written stays as it is.

        Returns from where on they count. Raises TypeError and ValueError for words that `generate` refuses, and nothing
        has changed then; warns (UnknownWordsWarning) of words that the model does not know.
        """
        self._told.now = self._understand(prompt)
        self.prompt = prompt
        self.switches.append(Switch(self._frames / self._model.config.codec.frame_rate, prompt))
        return self.switches[-1]

    def _understand(self, prompt: str) -> Condition:
        if not isinstance(prompt, str):
            raise TypeError(f"A live session plays one prompt, a string, not {prompt!r:.60}.")
        with torch.no_grad():
            condition = self._model.encode_text([prompt])
        warn_of_unknown_words(self._model.tokenizer, [prompt])
        return condition

    def _count(self, pieces: Iterator[Tensor]) -> Iterator[Tensor]:
        for codes in pieces:
            self._frames += codes.shape[2]
            yield codes


class Player:
    """Plays a session: a thread writes its music, `ahead` seconds before it is heard and no more (None: see `AHEAD`).

    Whoever has the loudspeakers gets each chunk by `deliver(chunk)` and says by `heard` how far it has played; in
    between the clock is believed. `failed(error)` is called with what went wrong in the thread, TimeoutError where
    nobody has listened for a minute. Both are called in the thread.
    """

    def __init__(
        self,
        session: LiveSession,
        deliver: Callable[[Audio], object],
        failed: Callable[[Exception], object],
        ahead: float | int | None = None,
    ) -> None:
        self.session = session
        self._deliver, self._failed, self._ahead = deliver, failed, ahead
        self._news = threading.Condition()
        self._stopped = False
        self._report = (0.0, time.monotonic())  # seconds heard, and when that was
        self._plays = False  # nothing is heard before the first report
        self._dry = 0
        self._seconds_made = self._seconds_busy = 0.0
        self._took: deque[float] = deque(maxlen=OF_LATE)  # seconds that each chunk of late took
        self._thread: threading.Thread | None = None

    @property
    def speed(self) -> float:
        """Seconds of music that are written in a second of writing; more than 1 is needed."""
        return self._seconds_made / self._seconds_busy if self._seconds_busy else 0.0

    @property
    def ahead(self) -> float:
        """Seconds that lie ready while a chunk is written: more where some take long, or the sound has run dry."""
        if self._ahead is not None:
            return self._ahead
        enough = min(AHEAD, RESERVE + max(self._took, default=AHEAD))
        return min(enough + MORE_AHEAD * self._dry, MOST_AHEAD)

    def start(self) -> None:
        """Begin to write, in the context of who calls this: by it ipykernel knows whom the thread's messages answer."""
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=[self._run], name=THREAD, daemon=True)
        self._thread.start()

    def heard(self, seconds: float | int, dry: int = 0) -> None:
        """Say how many seconds of the session have been played, and how often there was nothing to play."""
        with self._news:
            self._report, self._plays, self._dry = (float(seconds), time.monotonic()), True, dry
            self._news.notify_all()

    def stop(self) -> None:
        """Write no more, and wait until the thread has ended."""
        with self._news:
            self._stopped = True
            self._news.notify_all()
        if self._thread not in (None, threading.current_thread()):
            self._thread.join()

    def _run(self) -> None:
        try:
            while self._wait_for_room():
                began = time.perf_counter()
                chunk = next(self.session, None)
                if chunk is None:
                    return
                self._took.append(time.perf_counter() - began)
                self._seconds_busy += self._took[-1]
                self._seconds_made += chunk.duration
                self._deliver(chunk)
        except Exception as error:  # a thread's own message would be seen by nobody
            self._failed(error)

    def _wait_for_room(self) -> bool:
        """Wait until less than `ahead` seconds lie ready; False once it is stopped."""
        with self._news:
            while not self._stopped:
                seconds, at = self._report
                silence = time.monotonic() - at
                if silence > PATIENCE:
                    raise TimeoutError("Nobody has listened for a minute, so the music has stopped: press Play again.")
                too_much = self._seconds_made - self.ahead - seconds - silence * self._plays
                if too_much < 0:
                    return True
                self._news.wait(too_much + 0.005 if self._plays else PATIENCE)
        return False
