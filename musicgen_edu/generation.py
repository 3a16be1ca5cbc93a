"""Room 07, second half: the loop that writes codes step by step, for any codebook pattern.

At every step the decoder reads the column of tokens before it and scores the next one of each codebook; guidance
compares these scores with those of no prompt at all; a token is drawn for every cell that holds a frame, and every
other cell gets the special token. (Copet et al. 2023, arXiv:2306.05284, sections 2.2 and 3.1; audiocraft's
`LMModel.generate`, transformers' `MusicgenForConditionalGeneration.generate`.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from musicgen_edu.decoder import DecoderCache, MusicGenDecoder
from musicgen_edu.patterns import CodebookPattern
from musicgen_edu.sampling import apply_guidance, check_guidance_scale, create_generators, filter_logits, sample

TextMask = Int[Tensor, "batch text_tokens"] | Bool[Tensor, "batch text_tokens"]
TextStates = Float[Tensor, "batch text_tokens model_width"]


def generate_codes(
    decoder: MusicGenDecoder,
    text_states: TextStates,
    text_mask: TextMask,
    frames: int,
    pattern: CodebookPattern,
    **settings,
) -> Int[Tensor, "batch codebooks frames"]:
    """Write `frames` frames of codes for each prompt: `iterate_codes`, with the same settings, joined."""
    return torch.cat(list(iterate_codes(decoder, text_states, text_mask, frames, pattern, **settings)), dim=2)


def iterate_codes(
    decoder: MusicGenDecoder,
    text_states: TextStates,
    text_mask: TextMask,
    frames: int,
    pattern: CodebookPattern,
    *,
    seeds: int | Sequence[int] | None = 0,
    temperature: float | int = 1.0,
    top_k: int | None = 250,
    top_p: float | int = 1.0,
    guidance_scale: float | int = 3.0,
    progress: Callable[[int, int], object] | None = None,
) -> Iterator[Int[Tensor, "batch codebooks new_frames"]]:
    """Yield frames of codes as soon as all their codebooks are known; how many come at once depends on the pattern.

    Text states are those after the projection, [batch, text_tokens, model_width]; the mask is 0 on padding. One seed
    is every prompt's own, a list has one a prompt: a prompt's codes do not depend on its neighbours in the batch, but
    for the rounding of a matrix product, which may change with the batch's size (see `sample`). `guidance_scale=1`
    runs no branch without the prompt, `temperature=0` is greedy. `progress(steps_done, steps_in_all)` is called after
    every step. The loop may be left at any point: all that it holds are local variables.
    Raises ValueError or TypeError, at the call, for settings that do not fit.
    """
    _check_fit(decoder, frames, pattern)
    check_guidance_scale(guidance_scale)
    filter_logits(torch.zeros(decoder.config.codebook_size), temperature, top_k, top_p)  # refuses before any work
    generators = create_generators(seeds, len(text_states))

    def choose(logits: Float[Tensor, "batch codebooks codebook_size"]) -> Int[Tensor, "batch codebooks"]:
        return sample(filter_logits(logits, temperature, top_k, top_p), generators)

    predict = _create_predictor(decoder, text_states, text_mask, pattern.steps(frames), guidance_scale)
    start = text_mask.new_full((len(text_states), pattern.codebooks, 1), decoder.config.special_token, dtype=torch.long)
    return _write_steps(predict, choose, start, frames, pattern, progress)


def add_null_condition(text_states: TextStates, text_mask: TextMask) -> tuple[Tensor, Tensor]:
    """Double the batch to [conditional; null]: with no prompt, both the states and the mask are 0."""
    return torch.cat([text_states, torch.zeros_like(text_states)]), torch.cat([text_mask, torch.zeros_like(text_mask)])


def _create_predictor(
    decoder: MusicGenDecoder, text_states: TextStates, text_mask: TextMask, steps: int, guidance_scale: float | int
) -> Callable[[Tensor], Tensor]:
    """Return the function from a column of tokens [batch, codebooks, 1] to the guided scores of the next one."""
    branches = 1 if guidance_scale == 1 else 2
    text_states = text_states.to(decoder.lm_heads[0].weight.dtype)  # a prompt encoded in bf16 does not lower the rest
    if branches == 2:
        text_states, text_mask = add_null_condition(text_states, text_mask)
    cache = DecoderCache(decoder.config, len(text_states), steps, text_states.device, text_states.dtype)

    def predict(column: Int[Tensor, "batch codebooks 1"]) -> Float[Tensor, "batch codebooks codebook_size"]:
        logits = decoder(column.repeat(branches, 1, 1), text_states, text_mask, cache)[:, :, -1].float()
        return logits if branches == 1 else apply_guidance(*logits.chunk(2), guidance_scale)

    return predict


def _write_steps(
    predict: Callable[[Tensor], Tensor],
    choose: Callable[[Tensor], Tensor],
    start: Int[Tensor, "batch codebooks 1"],
    frames: int,
    pattern: CodebookPattern,
    progress: Callable[[int, int], object] | None,
) -> Iterator[Int[Tensor, "batch codebooks new_frames"]]:
    """The loop itself. `start` is the first column, the special token in every codebook."""
    sequence = start.repeat(1, 1, pattern.steps(frames))
    valid = pattern.mask(frames).to(start.device)
    complete_at = pattern.step_index(frames).amax(dim=0)  # the step that brings a frame's last codebook
    last_step, frames_done = sequence.shape[2] - 1, 0
    for step in range(1, last_step + 1):
        with torch.inference_mode(), torch.autocast(start.device.type, enabled=False):  # fp32, even during a training
            tokens = choose(predict(sequence[:, :, step - 1 : step]))
            sequence[:, :, step] = torch.where(valid[:, step], tokens, start[:, :, 0])
        if progress is not None:
            progress(step, last_step)
        complete = int((complete_at <= step).sum())
        if complete > frames_done:
            yield pattern.deinterleave(sequence, frames)[:, :, frames_done:complete]
            frames_done = complete


def _check_fit(decoder: MusicGenDecoder, frames: int, pattern: CodebookPattern) -> None:
    pattern.steps(frames)  # refuses what is no number of frames
    if pattern.codebooks != decoder.config.num_codebooks:
        raise ValueError(
            f"The pattern lays out {pattern.codebooks} codebooks and the decoder writes {decoder.config.num_codebooks}:"
            f" make it with create_pattern({pattern.name!r}, {decoder.config.num_codebooks})."
        )
