"""A whole model to and from a checkpoint, in transformers' MusicGen layout.

`hub.py` finds the folder, `tensors.py` knows files, `transformers_config.py` sizes and `names.py` what each tensor is
called; here a model is taken apart and put together, so that one folder serves this package and transformers'
`MusicgenForConditionalGeneration`, `AutoTokenizer` and `AutoProcessor`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from musicgen_edu._checks import check_progress
from musicgen_edu.checkpoints.hub import find_folder
from musicgen_edu.checkpoints.names import expected_shapes, with_names_of_today
from musicgen_edu.checkpoints.sounds import feature_extractor_config
from musicgen_edu.checkpoints.tensors import (
    CheckpointError,
    StoredTensor,
    check_numbers,
    check_tensors,
    list_tensors,
    read_config,
    read_json,
    write_json,
    write_tensors,
    writing_folder,
)
from musicgen_edu.checkpoints.transformers_config import (
    MODEL_TYPES,
    from_transformers,
    generation_config,
    to_transformers,
)
from musicgen_edu.config import MusicGenConfig
from musicgen_edu.devices import check_memory, find_device
from musicgen_edu.files import one_line
from musicgen_edu.patterns import pattern_of
from musicgen_edu.projection import check_widths
from musicgen_edu.tokenizer import Tokenizer

PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)
_WRAPPERS = re.compile(r"(?<![^.])(_orig_mod|module)\.")  # what torch.compile and data parallelism put before names

Progress = Callable[[int, int], object]


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return all weights of a MusicGen, without copying, under the names they have in a checkpoint."""
    named = _state("text_encoder.", model.text_encoder.model)
    named.pop("text_encoder.encoder.embed_tokens.weight", None)  # the same tensor as `shared`
    if model.projection is not None:
        named |= _state("enc_to_dec_proj.", model.projection)
    if model.melody_projection is not None:
        named |= _state("audio_enc_to_dec_proj.", model.melody_projection)
    for name, tensor in _state("", model.decoder).items():
        named[("decoder." if name.startswith("lm_heads.") else "decoder.model.decoder.") + name] = tensor
    codec = getattr(model.codec, "module", model.codec)  # out of data parallelism, as below
    return named | {f"audio_encoder.{name}": tensor for name, tensor in codec.export_state_dict().items()}


def _state(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {prefix + _WRAPPERS.sub("", name): tensor for name, tensor in module.state_dict().items()}


def write_model(
    model: nn.Module, folder: str | os.PathLike, dtype: torch.dtype = torch.float32, **limits: int | str
) -> None:
    """Write a MusicGen as `MusicGen.save_pretrained` describes it; `limits` is its `max_shard_size`."""
    _check_precision(dtype)
    check_widths(model.config.text_encoder.hidden_size, model.config.decoder)  # the format cannot say a mismatch
    make = {"config": to_transformers, "generation_config": generation_config}
    make["preprocessor_config"] = feature_extractor_config
    files, tensors = {name: describe(model.config) for name, describe in make.items()}, named_tensors(model)
    dtypes = {name: torch.float32 if name.startswith("audio_encoder.") else dtype for name in tensors}
    _check_writable(model.config, files, tensors, dtypes)
    with writing_folder(folder) as unfinished:
        for name, content in files.items():
            write_json(unfinished / f"{name}.json", content)
        if model.tokenizer is not None:
            model.tokenizer.save_pretrained(unfinished)
        write_tensors(unfinished, tensors, dtypes=dtypes, **limits)


def _check_writable(
    config: MusicGenConfig, files: dict[str, dict], tensors: dict[str, Tensor], dtypes: dict[str, torch.dtype]
) -> None:
    """Refuse, before a file is touched, what the reader would refuse, and what no music comes of.

    A setting is impossible, a part was wrapped, replaced or quantised, a weight is no finite number (any more).
    """
    try:
        pattern_of(from_transformers(*files.values()))
    except ValueError as error:
        raise ValueError(f"This model cannot be saved, since it could not be opened again. {error}") from error
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or tensor.is_meta or not tensor.dtype.is_floating_point:
            raise ValueError(f"This model cannot be saved: {name} is no tensor of floats with values (any more).")
    try:
        check_tensors(expected_shapes(config), {name: tuple(each.shape) for name, each in tensors.items()}, "The model")
    except CheckpointError as error:
        raise ValueError(f"This model cannot be saved, a part of it was wrapped or replaced. {error}") from error
    for name, tensor in tensors.items():
        if not tensor.to(dtypes[name]).isfinite().all():
            raise ValueError(f"This model cannot be saved: {name} would hold no finite numbers in {dtypes[name]}.")


@torch.inference_mode(False)  # a model that was loaded in the midst of listening may be trained after it
def read_model(
    build: Callable[[MusicGenConfig, Tokenizer | None], nn.Module],
    source: str | os.PathLike,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    revision: str | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """Read a MusicGen as `MusicGen.from_pretrained` describes it; `build` makes one from its config."""
    _check_precision(dtype)
    check_progress(progress)
    device = find_device(device)
    folder = find_folder(source, revision)
    what = f"The folder {one_line(folder)}"
    config, tokenizer = _read_description(folder)
    stored = with_names_of_today(list_tensors(folder))
    check_tensors(expected_shapes(config), {name: tensor.shape for name, tensor in stored.items()}, what)
    check_numbers(stored, what)
    try:
        with torch.device("meta"):  # shapes only: the weights take the places of these
            model = build(config, tokenizer)
    except (ValueError, TypeError, RuntimeError, ArithmeticError, AssertionError) as error:
        raise CheckpointError(f"{what} cannot be opened. {' '.join(str(error).split())}") from error
    dtypes = {name: _precision(name, dtype) for name in stored}
    check_memory(sum(_size(tensor, dtypes[name]) for name, tensor in stored.items()), device, str(source))
    _assign(model, _read(stored, device, dtypes, progress))
    return model.eval()


def _read_description(folder: Path) -> tuple[MusicGenConfig, Tokenizer | None]:
    content = read_config(folder, MODEL_TYPES)
    generation, extractor = (_read_if_there(folder / f"{name}_config.json") for name in ("generation", "preprocessor"))
    try:
        return from_transformers(content, generation, extractor), _read_tokenizer(folder)
    except ValueError as error:
        raise CheckpointError(f"The folder {one_line(folder)} cannot be opened. {error}") from error


def _read_if_there(file: Path) -> dict:
    return read_json(file) if file.is_file() else {}


def _read_tokenizer(folder: Path) -> Tokenizer | None:
    try:
        return Tokenizer.from_pretrained(folder)
    except FileNotFoundError:
        return None  # transformers writes a tokenizer only with the processor


def _check_precision(dtype: torch.dtype) -> None:
    if dtype not in PRECISIONS:
        raise ValueError(f"dtype must be {', '.join(map(str, PRECISIONS[:-1]))} or {PRECISIONS[-1]}, not {dtype!r}.")


def _precision(name: str, dtype: torch.dtype) -> torch.dtype:
    """The codec stays in float32, which is heard; so does, in float16, the layer of T5 that would overflow."""
    overflows = dtype == torch.float16 and name.startswith("text_encoder.") and name.endswith(".wo.weight")
    return torch.float32 if overflows or name.startswith("audio_encoder.") else dtype


def _size(tensor: StoredTensor, dtype: torch.dtype) -> int:
    return torch.empty(tensor.shape, dtype=dtype, device="meta").nbytes


def _read(
    stored: dict[str, StoredTensor], device: torch.device, dtypes: dict[str, torch.dtype], progress: Progress | None
) -> dict[str, Tensor]:
    sizes = {name: _size(tensor, dtypes[name]) for name, tensor in stored.items()}
    tensors, done = {}, 0
    for name in sorted(stored, key=sizes.get, reverse=True):  # the largest first, while there is room for its copy
        tensors[name] = stored[name].read(device, dtypes[name])
        done += sizes[name]
        if progress is not None:
            progress(done, sum(sizes.values()))
    return tensors


def _assign(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put the tensors themselves, and no copies, in the places of the model's own."""

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

    text_encoder = model.text_encoder.model
    embeddings = {"encoder.embed_tokens.weight": tensors["text_encoder.shared.weight"]}
    text_encoder.load_state_dict(part("text_encoder.") | embeddings, assign=True)
    text_encoder.tie_weights()  # assigned, the two are no longer one parameter
    if model.projection is not None:
        model.projection.load_state_dict(part("enc_to_dec_proj."), assign=True)
    if model.melody_projection is not None:
        model.melody_projection.load_state_dict(part("audio_enc_to_dec_proj."), assign=True)
    own = {name.removeprefix("model.decoder."): tensor for name, tensor in part("decoder.").items()}
    model.decoder.load_state_dict(own, assign=True)
    model.codec.load_exported_state_dict(part("audio_encoder."), assign=True)
