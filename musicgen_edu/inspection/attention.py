"""Where the decoder looks in the prompt: cross-attention of a real run, frame by token, head by head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from musicgen_edu.conditioning import Condition
from musicgen_edu.decoder import MusicGenDecoder, attention_weights
from musicgen_edu.inspection.controls import Shown, Slider, View, row, stops, text_box
from musicgen_edu.inspection.pictures import BLUE, ORANGE, Picture, picture, problem
from musicgen_edu.model import MusicGen

MAX_TOKENS = 40  # rows that a picture holds before its words become unreadable
ALL_HEADS = "mean of all heads"


@dataclass(frozen=True)
class AttentionMaps:
    """How much each frame looks at each token, for every head; the weights of one frame and head sum to 1."""

    weights: Float[Tensor, "layers heads frames text_tokens"]
    pieces: list[str]  # the tokens, as the tokenizer writes them

    def of(self, layer: int, head: int | None = None) -> Float[Tensor, "frames text_tokens"]:
        """Return the map of one head, or the mean over a layer's heads. Raises IndexError where there is none."""
        layers, heads = self.weights.shape[:2]
        if not 0 <= layer < layers or not (head is None or 0 <= head < heads):
            raise IndexError(f"There is no layer {layer}, head {head}: layers are 0–{layers - 1}, heads 0–{heads - 1}.")
        return self.weights[layer].mean(dim=0) if head is None else self.weights[layer, head]


@torch.no_grad()
def record_cross_attention(
    decoder: MusicGenDecoder,
    codes: Int[Tensor, "1 codebooks steps"],
    condition: Condition,
) -> Float[Tensor, "layers heads steps text_tokens"]:
    """Run the decoder over interleaved codes and return the cross-attention weights of every layer and head.

    The fused kernel never forms these weights, so a hook before each cross-attention computes them from the very
    queries and keys that the kernel is about to use. The decoder itself stays as it was.
    """
    maps = []

    def note(attention, arguments):
        states, keys, _, mask = arguments[:4]
        maps.append(attention_weights(attention.queries(states), keys, mask)[0])

    hooks = [layer.encoder_attn.register_forward_pre_hook(note) for layer in decoder.layers]
    try:
        decoder.hidden_states(codes, condition)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(maps)


def attend_to_prompt(model: MusicGen, prompt: str, codes: Int[Tensor, "1 codebooks frames"]) -> AttentionMaps:
    """Let the model read given codes with a prompt beside them, and return where each frame looks in the prompt.

    A frame's row is that of the step at which its first codebook is predicted. Raises ValueError for a blank prompt
    and for one of more than `MAX_TOKENS` tokens.
    """
    with torch.no_grad():
        condition = model.encode_text([prompt])
    pieces = model.tokenizer.pieces(prompt)
    if len(pieces) > MAX_TOKENS:
        raise ValueError(f"The prompt has {len(pieces)} tokens and the picture holds {MAX_TOKENS}: shorten it.")
    sequence = model.pattern.interleave(codes.to(model.decoder.device), model.config.decoder.special_token)
    steps = model.pattern.step_index(codes.shape[2])[0] - 1  # the logits of a step are those of the next column
    weights = record_cross_attention(model.decoder, sequence[:, :, :-1], condition)
    return AttentionMaps(weights[:, :, steps].float().cpu(), pieces)


def draw_attention(maps: AttentionMaps, layer: int, head: int | None = None, frame: int | None = None) -> Picture:
    """Draw one head, or the mean of a layer's heads: frames to the right, tokens downwards, darker where it looks.

    With a `frame`, a line marks it and bars beside the map show its shares. Raises IndexError for a layer, a head or
    a frame that there is not.
    """
    weights = maps.of(layer, head)
    frames, tokens = weights.shape
    if frame is not None and not 0 <= frame < frames:
        raise IndexError(f"There is no frame {frame}: frames are 0–{frames - 1}.")
    figure = Figure(figsize=(9, 1.2 + 0.32 * max(tokens, 4)), layout="constrained")
    ratios = [4] if frame is None else [4, 1]
    left, *right = figure.subplots(1, 1 if frame is None else 2, sharey=True, squeeze=False, width_ratios=ratios)[0]
    image = _draw_map(left, weights, float(weights.max()))
    left.set(xlabel="frame (50 = 1 second)", title=_name(layer, head))
    left.set_yticks(range(tokens), [_word(piece) for piece in maps.pieces])
    figure.colorbar(image, ax=left, label="share of attention")
    if frame is not None:
        left.axvline(frame, color=ORANGE, linewidth=2)
        right[0].barh(range(tokens), weights[frame].tolist(), color=BLUE)
        right[0].set(xlabel="share", title=f"frame {frame}", xlim=(0, float(weights.max()) * 1.05))
    return picture(figure, _describe(maps, layer, head, frame))


def draw_all_heads(maps: AttentionMaps) -> Picture:
    """Draw every head as a small map, a layer a row, all on one scale."""
    layers, heads, frames, tokens = maps.weights.shape
    figure = Figure(figsize=(9, 0.6 + 1.2 * layers), layout="constrained")
    grid = figure.subplots(layers, heads, squeeze=False)
    for layer in range(layers):
        for head in range(heads):
            axes = grid[layer][head]
            image = _draw_map(axes, maps.of(layer, head), float(maps.weights.max()))
            axes.set(xticks=[], yticks=[])
            if layer == 0:
                axes.set_title(f"head {head}", fontsize=7)
        grid[layer][0].set_ylabel(f"layer {layer}", fontsize=8)
    figure.colorbar(image, ax=grid, label="share of attention")
    layer, head = divmod(int(maps.weights.amax(dim=(2, 3)).argmax()), heads)
    return picture(
        figure,
        f"Cross-attention of {layers} layers with {heads} heads each, {frames} frames to the right and {tokens} tokens "
        f"downwards in every small map. The darkest cell is in layer {layer}, head {head}.",
    )


def explore_attention(model: MusicGen, prompt: str, codes: Int[Tensor, "1 codebooks frames"]) -> View:
    """A view: choose prompt, layer, head and frame, and see which tokens the model looks at while it reads `codes`."""
    sizes, frames = model.config.decoder, codes.shape[2]
    text = text_box("Prompt", prompt, "Words to look at; press Enter")
    layer = Slider("Layer", stops(0, sizes.num_layers - 1), 0, tooltip="Layer of the decoder")
    heads = [(ALL_HEADS, None), *stops(0, sizes.num_heads - 1)]
    head = Slider("Head", heads, None, tooltip="Attention head, or the mean of all heads")
    frame = Slider("Frame", stops(0, frames - 1), 0, tooltip="Moment of the music, 50 a second")
    output = Shown()
    kept = {}  # the maps of the latest prompt: only a new prompt needs a new run

    def show(_change=None):
        try:
            if text.value not in kept:
                maps = attend_to_prompt(model, text.value, codes)
                kept.clear()
                kept[text.value] = maps
            output.value = draw_attention(kept[text.value], layer.value, head.value, frame.value)._repr_html_()
        except ValueError as error:
            output.value = problem(error)

    for control in (text, layer, head, frame):
        control.observe(show, "value")
    show()
    return View([text, row(layer, head, frame), output], output)


def _draw_map(axes: Axes, weights: Float[Tensor, "frames text_tokens"], highest: float):
    return axes.imshow(weights.T.numpy(), aspect="auto", cmap="Blues", vmin=0, vmax=highest, interpolation="nearest")


def _word(piece: str) -> str:
    """A piece as a reader knows it: without the tokenizer's sign for a blank."""
    return piece.replace("▁", "") or "blank"


def _name(layer: int, head: int | None) -> str:
    return f"layer {layer}, " + (ALL_HEADS if head is None else f"head {head}")


def _describe(maps: AttentionMaps, layer: int, head: int | None, frame: int | None) -> str:
    weights = maps.of(layer, head)
    frames, tokens = weights.shape
    favourite = _word(maps.pieces[weights.mean(dim=0).argmax()])
    alt = (
        f"Cross-attention of {_name(layer, head)}: {frames} frames to the right, {tokens} tokens downwards, darker "
        f"where a frame looks more. Over all frames the most goes to “{favourite}”."
    )
    if frame is not None:
        alt += f" Frame {frame} is marked; it looks most at “{_word(maps.pieces[weights[frame].argmax()])}”."
    return alt
