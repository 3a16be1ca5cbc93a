"""Room 15, first half: a folder of somebody's own sound, read, cut to the codec's measure and encoded once."""

from __future__ import annotations

import csv
import hashlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from musicgen_edu._checks import check_path
from musicgen_edu.audio import load_audio
from musicgen_edu.checkpoints.tensors import fingerprint
from musicgen_edu.codec import Codec
from musicgen_edu.files import one_line
from musicgen_edu.training.data import load_tensors, save_tensors

SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".opus")
SHORTEST = 0.5  # seconds: less is hardly music, and its end would be mostly padding
PIECE = 1_500  # frames that are encoded at a time: a codec needs memory for all of them at once
SILENCE = 1e-4  # a peak below this is no sound


@dataclass(frozen=True)
class CaptionedCodes:
    """A clip as the decoder learns it: what is said of it, and its codes."""

    caption: str
    codes: Int[Tensor, "codebooks frames"]


def read_audio_folder(folder: str | os.PathLike, codec: Codec, cache: str | os.PathLike) -> list[CaptionedCodes]:
    """Encode every audio file of `folder` that has a caption; files that cannot be used are named in a warning.

    A caption is a text file beside the audio (`drone.wav`, `drone.txt`), or a line of the folder's one CSV table with
    the columns `file` and `caption`. Any sample rate and number of channels goes; channels are mixed to one. Codes are
    kept in `cache` and made again only where the file or the codec is another.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: no file can be used, or the table is none.
    """
    folder, cache = check_path(folder), check_path(cache)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"There is no folder {one_line(folder)}: name the one that holds your audio files.")
    of_codec = fingerprint(codec.state_dict())
    clips = []
    for file, caption in tqdm(list(find_captions(folder)), "encode", leave=False, disable=None):
        try:
            key = hashlib.sha256(of_codec.encode() + file.read_bytes()).hexdigest()[:32]
            clips.append(CaptionedCodes(caption, _cached_codes(file, codec, cache / f"{key}.safetensors")))
        except (ValueError, OSError) as error:
            _leave_out(file, folder, str(error))
    if not clips:
        raise ValueError(
            f"{one_line(folder)} holds no audio file that can be used: put a text file with a caption beside each "
            "(drone.wav, drone.txt), or one CSV table with the columns file and caption."
        )
    return clips


def find_captions(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield each audio file with its caption, in order; what lacks one or the other is named in a warning."""
    tables = sorted(file for file in folder.iterdir() if file.suffix.lower() == ".csv")
    if len(tables) > 1:
        two = one_line(f"{tables[0].name}, {tables[1].name}")
        raise ValueError(f"{one_line(folder)} holds more than one CSV table ({two}): keep one.")
    for file, caption in _read_table(tables[0]) if tables else _read_sidecars(folder):
        if not os.path.isfile(file):  # not Path.is_file, which some names break
            _leave_out(file, folder, "there is no such file.")
        elif not any(letter.isalnum() for letter in caption):
            _leave_out(file, folder, "it has no caption in words, as UTF-8 text.")
        else:
            yield file, " ".join(caption.split())


def _read_table(table: Path) -> Iterator[tuple[Path, str]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines)
            if not {"file", "caption"} <= set(rows.fieldnames or ()):
                raise ValueError("it needs the columns file and caption")
            listed = [(table.parent / (row["file"] or ""), row["caption"] or "") for row in rows]
    except (ValueError, csv.Error) as error:
        raise ValueError(f"The table {one_line(table)} cannot be read: {error}.") from error
    return iter(listed)


def _read_sidecars(folder: Path) -> Iterator[tuple[Path, str]]:
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in SOUNDS:
            texts = (file.with_suffix(suffix) for suffix in (".txt", ".TXT"))
            yield file, next((_read_caption(text) for text in texts if text.is_file()), "")


def _read_caption(text: Path) -> str:
    """What a text file says; nothing where it is no UTF-8, which would be learned as other letters."""
    try:
        return text.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark of their own
    except UnicodeDecodeError:
        return ""


def _leave_out(file: Path, folder: Path, reason: str) -> None:
    name = file.relative_to(folder) if file.is_relative_to(folder) else file
    warnings.warn(f"{one_line(name)} is left out: {reason}", stacklevel=3)


def _cached_codes(file: Path, codec: Codec, kept: Path) -> Int[Tensor, "codebooks frames"]:
    if not kept.exists():
        waveform = _read_sound(file, codec.config.sample_rate)
        pieces = waveform.split(PIECE * codec.config.hop_length, dim=2)
        codes = torch.cat([codec.encode(piece) for piece in pieces], dim=2)[0]
        save_tensors({"codes": codes.short()}, kept)
    return load_tensors(kept)["codes"].long()


def _read_sound(file: Path, sample_rate: int) -> Float[Tensor, "1 1 samples"]:
    """The channels' mean at the codec's rate."""
    audio = load_audio(file, sample_rate, channels=1)
    if audio.duration < SHORTEST:
        raise ValueError(f"it is shorter than {SHORTEST:g} s.")
    if audio.waveform.abs().max() < SILENCE:
        raise ValueError("it is silent.")
    return audio.waveform
