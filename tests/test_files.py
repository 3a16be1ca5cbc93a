"""How files are written: whole or not at all, through links, and under names that can be."""

from __future__ import annotations

import os

import pytest

from musicgen_edu.audio import load_audio
from musicgen_edu.checkpoints.tensors import list_tensors, read_config, read_json, writing_folder
from musicgen_edu.classroom.class_test import read_notebook
from musicgen_edu.files import write_whole
from musicgen_edu.inspection.training_curves import read_log, read_logs
from musicgen_edu.listening.evaluation import read_training_codes
from musicgen_edu.tokenizer import Tokenizer
from musicgen_edu.training.audio_folder import find_captions
from musicgen_edu.training.data import load_tensors


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_a_link_stays_one_and_leads_to_what_is_written(tmp_path):
    target, link = tmp_path / "elsewhere" / "piano.wav", tmp_path / "link.wav"
    target.parent.mkdir()
    link.symlink_to(target)  # leads nowhere yet
    for content in (b"first", b"second"):
        write_whole(link, content)
        assert link.is_symlink() and target.read_bytes() == content
        assert os.listdir(target.parent) == ["piano.wav"]


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_a_name_that_nothing_can_have(tmp_path, name):
    with pytest.raises(ValueError, match="No file can be named"):
        write_whole(tmp_path / name, b"")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_a_pipe_is_not_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(OSError, match="which is a pipe or a device"):
        write_whole(tmp_path / "pipe.wav", b"")
    assert (tmp_path / "pipe.wav").is_fifo() and os.listdir(tmp_path) == ["pipe.wav"]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="choose a folder that exists"):
        write_whole(tmp_path / "no" / "file", b"")


# Whatever takes a path or reads a folder, given one whose name has two lines: a file of no use, or nothing at all.
TAKERS = {
    "write": lambda path: write_whole(path / "a.wav", b""),
    "save": lambda path: writing_folder(path).__enter__(),
    "sound": load_audio,
    "no sound": lambda path: load_audio(path / "none"),
    "notebook": read_notebook,
    "log": read_log,
    "logs": lambda path: read_logs(path.with_name("no\nwhere")),
    "json": read_json,
    "checkpoint": lambda path: read_config(path, ("musicgen",)),
    "no weights": lambda path: list_tensors(path.parent / "a\nfolder"),
    "pickle": lambda path: list_tensors(path.parent / "a\nfolder of old"),
    "tokenizer": lambda path: Tokenizer(path / "none"),
    "codes": lambda path: read_training_codes(path.parent / "a\nfolder"),
    "tensors": load_tensors,
    "table": lambda path: list(find_captions(path.parent)),
}


@pytest.mark.skipif(os.name == "nt", reason="no name has two lines there")
@pytest.mark.parametrize("name", TAKERS)
def test_a_name_of_two_lines_is_said_in_one(tmp_path, name):
    path = tmp_path / "two\nlines.csv"
    path.write_bytes(b"\xff no such thing")
    (tmp_path / "a\nfolder").mkdir()
    (tmp_path / "a\nfolder of old").mkdir()
    (tmp_path / "a\nfolder of old" / "old\nweights.bin").touch()
    with pytest.raises((OSError, ValueError), match=r"(two|no|a)\\n(lines|where|folder)") as error:
        TAKERS[name](path)
    assert "\n" not in str(error.value)
