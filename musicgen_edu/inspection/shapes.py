"""Change the sizes of a model, run it, and see the shapes that come: where the widths clash, the run breaks in red."""

from __future__ import annotations

import warnings
from functools import lru_cache

import ipywidgets as widgets
import torch

from musicgen_edu.inspection.pictures import Picture, problem
from musicgen_edu.inspection.stages import Trace
from musicgen_edu.inspection.trace import trace
from musicgen_edu.model import MusicGen, UnknownWordsWarning
from musicgen_edu.presets import SHIPPED, create_musicgen_model
from musicgen_edu.projection import WidthMismatchError, check_widths
from musicgen_edu.tokenizer import Tokenizer

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
) -> widgets.VBox:
    """Show controls for all sizes and, below them, what the preflight says and what the run gives.

    Shapes that the last change has changed are marked.
    """
    controls = _create_controls(prompt, duration, codebooks, hidden_size, text_hidden_size, project_text)
    output = widgets.HTML()
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
    return widgets.VBox([*controls.values(), output])


@lru_cache(maxsize=1)  # another prompt or duration needs no other model
def _create_model(codebooks: int, hidden_size: int, text_hidden_size: int, project_text: bool) -> MusicGen:
    """Random weights for every part: to load trained ones would take longer than to run these."""
    sizes = {"num_codebooks": codebooks, "hidden_size": hidden_size, "text_hidden_size": text_hidden_size}
    sketch = create_musicgen_model(
        "tiny", device="meta", preflight=False, num_layers=1, project_text=project_text, **sizes
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MusicGen(sketch.config, Tokenizer.from_pretrained(SHIPPED), preflight=False)


def _create_controls(
    prompt: str, duration: float | int, codebooks: int, hidden_size: int, text_hidden_size: int, project_text: bool
) -> dict[str, widgets.Widget]:
    """One control for each argument of `try_shapes`, by its name. A run starts when a control comes to rest."""
    look = {"continuous_update": False, "style": {"description_width": "9em"}, "layout": {"width": "34em"}}
    return {
        "prompt": widgets.Text(prompt, description="prompt", tooltip="What the text encoder reads", **look),
        "duration": widgets.FloatSlider(
            duration, min=0.1, max=1.0, step=0.1, description="duration", tooltip="Seconds of music", **look
        ),
        "codebooks": widgets.IntSlider(
            codebooks, min=1, max=8, description="codebooks", tooltip="Codes in one frame", **look
        ),
        "hidden_size": widgets.SelectionSlider(
            options=WIDTHS, value=hidden_size, description="hidden_size", tooltip="Width of the decoder", **look
        ),
        "text_hidden_size": widgets.SelectionSlider(
            options=WIDTHS, value=text_hidden_size, description="text_hidden_size",
            tooltip="Width of the text states that the decoder expects", **look,
        ),
        "project_text": widgets.Checkbox(
            project_text, description="project_text", tooltip="Whether a layer may translate between the widths",
            style={"description_width": "9em"},
        ),
    }  # fmt: skip


def _describe(way: Trace, sentence: str, before: Trace | None) -> str:
    verdict = problem(f"Preflight: {sentence}") if sentence else "<p>Preflight: ✓ the widths fit.</p>"
    if way.failure:
        verdict += problem(f"PyTorch: {way.failure.message}")
    table = f"<details><summary>The same as a table</summary>{way._repr_html_()}</details>"
    return verdict + way.draw(before)._repr_html_() + table
