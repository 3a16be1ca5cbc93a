"""Tempo, key and chords by definitions that others have published, beside the judges that learned from our renders.

None of these has learned anything, so that nobody can say that the model was trained to please them; and each can be
computed on any other model's music.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from musicgen_edu.composer.score import EIGHTHS, FRAME_RATE, MODES
from musicgen_edu.listening.judges import chromagram, onset_strength

# How well each of the twelve pitch classes fits into a key, the tonic first, as listeners rated it:
# Krumhansl and Kessler 1982, "Tracing the dynamic changes in perceived tonal organization in a spatial representation".
KEY_PROFILES = {
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}
TRIADS = {"major": (0, 4, 7), "minor": (0, 3, 7)}
COLUMNS = 100  # of `onset_strength` a second
PREFERRED_LAG, OCTAVES = 0.5, 0.9  # Ellis 2007, section III.B: listeners tap near 120 beats a minute
OCTAVE_FACTORS = (1.0, 2.0, 3.0, 1 / 2, 1 / 3)  # Gouyon et al. 2006, "Accuracy 2"
TOLERANCE = 0.04  # the same, of the tempo
CHORD_SECONDS = 0.5


def estimate_tempo(waveforms: Float[Tensor, "clips samples"], sample_rate: int) -> Float[Tensor, " clips"]:
    """Beats a minute: the lag at which the attacks repeat best, weighted towards the tempo at which people tap.

    Ellis 2007, "Beat tracking by dynamic programming", section III.B, equation 6, with lags from 0.2 to 2 s.
    """
    strength = onset_strength(waveforms, sample_rate)
    strength = strength - strength.mean(dim=1, keepdim=True)
    correlation = torch.fft.irfft(torch.fft.rfft(strength, 2 * strength.shape[1]).abs().square())
    first, end = COLUMNS // 5, min(2 * COLUMNS, strength.shape[1])
    lags = torch.arange(first, end, dtype=torch.float32, device=waveforms.device)
    weight = torch.exp(-0.5 * (torch.log2(lags / (PREFERRED_LAG * COLUMNS)) / OCTAVES).square())
    return 60 * COLUMNS / lags[(correlation[:, first:end] * weight).argmax(dim=1)]


def tempo_fits(estimates: Float[Tensor, " clips"], words: list[str], octaves: bool) -> Bool[Tensor, " clips"]:
    """Whether an estimate lies within 4 % of a tempo that its word stands for, or (`octaves`) of its simple multiples.

    Gouyon et al. 2006, "An experimental comparison of audio tempo induction algorithms": Accuracy 1 and Accuracy 2.
    """
    fits = []
    for estimate, word in zip(estimates.tolist(), words, strict=True):
        tempos = [60 * FRAME_RATE / (2 * eighth) for eighth in EIGHTHS[word]]
        wanted = [tempo * factor for tempo in tempos for factor in (OCTAVE_FACTORS if octaves else (1.0,))]
        fits.append(any(abs(estimate / tempo - 1) <= TOLERANCE for tempo in wanted))
    return torch.tensor(fits, dtype=torch.bool, device="cpu")


def estimate_key(
    waveforms: Float[Tensor, "clips samples"], sample_rate: int
) -> tuple[Int[Tensor, " clips"], list[str]]:
    """Tonic (pitch class, 0 = C) and mode: the key whose profile correlates best with the mean chroma.

    Krumhansl 1990, "Cognitive Foundations of Musical Pitch", chapter 4 (the Krumhansl-Schmuckler algorithm).
    """
    chroma = _standardise(chromagram(waveforms, sample_rate).mean(dim=2))
    profiles = _standardise(
        torch.tensor([KEY_PROFILES[mode] for mode in MODES], dtype=chroma.dtype, device=chroma.device)
    )
    keys = torch.stack([profile.roll(tonic) for profile in profiles for tonic in range(12)])
    best = (chroma @ keys.T).argmax(dim=1)
    return best % 12, [MODES[index] for index in (best // 12).tolist()]


def track_chords(waveforms: Float[Tensor, "clips samples"], sample_rate: int) -> Int[Tensor, "clips segments"]:
    """The triad of every half second: root (0 = C), plus 12 where it is minor.

    The triad whose three notes' pattern is nearest to the chroma (Fujishima 1999, "Realtime chord recognition of
    musical sound").
    """
    chroma = chromagram(waveforms, sample_rate)
    segments = max(1, round(waveforms.shape[1] / sample_rate / CHORD_SECONDS))
    chroma = F.normalize(F.adaptive_avg_pool1d(chroma, segments), dim=1)
    patterns = torch.zeros(24, 12, dtype=chroma.dtype, device=chroma.device)
    for index, mode in enumerate(MODES):
        for root in range(12):
            patterns[12 * index + root, [(root + step) % 12 for step in TRIADS[mode]]] = 3**-0.5
    return torch.einsum("tp,cps->cts", patterns, chroma).argmax(dim=1)


def chord_figures(chords: Int[Tensor, "clips segments"]) -> dict[str, float]:
    """How harmony moves, as means over clips: different roots, changes a second, and the commonest root's share.

    Music that sits on its tonic has few roots, few changes and a commonest root that is nearly always there.
    """
    roots = F.one_hot(chords % 12, 12).sum(dim=1)
    changes = (chords[:, 1:] != chords[:, :-1]).float().mean() / CHORD_SECONDS
    return {
        "roots": float((roots > 0).sum(dim=1).float().mean()),
        "changes a second": float(changes),
        "share of the commonest root": float((roots.amax(dim=1).float() / chords.shape[1]).mean()),
    }


def _standardise(values: Float[Tensor, "rows 12"]) -> Float[Tensor, "rows 12"]:
    """Rows of mean 0 and length 1, whose products are correlations."""
    return F.normalize(values - values.mean(dim=1, keepdim=True), dim=1)
