"""How files are written: whole or not at all, through links, and under names that can be."""

from __future__ import annotations

import os

import pytest

from musicgen_edu.audio import load_audio
from musicgen_edu.files import write_whole


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


@pytest.mark.parametrize("read", [lambda path: write_whole(path / "a.wav", b""), load_audio])
def test_a_name_of_two_lines_is_said_in_one(tmp_path, read):
    path = tmp_path / "two\nlines"
    if read is load_audio:
        path.write_bytes(b"no sound")
    with pytest.raises((OSError, ValueError), match=r"two\\nlines") as error:
        read(path)
    assert "\n" not in str(error.value)
