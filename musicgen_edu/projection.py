"""Room 03: the text encoder and the decoder speak in vectors of different widths; one linear layer translates.

transformers calls the layer `enc_to_dec_proj` and audiocraft `output_proj`: 768 → 1024, 1536 or 2048 in the released
models, 512 → 768 in the shipped one. It is where the widths of two pretrained parts meet, and so where they clash.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from musicgen_edu.conditioning import TextMask
from musicgen_edu.config import DecoderConfig
from musicgen_edu.devices import own_precision


class WidthMismatchError(ValueError):
    """A text encoder gives states of one width and the decoder's first layer on the text expects another.

    Its mends mend the shape only: a layer of a new shape has random weights until it is trained.
    """

    def __init__(self, text_width: int, expected_width: int, layer: str, mends: str) -> None:
        super().__init__(
            f"The text encoder gives states of width {text_width}, but {layer} expects width {expected_width}. {mends}"
        )
        self.text_width = text_width
        self.expected_width = expected_width


class TextProjection(nn.Linear):
    """A linear layer with bias from the text's width to the model's (Copet et al. 2023; transformers' enc_to_dec_proj).

    Raises PyTorch's own RuntimeError ("mat1 and mat2 shapes cannot be multiplied") on states of another width;
    `check_widths` finds that before any matrix is multiplied.
    """

    def __init__(self, text_width: int, model_width: int) -> None:
        super().__init__(text_width, model_width)

    def forward(
        self,
        text_states: Float[Tensor, "batch text_tokens text_width"],
        text_mask: TextMask,
    ) -> Float[Tensor, "batch text_tokens model_width"]:
        """Return the states in the decoder's width, 0 on padding."""
        with own_precision(self.weight.device):  # and a text encoder of another precision changes none behind it
            return zero_padding(super().forward(text_states.to(self.weight.dtype)), text_mask)


def zero_padding(
    text_states: Float[Tensor, "batch text_tokens width"],
    text_mask: TextMask,
) -> Float[Tensor, "batch text_tokens width"]:
    """Return the states with 0 wherever the mask is 0: after the projection, so that its bias is silenced too.

    A mask of zeros everywhere makes the null condition, the "no prompt" of classifier-free guidance.
    """
    return text_states * text_mask[:, :, None].to(text_states.dtype)


def check_widths(text_width: int, config: DecoderConfig) -> None:
    """Raise WidthMismatchError unless text states of `text_width` fit the decoder: the preflight.

    Numbers are compared, nothing is computed.
    """
    width, expected = config.hidden_size, config.text_hidden_size
    if config.has_projection and text_width != expected:
        layer = f"the text projection (Linear({expected}, {width}))"
        raise WidthMismatchError(text_width, expected, layer, _projection_mends(text_width, config))
    if not config.has_projection and text_width != width:
        layer = f"the cross-attention (layers.0.encoder_attn.k_proj, Linear({width}, {width}))"
        raise WidthMismatchError(
            text_width,
            width,
            layer,
            f"Either set project_text=True and text_hidden_size={text_width}, which puts Linear({text_width}, {width}) "
            f"between the two, or set hidden_size={text_width}, so that no projection is needed.",
        )


def _projection_mends(text_width: int, config: DecoderConfig) -> str:
    width, expected = config.hidden_size, config.text_hidden_size
    if text_width == width:
        return (
            f"Either set text_hidden_size={text_width} (the decoder is {width} wide, so that no projection is needed), "
            f"or use a text encoder of width {expected}."
        )
    return (
        f"Either set text_hidden_size={text_width}, which makes the projection Linear({text_width}, {width}), "
        f"or set hidden_size={text_width} and text_hidden_size={text_width}, so that no projection is needed."
    )
