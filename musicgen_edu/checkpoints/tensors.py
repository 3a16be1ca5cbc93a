"""Reads and writes checkpoint folders: JSON files beside tensors in safetensors, in transformers' layout.

Nothing here knows a model: a checkpoint is a dictionary of named tensors, in one file or in shards with an index. Only
safetensors are read, since opening a pickle (.bin, .pt, .ckpt) can run whatever code its author put into it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from torch import Tensor

from musicgen_edu.files import one_line, real_path

Json = dict[str, Any]
Shape = tuple[int, ...]

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_SHARD_SIZE = 45_000_000  # bytes; public hosts refuse or warn about files above 50 MB
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_FLOATS = ("F64", "F32", "F16", "BF16")  # safetensors' words
_NAMED = 3  # how many names an error message lists
_COUNTED = 1000  # beyond so many missing tensors nobody counts on: a config may ask for millions


# What turns a pickle into safetensors, for those who trust it.
CONVERSION = "transformers.AutoModelForTextToWaveform.from_pretrained(OLD).save_pretrained(NEW)"


class CheckpointError(ValueError):
    """A checkpoint folder holds something else than what was to be read from it."""


def read_json(path: str | os.PathLike) -> Json:
    """Read one JSON object. Raises FileNotFoundError where there is none, CheckpointError where it is damaged."""
    path = Path(path)
    if not os.path.isfile(path):  # which says no, where Path's raises for a name that is too long
        raise FileNotFoundError(
            f"There is no file {one_line(path.name)} in {one_line(path.parent)}: give a checkpoint's folder."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{one_line(path)} is not valid JSON ({error}): copy it again.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{one_line(path)} must hold a JSON object, not a {type(content).__name__}.")
    return content


def read_config(folder: str | os.PathLike, model_types: tuple[str, ...]) -> Json:
    """Read a folder's `config.json`.

    Raises:
        FileNotFoundError: there is no such folder, or no config in it.
        CheckpointError: the config is damaged, or describes no model of these types.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"There is no folder {one_line(folder)}: give the folder of a checkpoint.")
    config = read_json(folder / "config.json")
    found = " ".join(str(config.get("model_type", "model of an unknown type")).split())[:40]
    if found not in model_types:
        raise CheckpointError(f"The folder {one_line(folder)} holds a {found}, not a {' or a '.join(model_types)}.")
    return config


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies, how large it is, and how its numbers are stored: what a file says before it is read."""

    file: Path
    name: str
    shape: Shape
    kind: str  # in safetensors' words: "F32", "BF16", "I64", …

    def read(self, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Tensor:
        """Return the tensor on a device and in a precision; None is that of the file.

        The file is opened for this tensor alone: its pages count as this process's memory for as long as it is open.
        """
        with _opened(self.file) as file:
            tensor = file.get_tensor(self.name)
            return tensor.to(device, dtype or tensor.dtype, copy=True)  # the file's own pages leave with the file


def list_tensors(folder: str | os.PathLike) -> dict[str, StoredTensor]:
    """List all tensors of a folder, in one safetensors file or in the shards of its index; none of them is read.

    Raises:
        FileNotFoundError: the folder has no weights, or a shard is missing.
        CheckpointError: a file is damaged, or there are pickles only.
    """
    folder = Path(folder)
    if (folder / WEIGHTS).is_file():
        return _list_file(folder / WEIGHTS)
    if not (folder / INDEX).is_file():
        _refuse_pickles(folder)
        raise FileNotFoundError(
            f"The folder {one_line(folder)} has no weights: neither {WEIGHTS} nor {INDEX} is there."
        )
    listed = {}
    for shard in sorted(set(_read_index(folder).values())):
        listed |= _list_file(folder / Path(shard).name)  # a shard lies in this folder, whatever the index says
    return listed


def read_tensors(folder: str | os.PathLike) -> dict[str, Tensor]:
    """Read all tensors of a folder, as they are stored. Raises what `list_tensors` raises."""
    return {name: stored.read() for name, stored in list_tensors(folder).items()}


def check_tensors(expected: Iterable[tuple[str, Shape]], found: dict[str, Shape], source: str) -> None:
    """Raise CheckpointError, naming them, where tensors are missing, unexpected or of another shape than expected.

    `expected` are (name, shape), each name once. No more of them are looked at than are found and `_COUNTED` besides.
    """
    wanted = dict(islice(expected, len(found) + _COUNTED))
    problems = []
    if missing := [name for name in wanted if name not in found]:
        problems.append(f"lacks {_list(missing)}")
    if unexpected := [name for name in found if name not in wanted]:
        problems.append(f"has {_list(unexpected)}, which the model does not know")
    misshapen = [
        f"{name} of shape {list(found[name])} instead of {list(shape)}"
        for name, shape in wanted.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    if misshapen:
        problems.append(f"has {_list(misshapen)}")
    if problems:
        raise CheckpointError(f"{source} does not fit its config: it {'; it '.join(problems)}.")


def check_numbers(stored: dict[str, StoredTensor], source: str) -> None:
    """Raise CheckpointError, naming them, where tensors hold integers or anything else that is no plain float."""
    if strange := [f"{name} ({tensor.kind})" for name, tensor in stored.items() if tensor.kind not in _FLOATS]:
        raise CheckpointError(
            f"{source} holds numbers that are no plain floats: {_list(strange)}; dequantise it first."
        )


def fingerprint(tensors: dict[str, Tensor]) -> str:
    """The SHA-256 of all names, shapes and numbers: equal where every bit is."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


@contextmanager
def writing_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary folder to write into; its files move into `folder` only when all of them are complete.

    Weights of an earlier checkpoint in `folder` are replaced; other files stay, and so does what a link in it leads to.
    It lies inside, since what is beside may be another disk, or not be ours to write to.
    Raises OSError where it cannot write, ValueError where nothing can have such a name.
    """
    folder = real_path(folder)
    is_new = not os.path.exists(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder))
    except OSError as error:
        reason = f"Nothing can be written into the folder {one_line(folder)} ({error.strerror})"
        raise type(error)(f"{reason}: choose another one.") from error
    try:
        yield temporary
        written = sorted(temporary.iterdir())
        if in_the_way := [file.name for file in written if (folder / file.name).is_dir()]:
            raise IsADirectoryError(f"In {one_line(folder)} {in_the_way[0]} is a folder: save into another folder.")
        for name in _earlier_weights(folder) - {file.name for file in written}:
            (folder / name).unlink()
        for file in written:
            os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if is_new and not any(folder.iterdir()):
            folder.rmdir()


def _earlier_weights(folder: Path) -> set[str]:
    """The weights that would shadow new ones or belong to none: those of our names, and of shards the listed ones."""
    names = {WEIGHTS, INDEX}
    try:
        names |= {shard for shard in _read_index(folder).values() if _SHARD.fullmatch(shard)}
    except (CheckpointError, FileNotFoundError):
        pass  # whose the shards are, nothing tells: they stay
    return {name for name in names if (folder / name).is_file()}


def write_json(path: Path, content: Json) -> None:
    """Write one JSON object, readable by a person."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_tensors(
    folder: Path,
    tensors: dict[str, Tensor],
    max_shard_size: int | str = MAX_SHARD_SIZE,
    dtypes: dict[str, torch.dtype] | None = None,
) -> None:
    """Write tensors as one file or, beyond `max_shard_size` bytes, as shards with an index, named as transformers does.

    A tensor that alone exceeds the limit has a shard of its own. `dtypes` says in what precision each is stored, by
    default its own; one shard at a time is converted.
    Raises ValueError where `max_shard_size` is no size such as 5_000_000 or "5MB".
    """
    dtypes = dtypes or {name: tensor.dtype for name, tensor in tensors.items()}
    shapes = {name: tensor.to("meta", dtypes[name]) for name, tensor in tensors.items()}
    split = split_torch_state_dict_into_shards(shapes, max_shard_size=_bytes(max_shard_size))
    for file, names in split.filename_to_tensors.items():
        shard = {name: tensors[name].to("cpu", dtypes[name], copy=True).contiguous() for name in names}
        # Through Python's own write, so that a full disk is an OSError and not safetensors' own error.
        (folder / file).write_bytes(safetensors.torch.save(shard, metadata={"format": "pt"}))
    if split.is_sharded:
        write_json(folder / INDEX, {"metadata": split.metadata, "weight_map": split.tensor_to_filename})


def _bytes(size: int | str) -> int:
    units = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
    parts = re.fullmatch(r"(\d{1,15}) ?([KMG]B|)", str(size))
    if isinstance(size, bool) or parts is None or int(parts[1]) < 1:
        raise ValueError(f'max_shard_size must be a number of bytes, or a size such as "5MB", not {size!r}.')
    return int(parts[1]) * units[parts[2]]


@contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    if not os.path.isfile(path):  # which says no, where Path's raises for a name that is too long
        raise FileNotFoundError(
            f"The weights {one_line(path.name)} are missing in {one_line(path.parent)}: copy all of it."
        )
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise CheckpointError(f"{one_line(path)} is damaged or truncated ({error}): copy it again.") from error


def _list_file(path: Path) -> dict[str, StoredTensor]:
    listed = {}
    with _opened(path) as file:
        for name in file.keys():
            header = file.get_slice(name)
            listed[name] = StoredTensor(path, name, tuple(header.get_shape()), str(header.get_dtype()))
    return listed


def _read_index(folder: Path) -> dict[str, str]:
    names = read_json(folder / INDEX).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(shard, str) for shard in names.values()):
        raise CheckpointError(f"{one_line(folder / INDEX)} has no map from tensors to files: copy it again.")
    return names


def _refuse_pickles(folder: Path) -> None:
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLES)
    if pickles:
        raise CheckpointError(
            f"The folder {one_line(folder)} holds its weights as a pickle ({one_line(pickles[0])}), which can run any "
            f"code when opened: if you trust it, convert it with {CONVERSION}."
        )


def _list(names: list[str]) -> str:
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return one_line(", ".join(names[:_NAMED])) + rest
