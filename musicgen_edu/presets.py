"""Models by name: the shipped one, and Meta's sizes with random weights, each with any size overridden."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path

import torch

from musicgen_edu.checkpoints.hub import META
from musicgen_edu.checkpoints.names import expected_shapes
from musicgen_edu.config import PRESETS, CodecConfig, DecoderConfig, MusicGenConfig, SamplingSettings
from musicgen_edu.devices import check_memory, find_device
from musicgen_edu.model import MusicGen
from musicgen_edu.patterns import create_pattern
from musicgen_edu.sampling import create_generators
from musicgen_edu.tokenizer import Tokenizer

SHIPPED = Path(__file__).parent / "weights" / "tiny"

_SIZES = tuple(field.name for field in fields(DecoderConfig))
_SETTINGS = tuple(field.name for field in fields(SamplingSettings))


@torch.inference_mode(False)  # a model that was made in the midst of listening may be trained after it
def create_musicgen_model(
    name: str = "tiny",
    *,
    pretrained: bool = False,
    preflight: bool = True,
    device: torch.device | str | None = None,
    seed: int = 0,
    **overrides: int | float | bool | str,
) -> MusicGen:
    """Create the model of a preset: "tiny" with its trained weights, Meta's sizes with random ones.

    `pretrained=True` fetches Meta's own weights from the hub, once (`MusicGen.from_pretrained`, which also has other
    precisions); they leave no size to override. Their licence is CC-BY-NC 4.0.

    `overrides` are fields of `DecoderConfig` or `SamplingSettings`, or `pattern`. Where one changes
    a shape, "tiny" has random weights too, but for its tokenizer and, where it fits, its codec. `seed` draws random
    weights without touching PyTorch's own generator; `device="meta"` makes shapes without memory.

    Text states of width 512 meet a decoder of width 768 in one of two ways:

    >>> create_musicgen_model("tiny")  # a layer of 512 → 768 translates, as in the shipped model
    >>> create_musicgen_model("tiny", hidden_size=512)  # the decoder is 512 wide itself, and nothing translates

    Raises:
        ValueError: there is no such preset or device, or sizes do not fit each other.
        WidthMismatchError: the text encoder and the decoder do not fit; `preflight=False` lets that pass.
        TypeError: there is no such override, or its value is of the wrong type.
        OSError, MemoryError: what `MusicGen.from_pretrained` raises of the hub, the disk and the memory.
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise ValueError(f"There is no preset {name!r}: choose one of {', '.join(PRESETS)}.")
    config = _override(PRESETS[name], overrides)
    seed = create_generators(seed, 1)[0].initial_seed()  # refuses what is no seed
    device = find_device("cpu" if device is None else device)
    if device.type == "meta":
        with device:
            return MusicGen(config, preflight=preflight)
    if pretrained and name in META:
        return _with_metas_weights(name, overrides, device)
    if name == "tiny" and config.decoder == PRESETS[name].decoder:
        model = MusicGen.from_pretrained(SHIPPED)
        model.config = _override(model.config, overrides)  # the folder knows how many pieces its tokenizer has
    else:
        _check_memory(config, name)
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.manual_seed(seed)
            model = MusicGen(config, Tokenizer.from_pretrained(SHIPPED), preflight=preflight)
        if name == "tiny" and config.codec == PRESETS[name].codec:
            model.codec = MusicGen.from_pretrained(SHIPPED).codec
    return model.to(device, torch.float32)


def _with_metas_weights(name: str, overrides: dict[str, int | float | bool | str], device: torch.device) -> MusicGen:
    if sizes := [override for override in overrides if override in (*_SIZES, "pattern")]:
        raise ValueError(f"Trained weights have one size and one pattern: leave out {', '.join(sizes)}.")
    model = MusicGen.from_pretrained(META[name], device=device)
    model.config = _override(model.config, overrides)
    return model


def _override(config: MusicGenConfig, overrides: dict[str, int | float | bool | str]) -> MusicGenConfig:
    changes = {name: _checked(name, value, config) for name, value in overrides.items()}
    sizes = {name: value for name, value in changes.items() if name in _SIZES}
    sampling = replace(config.sampling, **{name: value for name, value in changes.items() if name in _SETTINGS})
    pattern = changes.get("pattern", config.pattern)
    if "hidden_size" in sizes and "num_heads" not in sizes:
        sizes["num_heads"] = _num_heads(sizes["hidden_size"], config.decoder.hidden_size // config.decoder.num_heads)
    decoder = replace(config.decoder, **sizes)
    create_pattern(pattern, decoder.num_codebooks)  # refuses an unknown name
    codec = _fit_codec(config.codec, decoder)
    return replace(config, decoder=decoder, codec=codec, pattern=pattern, sampling=sampling)


def _check_memory(config: MusicGenConfig, name: str) -> None:
    """Raise MemoryError for a model that has no room; no more of it is counted than shows that."""
    cpu, needed = torch.device("cpu"), 0
    for _, shape in expected_shapes(config):
        needed += 4 * math.prod(shape)
        check_memory(needed, cpu, f"This {name} model, or a part of it,")


def _checked(name: str, value: int | float | bool | str, config: MusicGenConfig) -> int | float | bool | str:
    names = *_SIZES, *_SETTINGS, "pattern"
    if name not in names:
        raise TypeError(f"There is no override {name!r}: choose among {', '.join(names)}.")
    part = next((part for part in (config.decoder, config.sampling) if hasattr(part, name)), config)
    kind = type(getattr(part, name))
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise TypeError(f"{name} must be of type {kind.__name__}, not {value!r}.")
    if kind is int and name in _SIZES and value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}.")
    return value


def _num_heads(hidden_size: int, head_size: int) -> int:
    """As many heads as the width divides into, of about the preset's size (64 in all of them)."""
    return next(heads for heads in range(max(1, hidden_size // head_size), 0, -1) if hidden_size % heads == 0)


def _fit_codec(codec: CodecConfig, decoder: DecoderConfig) -> CodecConfig:
    """The codec that reads the decoder's codes: the same one, unless these have more codebooks or another size."""
    codebooks = -(-decoder.num_codebooks // decoder.audio_channels)
    if decoder.codebook_size == codec.codebook_size and codebooks <= codec.num_codebooks:
        return codec
    return replace(codec, codebook_size=decoder.codebook_size, num_codebooks=codebooks)
