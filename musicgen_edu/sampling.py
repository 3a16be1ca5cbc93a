"""Room 07, first half: from the decoder's scores (logits) to one token of every codebook.

Each function takes logits and gives logits, so that they chain; the last one, `sample`, draws:

    apply_guidance → apply_temperature → keep_top_k → keep_top_p → sample

A token that may not be drawn has the score −∞. MusicGen's defaults are a guidance of 3, a temperature of 1 and the
250 likeliest tokens (Copet et al. 2023, arXiv:2306.05284, section 3.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral

import torch
from jaxtyping import Float, Int
from torch import Tensor

from musicgen_edu._checks import check_number
from musicgen_edu.config import check_setting

MAX_SEED = 2**63 - 1
GREEDY_BELOW = 1e-6  # a division by less would only overflow


def apply_guidance(
    conditional: Float[Tensor, "*batch codebook_size"], null: Float[Tensor, "*batch codebook_size"], scale: float | int
) -> Float[Tensor, "*batch codebook_size"]:
    """Classifier-free guidance: go from the scores without the prompt towards those with it, and `scale` times as far.

    A scale of 0 ignores the prompt, 1 is the conditional model itself, more than 1 exaggerates what the prompt
    changes. Raises ValueError for a negative or not finite scale.
    Source: Ho & Salimans 2022, arXiv:2207.12598; audiocraft's `LMModel._sample_next_token`.
    """
    check_setting("guidance_scale", scale)
    return null + (conditional - null) * float(scale)


def apply_temperature(
    logits: Float[Tensor, "*batch codebook_size"], temperature: float | int
) -> Float[Tensor, "*batch codebook_size"]:
    """Divide by the temperature: below 1 the likely tokens gain, above 1 the unlikely ones do.

    The limit 0 is greedy: only the best token keeps its score, the first of equals.
    Raises ValueError for a negative or not finite temperature.
    """
    check_setting("temperature", temperature)
    if temperature < GREEDY_BELOW:
        best = logits.argmax(dim=-1, keepdim=True)
        return torch.full_like(logits, -math.inf).scatter(-1, best, logits.gather(-1, best))
    return logits / float(temperature)


def keep_top_k(logits: Float[Tensor, "*batch codebook_size"], top_k: int) -> Float[Tensor, "*batch codebook_size"]:
    """Keep the `top_k` best tokens and those that equal the last of them; 0 keeps all.

    Raises ValueError unless `top_k` lies between 0 and the codebook's size. Source: Fan et al. 2018, arXiv:1805.04833.
    """
    size = logits.shape[-1]
    check_number(
        f"top_k must be a whole number from 0 (all) to the codebook's {size} entries", top_k, Integral, 0, size
    )
    if top_k == 0:
        return logits
    # By its score, not by its place: of equal tokens none is cut off for standing behind the other.
    worst_kept = logits.topk(top_k, dim=-1).values[..., -1:]
    return logits.masked_fill(logits < worst_kept, -math.inf)


def keep_top_p(
    logits: Float[Tensor, "*batch codebook_size"], top_p: float | int
) -> Float[Tensor, "*batch codebook_size"]:
    """Keep the fewest best tokens whose probabilities reach `top_p` together; 1 keeps all.

    Raises ValueError unless 0 < top_p <= 1. Source: Holtzman et al. 2020, arXiv:1904.09751, section 3.1.
    """
    check_setting("top_p", top_p)
    if top_p == 1:  # the sum of all probabilities may round to less than 1
        return logits
    ranked, order = logits.sort(dim=-1, descending=True)
    probability = ranked.softmax(dim=-1)
    mass_before = probability.cumsum(dim=-1) - probability  # 0 at the best token, which is therefore always kept
    unwanted = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, mass_before >= top_p)
    return logits.masked_fill(unwanted, -math.inf)


def filter_logits(
    logits: Float[Tensor, "*batch codebook_size"], temperature: float | int, top_k: int, top_p: float | int
) -> Float[Tensor, "*batch codebook_size"]:
    """`apply_temperature`, `keep_top_k` and `keep_top_p` in this order, which is transformers'."""
    return keep_top_p(keep_top_k(apply_temperature(logits, temperature), top_k), top_p)


def sample(
    logits: Float[Tensor, "batch codebooks codebook_size"], generators: list[torch.Generator]
) -> Int[Tensor, "batch codebooks"]:
    """Draw a token of every codebook, with probability softmax(logits); the generators advance.

    Each row has a generator of its own, on the CPU whatever the logits' device, and takes as many random numbers from
    it whatever the logits are: so a row's draws do not depend on its neighbours. The Gumbel-max trick (Maddison et al.
    2014, arXiv:1411.0030) draws: the argmax of logits plus Gumbel noise is such a sample. It forgives rounding:
    where logits differ by 1e-6, as they may between batch sizes, about one draw in a million does.
    Raises ValueError unless there is one generator a row, and where a best score is not finite: argmax would take NaN
    for the first code, and broken weights would become music.
    """
    if len(generators) != logits.shape[0]:
        raise ValueError(f"sample needs one generator a row: {logits.shape[0]} rows, {len(generators)} generators.")
    if not logits.amax(dim=-1).isfinite().all():
        raise ValueError(
            "The decoder's scores are no finite numbers: weights are broken, or their precision is too low for their "
            "size; load them anew, in float32."
        )
    shape = logits.shape[1:]
    noise = [torch.empty(shape, device="cpu", dtype=torch.float32) for _ in generators]
    waiting_times = torch.stack(
        [times.exponential_(generator=generator) for times, generator in zip(noise, generators, strict=True)]
    )
    # Minus the logarithm of a waiting time is Gumbel noise. Token i's wait, divided by its probability, is that for the
    # first bus of a line that comes so often: whichever comes first is drawn as often as its probability says.
    return (logits - waiting_times.to(logits).log()).argmax(dim=-1)


def create_generators(seed: int | Sequence[int] | None, batch: int) -> list[torch.Generator]:
    """Make one random generator a prompt, on the CPU: `seed` is one number for all of them or a list, one for each.

    None takes seeds from the operating system, so that no two calls are alike.
    Raises ValueError for a wrong number of seeds or one outside 0 … `MAX_SEED`, TypeError for one that is no whole
    number.
    """
    generators = [torch.Generator(device="cpu") for _ in range(batch)]
    if seed is None:
        for generator in generators:
            generator.seed()
        return generators
    seeds = list(seed) if isinstance(seed, Sequence) and not isinstance(seed, str | bytes) else [seed] * batch
    if len(seeds) != batch:
        raise ValueError(f"There must be one seed, or one a prompt: {len(seeds)} seeds for {batch} prompts.")
    for each in seeds:
        check_number(f"A seed must be a whole number from 0 to {MAX_SEED}", each, Integral, 0, MAX_SEED)
    return [generator.manual_seed(int(each)) for generator, each in zip(generators, seeds, strict=True)]


def seeds_of_samples(seed: int | Sequence[int] | None, prompts: int, samples: int) -> list[int] | None:
    """Return one seed a clip, where each prompt has several: its own seed, the next number, and so on.

    So each of them can be made again alone. None stays None; raises what `create_generators` raises.
    """
    if seed is None:
        return None
    own = [generator.initial_seed() for generator in create_generators(seed, prompts)]
    return [each + sample for each in own for sample in range(samples)]
