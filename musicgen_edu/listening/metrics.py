"""The measures of room 13: pure functions on waveforms, features and codes. None knows a model or a prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from musicgen_edu.spectrogram import log_mel

NORMAL_95 = 1.959964  # 95 % of a normal distribution lie within so many standard deviations of its mean


def si_sdr(estimate: Float[Tensor, "clips samples"], target: Float[Tensor, "clips samples"]) -> Float[Tensor, " clips"]:
    """Scale-invariant signal-to-distortion ratio in dB: the part of the estimate along the target against the rest.

    Le Roux et al. 2018, "SDR – half-baked or well done?", arXiv:1811.02508, equation 3.
    """
    estimate, target = estimate.double(), target.double()
    scale = (estimate * target).sum(dim=1, keepdim=True) / target.square().sum(dim=1, keepdim=True).clamp(min=1e-12)
    projection = scale * target
    rest = (estimate - projection).square().sum(dim=1)
    return (10 * torch.log10((projection.square().sum(dim=1) + 1e-12) / (rest + 1e-12))).float()


def mean_interval(values: Float[Tensor, " values"]) -> tuple[float, float, float]:
    """Mean of independent values with its 95 % interval, from the normal approximation: (mean, low, high)."""
    mean = float(values.mean())
    half = NORMAL_95 * float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return mean, mean - half, mean + half


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a proportion; unlike mean ± 2 deviations it stays within 0 … 1 and never has width 0.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference".

    Raises:
        ValueError: there was no trial, or there were more successes than trials.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"A proportion needs at least one trial and no more successes, not {successes}/{trials}.")
    from scipy.stats import binomtest  # loaded when it is used

    low, high = binomtest(successes, trials).proportion_ci(0.95, "wilson")
    return float(low), float(high)


def frechet_distance(first: Float[Tensor, "clips features"], second: Float[Tensor, "others features"]) -> float:
    """Fréchet distance between the normal distributions that have each set's mean and covariance.

    |m₁ − m₂|² + tr(C₁ + C₂ − 2 (C₁C₂)^½): Heusel et al. 2017, arXiv:1706.08500, equation 6. The trace of the root is
    taken from the symmetric C₁^½ C₂ C₁^½, whose eigenvalues are those of C₁C₂.
    """
    first, second = first.double(), second.double()
    covariance, other = torch.cov(first.T), torch.cov(second.T)
    values, vectors = torch.linalg.eigh(covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ other @ root).clamp(min=0).sqrt().sum()
    shift = (first.mean(dim=0) - second.mean(dim=0)).square().sum()
    return max(0.0, float(shift + covariance.trace() + other.trace() - 2 * cross))


def mel_statistics(
    waveforms: Float[Tensor, "clips samples"], sample_rate: int, bands: int = 24
) -> Float[Tensor, "seconds features"]:
    """Each second of each clip as the mean and the deviation over time of its log-mel bands, in dB."""
    whole = waveforms.shape[1] // sample_rate * sample_rate
    mel = log_mel(waveforms[:, :whole].reshape(-1, sample_rate), sample_rate, bands=bands)
    return torch.cat([mel.mean(dim=2), mel.std(dim=2)], dim=1)


def diversity(waveforms: Float[Tensor, "clips samples"], sample_rate: int) -> float:
    """How different clips are: the mean absolute difference of their log-mel spectrograms in dB, over all pairs."""
    mel = log_mel(waveforms, sample_rate)
    distances = [(mel[i] - mel[j]).abs().mean() for i in range(len(mel)) for j in range(i)]
    return float(torch.stack(distances).mean())


def longest_shared_runs(codes: Int[Tensor, "clips frames"], corpus: Sequence[Tensor]) -> Int[Tensor, " clips"]:
    """For each clip, the most successive frames that stand, in the same order, in some clip of the corpus.

    Every window of codes gets a 64-bit hash; the windows that are found in the corpus are made one frame longer, until
    none is found any more.

    Args:
        codes: one symbol a frame, 0 or more (`join_codebooks` makes one of several codebooks).
        corpus: tensors [clips, frames] of such symbols, each of its own length.
    """
    symbols = F.pad(codes.long(), (0, 1), value=-1).flatten()  # a separator, so that no run crosses clips
    others = torch.cat([F.pad(part.long(), (0, 1), value=-2).flatten() for part in corpus])
    starts, places = (torch.arange(len(each), dtype=torch.long, device=each.device) for each in (symbols, others))
    hashes, their_hashes = torch.zeros_like(starts), torch.zeros_like(places)
    longest = torch.zeros(len(codes), dtype=torch.long, device=codes.device)
    while True:
        step = int(longest.max())
        hashes, their_hashes = _extend(hashes, symbols[starts + step]), _extend(their_hashes, others[places + step])
        found = torch.isin(hashes, their_hashes)
        kept = torch.isin(their_hashes, hashes)
        starts, hashes, places, their_hashes = starts[found], hashes[found], places[kept], their_hashes[kept]
        if not len(starts):
            return longest
        longest[starts // (codes.shape[1] + 1)] = step + 1


def _extend(hashes: Int[Tensor, "*windows"], symbols: Int[Tensor, "*windows"]) -> Int[Tensor, "*windows"]:
    """A window's hash after one more symbol: a polynomial modulo 2⁶⁴, with bits mixed in from the upper half.

    The shift copies the sign, which is then 0 in every hash.
    """
    hashes = (hashes + symbols + 0x632BE59BD9B4E019) * 0x5851F42D4C957F2D
    return hashes ^ (hashes >> 32)


def join_codebooks(codes: Int[Tensor, "clips codebooks frames"]) -> Int[Tensor, "clips frames"]:
    """All codes of a frame as one number, 0 or more, so that two frames are equal where all their codes are.

    The number is a hash of 63 bits: 8 codebooks of 2,048 entries have 2⁸⁸ frames, which no integer of PyTorch's counts.
    """
    joined = torch.zeros_like(codes[:, 0], dtype=torch.long)
    for codebook in codes.long().unbind(dim=1):
        joined = _extend(joined, codebook)
    return joined


def bigram_cross_entropy(
    codes: Int[Tensor, "clips codebooks frames"], corpus: Sequence[Tensor], codebook_size: int
) -> float:
    """Mean surprise in nats at codes whose probabilities are read from a table of the corpus: what follows what.

    One table a codebook. A pair's count is smoothed by ten virtual sightings that follow the code's own frequency, and
    that by one sighting of each code.
    """
    surprises = []
    for codebook in range(codes.shape[1]):
        rows = [part[:, codebook].long() for part in corpus]
        pairs = torch.cat([(row[:, :-1] * codebook_size + row[:, 1:]).flatten() for row in rows])
        counts = torch.bincount(pairs, minlength=codebook_size**2).view(codebook_size, codebook_size).double()
        single = (counts.sum(dim=0) + 1) / (counts.sum() + codebook_size)
        table = (counts + 10 * single) / (counts.sum(dim=1, keepdim=True) + 10)
        before, after = codes[:, codebook, :-1].long(), codes[:, codebook, 1:].long()
        surprises.append(-table[before, after].log().mean())
    return float(torch.stack(surprises).mean())
