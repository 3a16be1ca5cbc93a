"""What every tensor of a checkpoint is called and how large it is: one table, from the sizes in a config alone.

The names are those of transformers' `MusicgenForConditionalGeneration` and, for melodies, of
`MusicgenMelodyForConditionalGeneration`. They are compared with what a file holds before
a model is built or memory is taken; older files have other names for a few of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from musicgen_edu.checkpoints.tensors import Shape
from musicgen_edu.config import CodecConfig, DecoderConfig, MusicGenConfig, TextEncoderConfig

Named = Iterator[tuple[str, Shape]]
Value = TypeVar("Value")

# What older checkpoints call a tensor -> its name today.
_OLD_NAMES = (
    (".weight_g", ".parametrizations.weight.original0"),
    (".weight_v", ".parametrizations.weight.original1"),
    ("text_encoder.encoder.embed_tokens.", "text_encoder.shared."),  # stored twice, or under this name alone
)
_COMPUTED = "decoder.model.decoder.embed_positions.weights"  # older checkpoints store what is computed here


def with_names_of_today(tensors: dict[str, Value]) -> dict[str, Value]:
    """Return the same under the names of today, without what today's models compute."""
    renamed = {}
    for name, value in tensors.items():
        for old, new in _OLD_NAMES:
            name = name.replace(old, new)
        renamed[name] = value
    renamed.pop(_COMPUTED, None)
    return renamed


def expected_shapes(config: MusicGenConfig) -> Named:
    """Yield the name and the shape of every tensor that a checkpoint of these sizes holds, each once."""
    yield from _text_encoder(config.text_encoder)
    decoder = config.decoder
    if decoder.has_projection:
        yield from _linear("enc_to_dec_proj", decoder.text_hidden_size, decoder.hidden_size)
    if config.melody is not None:
        yield from _linear("audio_enc_to_dec_proj", config.melody.bins, decoder.hidden_size)
    yield from _decoder(decoder)
    yield from _codec(config.codec)


def _text_encoder(config: TextEncoderConfig) -> Named:
    """T5's encoder. Only the first block knows distances: its bias on them serves all."""
    width, inner = config.hidden_size, config.num_heads * config.head_size
    yield "text_encoder.shared.weight", (config.vocab_size, width)
    for block in range(config.num_layers):
        attention, feed_forward = (f"text_encoder.encoder.block.{block}.layer.{part}" for part in (0, 1))
        for part in "qkv":
            yield f"{attention}.SelfAttention.{part}.weight", (inner, width)
        yield f"{attention}.SelfAttention.o.weight", (width, inner)
        if block == 0:
            buckets = config.relative_attention_num_buckets
            yield f"{attention}.SelfAttention.relative_attention_bias.weight", (buckets, config.num_heads)
        yield f"{attention}.layer_norm.weight", (width,)
        for part in ("wi",) if config.feed_forward == "relu" else ("wi_0", "wi_1"):
            yield f"{feed_forward}.DenseReluDense.{part}.weight", (config.ffn_size, width)
        yield f"{feed_forward}.DenseReluDense.wo.weight", (width, config.ffn_size)
        yield f"{feed_forward}.layer_norm.weight", (width,)
    yield "text_encoder.encoder.final_layer_norm.weight", (width,)


def _decoder(config: DecoderConfig) -> Named:
    width = config.hidden_size
    for codebook in range(config.num_codebooks):
        yield f"decoder.model.decoder.embed_tokens.{codebook}.weight", (config.codebook_size + 1, width)
    for index in range(config.num_layers):
        layer = f"decoder.model.decoder.layers.{index}"
        for attention in ("self_attn", "encoder_attn") if config.cross_attention else ("self_attn",):
            for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                yield f"{layer}.{attention}.{part}.weight", (width, width)
            yield from _norm(f"{layer}.{attention}_layer_norm", width)
        yield f"{layer}.fc1.weight", (config.ffn_size, width)
        yield f"{layer}.fc2.weight", (width, config.ffn_size)
        yield from _norm(f"{layer}.final_layer_norm", width)
    yield from _norm("decoder.model.decoder.layer_norm", width)
    for codebook in range(config.num_codebooks):
        yield f"decoder.lm_heads.{codebook}.weight", (config.codebook_size, width)


def _codec(config: CodecConfig) -> Named:
    yield from _codec_encoder(config)
    for codebook in range(config.num_codebooks):
        entries = (config.codebook_size, config.hidden_size)
        shapes = {"inited": (1,), "cluster_size": (config.codebook_size,), "embed": entries, "embed_avg": entries}
        for name, shape in shapes.items():
            yield f"audio_encoder.quantizer.layers.{codebook}.codebook.{name}", shape
    yield from _codec_decoder(config)


def _codec_encoder(config: CodecConfig) -> Named:
    """A convolution; for each stride residual blocks, an ELU and the stride; the LSTM; an ELU and a convolution."""
    layer, width = 0, config.num_filters
    yield from _convolution(_layer("encoder", layer), width, config.channels, config.kernel_size)
    for ratio in reversed(config.ratios):
        for _ in range(config.num_residual_layers):
            layer += 1
            yield from _residual_block(_layer("encoder", layer), width, config)
        layer += 2  # the ELU has no weights
        yield from _convolution(_layer("encoder", layer), 2 * width, width, 2 * ratio)
        width *= 2
    if config.num_lstm_layers:
        layer += 1
        yield from _lstm(_layer("encoder", layer), width, config.num_lstm_layers)
    yield from _convolution(_layer("encoder", layer + 2), config.hidden_size, width, config.last_kernel_size)


def _codec_decoder(config: CodecConfig) -> Named:
    """The encoder's mirror image."""
    layer, width = 0, config.num_filters * 2 ** len(config.ratios)
    yield from _convolution(_layer("decoder", layer), width, config.hidden_size, config.kernel_size)
    if config.num_lstm_layers:
        layer += 1
        yield from _lstm(_layer("decoder", layer), width, config.num_lstm_layers)
    for ratio in config.ratios:
        layer += 2
        # A transposed convolution keeps its inputs first, and weight_norm gives each of them its length.
        yield from _convolution(_layer("decoder", layer), width, width // 2, 2 * ratio, bias=width // 2)
        width //= 2
        for _ in range(config.num_residual_layers):
            layer += 1
            yield from _residual_block(_layer("decoder", layer), width, config)
    yield from _convolution(_layer("decoder", layer + 2), config.channels, width, config.last_kernel_size)


def _layer(part: str, number: int) -> str:
    return f"audio_encoder.{part}.layers.{number}"


def _residual_block(name: str, width: int, config: CodecConfig) -> Named:
    narrow = width // config.compress
    yield from _convolution(f"{name}.block.1", narrow, width, config.residual_kernel_size)
    yield from _convolution(f"{name}.block.3", width, narrow, 1)
    if config.conv_shortcut:
        yield from _convolution(f"{name}.shortcut", width, width, 1)


def _convolution(name: str, rows: int, columns: int, taps: int, bias: int | None = None) -> Named:
    """A weight-normalised convolution: the length of each row, and the row up to its length."""
    yield f"{name}.conv.bias", (bias or rows,)
    yield f"{name}.conv.parametrizations.weight.original0", (rows, 1, 1)
    yield f"{name}.conv.parametrizations.weight.original1", (rows, columns, taps)


def _lstm(name: str, width: int, layers: int) -> Named:
    for layer in range(layers):
        for part in ("ih", "hh"):
            yield f"{name}.lstm.weight_{part}_l{layer}", (4 * width, width)
            yield f"{name}.lstm.bias_{part}_l{layer}", (4 * width,)


def _linear(name: str, inputs: int, outputs: int) -> Named:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def _norm(name: str, width: int) -> Named:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)
