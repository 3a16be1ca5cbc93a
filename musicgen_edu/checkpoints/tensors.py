"""Reads and writes checkpoint folders: JSON files beside tensors in safetensors, in transformers' layout.

Nothing here knows a model: a checkpoint is a dictionary of named tensors, in one file or in shards with an index. Only
safetensors are read, since opening a pickle (.bin, .pt, .ckpt) can run whatever code its author put into it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

Json = dict[str, Any]

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_SHARD_SIZE = 45_000_000  # bytes; public hosts refuse or warn about files above 50 MB
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_NAMED = 3  # how many names an error message lists


class CheckpointError(ValueError):
    """A checkpoint folder holds something else than what was to be read from it."""


def read_json(path: str | os.PathLike) -> Json:
    """Read one JSON object. Raises FileNotFoundError where there is none, CheckpointError where it is damaged."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path.name} in {_quote(path.parent)}: give a checkpoint's folder.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{_quote(path)} is not valid JSON ({error}): copy it again.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{_quote(path)} must hold a JSON object, not a {type(content).__name__}.")
    return content


def read_config(folder: str | os.PathLike, model_type: str) -> Json:
    """Read a folder's `config.json`.

    Raises:
        FileNotFoundError: there is no such folder, or no config in it.
        CheckpointError: the config is damaged, or describes another type of model.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {_quote(folder)}: give the folder of a checkpoint.")
    config = read_json(folder / "config.json")
    found = " ".join(str(config.get("model_type", "model of an unknown type")).split())[:40]
    if found != model_type:
        raise CheckpointError(f"The folder {_quote(folder)} holds a {found}, not a {model_type}.")
    return config


def read_tensors(folder: str | os.PathLike) -> dict[str, Tensor]:
    """Read all tensors of a folder, from one safetensors file or from the shards that its index lists.

    Raises:
        FileNotFoundError: the folder has no weights, or a shard is missing.
        CheckpointError: a file is damaged, or there are pickles only.
    """
    folder = Path(folder)
    if (folder / WEIGHTS).is_file():
        return _read_file(folder / WEIGHTS)
    if not (folder / INDEX).is_file():
        _refuse_pickles(folder)
        raise FileNotFoundError(f"The folder {_quote(folder)} has no weights: neither {WEIGHTS} nor {INDEX} is there.")
    names = read_json(folder / INDEX).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(shard, str) for shard in names.values()):
        raise CheckpointError(f"{_quote(folder / INDEX)} has no map from tensors to files: copy it again.")
    tensors = {}
    for shard in sorted(set(names.values())):
        tensors |= _read_file(folder / Path(shard).name)  # a shard lies in this folder, whatever the index says
    return tensors


def check_tensors(expected: dict[str, Tensor], tensors: dict[str, Tensor], source: str) -> None:
    """Raise CheckpointError, naming them, where tensors are missing, unexpected or of another shape than expected."""
    problems = []
    if missing := sorted(expected.keys() - tensors.keys()):
        problems.append(f"lacks {_list(missing)}")
    if unexpected := sorted(tensors.keys() - expected.keys()):
        problems.append(f"has {_list(unexpected)}, which the model does not know")
    misshapen = [
        f"{name} of shape {list(tensors[name].shape)} instead of {list(expected[name].shape)}"
        for name in sorted(expected.keys() & tensors.keys())
        if tensors[name].shape != expected[name].shape
    ]
    if misshapen:
        problems.append(f"has {_list(misshapen)}")
    if problems:
        raise CheckpointError(f"{source} does not fit its config: it {'; it '.join(problems)}.")


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

    Weights of an earlier checkpoint in `folder` are replaced; other files stay. Raises OSError where it cannot write.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield temporary
        folder.mkdir(exist_ok=True)
        written = sorted(temporary.iterdir())
        for old in [*folder.glob("model*.safetensors"), *folder.glob(INDEX)]:
            if old.name not in {file.name for file in written}:
                old.unlink()
        for file in written:
            os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, content: Json) -> None:
    """Write one JSON object, readable by a person."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_tensors(folder: Path, tensors: dict[str, Tensor], max_shard_size: int = MAX_SHARD_SIZE) -> None:
    """Write tensors as one file or, beyond `max_shard_size` bytes, as shards with an index, named as transformers does.

    A tensor that alone exceeds the limit has a shard of its own.
    """
    shards = _split(tensors, max_shard_size)
    if len(shards) == 1:
        _write_file(folder / WEIGHTS, tensors)
        return
    names = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        _write_file(folder / name, shard)
    weight_map = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    total = sum(tensor.nbytes for tensor in tensors.values())
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _read_file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"The weights {path.name} are missing in {_quote(path.parent)}: copy all of it.")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise CheckpointError(f"{_quote(path)} is damaged or truncated ({error}): copy it again.") from error


def _refuse_pickles(folder: Path) -> None:
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLES)
    if pickles:
        raise CheckpointError(
            f"The folder {_quote(folder)} holds its weights as a pickle ({pickles[0]}), which can run any code when "
            "opened: convert it to safetensors first."
        )


def _write_file(path: Path, tensors: dict[str, Tensor]) -> None:
    # Through Python's own write, so that a full disk is an OSError and not safetensors' own error.
    path.write_bytes(safetensors.torch.save(tensors, metadata={"format": "pt"}))


def _split(tensors: dict[str, Tensor], max_shard_size: int) -> list[dict[str, Tensor]]:
    shards, size = [{}], 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > max_shard_size:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    return shards


def _quote(path: Path) -> str:
    """The path in quotes, with odd characters spelled out, so that a message stays one line."""
    return repr(str(path))


def _list(names: list[str]) -> str:
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + rest
