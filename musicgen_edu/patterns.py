"""Room 05: how the K codebooks of a clip are laid out in time, so that one decoder step can predict several codes.

One idea carries the whole family. Each codebook is written along a straight line: frame t of codebook k stands at

    step = 1 + start[k] + stride[k] * t

and step 0 belongs to the special token that starts every clip. A pattern is a choice of starts and strides; the table
that says which frame each cell (codebook, step) holds, the validity mask, interleaving and its inverse follow from it.

The patterns are those of MusicGen (Copet et al. 2023, arXiv:2306.05284, section 2.2 and table 4) and behave as in
audiocraft's `codebooks_patterns.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from musicgen_edu._checks import LARGEST, check_codes, check_number
from musicgen_edu.config import MusicGenConfig

MOST = 1_000  # codebooks of a pattern, and steps of a delay: more would only fill the memory
Line = tuple[int, int]  # (start, stride) of one codebook


def _delayed(delays: Sequence[int], frames: int) -> list[Line]:
    """A delay counts steps: a new frame every step, codebook k some steps late."""
    return [(delay, 1) for delay in delays]


def _flattened(delays: Sequence[int], frames: int) -> list[Line]:
    """A delay counts places within a frame: the next frame starts when the last codebook has had its turn."""
    return [(delay, max(delays) + 1) for delay in delays]


def _in_passes(delays: Sequence[int], frames: int) -> list[Line]:
    """A delay counts whole passes over the clip: codebooks of one pass run in parallel."""
    return [(delay * frames, 1) for delay in delays]


def _in_flattened_passes(delays: Sequence[int], frames: int) -> list[Line]:
    """A delay counts whole passes over the clip: codebooks of one pass take turns within each frame."""
    earlier = [delays.index(delay) for delay in delays]  # codebooks of the passes before; the delays ascend
    # Those passes took `before * frames` steps. Then codebook k is the (k − before)th of its own pass, to which it
    # comes back after as many steps as the pass has codebooks.
    return [(before * frames + k - before, delays.count(delays[k])) for k, before in enumerate(earlier)]


@dataclass(frozen=True)
class PatternRule:
    """What a name stands for: how delays become lines, and the delay that codebook k has unless told otherwise."""

    lines: Callable[[Sequence[int], int], list[Line]]
    default_delay: Callable[[int], int]


PATTERNS = {
    "delay": PatternRule(_delayed, lambda k: k),
    "parallel": PatternRule(_delayed, lambda k: 0),
    "partial_delay": PatternRule(_delayed, lambda k: min(k, 1)),
    "flatten": PatternRule(_flattened, lambda k: k),
    "partial_flatten": PatternRule(_flattened, lambda k: min(k, 1)),
    "coarse_first": PatternRule(_in_passes, lambda k: min(k, 1)),
    "musiclm": PatternRule(_in_flattened_passes, lambda k: k // 2),
}


@dataclass(frozen=True)
class CodebookPattern:
    """A layout of codebooks in time; `create_pattern` makes one by name.

    `codes` are [batch, codebooks, frames], as the codec gives them; a `sequence` is [batch, codebooks, steps], as the
    decoder reads it, with the special token in every cell that holds no frame. Codebook k's frames ascend along the
    steps, and a cell holds at most one frame.
    """

    name: str
    delays: tuple[int, ...]  # one a codebook

    @property
    def codebooks(self) -> int:
        """How many codebooks the pattern lays out."""
        return len(self.delays)

    def steps(self, frames: int) -> int:
        """How many steps the sequence of so many frames has, step 0 included."""
        return _tables(self, frames)[0].shape[1]

    def frame_index(self, frames: int) -> Int[Tensor, "codebooks steps"]:
        """The frame that each cell holds, -1 where it holds none; step 0 is all -1."""
        return _tables(self, frames)[0].clone()

    def step_index(self, frames: int) -> Int[Tensor, "codebooks frames"]:
        """The step at which each code stands: the inverse of `frame_index`."""
        return _tables(self, frames)[1].clone()

    def mask(self, frames: int) -> Bool[Tensor, "codebooks steps"]:
        """True where a cell holds a frame: the loss counts these cells, and generation samples them."""
        return _tables(self, frames)[0] >= 0

    def interleave(
        self, codes: Int[Tensor, "batch codebooks frames"], special_token: int
    ) -> Int[Tensor, "batch codebooks steps"]:
        """Lay codes out in time. Raises ValueError if the number of codebooks is not the pattern's."""
        codes = check_codes(codes)
        self._check_codebooks(codes)
        batch, codebooks, frames = codes.shape
        sequence = codes.new_full((batch, codebooks, self.steps(frames)), special_token)
        sequence[self._cells(frames, codes.device)] = codes
        return sequence

    def deinterleave(
        self,
        sequence: Shaped[Tensor, "batch codebooks steps *rest"],
        frames: int | None = None,
        first_step: int = 0,
    ) -> Shaped[Tensor, "batch codebooks frames *rest"]:
        """Bring a sequence back to frames; axes after the steps, such as the logits' codebook_size, stay as they are.

        `first_step` is the step of the sequence's first column: 0 for tokens, 1 for the logits that a decoder gives
        on steps 0 … steps − 2, since each of them predicts the step after it. Without `frames`, the length tells.
        Raises ValueError if the sequence's size does not fit the pattern.
        """
        self._check_codebooks(sequence)
        steps = sequence.shape[2] + first_step
        frames = self._frames(steps) if frames is None else frames
        if self.steps(frames) > steps:
            raise ValueError(f"{frames} frames need {self.steps(frames)} steps; the sequence has {steps}.")
        return sequence[self._cells(frames, sequence.device, first_step)]

    def _frames(self, steps: int) -> int:
        """The inverse of `steps`, which grows by the same amount with every frame."""
        shortest, growth = self.steps(1), self.steps(2) - self.steps(1)  # two lengths tell a straight line
        if steps < shortest or (steps - shortest) % growth:
            raise ValueError(
                f"{steps} steps are no whole number of frames in the {self.name} pattern of {self.codebooks} codebooks "
                f"({shortest} steps for 1 frame, {growth} more for every further one)."
            )
        return 1 + (steps - shortest) // growth

    def _cells(self, frames: int, device: torch.device, first_step: int = 0) -> tuple[slice, Tensor, Tensor]:
        """The index that picks the cells [batch, codebooks, frames] out of a sequence."""
        rows = torch.arange(self.codebooks, dtype=torch.long, device=device)[:, None]
        return slice(None), rows, _tables(self, frames)[1].to(device) - first_step

    def _check_codebooks(self, tensor: Shaped[Tensor, "batch codebooks ..."]) -> None:
        if tensor.shape[1] != self.codebooks:
            raise ValueError(f"The {self.name} pattern is for {self.codebooks} codebooks; got {tensor.shape[1]}.")


@lru_cache(maxsize=64, typed=True)
@torch.inference_mode(False)  # a table first made while generating must also serve training
def _tables(
    pattern: CodebookPattern, frames: int
) -> tuple[Int[Tensor, "codebooks steps"], Int[Tensor, "codebooks frames"]]:
    """`frame_index` and `step_index`; kept, because training and generation ask for the same lengths again."""
    frames = check_number("frames must be a whole number of at least 1", frames, Integral, 1, LARGEST)
    lines = torch.tensor(PATTERNS[pattern.name].lines(pattern.delays, frames), dtype=torch.long, device="cpu")
    start, stride = lines[:, :1], lines[:, 1:]
    frame = torch.arange(frames, dtype=torch.long, device="cpu").expand(pattern.codebooks, frames)
    step_index = 1 + start + stride * frame
    shape = pattern.codebooks, int(step_index.max()) + 1
    frame_index = torch.full(shape, -1, dtype=torch.long, device="cpu")
    return frame_index.scatter(1, step_index, frame), step_index  # frame t of codebook k goes to the step of its line


def create_pattern(name: str, codebooks: int, delays: Sequence[int] | None = None) -> CodebookPattern:
    """Make the pattern of this name (a key of `PATTERNS`) for this many codebooks.

    `delays`, one a codebook and ascending, replace the pattern's own: stereo MusicGen, whose codebooks alternate
    left and right, is `create_pattern("delay", 8, delays=[0, 0, 1, 1, 2, 2, 3, 3])`. They count steps in the delaying
    patterns, places within a frame in the flattening ones, passes over the clip in coarse_first and musiclm.
    Raises ValueError for an unknown name, a number of codebooks outside 1 … `MOST`, or delays that do not fit,
    TypeError where these are no whole numbers.
    """
    if not isinstance(name, str) or name not in PATTERNS:
        raise ValueError(f"There is no codebook pattern {name!r}; choose one of {', '.join(PATTERNS)}.")
    wanted = f"codebooks must be a whole number from 1 to {MOST:,}"
    codebooks = check_number(wanted, codebooks, Integral, 1, MOST)
    if delays is None:
        delays = [PATTERNS[name].default_delay(k) for k in range(codebooks)]
    wanted = f"delays must be {codebooks} ascending whole numbers from 0 to {MOST:,}"
    if isinstance(delays, str) or not isinstance(delays, Iterable):
        raise TypeError(f"{wanted}, not {delays!r:.60}.")
    delays = [check_number(wanted, delay, Integral, 0, MOST) for delay in delays]
    if len(delays) != codebooks or delays != sorted(delays):
        raise ValueError(f"{wanted}, not {delays}.")
    return CodebookPattern(name, tuple(delays))


def pattern_of(config: MusicGenConfig) -> CodebookPattern:
    """Return a model's pattern. The channels of stereo have equal delays: its codebooks are laid out pair by pair.

    Raises ValueError for an unknown name or codebooks that the channels cannot share.
    """
    codebooks, channels = config.decoder.num_codebooks, config.decoder.audio_channels
    if codebooks % channels:
        raise ValueError(f"num_codebooks={codebooks} cannot be shared by audio_channels={channels}: take a multiple.")
    own = create_pattern(config.pattern, codebooks // channels).delays
    return create_pattern(config.pattern, codebooks, [delay for delay in own for _ in range(channels)])
