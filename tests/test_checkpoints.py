"""Checkpoint folders: what is written is read again, and what is wrong with a folder is named in one sentence."""

from __future__ import annotations

import json
import os
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

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


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    return {f"layers.{i}.weight": torch.randn(10, 10) for i in range(5)} | {"half": torch.randn(3).bfloat16()}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype and torch.equal(tensor, other[name])


def test_one_file(tmp_path, tensors):
    write_tensors(tmp_path, tensors)
    assert os.listdir(tmp_path) == ["model.safetensors"]
    assert_equal(read_tensors(tmp_path), tensors)
    assert_equal(load_file(tmp_path / "model.safetensors"), tensors)


def test_shards_are_small_enough_and_listed(tmp_path, tensors):
    write_tensors(tmp_path, tensors, max_shard_size=900)
    assert_equal(read_tensors(tmp_path), tensors)
    index = read_json(tmp_path / "model.safetensors.index.json")
    assert index["metadata"]["total_size"] == 5 * 400 + 6
    assert index["weight_map"]["half"] == "model-00003-of-00003.safetensors"
    for shard in set(index["weight_map"].values()):
        assert sum(tensor.nbytes for tensor in load_file(tmp_path / shard).values()) <= 900


def test_a_tensor_above_the_limit_has_a_shard_of_its_own(tmp_path, tensors):
    write_tensors(tmp_path, tensors, max_shard_size=1)
    assert len(list(tmp_path.glob("model-*-of-00006.safetensors"))) == 6
    assert_equal(read_tensors(tmp_path), tensors)


def test_writing_again_leaves_no_old_shards_but_other_files(tmp_path, tensors):
    folder = tmp_path / "new" / "folder"
    with writing_folder(folder) as unfinished:
        write_tensors(unfinished, tensors, max_shard_size=900)
    (folder / "notes.txt").write_text("mine")
    with writing_folder(folder) as unfinished:
        write_tensors(unfinished, tensors)
    assert sorted(os.listdir(folder)) == ["model.safetensors", "notes.txt"]
    assert os.listdir(folder.parent) == ["folder"]


def test_a_failed_write_leaves_what_was_there(tmp_path, tensors):
    folder = tmp_path / "folder"
    with writing_folder(folder) as unfinished:
        write_tensors(unfinished, tensors)
    with pytest.raises(KeyboardInterrupt), writing_folder(folder) as unfinished:
        write_tensors(unfinished, {"other": torch.zeros(1)})
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["folder"]
    assert_equal(read_tensors(folder), tensors)


def test_a_full_disk_is_an_os_error_and_leaves_nothing(tmp_path, tensors, monkeypatch):
    def full(self, content):
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(type(tmp_path), "write_bytes", full)
    with pytest.raises(OSError, match="No space left"), writing_folder(tmp_path / "folder") as unfinished:
        write_tensors(unfinished, tensors)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the administrator may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError), writing_folder(tmp_path / "folder"):
        pass


def test_a_file_in_the_way_of_a_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError), writing_folder(tmp_path / "file" / "folder"):
        pass
    with pytest.raises(OSError), writing_folder(tmp_path / "file"):
        pass
    assert os.listdir(tmp_path) == ["file"]


def test_config_of_the_right_type(tmp_path):
    write_json(tmp_path / "config.json", {"model_type": "musicgen", "size": 3})
    assert read_config(tmp_path, "musicgen")["size"] == 3
    assert read_config(str(tmp_path), "musicgen")["size"] == 3


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, FileNotFoundError, "no file config.json"),
        ('{"model_type": "bert"}', CheckpointError, "holds a bert, not a musicgen"),
        ("{}", CheckpointError, "unknown type"),
        ("[1]", CheckpointError, "must hold a JSON object, not a list"),
        ('{"model_type":', CheckpointError, "not valid JSON"),
        (b"\xff\xfe", CheckpointError, "not valid JSON"),
    ],
)
def test_config_that_is_not_one(tmp_path, content, error, message):
    if content is not None:
        (tmp_path / "config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(error, match=message):
        read_config(tmp_path, "musicgen")


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere"):
        read_config(tmp_path / "nowhere", "musicgen")


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".ckpt"])
def test_pickles_are_refused_unless_there_are_safetensors_too(tmp_path, tensors, suffix):
    torch.save(tensors, tmp_path / f"pytorch_model{suffix}")
    with pytest.raises(CheckpointError, match="pickle .*which can run any code"):
        read_tensors(tmp_path)
    write_tensors(tmp_path, tensors)
    assert_equal(read_tensors(tmp_path), tensors)


def test_no_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no weights"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("kept", [0, 4, 8, 100, -1])
def test_truncated_weights(tmp_path, tensors, kept):
    write_tensors(tmp_path, tensors)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="damaged or truncated"):
        read_tensors(tmp_path)


def test_a_missing_shard_is_named(tmp_path, tensors):
    write_tensors(tmp_path, tensors, max_shard_size=900)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model-00002-of-00003.safetensors are missing"):
        read_tensors(tmp_path)


def test_an_index_cannot_point_out_of_its_folder(tmp_path, tensors):
    save_file(tensors, tmp_path / "elsewhere.safetensors")
    folder = tmp_path / "folder"
    folder.mkdir()
    index = {"weight_map": dict.fromkeys(tensors, "../elsewhere.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FileNotFoundError, match=re.escape("elsewhere.safetensors are missing")):
        read_tensors(folder)


@pytest.mark.parametrize("index", [{}, {"weight_map": []}, {"weight_map": {"a": 1}}])
def test_a_damaged_index(tmp_path, index):
    write_json(tmp_path / "model.safetensors.index.json", index)
    with pytest.raises(CheckpointError, match="no map from tensors to files"):
        read_tensors(tmp_path)


def test_tensors_that_do_not_fit_are_named(tensors):
    check_tensors(tensors, dict(tensors), "It")
    found = dict(tensors)
    found["strange"] = found.pop("half")
    found["layers.0.weight"] = torch.zeros(10, 11)
    with pytest.raises(CheckpointError) as caught:
        check_tensors(tensors, found, "The folder x")
    assert str(caught.value) == (
        "The folder x does not fit its config: it lacks half; it has strange, which the model does not know; "
        "it has layers.0.weight of shape [10, 11] instead of [10, 10]."
    )


def test_of_many_tensors_a_few_are_named(tensors):
    with pytest.raises(CheckpointError, match=r"lacks half, layers\.0\.weight, layers\.1\.weight and 3 more\.$"):
        check_tensors(tensors, {}, "It")
