"""Change the sizes of a model, run it, and see the shapes that come: where the widths clash, the run breaks in red."""

from __future__ import annotations

import warnings
from functools import lru_cache

import ipywidgets
import torch

from musicgen_edu.inspection.controls import Shown, Slider, View, row, stops, text_box, tick_box
from musicgen_edu.inspection.pictures import Picture, problem, status
from musicgen_edu.inspection.stages import Trace
from musicgen_edu.inspection.trace import trace
from musicgen_edu.model import MusicGen
from musicgen_edu.presets import SHIPPED, create_musicgen_model
from musicgen_edu.projection import WidthMismatchError, check_widths
from musicgen_edu.tokenizer import Tokenizer, UnknownWordsWarning

WIDTHS = (256, 512, 768, 1024)


def try_shapes(
    prompt: str = "peaceful piano melody",
    duration: float | int = 0.5,
    codebooks: int = 4,
    hidden_size: int = 768,
    text_hidden_size: int = 512,
    project_text: bool = True,
) -> tuple[Trace, str]:
    """Run a model of one layer with random weights and these sizes, and return its trace and the preflight's sentence.

    The shapes are those of the run, as far as it went; the sentence is "" where the widths fit. Raises ValueError for a
    blank prompt and for a duration or a size that no model has.
    """
    model = _create_model(codebooks, hidden_size, text_hidden_size, project_text)
    try:
        check_widths(model.text_encoder.hidden_size, model.config.decoder)
        sentence = ""
    except WidthMismatchError as mismatch:
        sentence = str(mismatch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnknownWordsWarning)  # random weights know no word
        return trace(model, prompt, duration, catch=True, show_seconds=False), sentence


def draw_shapes(
    prompt: str = "peaceful piano melody",
    duration: float | int = 0.5,
    codebooks: int = 4,
    hidden_size: int = 768,
    text_hidden_size: int = 512,
    project_text: bool = True,
) -> Picture:
    """Draw the run of `try_shapes`, with the layer that breaks, if one does, in a red frame."""
    return try_shapes(prompt, duration, codebooks, hidden_size, text_hidden_size, project_text)[0].draw()


def explore_shapes(
    prompt: str = "peaceful piano melody",
    duration: float | int = 0.5,
    codebooks: int = 4,
    hidden_size: int = 768,
    text_hidden_size: int = 512,
    project_text: bool = True,
) -> View:
    """Show controls for all sizes and, below them, what the preflight says and what the run gives.

    Shapes that the last change has changed are marked.
    """
    controls = _create_controls(prompt, duration, codebooks, hidden_size, text_hidden_size, project_text)
    output = Shown()
    last: list[Trace] = []  # the run before this one

    def show(change: object = None) -> None:
        try:
            way, sentence = try_shapes(**{name: control.value for name, control in controls.items()})
            output.value = _describe(way, sentence, last[-1] if last else None)
            last[:] = [way]
        except ValueError as error:
            output.value = problem(error)

    for control in controls.values():
        control.observe(show, names="value")
    show()
    return View([row(*controls.values()), output], output)


@lru_cache(maxsize=1)  # another prompt or duration needs no other model
def _create_model(codebooks: int, hidden_size: int, text_hidden_size: int, project_text: bool) -> MusicGen:
    """Random weights for every part: to load trained ones would take longer than to run these."""
    sizes = {"num_codebooks": codebooks, "hidden_size": hidden_size, "text_hidden_size": text_hidden_size}
    sketch = create_musicgen_model(
        "tiny", device="meta", preflight=False, num_layers=1, project_text=project_text, **sizes
    )
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(0)
        return MusicGen(sketch.config, Tokenizer.from_pretrained(SHIPPED), preflight=False).float()


def _create_controls(
    prompt: str, duration: float | int, codebooks: int, hidden_size: int, text_hidden_size: int, project_text: bool
) -> dict[str, ipywidgets.Widget]:
    """One control for each argument of `try_shapes`, by its name. A run starts when a control comes to rest."""
    rest = {"continuous": False}
    return {
        "prompt": text_box("prompt", prompt, "What the text encoder reads; press Enter"),
        "duration": Slider("duration", stops(0.1, 1.0, 0.1), duration, tooltip="Seconds of music", **rest),
        "codebooks": Slider("codebooks", stops(1, 8), codebooks, tooltip="Codes in one frame", **rest),
        "hidden_size": Slider("hidden_size", WIDTHS, hidden_size, tooltip="Width of the decoder", **rest),
        "text_hidden_size": Slider(
            "text_hidden_size", WIDTHS, text_hidden_size, tooltip="Width of the text states that the decoder expects",
            **rest,
        ),
        "project_text": tick_box("project_text", project_text, "Whether a layer may translate between the widths"),
    }  # fmt: skip


def _describe(way: Trace, sentence: str, before: Trace | None) -> str:
    verdict = problem(f"Preflight: {sentence}") if sentence else status("Preflight: ✓ the widths fit.")
    if way.failure:
        verdict += problem(f"PyTorch: {way.failure.message}")
    table = f"<details><summary>The same as a table</summary>{way._repr_html_()}</details>"
    return verdict + way.draw(before, compact=True)._repr_html_() + table
