"""A whole model to and from a checkpoint folder, in transformers' MusicGen layout.

`tensors.py` knows files and `transformers_config.py` knows sizes; here the names of the parts are added, so that one
folder serves this package and transformers' `MusicgenForConditionalGeneration`, `AutoTokenizer` and `AutoProcessor`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from musicgen_edu.checkpoints.tensors import (
    CheckpointError,
    check_tensors,
    read_config,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
    writing_folder,
)
from musicgen_edu.checkpoints.transformers_config import (
    feature_extractor_config,
    from_transformers,
    generation_config,
    to_transformers,
)
from musicgen_edu.config import MusicGenConfig
from musicgen_edu.projection import check_widths
from musicgen_edu.tokenizer import Tokenizer

# What older checkpoints call a tensor -> its name today.
_OLD_NAMES = (
    (".weight_g", ".parametrizations.weight.original0"),
    (".weight_v", ".parametrizations.weight.original1"),
    ("text_encoder.encoder.embed_tokens.", "text_encoder.shared."),
)
_COMPUTED = "decoder.model.decoder.embed_positions.weights"  # older checkpoints store what is computed here


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return all weights of a MusicGen, without copying, under the names they have in a checkpoint."""
    named = {f"text_encoder.{name}": tensor for name, tensor in model.text_encoder.model.state_dict().items()}
    del named["text_encoder.encoder.embed_tokens.weight"]  # the same tensor as `shared`
    if model.projection is not None:
        named |= {f"enc_to_dec_proj.{name}": tensor for name, tensor in model.projection.state_dict().items()}
    for name, tensor in model.decoder.state_dict().items():
        prefix = "decoder." if name.startswith("lm_heads.") else "decoder.model.decoder."
        named[prefix + name] = tensor
    return named | {f"audio_encoder.{name}": tensor for name, tensor in model.codec.export_state_dict().items()}


def write_model(model: nn.Module, folder: str | os.PathLike, dtype: torch.dtype, max_shard_size: int) -> None:
    """Write a MusicGen as `MusicGen.save_pretrained` describes it."""
    check_widths(model.config.text_encoder.hidden_size, model.config.decoder)  # the format cannot say a mismatch
    config = to_transformers(model.config)
    with writing_folder(folder) as unfinished:
        write_json(unfinished / "config.json", config)
        write_json(unfinished / "generation_config.json", generation_config(model.config))
        write_json(unfinished / "preprocessor_config.json", feature_extractor_config(model.config))
        if model.tokenizer is not None:
            model.tokenizer.save_pretrained(unfinished)
        stored = {
            name: tensor.to("cpu", torch.float32 if name.startswith("audio_encoder.") else dtype).contiguous()
            for name, tensor in named_tensors(model).items()
        }
        write_tensors(unfinished, stored, max_shard_size)


def read_model(build: Callable[[MusicGenConfig, Tokenizer | None], nn.Module], folder: str | os.PathLike) -> nn.Module:
    """Read a MusicGen as `MusicGen.from_pretrained` describes it; `build` makes one from its config."""
    folder = Path(folder)
    config = read_config(folder, "musicgen")
    generation_file = folder / "generation_config.json"
    generation = read_json(generation_file) if generation_file.is_file() else {}
    try:
        tokenizer = _read_tokenizer(folder)
        with torch.device("meta"):  # shapes only: they are compared before any memory is taken
            model = build(from_transformers(config, generation), tokenizer)
    except (ValueError, TypeError, RuntimeError, ArithmeticError, AssertionError) as error:
        raise CheckpointError(f"The folder {str(folder)!r} cannot be opened. {error}") from error
    tensors = _with_names_of_today(read_tensors(folder))
    check_tensors(named_tensors(model), tensors, f"The folder {str(folder)!r}")
    model.to_empty(device="cpu")
    model.text_encoder.model.tie_weights()
    with torch.no_grad():
        for name, tensor in named_tensors(model).items():
            tensor.copy_(tensors[name])
    return model


def _read_tokenizer(folder: Path) -> Tokenizer | None:
    try:
        return Tokenizer.from_pretrained(folder)
    except FileNotFoundError:
        return None  # transformers writes a tokenizer only with the processor


def _with_names_of_today(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in tensors.items():
        for old, new in _OLD_NAMES:
            name = name.replace(old, new)
        renamed[name] = tensor
    renamed.pop(_COMPUTED, None)
    return renamed
