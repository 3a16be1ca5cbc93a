"""Play music live: press Play, change the words while it plays, and hear the music follow.

The page has the loudspeakers (live.js) and begins by a click, as browsers want it. A thread of the kernel writes the
music, so that the kernel stays free; JupyterLab 4.4 and ipykernel 7 take other words even beside a running cell.
"""

from __future__ import annotations

import warnings

import traitlets

from musicgen_edu.audio import Audio
from musicgen_edu.inspection.controls import FOLDER, Shown, View, _Drawn
from musicgen_edu.inspection.pictures import problem, status
from musicgen_edu.inspection.playground import say_unknown
from musicgen_edu.live import LiveSession, Player, Switch
from musicgen_edu.model import MusicGen

# More than the shipped model's own, since what has been played speaks for itself; less than MusicGen's usual 3, since
# what guidance exaggerates becomes the past, of which endless music has much (tests/benchmarks/switches.py).
GUIDANCE = 2.5


class Speaker(_Drawn):
    """The words, Play and Stop, the sound and a picture of it, in the page; what the page says comes to `on_msg`.

    All of it is one widget, since ipykernel 7 takes a widget's messages in the shell that spoke last through it, and
    the main one is blocked by a running cell. So the page says that it is here, and is answered from the shell that it
    has addressed, beside the main one; from then on a cell may run for as long as it likes.
    """

    _esm = "".join((FOLDER / name).read_text(encoding="utf-8") for name in ("controls.js", "live.js"))
    kind = traitlets.Unicode("speaker").tag(sync=True)
    prompt = traitlets.Unicode().tag(sync=True)  # the first words
    rate = traitlets.Int().tag(sync=True)  # samples a second

    def say(self, kind: str, number: int, **content: float | str) -> None:
        """Send the page something other than sound, about the session that it calls by this number."""
        self.send({"kind": kind, "number": number, **content})

    def deliver(self, number: int, chunk: Audio) -> None:
        """Send the page a chunk to play: its channels mixed, as loud as a stream is played."""
        samples = chunk.waveform[0].mean(dim=0).float().cpu() * 10 ** (chunk.gain / 20)
        self.send({"kind": "sound", "number": number}, buffers=[samples.clamp(-1, 1).numpy().tobytes()])


class _Live:
    """What the view does when it is used; messages of the page may come in any thread."""

    def __init__(self, model: MusicGen, prompt: str, options: dict[str, float | int | None]) -> None:
        self.model, self.prompt, self.options = model, prompt, options
        self.player: Player | None = None
        self.number = self.dry = 0
        self.words, self.said = Shown(), Shown()
        self.speaker = Speaker(description="prompt", prompt=prompt, rate=model.config.codec.sample_rate)
        self.speaker.on_msg(self.receive)
        self.words.value = status(say_unknown(model, prompt))
        self.said.value = status("Press Play. While it plays, change the words and press Enter.")

    def receive(self, _: Speaker, message: dict, buffers: list) -> None:
        """Do what the page says."""
        if message["kind"] == "here":
            self.speaker.say("welcome", self.number)
        elif message["kind"] == "change":
            self.change(message["prompt"])
        elif message["kind"] == "play":
            self.prompt = message["prompt"]
            self.play(message["number"])
        elif message["kind"] == "stop":
            self.stop()
            self.said.value = status("Stopped. Press Play to begin anew.")
        elif self.player and message["number"] == self.number:
            self.player.heard(message["seconds"], message["dry"])
            if message["dry"] > self.dry:
                self.dry = message["dry"]
                self.said.value = status(say_dry(self.dry, self.player.speed))

    def play(self, number: int) -> None:
        """Begin a session, with the words that stand in the box."""
        self.stop()
        self.number, self.dry = number, 0
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # unknown words are named below the box
                session = LiveSession(self.model, self.prompt, **self.options)
        except (ValueError, TypeError) as error:
            return self.fail(number, error)
        self.player = Player(
            session, lambda chunk: self.speaker.deliver(number, chunk), lambda error: self.fail(number, error)
        )
        self.said.value = status(f"Playing “{session.prompt}”.")
        self.player.start()

    def change(self, prompt: str) -> None:
        """Say other words to the music that plays."""
        self.words.value = status(say_unknown(self.model, prompt))
        if not self.player:
            self.said.value = status(f"Press Play to hear “{prompt}”.")
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                switch = self.player.session.change(prompt)
        except ValueError as error:
            self.said.value = problem(error)
            return
        self.speaker.say("switch", self.number, seconds=switch.seconds, prompt=prompt)
        self.said.value = status(say_switch(switch))

    def stop(self) -> None:
        """Write no more."""
        if self.player:
            self.player.stop()
            self.player = None

    def fail(self, number: int, error: Exception) -> None:
        """Say what went wrong; the page falls silent."""
        self.speaker.say("end", number)
        self.player = None
        self.said.value = problem(error)


def say_switch(switch: Switch) -> str:
    """Say from where on other words count."""
    return f"From second {switch.seconds:.1f} on: “{switch.prompt}”."


def say_dry(times: int, speed: float) -> str:
    """Say that the sound had to wait for the music, how fast that is written, and what helps."""
    often = "once" if times == 1 else f"{times} times"
    return (
        f"The sound ran dry {often}: here music is written {speed:.1f} times as fast as it plays, and other work takes "
        'its share. Fewer other programs help, and a model not packed yet gets faster by model.optimize("int8").'
    )


def play_live(
    model: MusicGen,
    prompt: str = "happy piano melody",
    guidance_scale: float | int | None = GUIDANCE,
    **options: float | int | None,
) -> View:
    """A box for the words, a button that plays and stops, and a picture of the sound with each change marked.

    `guidance_scale` and `options` are those of `LiveSession`, such as `seed`; None is the model's own. What is wrong
    with them is said when Play is pressed.
    """
    live = _Live(model, prompt, {"guidance_scale": guidance_scale} | options)
    return View([live.speaker, live.words, live.said], live.words)
