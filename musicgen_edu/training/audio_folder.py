"""Room 15, first half: a folder of somebody's own sound, read, cut to the codec's measure and encoded once."""

from __future__ import annotations

import csv
import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from musicgen_edu.audio import load_audio
from musicgen_edu.checkpoints.tensors import fingerprint
from musicgen_edu.codec import Codec
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


def read_audio_folder(folder: Path, codec: Codec, cache: Path) -> list[CaptionedCodes]:
    """Encode every audio file of `folder` that has a caption; files that cannot be used are named in a warning.

    A caption is a text file beside the audio (`drone.wav`, `drone.txt`), or a line of the folder's one CSV table with
    the columns `file` and `caption`. Any sample rate and number of channels goes; channels are mixed to one. Codes are
    kept in `cache` and made again only where the file or the codec is another.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: no file can be used, or the table is none.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}: name the folder that holds your audio files.")
    of_codec = fingerprint(codec.state_dict())
    clips = []
    for file, caption in tqdm(list(find_captions(folder)), "encode", leave=False, disable=None):
        try:
            key = hashlib.sha256(of_codec.encode() + file.read_bytes()).hexdigest()[:32]
            clips.append(CaptionedCodes(caption, _cached_codes(file, codec, cache / f"{key}.safetensors")))
        except (ValueError, OSError) as error:
            _leave_out(file.relative_to(folder), str(error))
    if not clips:
        raise ValueError(
            f"{folder} holds no audio file that can be used: put a text file with a caption beside each "
            "(drone.wav, drone.txt), or one CSV table with the columns file and caption."
        )
    return clips


def find_captions(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield each audio file with its caption, in order; what lacks one or the other is named in a warning."""
    tables = sorted(folder.glob("*.csv"))
    if len(tables) > 1:
        raise ValueError(f"{folder} holds more than one CSV table ({tables[0].name}, {tables[1].name}): keep one.")
    for file, caption in _read_table(tables[0]) if tables else _read_sidecars(folder):
        name = file.relative_to(folder)
        if not file.is_file():
            _leave_out(name, "there is no such file.")
        elif not caption.strip():
            _leave_out(name, "it has no caption.")
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
        raise ValueError(f"The table {table} cannot be read: {error}.") from error
    return iter(listed)


def _read_sidecars(folder: Path) -> Iterator[tuple[Path, str]]:
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in SOUNDS:
            text = file.with_suffix(".txt")
            yield file, text.read_text(encoding="utf-8", errors="replace") if text.is_file() else ""


def _leave_out(name: Path, reason: str) -> None:
    warnings.warn(f"{name} is left out: {reason}", stacklevel=3)


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
