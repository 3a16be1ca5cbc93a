"""Sampling and guidance by ear: what each setting does to the next code's probabilities, and how that sounds."""

from __future__ import annotations

import math
from collections.abc import Mapping

import ipywidgets
import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from musicgen_edu.inspection.controls import Heard, Shown, Slider, View, play_button, row, stops, text_box
from musicgen_edu.inspection.pictures import BLUE, RED, Picture, picture, problem, status
from musicgen_edu.inspection.playground import let_play, name_settings, play, say_unknown
from musicgen_edu.model import MusicGen
from musicgen_edu.sampling import apply_guidance, create_generators, filter_logits, sample

SHOWN = 40  # codes in a picture: the likeliest
FLOOR = 1e-5  # probabilities below are drawn here
TOP_K = 1, 2, 5, 10, 25, 50, 100, 250, 500  # the slider's stops; the last one keeps all codes

Scores = Float[Tensor, "codebooks codebook_size"]
Probabilities = Float[Tensor, " codebook_size"]


@torch.no_grad()
def score_next(model: MusicGen, prompt: str, columns: Int[Tensor, "1 codebooks steps"]) -> tuple[Scores, Scores]:
    """Return the scores of the codes that follow `columns` (interleaved codes): with the prompt, and without any.

    Raises ValueError for a blank prompt.
    """
    condition, columns = model.encode_text([prompt]), columns.to(model.decoder.device)
    with_prompt, without = model.decoder(columns, condition), model.decoder(columns, condition.null())
    return with_prompt[0, :, -1].float().cpu(), without[0, :, -1].float().cpu()


def next_code(
    conditional: Scores,
    null: Scores,
    *,
    temperature: float | int = 1.0,
    top_k: int = 250,
    top_p: float | int = 1.0,
    guidance_scale: float | int = 3.0,
    seed: int = 0,
) -> tuple[Float[Tensor, "codebooks codebook_size"], Int[Tensor, " codebooks"]]:
    """Return each code's probability of being drawn next under these settings, and the codes that the seed draws.

    Raises ValueError for a setting outside its range.
    """
    logits = filter_logits(apply_guidance(conditional, null, guidance_scale), temperature, top_k, top_p)
    return logits.softmax(dim=-1), sample(logits[None], create_generators(seed, 1))[0]


def entropy_bits(probabilities: Float[Tensor, "*batch codebook_size"]) -> Float[Tensor, "*batch"]:
    """How open the choice is, in bits: 0 where one code is certain, 10 where 1,024 are equally likely."""
    return torch.special.entr(probabilities).sum(dim=-1) / math.log(2)


def draw_distributions(before: Probabilities, after: Mapping[str, Probabilities], alt: str) -> Picture:
    """Draw what settings make of one distribution: a panel each, by the name that it has in `after`.

    The codes stand in the order of their probability `before`, which is the dark line; the dots are `after`, and a
    cross at the bottom marks a code that can no longer be drawn. Probabilities are on a logarithmic scale, where a
    temperature tilts the line and guidance lifts some codes out of it. `alt` says what one should see.
    """
    columns = 1 if len(after) == 1 else 2 if len(after) in (2, 4) else 3
    rows = math.ceil(len(after) / columns)
    figure = Figure(figsize=(9, 0.6 + 2.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for panel, (name, probabilities) in zip(panels.flat, after.items(), strict=False):
        _draw_panel(panel, before, probabilities)
        panel.set_title(f"{name}: {_summary(probabilities)}", fontsize=10)
    for panel in panels.flat[len(after) :]:
        panel.set_axis_off()
    figure.supxlabel(f"the {SHOWN} likeliest codes, in the order of the model's own probabilities", fontsize=10)
    figure.supylabel("probability", fontsize=10)
    return picture(figure, alt)


def draw_choice(conditional: Scores, null: Scores, codebook: int = 0, **settings: float | int) -> Picture:
    """Draw the next code's distribution in one codebook under the settings of `next_code`, and mark the code drawn.

    The dark line is the model's own distribution: guidance 1, temperature 1, all codes. Raises what it raises.
    """
    before = conditional.softmax(dim=-1)[codebook]
    probabilities, drawn = (value[codebook] for value in next_code(conditional, null, **settings))
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    panel = figure.subplots()
    _draw_panel(panel, before, probabilities)
    place = int(before.argsort(descending=True, stable=True).eq(drawn).nonzero())
    note = f"code {int(drawn)} is drawn" if place < SHOWN else f"code {int(drawn)}, further to the right, is drawn"
    panel.annotate(
        note, (min(place, SHOWN - 0.5), max(float(probabilities[drawn]), FLOOR)), xytext=(0.6, 0.85),
        textcoords="axes fraction", arrowprops={"arrowstyle": "->", "color": RED, "linewidth": 2},
    )  # fmt: skip
    panel.set(xlabel=f"the {SHOWN} likeliest codes, in the model's own order", ylabel="probability")
    panel.set_title(f"codebook {codebook}: {_summary(probabilities)}")
    shape = "Probabilities of the likeliest codes: a dark line for the model alone, dots under the settings"
    return picture(
        figure, f"{shape} {name_settings(settings) or 'of MusicGen'}; an arrow points at the code that the seed draws."
    )


def explore_sampling(
    model: MusicGen,
    columns: Int[Tensor, "1 codebooks steps"],
    prompt: str = "peaceful piano melody",
    duration: float | int = 2.0,
) -> View:
    """Sliders for every setting: the distribution after `columns` follows at once, the sound comes on a button."""
    controls = _controls(prompt, model.config.decoder.codebook_size)
    button = play_button("Make and play", f"Make {duration:g} seconds with these settings, and play them")
    words, shown, heard = Shown(), Shown(), Heard()
    said = Shown(value=status(f"Press it to hear {duration:g} seconds made with these settings."))

    def chosen() -> dict[str, object]:
        return {name: control.value for name, control in controls.items()}

    def redraw(change: object = None) -> None:
        settings = chosen()
        words.value = status(say_unknown(model, settings["prompt"]))
        try:
            shown.value = draw_choice(*score_next(model, settings.pop("prompt"), columns), **settings)._repr_html_()
        except ValueError as error:
            shown.value = problem(error)

    for control in controls.values():
        control.observe(redraw, names="value")
    let_play(button, said, heard, lambda progress: play(model, duration=duration, progress=progress, **chosen()))
    redraw()
    prompt_box, *sliders = controls.values()
    return View([prompt_box, words, row(*sliders), shown, row(button, said), heard], shown)


def _controls(prompt: str, codebook_size: int) -> dict[str, ipywidgets.Widget]:
    """The view's controls, by the name of the setting; the first is the prompt."""
    kept = [*((str(stop), stop) for stop in TOP_K if stop < codebook_size), ("all", 0)]
    return {
        "prompt": text_box("prompt", prompt, "What to play; press Enter"),
        "temperature": Slider("temperature", stops(0.0, 2.0, 0.1), 1.0, tooltip="0 always takes the best code"),
        "top_k": Slider("top-k", kept, 0, tooltip="How many codes may be drawn"),
        "top_p": Slider("top-p", stops(0.05, 1.0, 0.05), 1.0, tooltip="How much probability is kept"),
        "guidance_scale": Slider("guidance", stops(0.0, 10.0, 0.5), 3.0, tooltip="1 is none, 0 ignores the prompt"),
        "seed": Slider("seed", stops(0, 99), 0, tooltip="Another number, another draw"),
    }


def _draw_panel(panel: Axes, before: Probabilities, after: Probabilities) -> None:
    order = before.argsort(descending=True, stable=True)[:SHOWN]
    heights = after[order].clamp_min(FLOOR)
    kept, gone = (after[order] > 0).nonzero().flatten(), (after[order] == 0).nonzero().flatten()
    panel.step(range(len(order)), before[order].clamp_min(FLOOR).numpy(), where="mid", color="black", linewidth=1)
    panel.plot(kept.numpy(), heights[kept].numpy(), "o", color=BLUE, markersize=4)
    panel.plot(gone.numpy(), heights[gone].numpy(), "x", color=RED, markersize=4)
    panel.set_yscale("log")
    panel.set(ylim=(FLOOR / 2, 2), yticks=[1, 0.1, 0.01, 0.001, 0.0001], xticks=[])
    panel.set_yticklabels(["1", "0.1", "0.01", "0.001", "0.0001"])


def _summary(probabilities: Probabilities) -> str:
    kept = int((probabilities > 0).sum())
    return f"{kept:,} code{'s' * (kept != 1)}, {float(entropy_bits(probabilities)):.1f} bits"
