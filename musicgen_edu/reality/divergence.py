"""Where two models part: the first layer and tensor that differ by more than rounding, and by how much.

Two programs of the same model whose last numbers differ are wrong somewhere, and the difference at the end does not say
where. This says it: weights are compared by the names that they have in a checkpoint, then every layer's output in the
order of the computation. What comes before the first difference is right; what comes after it has inherited it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from musicgen_edu.checkpoints.pretrained import named_tensors
from musicgen_edu.model import MusicGen

ROUNDING = 1e-4  # of the larger tensor's own size: two right programs in float32 stay far below it
_NAMES = (  # of our modules, and in a checkpoint
    (r"^text_encoder\.model\.", "text_encoder."),
    (r"^decoder\.(?!lm_heads\.)", "decoder.model.decoder."),
    (r"^codec\.(encoder|decoder)\.model\.", r"audio_encoder.\1.layers."),
    (r"\.(conv|convtr)\.\1$", ".conv"),
)


@dataclass(frozen=True)
class Divergence:
    """The first difference: "weight" or "output" of `layer`, at `index`, `difference` apart where `size` is usual."""

    kind: str
    layer: str
    difference: float
    size: float
    index: tuple[int, ...] = ()

    def __str__(self) -> str:
        if math.isnan(self.difference):
            return f"the {self.kind} of {self.layer} has another shape, or numbers that are none"
        place = ", ".join(map(str, self.index))
        return (
            f"the {self.kind} of {self.layer} differs by {self.difference:.1e} at [{place}], "
            f"where its numbers are about {self.size:.1e}"
        )


def first_divergence(
    one: nn.Module, other: nn.Module, run: Callable[[nn.Module], object], tolerance: float = ROUNDING
) -> Divergence | None:
    """Return where two models part, or None if they do not.

    Args:
        one, other: each a `MusicGen`, or transformers' model of the same checkpoint.
        run: what is computed with either, once each; its layers are watched meanwhile.
        tolerance: how large a difference may be, as a share of the tensor's root mean square.
    """
    for name, weight, its_weight in _pairs(checkpoint_tensors(one), checkpoint_tensors(other)):
        if divergence := _compare("weight", name, weight, its_weight, tolerance):
            return divergence
    for name, output, its_output in _pairs(watched_outputs(one, run), watched_outputs(other, run)):
        if divergence := _compare("output", name, output, its_output, tolerance):
            return divergence
    return None


def checkpoint_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's weights under the names that they have in a checkpoint, whose class it may be."""
    return named_tensors(model) if isinstance(model, MusicGen) else dict(model.state_dict())


@torch.no_grad()
def watched_outputs(model: nn.Module, run: Callable[[nn.Module], object]) -> dict[str, Tensor]:
    """Run a model once and return what each layer gave at its last call, in the order in which they ended."""
    outputs: dict[str, Tensor] = {}

    def watch(name: str) -> Callable:
        def keep(module: nn.Module, inputs: object, output: object) -> None:
            first = output[0] if isinstance(output, tuple) else output
            if isinstance(first, Tensor):
                outputs.pop(name, None)  # so that it is ordered by its last call
                outputs[name] = first.detach().clone()

        return keep

    with ExitStack() as hooks:
        for name, layer in _layers(model):
            hooks.callback(layer.register_forward_hook(watch(name)).remove)
        run(model)
    return outputs


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The layers of text encoder, decoder and codec, named as in a checkpoint.

    The projections between them mask and repeat inside the one program and behind the layer in the other.
    """
    ours = isinstance(model, MusicGen)
    for name, layer in model.named_modules():
        name = _ours_in_a_checkpoint(name) if ours else name
        if name.startswith(("text_encoder.", "decoder.", "audio_encoder.")):
            yield name, layer


def _ours_in_a_checkpoint(name: str) -> str:
    for own, theirs in _NAMES:
        name = re.sub(own, theirs, name)
    return name


def _pairs(one: dict[str, Tensor], other: dict[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor]]:
    return ((name, tensor, other[name]) for name, tensor in one.items() if name in other)


def _compare(kind: str, layer: str, one: Tensor, other: Tensor, tolerance: float) -> Divergence | None:
    one, other = one.detach().cpu().double(), other.detach().cpu().double()
    if kind == "output" and one.ndim == other.ndim == 3:  # transformers' last layers read what stands before the codes
        steps = min(one.shape[1], other.shape[1])
        one, other = one[:, -steps:], other[:, -steps:]
    if one.shape != other.shape:
        return Divergence(kind, layer, math.nan, math.nan)
    difference = (one - other).abs()
    if not difference.numel() or difference.max() <= tolerance * (size := float(other.square().mean().sqrt())):
        return None
    place = int(difference.nan_to_num(math.inf).argmax())
    index = tuple(
        int(each) for each in torch.unravel_index(torch.tensor(place, dtype=torch.long, device="cpu"), difference.shape)
    )
    return Divergence(kind, layer, float(difference.flatten()[place]), float(size), index)
