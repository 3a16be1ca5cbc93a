"""Checkpoint folders: what is written is read again, and what is wrong with a folder is named in one sentence."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from musicgen_edu.checkpoints.names import expected_shapes
from musicgen_edu.checkpoints.pretrained import named_tensors
from musicgen_edu.checkpoints.sounds import read_melody
from musicgen_edu.checkpoints.tensors import (
    CheckpointError,
    check_numbers,
    check_tensors,
    list_tensors,
    read_config,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
    writing_folder,
)
from musicgen_edu.config import PRESETS
from musicgen_edu.model import MusicGen


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


def test_a_folder_in_the_way_of_a_file_is_found_before_anything_is_removed(tmp_path, tensors):
    with writing_folder(tmp_path) as unfinished:
        write_tensors(unfinished, tensors)
    (tmp_path / "config.json").mkdir()
    with pytest.raises(IsADirectoryError, match="config.json is a folder"), writing_folder(tmp_path) as unfinished:
        (unfinished / "config.json").touch()
        write_tensors(unfinished, tensors, max_shard_size=900)
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors"]


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="needs a folder on a disk of its own")
def test_a_disk_of_its_own_can_be_written_to(tensors):
    """Nothing can be moved there from the folder beside it."""
    if set(os.listdir("/dev/shm")) & {"model.safetensors"}:
        pytest.skip("somebody keeps a model there")
    with writing_folder("/dev/shm") as unfinished:
        write_tensors(unfinished, tensors)
    try:
        assert_equal(read_tensors("/dev/shm"), tensors)
    finally:
        os.unlink("/dev/shm/model.safetensors")


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
    assert read_config(tmp_path, ("musicgen",))["size"] == 3
    assert read_config(str(tmp_path), ("musicgen",))["size"] == 3


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
        read_config(tmp_path, ("musicgen",))


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere"):
        read_config(tmp_path / "nowhere", ("musicgen",))


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


def shapes(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def test_tensors_that_do_not_fit_are_named(tensors):
    check_tensors(shapes(tensors).items(), shapes(tensors), "It")
    found = shapes(tensors)
    found["strange"] = found.pop("half")
    found["layers.0.weight"] = (10, 11)
    with pytest.raises(CheckpointError) as caught:
        check_tensors(shapes(tensors).items(), found, "The folder x")
    assert str(caught.value) == (
        "The folder x does not fit its config: it lacks half; it has strange, which the model does not know; "
        "it has layers.0.weight of shape [10, 11] instead of [10, 10]."
    )


def test_of_many_tensors_a_few_are_named(tensors):
    with pytest.raises(CheckpointError, match=r"lacks layers\.0\.weight, .*, layers\.2\.weight and 3 more"):
        check_tensors(shapes(tensors).items(), {}, "It")


def test_a_config_that_asks_for_endlessly_many_tensors_is_refused_all_the_same(tensors):
    endless = ((f"layers.{number}.weight", (10, 10)) for number in itertools.count())
    with pytest.raises(CheckpointError, match=r"lacks layers\.5\.weight, .*it has half, which the model does not know"):
        check_tensors(endless, shapes(tensors), "It")


def test_numbers_that_are_no_plain_floats_are_named(tmp_path, tensors):
    write_tensors(tmp_path, tensors)
    check_numbers(list_tensors(tmp_path), "It")
    write_tensors(tmp_path, tensors | {"packed": torch.zeros(3, dtype=torch.int8)})
    with pytest.raises(CheckpointError, match=r"no plain floats: packed \(I8\)"):
        check_numbers(list_tensors(tmp_path), "It")


def test_tensors_are_listed_without_being_read_and_read_as_asked(tmp_path, tensors):
    write_tensors(tmp_path, tensors)
    listed = list_tensors(tmp_path)
    assert {name: stored.shape for name, stored in listed.items()} == shapes(tensors)
    assert listed["half"].kind == "BF16" and listed["layers.0.weight"].kind == "F32"
    read = {"layers.0.weight": torch.float16, "layers.1.weight": None}
    read = {name: listed[name].read(dtype=dtype) for name, dtype in read.items()}
    file = tmp_path / "model.safetensors"
    file.write_bytes(bytes(file.stat().st_size))  # what was read is memory of its own, and no view of the file
    assert torch.equal(read["layers.0.weight"], tensors["layers.0.weight"].half())
    assert torch.equal(read["layers.1.weight"], tensors["layers.1.weight"])


def test_precisions_of_stored_tensors(tmp_path, tensors):
    dtypes = dict.fromkeys(tensors, torch.float16) | {"half": torch.float32}
    write_tensors(tmp_path, tensors, dtypes=dtypes)
    assert {name: tensor.dtype for name, tensor in read_tensors(tmp_path).items()} == dtypes


@pytest.mark.parametrize(("size", "files"), [("900", 3), ("1KB", 3), ("5MB", 1), ("5GB", 1), ("1 KB", 3)])
def test_sizes_of_shards_in_words(tmp_path, tensors, size, files):
    write_tensors(tmp_path, tensors, max_shard_size=size)
    assert len(list(tmp_path.glob("*.safetensors"))) == files


@pytest.mark.usefixtures("unchecked_annotations")
@pytest.mark.parametrize("size", [0, -1, 1.5, True, None, "", "5 apples", "GB", "1e9", "0GB", [5]])
def test_sizes_of_shards_that_are_none(tmp_path, tensors, size):
    with pytest.raises(ValueError, match="max_shard_size must be a number of bytes, or a size such as"):
        write_tensors(tmp_path, tensors, max_shard_size=size)
    assert os.listdir(tmp_path) == []


def test_files_that_are_not_ours_stay(tmp_path, tensors):
    """Only the weights that would be taken for the new ones go: those of our names, and shards that an index lists."""
    with writing_folder(tmp_path) as unfinished:
        write_tensors(unfinished, tensors, max_shard_size=900)
    theirs = ["model-ema.safetensors", "model_of_mine.safetensors", "model-00001-of-00009.safetensors", "notes.txt"]
    for name in theirs:
        (tmp_path / name).write_text("mine")
    with writing_folder(tmp_path) as unfinished:
        write_tensors(unfinished, tensors)
    assert sorted(os.listdir(tmp_path)) == sorted(["model.safetensors", *theirs])
    with writing_folder(tmp_path) as unfinished:
        write_tensors(unfinished, tensors, max_shard_size=900)
    assert {"model-00003-of-00003.safetensors", *theirs} < set(os.listdir(tmp_path))
    assert "model.safetensors" not in os.listdir(tmp_path)


def test_a_damaged_index_keeps_nobody_from_saving(tmp_path, tensors):
    (tmp_path / "model.safetensors.index.json").write_text("{")
    with writing_folder(tmp_path) as unfinished:
        write_tensors(unfinished, tensors)
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_an_index_cannot_have_files_elsewhere_removed(tmp_path, tensors):
    (tmp_path / "model-00001-of-00001.safetensors").touch()
    folder = tmp_path / "folder"
    folder.mkdir()
    write_json(folder / "model.safetensors.index.json", {"weight_map": {"a": "../model-00001-of-00001.safetensors"}})
    with writing_folder(folder) as unfinished:
        write_tensors(unfinished, tensors)
    assert (tmp_path / "model-00001-of-00001.safetensors").exists()


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_a_link_to_a_folder_stays_a_link(tmp_path, tensors):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with writing_folder(tmp_path / "link") as unfinished:
        write_tensors(unfinished, tensors)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "elsewhere" / "model.safetensors").is_file()


MORE = replace(PRESETS["tiny"].codec, conv_shortcut=True, num_residual_layers=3, compress=4, num_lstm_layers=0,
               kernel_size=5, last_kernel_size=3, residual_kernel_size=5)  # fmt: skip
FEW_LAYERS = replace(PRESETS["small"].decoder, num_layers=2)
SIZES = {
    "tiny": PRESETS["tiny"],
    "equal widths": replace(PRESETS["tiny"], decoder=replace(PRESETS["tiny"].decoder, hidden_size=512, num_heads=8)),
    "small": replace(PRESETS["small"], decoder=FEW_LAYERS),
    "other codec": replace(PRESETS["tiny"], codec=MORE),
    "gated": replace(PRESETS["tiny"], text_encoder=replace(PRESETS["tiny"].text_encoder, feed_forward="gated-gelu")),
}


@pytest.mark.parametrize("config", SIZES.values(), ids=SIZES)
def test_the_table_of_names_is_that_of_the_models_themselves(config):
    with torch.device("meta"):
        model = MusicGen(config)
    assert dict(expected_shapes(config)) == shapes(named_tensors(model))


def test_a_name_that_is_too_long_is_no_folder_and_none_can_be_made(model, tmp_path):
    folder = tmp_path / ("long" * 100)
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        MusicGen.from_pretrained(folder)
    with pytest.raises(OSError, match=r"^Nothing can be written into .* \(File name too long\): choose another one\.$"):
        model.save_pretrained(folder)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"^Nothing .* \(Not a directory\): choose another one\.$"):
        model.save_pretrained(tmp_path / "file" / "model")


def test_a_folder_that_lets_nobody_write_is_told_in_words(model, tmp_path, monkeypatch):
    def refuse(*args: object, **options: object) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("tempfile.mkdtemp", refuse)  # the administrator, who may run this, could write anywhere
    with pytest.raises(PermissionError, match=r"^Nothing .* \(Permission denied\): choose another one\.$"):
        model.save_pretrained(tmp_path)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("config", "extractor"),
    [({"chroma_length": 10**9}, {}), ({"chroma_length": 10**6}, {}), ({}, {"n_fft": 1}), ({}, {"n_fft": 10**9})],
)
def test_a_melody_that_no_memory_holds_is_refused_when_it_is_opened(config, extractor):
    with pytest.raises(ValueError, match="Its melody has chroma_length="):
        read_melody(config, extractor)
