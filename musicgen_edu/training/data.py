"""The music that training learns from: composed, rendered, and (for the decoder) encoded once, kept as safetensors."""

from __future__ import annotations

import io
import math
import random
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
import torch
from jaxtyping import Bool, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from tqdm import tqdm

from musicgen_edu.codec import Codec
from musicgen_edu.composer.compose import LEAD_IN, OWN_HABITS, Habits, chord_eighths, compose
from musicgen_edu.composer.render import SAMPLE_RATE, Renderer
from musicgen_edu.composer.samples import CodedClips
from musicgen_edu.composer.score import (
    ALL_ATTRIBUTES,
    EIGHTHS,
    FRAME_RATE,
    INSTRUMENTS,
    MODES,
    TEXTURES,
    Attributes,
    Piece,
    draw_attributes,
)
from musicgen_edu.files import one_line, write_whole

SHARD = 500  # clips that are rendered and encoded at a time: what a kill can cost


@dataclass(frozen=True)
class ClipGroup:
    """Clips of one length. `share` is how often training takes a batch from this group.

    `spliced` clips begin with another clip's music, in the other mode (see `find_partners`).
    """

    frames: int
    clips: int
    share: float
    spliced: bool = False


def compose_clip(frames: int, seed: int, held_out: bool = False, habits: Habits = OWN_HABITS) -> Piece:
    """The piece of this seed, its attributes drawn too: among those that training sees, or the held-out ones."""
    rng = random.Random(f"{seed} {frames} {held_out}")
    return compose(draw_attributes(rng, held_out), frames, rng, habits)


def render_clips(
    renderer: Renderer, frames: int, seeds: range, held_out: bool = False, habits: Habits = OWN_HABITS
) -> Int[Tensor, "clips 1 samples"]:
    """The clips of these seeds as 16-bit samples."""
    clips = [renderer.render(compose_clip(frames, seed, held_out, habits)) for seed in seeds]
    return torch.from_numpy(np.round(np.stack(clips) * 32767).astype(np.int16))[:, None]


def to_float(samples: Int[Tensor, "*shape"]) -> Tensor:
    """16-bit samples as float in [-1, 1]."""
    return samples.float() / 32767


def cached_waveforms(file: Path, frames: int, clips: int) -> Int[Tensor, "clips 1 samples"]:
    """Clips 0 … clips − 1, rendered at the first call and kept: FluidSynth's dither differs by a bit each time."""
    if not file.exists():
        renderer = Renderer()
        parts = [render_clips(renderer, frames, seeds) for seeds in _shards(clips, "render")]
        save_tensors({"waveforms": torch.cat(parts)}, file)
    return load_tensors(file)["waveforms"]


def find_partners(clips: CodedClips) -> list[list[int]]:
    """For each clip the numbers of those that differ from it in the mode alone and share its grid of eighths.

    Such a clip, cut off where this one strikes something, is a past from which the caption must lead away.
    """
    alike = defaultdict(list)
    kinds = []
    for number, (index, onsets) in enumerate(zip(clips.attributes, clips.onsets, strict=True)):
        attributes = ALL_ATTRIBUTES[index]
        kinds.append((replace(attributes, mode=MODES[0]), _frames_in_an_eighth(attributes, onsets)))
        alike[kinds[-1], attributes.mode].append(number)
    other = dict(zip(MODES, reversed(MODES), strict=True))
    return [alike[kind, other[ALL_ATTRIBUTES[index].mode]] for kind, index in zip(kinds, clips.attributes, strict=True)]


def find_changes(clips: CodedClips) -> Bool[Tensor, "clips frames"]:
    """The frames in which a new chord begins, the first one left out: there harmony is decided, and nowhere else."""
    changes = torch.zeros_like(clips.onsets)
    for row, index, onsets in zip(changes, clips.attributes, clips.onsets, strict=True):
        attributes = ALL_ATTRIBUTES[index]
        chord = chord_eighths(attributes.tempo) * _frames_in_an_eighth(attributes, onsets)
        row[LEAD_IN + chord :: chord] = True
    return changes


def _frames_in_an_eighth(attributes: Attributes, onsets: Bool[Tensor, " frames"]) -> int:
    """The grid on which a clip's onsets lie, among those of its tempo."""
    step = math.gcd(*(frame - LEAD_IN for frame in onsets.nonzero().flatten().tolist()))
    return next(frames for frames in EIGHTHS[attributes.tempo] if step % frames == 0)


def cached_codes(folder: Path, group: ClipGroup, codec: Codec) -> CodedClips:
    """The clips of a group, composed, rendered and encoded at the first call, shard by shard."""
    renderer, shards = None, []
    for index, seeds in enumerate(_shards(group.clips, f"encode {group.frames}")):
        file = folder / f"codes-{group.frames}-{index:03d}.safetensors"
        if not file.exists():
            renderer = renderer or Renderer()
            pieces = [compose_clip(group.frames, seed) for seed in seeds]
            save_tensors(_encode(pieces, renderer, codec), file)
        shards.append(load_tensors(file))
    clips = CodedClips(*(torch.cat([shard[name] for shard in shards]) for name in ("codes", "attributes", "onsets")))
    partners = find_partners(clips) if group.spliced else None
    return replace(clips, partners=partners, changes=find_changes(clips))


def save_samples(folder: Path, clips: CodedClips, count: int = 1_500, seconds: int = 4) -> None:
    """Write what `shipped_codes` and `shipped_clips` read: `count` clips' codes, and a render of each instrument."""
    save_tensors({name: getattr(clips, name)[:count].clone() for name in ("codes", "attributes", "onsets")},
          folder / "codes.safetensors")  # fmt: skip
    renderer, rng = Renderer(), random.Random("shipped clips")
    for instrument in INSTRUMENTS:
        attributes = Attributes(instrument, "medium", rng.choice(MODES), "loud", rng.choice(TEXTURES), False)
        waveform = renderer.render(compose(attributes, seconds * FRAME_RATE, rng))
        content = io.BytesIO()
        soundfile.write(content, waveform, SAMPLE_RATE, format="FLAC")
        write_whole(folder / f"{instrument.replace(' ', '-')}.flac", content.getvalue())


def _encode(pieces: list[Piece], renderer: Renderer, codec: Codec, batch: int = 20) -> dict[str, Tensor]:
    codes, device = [], next(codec.parameters()).device
    for start in range(0, len(pieces), batch):
        waveforms = np.stack([renderer.render(piece) for piece in pieces[start : start + batch]])
        codes.append(codec.encode(torch.from_numpy(waveforms)[:, None].to(device)).short().cpu())
    onsets = torch.zeros(len(pieces), pieces[0].frames, dtype=torch.bool, device="cpu")
    for row, piece in zip(onsets, pieces, strict=True):
        row[piece.onsets] = True
    attributes = [ALL_ATTRIBUTES.index(piece.attributes) for piece in pieces]
    attributes = torch.tensor(attributes, dtype=torch.int16, device="cpu")
    return {"codes": torch.cat(codes), "attributes": attributes, "onsets": onsets}


def _shards(clips: int, title: str):
    starts = range(0, clips, SHARD)
    return (range(start, min(start + SHARD, clips)) for start in tqdm(starts, title, leave=False))


def save_tensors(tensors: dict[str, Tensor], file: Path) -> None:
    """Write tensors as safetensors, whole or not at all, in a folder that is made if it is not there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, save({name: tensor.contiguous() for name, tensor in tensors.items()}))


def load_tensors(file: Path) -> dict[str, Tensor]:
    """Read what `save_tensors` wrote. Raises ValueError where the file is damaged."""
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{one_line(file)} is damaged ({error}): delete it, and it is made again.") from error
