"""The samples that come with the package, for who has no FluidSynth: renders of each instrument, and codes of clips.

`training/data.py` made them (`save_samples`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Bool, Int
from safetensors.torch import load_file
from torch import Tensor

from musicgen_edu.audio import Audio, load_audio

SHIPPED = Path(__file__).parents[1] / "data"


@dataclass
class CodedClips:
    """What the decoder learns from: codes, what a caption may say of each clip, and where something is struck."""

    codes: Int[Tensor, "clips codebooks frames"]
    attributes: Int[Tensor, " clips"]  # index into ALL_ATTRIBUTES
    onsets: Bool[Tensor, "clips frames"]
    partners: list[list[int]] | None = None  # for each clip those that may stand before it, if it is to be spliced
    changes: Bool[Tensor, "clips frames"] | None = None  # where a new chord begins, if that is to weigh more


def shipped_codes() -> CodedClips:
    """Codes of training clips of five seconds, for who has no FluidSynth: they come with the package."""
    return CodedClips(**load_file(SHIPPED / "codes.safetensors"))


def shipped_clips() -> dict[str, Audio]:
    """A short render of each instrument, as FluidSynth played it before any codec."""
    return {file.stem.replace("-", " "): load_audio(file) for file in sorted(SHIPPED.glob("*.flac"))}
