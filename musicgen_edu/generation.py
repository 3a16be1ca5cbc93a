"""Room 07, second half: the loop that writes codes step by step, for any codebook pattern.

At every step the decoder reads the column of tokens before it and scores the next one of each codebook; guidance
compares these scores with those of no prompt at all; a token is drawn for every cell that holds a frame, and every
other cell gets the special token. Codes that are known already, as when a clip is to be continued, are read in one
call; so windows that overlap make clips longer than any that the decoder was trained on. (Copet et al. 2023,
arXiv:2306.05284, sections 2.2 and 3.1; audiocraft's `LMModel.generate`, transformers'
`MusicgenForConditionalGeneration.generate`.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from musicgen_edu._checks import check_codes, check_progress
from musicgen_edu.codec import check_range
from musicgen_edu.conditioning import Condition, Told
from musicgen_edu.config import SamplingSettings
from musicgen_edu.decoder import DecoderCache, MusicGenDecoder
from musicgen_edu.devices import own_precision
from musicgen_edu.patterns import CodebookPattern
from musicgen_edu.sampling import apply_guidance, create_generators, filter_logits, sample

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
    check_progress(progress)
    choose = _create_chooser(decoder, settings, create_generators(seed, len(condition)))
    return _write(decoder, condition, frames, pattern, settings.guidance_scale, choose, known, progress)


def iterate_windows(
    decoder: MusicGenDecoder,
    condition: Told,
    frames: int,
    pattern: CodebookPattern,
    settings: SamplingSettings = SamplingSettings(),
    *,
    window: int,
    stride: int,
    seed: int | Sequence[int] | None = 0,
    known: Int[Tensor, "batch codebooks known_frames"] | None = None,
    progress: Progress | None = None,
) -> Iterator[Int[Tensor, "batch codebooks new_frames"]]:
    """Yield the frames of clips longer than the decoder holds together, window after window; else as `iterate_codes`.

    A window has `window` frames. The next one starts `stride` frames later, with a cache and positions of its own; what
    the two share, `window − stride` frames, are its known codes, and stay as they are. So the memory that is needed
    does not grow with `frames`, and up to `window` frames are the very ones of `iterate_codes`. The random numbers go
    on from window to window.
    Raises what `iterate_codes` raises, and ValueError for windows that `plan_windows` refuses.
    Source: audiocraft's `MusicGen._generate_tokens`.
    """
    _check_fit(decoder, condition, frames, pattern, known)
    check_progress(progress)
    windows = plan_windows(frames, window, stride, 0 if known is None else known.shape[2])
    choose = _create_chooser(decoder, settings, create_generators(seed, len(condition)))

    def write(length: int, known: Codes | None, progress: Progress | None) -> Iterator[Codes]:
        return _write(decoder, condition, length, pattern, settings.guidance_scale, choose, known, progress)

    return _slide(write, windows, stride, known, [pattern.steps(end - start) - 1 for start, end in windows], progress)


def plan_windows(frames: int, window: int, stride: int, known_frames: int = 0) -> list[tuple[int, int]]:
    """Return the first frame of each window and the one behind its last.

    A beginning that fills a window on its own is left but for the `window − stride` frames that the first one shares
    with it. Raises ValueError unless 0 < stride < window.
    """
    if not 0 < stride < window:
        raise ValueError(
            f"The stride must be at least 1 frame and less than the window, so that windows overlap: "
            f"not {stride} frames of {window}."
        )
    first = 0 if known_frames < window else known_frames - (window - stride)
    starts = [first, *range(first + stride, frames - (window - stride), stride)]
    return [(start, min(start + window, frames)) for start in starts]


def _slide(
    write: Callable[[int, Codes | None, Progress | None], Iterator[Codes]],
    windows: list[tuple[int, int]],
    stride: int,
    known: Codes | None,
    steps: list[int],
    progress: Progress | None,
) -> Iterator[Int[Tensor, "batch codebooks new_frames"]]:
    """`write` each window with what it shares with the one before, and yield what no window has yielded yet."""
    done = windows[0][0]
    if done:
        yield known[:, :, :done]
    shared = None if known is None else known[:, :, done:]
    for index, (start, end) in enumerate(windows):
        pieces, written = [], start
        for piece in write(end - start, shared, _shifted(progress, sum(steps[:index]), sum(steps))):
            pieces.append(piece)
            written += piece.shape[2]
            if written > done:
                yield piece[:, :, done - written :]
                done = written
        shared = torch.cat(pieces, dim=2)[:, :, stride:]


def _shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    """The progress of one window, as part of all of them."""
    return progress and (lambda step, _: progress(before + step, total))


def _create_chooser(
    decoder: MusicGenDecoder, settings: SamplingSettings, generators: list[torch.Generator]
) -> Callable[[Tensor], Tensor]:
    """Return the function from scores to one token of each codebook; refuses settings that do not fit."""
    filters = settings.temperature, settings.top_k, settings.top_p
    size = decoder.config.codebook_size
    filter_logits(torch.zeros(size, device="cpu", dtype=torch.float32), *filters)  # refuses before any work

    def choose(logits: Float[Tensor, "batch codebooks codebook_size"]) -> Int[Tensor, "batch codebooks"]:
        return sample(filter_logits(logits, *filters), generators)

    return choose


def _write(
    decoder: MusicGenDecoder,
    condition: Told,
    frames: int,
    pattern: CodebookPattern,
    guidance_scale: float | int,
    choose: Callable[[Tensor], Tensor],
    known: Codes | None,
    progress: Progress | None,
) -> Iterator[Int[Tensor, "batch codebooks new_frames"]]:
    """Write one window: lay the known codes into the pattern, and go on from there."""
    predict = _create_predictor(decoder, condition, pattern.steps(frames), guidance_scale)
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
        latest = condition.at_next_step()
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
        with torch.inference_mode(), own_precision(sequence.device):
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
    known = check_codes(known)
    if known.shape[:2] != (len(condition), pattern.codebooks) or known.shape[2] >= frames:
        raise ValueError(
            f"The known codes have shape {list(known.shape)}: there must be {len(condition)} clips of "
            f"{pattern.codebooks} codebooks and fewer frames than the {frames} that are asked for."
        )
    check_range(known, decoder.config.codebook_size)
