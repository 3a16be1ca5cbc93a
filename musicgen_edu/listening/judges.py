"""Judges: small classifiers that hear in a clip what a caption may say of it. They train in seconds, on real renders.

Each task listens to what its word is about and to nothing else: timbre without level, rhythm as the time between
attacks, mode as pitch classes in an order that a transposition only rotates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from musicgen_edu.composer.score import INSTRUMENTS, LOUDNESSES, MODES, TEMPOS, TEXTURES, Attributes
from musicgen_edu.spectrogram import log_mel

RANGE_DB = 25.0  # how far below a clip's loudest moment a judge of timbre listens: further down is the codec's noise
JUDGES = ("real-trained", "codec-trained", "other-composer")  # by what they learned from (`measurements.train_all`)
SEGMENTS = 10  # a clip's harmony is described segment by segment
Features = dict[str, Tensor]  # name -> [clips, …]


@dataclass(frozen=True)
class Task:
    """One question about a clip: which attribute, its possible answers, and the features that it is judged by."""

    attribute: str
    answers: tuple
    features: tuple[str, ...]

    def label(self, attributes: Attributes) -> int:
        """The index of the right answer."""
        return self.answers.index(getattr(attributes, self.attribute))


TASKS = {
    "instrument": Task("instrument", INSTRUMENTS, ("timbre",)),
    "drums": Task("drums", (False, True), ("timbre",)),
    "loudness": Task("loudness", LOUDNESSES, ("level", "timbre")),
    "tempo": Task("tempo", TEMPOS, ("rhythm",)),
    "mode": Task("mode", MODES, ("harmony",)),
    "texture": Task("texture", TEXTURES, ("rhythm", "motion")),
}


def extract_features(waveforms: Float[Tensor, "clips samples"], sample_rate: int) -> Features:
    """What the judges hear in each clip: its timbre, level, rhythm, harmony and motion."""
    mel = log_mel(waveforms, sample_rate)
    chroma = chromagram(waveforms, sample_rate)
    return {
        "timbre": timbre(mel), "level": level(mel), "rhythm": rhythm(waveforms, sample_rate),
        "harmony": harmony(chroma), "motion": motion(chroma),
    }  # fmt: skip


def timbre(mel: Float[Tensor, "clips bands columns"]) -> Float[Tensor, "clips features"]:
    """How the spectrum's shape is spread over time, and how it moves; the same for a clip played louder."""
    shape = (mel - mel.amax(dim=(1, 2), keepdim=True)).clamp(min=-RANGE_DB)
    moves = shape.diff(dim=2)
    rises, falls = moves.clamp(min=0).mean(dim=2), moves.clamp(max=0).mean(dim=2)
    return torch.cat([*_quantiles(shape), shape.std(dim=2), rises, falls, *_quantiles(moves, (0.9, 0.97))], dim=1)


def level(mel: Float[Tensor, "clips bands columns"]) -> Float[Tensor, "clips features"]:
    """How loud each band is over time, in dB against full scale."""
    return torch.cat(_quantiles(mel), dim=1)


def _quantiles(
    values: Float[Tensor, "clips bands columns"], shares: Sequence[float] = (0.1, 0.5, 0.9)
) -> list[Float[Tensor, "clips bands"]]:
    """What so large a share of a band's columns stay below; sorting is much faster than `torch.quantile`."""
    ranked, last = values.sort(dim=2).values, values.shape[2] - 1
    return [ranked[:, :, round(share * last)] for share in shares]


def onset_strength(waveforms: Float[Tensor, "clips samples"], sample_rate: int) -> Float[Tensor, "clips columns"]:
    """How much louder the mel bands get, a hundred times a second: the peaks are attacks."""
    mel = log_mel(waveforms, sample_rate, n_fft=sample_rate // 25, bands=40)
    return mel.diff(dim=2).clamp(min=0).mean(dim=1)


def rhythm(waveforms: Float[Tensor, "clips samples"], sample_rate: int) -> Float[Tensor, "clips lags"]:
    """Autocorrelation of the attacks, up to two seconds apart: 1 where the attacks of a clip repeat exactly."""
    strength = onset_strength(waveforms, sample_rate)
    strength = strength - strength.mean(dim=1, keepdim=True)
    power = torch.fft.rfft(strength, 2 * strength.shape[1]).abs().square()
    correlation = torch.fft.irfft(power)[:, :200]
    return correlation[:, 1:] / correlation[:, :1].clamp(min=1e-6)


def chromagram(waveforms: Float[Tensor, "clips samples"], sample_rate: int) -> Float[Tensor, "clips 12 columns"]:
    """Energy of each pitch class (0 = C), whatever its octave, twenty times a second; a column sums to 1."""
    n_fft = sample_rate // 4
    like = dict(dtype=waveforms.dtype, device=waveforms.device)
    window = torch.hann_window(n_fft, **like)
    spectrum = torch.stft(waveforms, n_fft, n_fft // 5, window=window, return_complex=True).abs()
    frequencies = torch.fft.rfftfreq(n_fft, 1 / sample_rate, **like)
    heard = (frequencies > 100) & (frequencies < 2000)
    pitch = 69 + 12 * torch.log2(frequencies[heard] / 440)
    distance = (pitch[None] - torch.arange(12, **like)[:, None] + 6) % 12 - 6
    chroma = torch.exp(-0.5 * (distance / 0.3).square()) @ spectrum[:, heard]
    return chroma / chroma.sum(dim=1, keepdim=True).clamp(min=1e-6)


def harmony(chroma: Float[Tensor, "clips 12 columns"]) -> Float[Tensor, "clips segments 12"]:
    """The pitch classes of each tenth of a clip."""
    return F.adaptive_avg_pool1d(chroma, SEGMENTS).transpose(1, 2)


def motion(chroma: Float[Tensor, "clips 12 columns"]) -> Float[Tensor, "clips features"]:
    """How many pitch classes sound at once, and how alike moments up to two seconds apart are: in any key the same."""
    ranked = chroma.sort(dim=1, descending=True).values
    unit = F.normalize(chroma, dim=1)
    alike = [(unit[:, :, lag:] * unit[:, :, :-lag]).sum(dim=1).mean(dim=1) for lag in range(1, 41)]
    return torch.cat([ranked.mean(dim=2), ranked.std(dim=2), torch.stack(alike, dim=1)], dim=1)


class Judge(nn.Module):
    """Answers one task's question from a clip's features: standardised, then one hidden layer.

    Harmony is heard as a ring of twelve pitch classes: a convolution around it and a mean over its positions make the
    answer the same in every key.
    """

    def __init__(self, task: Task, features: Features, hidden: int = 64):
        super().__init__()
        self.task = task
        inputs = self._inputs(features)
        self.on_ring = inputs.dim() == 3
        alike = (0, 2) if self.on_ring else (0,)  # no pitch class is standardised apart from the others
        self.register_buffer("mean", inputs.mean(dim=alike, keepdim=True))
        self.register_buffer("deviation", inputs.std(dim=alike, keepdim=True).clamp(min=1e-3))
        width, like = inputs.shape[1], dict(dtype=inputs.dtype, device=inputs.device)
        first = nn.Conv1d(width, hidden, 12, **like) if self.on_ring else nn.Linear(width, hidden, **like)
        self.first = nn.Sequential(nn.Dropout(0.2), first, nn.ReLU())
        self.last = nn.Linear(hidden, len(task.answers), **like)

    def forward(self, features: Features) -> Float[Tensor, "clips answers"]:
        """Scores of the answers; softmax makes probabilities of them."""
        inputs = (self._inputs(features) - self.mean) / self.deviation
        if self.on_ring:
            return self.last(self.first(torch.cat([inputs, inputs[:, :, :-1]], dim=2)).mean(dim=2))
        return self.last(self.first(inputs))

    def _inputs(self, features: Features) -> Tensor:
        parts = [features[name] for name in self.task.features]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def train_judge(
    task: Task, features: Features, attributes: Sequence[Attributes], seed: int = 0, epochs: int = 40
) -> Judge:
    """Train a judge on clips whose attributes are known. The same seed gives the same judge."""
    labels = torch.tensor([task.label(each) for each in attributes], dtype=torch.long, device="cpu")
    features = {name: features[name] for name in task.features}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        judge = Judge(task, features)
        optimizer = torch.optim.AdamW(judge.parameters(), lr=3e-3, weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
        for _ in range(epochs):
            for rows in torch.randperm(len(labels), dtype=torch.long, device="cpu").split(64):
                loss = F.cross_entropy(judge({name: values[rows] for name, values in features.items()}), labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            schedule.step()
    return judge.eval()


def train_judges(features: Features, attributes: Sequence[Attributes], seed: int = 0) -> dict[str, Judge]:
    """One judge a task."""
    return {name: train_judge(task, features, attributes, seed) for name, task in TASKS.items()}


@torch.no_grad()
def confusion(
    judge: Judge, features: Features, attributes: Sequence[Attributes], named: Sequence[frozenset[str]] | None = None
) -> Int[Tensor, "right heard"]:
    """How many clips of each right answer (a row) a judge hears as each answer (a column).

    `named` tells which attributes each clip's prompt spoke of: a clip answers for no others.
    """
    labels = torch.tensor([judge.task.label(each) for each in attributes], dtype=torch.long, device="cpu")
    asked = torch.ones_like(labels, dtype=torch.bool)
    if named is not None:
        asked = torch.tensor([judge.task.attribute in each for each in named], dtype=torch.bool, device="cpu")
    heard, answers = judge(features).argmax(dim=1), len(judge.task.answers)
    return torch.bincount((labels * answers + heard)[asked], minlength=answers**2).view(answers, answers)


def right_answers(
    judge: Judge, features: Features, attributes: Sequence[Attributes], named: Sequence[frozenset[str]] | None = None
) -> tuple[int, int]:
    """How many clips a judge hears as their attributes say, and how many it was asked about; see `confusion`."""
    counts = confusion(judge, features, attributes, named)
    return int(counts.diagonal().sum()), int(counts.sum())
