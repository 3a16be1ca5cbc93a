"""A decoder of musicgen-small's shape with random weights, ours and transformers', step by step."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

import torch
from machine import seconds
from torch import Tensor, nn

from musicgen_edu.conditioning import Condition
from musicgen_edu.config import PRESETS, DecoderConfig
from musicgen_edu.decoder import DecoderCache, MusicGenDecoder
from musicgen_edu.optimization import PackedLinear, optimize
from musicgen_edu.sampling import apply_guidance, create_generators, filter_logits, sample

# After the package, which keeps transformers importable beside a CPU-only torch.
from transformers import (  # isort: skip
    EncodecConfig,
    MusicgenConfig,
    MusicgenDecoderConfig,
    MusicgenForConditionalGeneration,
    T5Config,
)

TEXT_TOKENS = 10
# What a step consists of, by words in the names of PyTorch's operations.
KINDS = {
    "products with weights": ("_linear_pointwise", "pack_mm", "aten::linear", "aten::mm", "aten::addmm"),
    "attention": ("attention", "bmm", "softmax"),
    "norms and activations": ("norm", "gelu"),
    "copies and other precisions": ("copy", "aten::cat", "aten::repeat"),
}
STEPS = 8  # measured at once; their median counts


def create_weights(num_layers: int = 24) -> dict[str, Tensor]:
    """Random weights of the shape of musicgen-small's decoder, or of its first layers."""
    return MusicGenDecoder(replace(PRESETS["small"].decoder, num_layers=num_layers)).state_dict()


def create_decoder(
    weights: dict[str, Tensor], config: DecoderConfig, rung: str | None, compiled: bool = False
) -> MusicGenDecoder:
    """A decoder on the same tensors, its linear layers packed."""
    with torch.device("meta"):
        decoder = MusicGenDecoder(config)
    decoder.load_state_dict(weights, assign=True)
    if rung is not None:
        optimize(decoder, rung, keep_weights=False, compiled=compiled)
    return decoder.eval()


class Steps:
    """Steps of generation at any frame, whose past is noise: what is counted is time, not music."""

    def __init__(self, decoder: MusicGenDecoder, batch: int = 1, frames: int = 1504) -> None:
        self.decoder, config = decoder, decoder.config
        text = torch.randn(batch, TEXT_TOKENS, config.hidden_size, device="cpu", dtype=torch.float32)
        mask = torch.ones(batch, TEXT_TOKENS, device="cpu", dtype=torch.bool)
        self.condition = Condition(text, mask).with_null()
        self.generators = create_generators(0, batch)
        self.cache = DecoderCache(config, 2 * batch, frames, dtype=decoder.cache_dtype)
        for layer in self.cache.layers:
            layer.keys.normal_(), layer.values.normal_()
        self.column = torch.zeros(batch, config.num_codebooks, 1, device="cpu", dtype=torch.long)

    @torch.inference_mode()
    def step(self) -> None:
        """One step, as `generation.iterate_codes` takes it."""
        logits = self.decoder(self.column.repeat(2, 1, 1), self.condition, self.cache)[:, :, -1].float()
        logits = filter_logits(apply_guidance(*logits.chunk(2), 3.0), 1.0, 250, 1.0)
        self.column = sample(logits, self.generators)[:, :, None]

    def time(self, frame: int) -> float:
        """Median seconds of a step when about `frame` frames are written."""
        self.cache.steps = frame
        self.step()  # after something else ran, the first one finds the caches cold
        return statistics.median(seconds(self.step) for _ in range(STEPS))

    def cache_bytes(self, frame: int) -> int:
        """Bytes of keys and values that a step reads."""
        return sum(2 * layer.keys[:, :, :frame].nbytes for layer in self.cache.layers)


def packed_layers(decoder: MusicGenDecoder) -> list[PackedLinear]:
    """The layers whose products a step computes, one for each product: not the text's keys and values."""
    layers = {
        id(module.product): module
        for name, module in decoder.named_modules()
        if isinstance(module, PackedLinear) and not name.endswith(("encoder_attn.k_proj", "encoder_attn.v_proj"))
    }
    return list(layers.values())


def weight_bytes(decoder: MusicGenDecoder) -> int:
    """Bytes of the weights that every step reads."""
    return sum(layer.product.nbytes for layer in packed_layers(decoder))


@torch.inference_mode()
def bare_time(decoder: MusicGenDecoder, rows: int = 2) -> float:
    """Seconds of a step's products alone, with nothing between them."""
    work = [
        (layer.product.multiply, torch.randn(rows, layer.in_features, device="cpu", dtype=layer.product_dtype))
        for layer in packed_layers(decoder)
    ]

    def run() -> None:
        for multiply, states in work:
            multiply(states)

    return statistics.median(seconds(run) for _ in range(STEPS))


def profile(steps: Steps, frame: int = 100, repeats: int = 10) -> dict[str, float]:
    """Milliseconds of a step by kind of work; "Python and dispatch" is what no operation of PyTorch accounts for.

    An operation's time holds what PyTorch spends on calling it. The profiler itself slows a step; the shares count.
    """
    steps.time(frame)
    with torch.autograd.profiler.profile(use_kineto=False) as recorded:
        whole = seconds(lambda: [steps.step() for _ in range(repeats)])
    took = dict.fromkeys([*KINDS, "all other operations"], 0.0)
    for event in recorded.key_averages():
        kind = next((kind for kind, words in KINDS.items() if any(word in event.key for word in words)), None)
        took[kind or "all other operations"] += event.self_cpu_time_total / 1e3 / repeats
    return took | {"Python and dispatch": whole * 1e3 / repeats - sum(took.values())}


def create_transformers(weights: dict[str, Tensor], dtype: torch.dtype) -> MusicgenForConditionalGeneration:
    """transformers' model on the same decoder weights, with SDPA; text encoder and codec are as small as can be."""
    small = PRESETS["small"].decoder
    text_encoder = T5Config(vocab_size=32, d_model=768, d_kv=8, d_ff=8, num_layers=1, num_heads=1)
    codec = EncodecConfig(num_filters=4, hidden_size=8, codebook_size=2048, target_bandwidths=[2.2],
                          sampling_rate=32_000, upsampling_ratios=[8, 5, 4, 4])  # fmt: skip
    decoder = MusicgenDecoderConfig(
        vocab_size=small.codebook_size, hidden_size=small.hidden_size, ffn_dim=small.ffn_size,
        num_hidden_layers=small.num_layers, num_attention_heads=small.num_heads, num_codebooks=small.num_codebooks,
        pad_token_id=small.special_token, bos_token_id=small.special_token, attn_implementation="sdpa",
    )  # fmt: skip
    model = MusicgenForConditionalGeneration(
        MusicgenConfig(text_encoder=text_encoder, audio_encoder=codec, decoder=decoder)
    )
    prefixed = {name if name.startswith("lm_heads") else f"model.decoder.{name}": weights[name] for name in weights}
    model.decoder.load_state_dict(prefixed, assign=True)
    return model.to(dtype).eval()


def transformers_time(model: nn.Module, frame: int = 20) -> float:
    """Median seconds of a step of transformers' own guided generation, when about `frame` frames are written."""
    moments: list[float] = []

    def note(_: Tensor, scores: Tensor) -> Tensor:
        moments.append(time.perf_counter())
        return scores

    text = torch.ones(1, TEXT_TOKENS, device="cpu", dtype=torch.long)
    model.generate(
        input_ids=text, attention_mask=torch.ones_like(text), do_sample=True, top_k=250, guidance_scale=3.0,
        max_new_tokens=frame + STEPS // 2, logits_processor=[note], decoder_start_token_id=2048,
    )  # fmt: skip
    moments = moments[-STEPS - 1 :]
    return statistics.median(later - earlier for earlier, later in zip(moments, moments[1:], strict=False))
