"""Room 07, second half: the loop that writes codes step by step, for any codebook pattern.

At every step the decoder reads the column of tokens before it and scores the next one of each codebook; guidance
compares these scores with those of no prompt at all; a token is drawn for every cell that holds a frame, and every
other cell gets the special token. Codes that are known already, as when a clip is to be continued, are read in one
call. (Copet et al. 2023, arXiv:2306.05284, sections 2.2 and 3.1; audiocraft's
`LMModel.generate`, transformers' `MusicgenForConditionalGeneration.generate`.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from musicgen_edu.codec import check_range
from musicgen_edu.conditioning import Condition, Told
from musicgen_edu.config import SamplingSettings
from musicgen_edu.decoder import DecoderCache, MusicGenDecoder
from musicgen_edu.patterns import CodebookPattern
from musicgen_edu.sampling import apply_guidance, check_guidance_scale, create_generators, filter_logits, sample

Codes = Int[Tensor, "batch codebooks frames"]
Progress = Callable[[int, int], object]


def generate_codes(
    decoder: MusicGenDecoder,
    condition: Told,
    frames: int,
    pattern: CodebookPattern,
    settings: SamplingSettings = SamplingSettings(),
    **options,
) -> Codes:
    """Write `frames` frames of codes for each prompt: `iterate_codes`, with the same options, joined."""
    return torch.cat(list(iterate_codes(decoder, condition, frames, pattern, settings, **options)), dim=2)


def iterate_codes(
    decoder: MusicGenDecoder,
    condition: Told,
    frames: int,
    pattern: CodebookPattern,
    settings: SamplingSettings = SamplingSettings(),
    *,
    seed: int | Sequence[int] | None = 0,
    known: Int[Tensor, "batch codebooks known_frames"] | None = None,
    progress: Progress | None = None,
) -> Iterator[Int[Tensor, "batch codebooks new_frames"]]:
    """Yield frames of codes as soon as all their codebooks are known; how many come at once depends on the pattern.

    One seed is every prompt's own, a list has one a prompt: a prompt's codes do not depend on its neighbours in the
    batch, but for the rounding of a matrix product, which may change with the batch's size (see `sample`).
    `guidance_scale=1` runs no branch without the prompt, `temperature=0` is greedy. `known` are the clips' first codes,
    which are counted among the `frames` and come out as they went in. `progress(steps_done, steps_in_all)` is called
    after every step. The loop may be left at any point: all that it holds are local variables. What a
    `ChangingCondition` tells anew counts from the next step on.
    Raises ValueError or TypeError, at the call, for settings that do not fit; ValueError at a step whose scores are not
    finite.
    """
    _check_fit(decoder, condition, frames, pattern, known)
    check_guidance_scale(settings.guidance_scale)
    filters = settings.temperature, settings.top_k, settings.top_p
    size = decoder.config.codebook_size
    filter_logits(torch.zeros(size, device="cpu", dtype=torch.float32), *filters)  # refuses before any work
    generators = create_generators(seed, len(condition))

    def choose(logits: Float[Tensor, "batch codebooks codebook_size"]) -> Int[Tensor, "batch codebooks"]:
        return sample(filter_logits(logits, *filters), generators)

    predict = _create_predictor(decoder, condition, pattern.steps(frames), settings.guidance_scale)
    shape, special_token = (len(condition), pattern.codebooks, frames), decoder.config.special_token
    codes = torch.full(shape, special_token, device=decoder.device, dtype=torch.long)
    known_frames = 0 if known is None else known.shape[2]
    if known_frames:
        codes[:, :, :known_frames] = known
    sequence = pattern.interleave(codes, special_token)
    unknown = (pattern.frame_index(frames) >= known_frames).to(decoder.device)
    return _write_steps(predict, choose, sequence, unknown, frames, pattern, progress)


def _create_predictor(
    decoder: MusicGenDecoder, condition: Told, steps: int, guidance_scale: float | int
) -> Callable[[Tensor], Tensor]:
    """Return the function from the next columns of tokens to the guided scores of the one behind them."""
    branches = 1 if guidance_scale == 1 else 2
    rows, steps = branches * len(condition), steps + condition.prefix_steps
    cache = DecoderCache(decoder.config, rows, steps, decoder.device, decoder.cache_dtype)
    said: Condition | None = None
    told: Condition | None = None

    def listen() -> None:
        nonlocal said, told
        latest = condition.now
        if latest is said:
            return
        said = latest
        told = latest.to(decoder.device, decoder.dtype)  # a prompt encoded in bf16 does not lower the rest
        if branches == 2:
            told = told.with_null()
        for layer in cache.layers:  # keys and values of the words before; the past keeps what it made of them
            layer.text = None

    def predict(columns: Int[Tensor, "batch codebooks steps"]) -> Float[Tensor, "batch codebooks codebook_size"]:
        listen()
        logits = decoder(columns.repeat(branches, 1, 1), told, cache)[:, :, -1].float()
        return logits if branches == 1 else apply_guidance(*logits.chunk(2), guidance_scale)

    return predict


def _write_steps(
    predict: Callable[[Tensor], Tensor],
    choose: Callable[[Tensor], Tensor],
    sequence: Int[Tensor, "batch codebooks steps"],
    unknown: Bool[Tensor, "codebooks steps"],
    frames: int,
    pattern: CodebookPattern,
    progress: Progress | None,
) -> Iterator[Int[Tensor, "batch codebooks new_frames"]]:
    """The loop itself, from the first step with an `unknown` cell on. Other cells of `sequence` stay as they are."""
    complete_at = pattern.step_index(frames).amax(dim=0)  # the step that brings a frame's last codebook
    last_step, frames_done, read = sequence.shape[2] - 1, 0, 0
    for step in range(int(unknown.any(dim=0).nonzero()[0]), last_step + 1):
        # In float32, also while a training with mixed precision goes on around it.
        with torch.inference_mode(), torch.autocast(sequence.device.type, enabled=False):
            tokens = choose(predict(sequence[:, :, read:step]))
            sequence[:, :, step] = torch.where(unknown[:, step], tokens, sequence[:, :, step])
        read = step
        if progress is not None:
            progress(step, last_step)
        complete = int((complete_at <= step).sum())
        if complete > frames_done:
            yield pattern.deinterleave(sequence, frames)[:, :, frames_done:complete]
            frames_done = complete


def _check_fit(
    decoder: MusicGenDecoder, condition: Told, frames: int, pattern: CodebookPattern, known: Tensor | None
) -> None:
    pattern.steps(frames)  # refuses what is no number of frames
    if pattern.codebooks != decoder.config.num_codebooks:
        raise ValueError(
            f"The pattern lays out {pattern.codebooks} codebooks and the decoder writes {decoder.config.num_codebooks}:"
            f" make it with create_pattern({pattern.name!r}, {decoder.config.num_codebooks})."
        )
    if known is None:
        return
    if known.shape[:2] != (len(condition), pattern.codebooks) or known.shape[2] >= frames:
        raise ValueError(
            f"The known codes have shape {list(known.shape)}: there must be {len(condition)} clips of "
            f"{pattern.codebooks} codebooks and fewer frames than the {frames} that are asked for."
        )
    check_range(known, decoder.config.codebook_size)
