"""A playground: type a prompt, choose length, seed and settings, play; earlier clips stay below, to compare."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from operator import itemgetter

import ipywidgets

from musicgen_edu.audio import Audio
from musicgen_edu.generation import Progress
from musicgen_edu.inspection.controls import Heard, Shown, Slider, View, play_button, row, stops, text_box
from musicgen_edu.inspection.pictures import problem, status
from musicgen_edu.model import MusicGen
from musicgen_edu.tokenizer import WORD_VOCABULARY


def say_unknown(model: MusicGen, prompt: str) -> str:
    """Say in one sentence which words of a prompt the model was never taught, or that it knows all of them."""
    if not prompt.strip():
        return "Describe some music, for example: happy marimba arpeggio, fast."
    if model.tokenizer.vocab_size >= WORD_VOCABULARY:
        return "This model's vocabulary is cut from all of English: it cannot tell which words it lacks."
    unknown = model.tokenizer.unknown_words(prompt)
    if not unknown:
        return "The model knows every word that could describe music."
    return f"The model was never taught: {', '.join(unknown)}."


def play(
    model: MusicGen,
    prompt: str,
    duration: float | int,
    progress: Progress | None = None,
    **settings: float | int | None,
) -> Audio:
    """Make music as `MusicGen.generate` does, named by its prompt and settings, so that clips can be told apart.

    Raises what `generate` raises.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # unknown words are named while typing
        audio = model.generate(prompt, duration, progress=progress, **settings)
    named = f"{prompt}; {name_settings(settings)}" if settings else prompt
    return Audio(audio.waveform, audio.sample_rate, audio.codes, [named])


def name_settings(settings: Mapping[str, float | int]) -> str:
    """Settings in words: "temperature 0.7, top k all"."""
    return ", ".join(
        f"{name.replace('_', ' ')} {'all' if name == 'top_k' and not value else f'{value:g}'}"
        for name, value in settings.items()
    )


def let_play(button: ipywidgets.Button, said: Shown, heard: Heard, make: Callable[[Progress], Audio]) -> None:
    """Let a button make a clip and play it; how far it is, or what went wrong, is said meanwhile."""

    def step(done: int, total: int) -> None:
        if done % 25 == 0:  # twice a second of music
            said.value = status(f"Step {done} of {total}")

    def press(_: ipywidgets.Button) -> None:
        try:
            heard.play(make(step)._repr_html_())
            said.value = status("Made. Earlier ones stay below: change something and press again to compare.")
        except ValueError as error:
            said.value = problem(error)

    button.on_click(press)


def say_next(prompt: str, duration: int, seed: int, temperature: float, guidance_scale: float) -> str:
    """What will be made when the button is pressed, in words."""
    numbers = f"seed {seed}, temperature {temperature:g}, guidance {guidance_scale:g}"
    return f"Next: “{prompt}”, {duration} s, {numbers}."


def explore_playground(model: MusicGen, prompt: str = "happy marimba arpeggio, fast") -> View:
    """Fields for prompt, length, seed and settings, and a button; a new clip stands above the earlier ones."""
    controls = _controls(model, prompt)
    button = play_button("Make and play", "Make a clip with these settings, and play it")
    words, said, heard = Shown(), Shown(), Heard()

    def chosen() -> dict[str, object]:
        return {name: control.value for name, control in controls.items()}

    def name_next(change: object = None) -> None:
        words.value = status(say_unknown(model, controls["prompt"].value))
        said.value = status(say_next(**chosen()))

    for control in controls.values():
        control.observe(name_next, names="value")
    let_play(button, said, heard, lambda progress: play(model, progress=progress, **chosen()))
    name_next()
    prompt_box, *sliders = controls.values()
    return View([prompt_box, words, row(*sliders), row(button, said), heard], words)


def _controls(model: MusicGen, prompt: str) -> dict[str, ipywidgets.Widget]:
    """The view's controls, by the name of the setting; at first each has the model's own."""
    own = model.config.sampling
    return {
        "prompt": text_box("prompt", prompt, "What to play", continuous=True),
        "duration": Slider("seconds", stops(1, 20), 4, tooltip="How long the clip is"),
        "seed": Slider("seed", stops(0, 99), 0, tooltip="Another number, another piece"),
        "temperature": _slider("temperature", stops(0.0, 2.0, 0.1), own.temperature, "0 takes the best code"),
        "guidance_scale": _slider("guidance", stops(0.0, 10.0, 0.5), own.guidance_scale, "1 is none"),
    }


def _slider(name: str, numbers: list[tuple[str, float | int]], own: float | int, tooltip: str) -> Slider:
    """A slider that also stops at the model's own number, which need not be a round one."""
    return Slider(name, sorted({*numbers, (f"{own:g}", own)}, key=itemgetter(1)), own, tooltip=tooltip)
