"""Room 09: the codec's decoder alone, behind codes that stay as they are, so that no MusicGen has to learn new ones.

First by spectrograms, then against a discriminator. A distance of spectrograms is least where the decoder plays the
mean of all that may be meant: what the codes do not tell exactly, a harmonic's phase above 4 kHz, comes out soft and
blurred. A discriminator asks for sound that *could* be real instead (Défossez et al. 2022, arXiv:2210.13438, section
3.4; `encodec.msstftd` has its network, but 0.1.1 has no balancer: see `balanced`).

All is computed in float32: once the codec is good, gradients in bfloat16 point far away from those in float32 (RUNS.md,
round five).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from encodec.msstftd import MultiScaleSTFTDiscriminator
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from musicgen_edu.codec import Codec
from musicgen_edu.devices import own_precision
from musicgen_edu.spectrogram import log_mel_pairs
from musicgen_edu.training.codec import noise_to_signal
from musicgen_edu.training.codec_start import convolutions, norm_and_direction

AUDIBLE_DB = 40.0  # what lies further below a segment's loudest moment is hardly heard
ATTACK_WEIGHT = 5.0  # see `heard_distance`
PARTIAL_WINDOWS = (2048, 1024, 512, 256, 128)  # samples: long ones tell harmonics from noise, short ones hear attacks
EMPHASIS = 0.95  # of the first-order filter that brings the highs near the lows: 26 dB up at 0.4 of the sample rate
# Bands of hertz in which loud moments of the highs are compared, see `loud_distances`: narrow ones by their mean
# (windows of 16 to 64 ms), wide ones by their median.
NARROW_BANDS, NARROW_WINDOWS = tuple(range(3_000, 8_001, 250)), (1024, 512, 256)
WIDE_BANDS, WIDE_WINDOWS = (2_000, 3_200, 4_600, 6_200, 8_000), (1024, 256)
DISCRIMINATOR_WINDOWS = (2048, 512)
DISCRIMINATOR_FILTERS = 8  # a quarter of EnCodec's, for two cores
WEIGHTS = {"noise": 0.1, "heard": 0.3, "partials": 3.0, "narrow": 1.0, "wide": 2.0}  # of the losses before that
# Each loss's share of the gradient that reaches the decoder.
SHARES = {"noise": 0.1, "heard": 0.5, "partials": 1.5, "fooled": 1.0, "alike": 1.0}


class SharpenObjective(nn.Module):
    """The decoder, with losses that hear: spectrograms count more than samples do, and only where they are audible."""

    def __init__(self, codec: Codec):
        super().__init__()
        self.codec = codec
        codec.encoder.requires_grad_(False)
        # A few numbers near 0.001 carry the scale of all latents: one step of Adam would throw it off.
        norm_and_direction(convolutions(codec.decoder)[0])[0].requires_grad_(False)

    def forward(self, waveform: Float[Tensor, "batch channels samples"]) -> dict[str, Tensor]:
        """The loss and its parts: error against signal, distances as heard in dB, of partials and of loud highs."""
        with own_precision(waveform.device):
            rebuilt = self._rebuild(waveform)
            losses = self._distances(rebuilt, waveform) | self._loud_distances(rebuilt, waveform)
        loss = sum(weight * losses[name] for name, weight in WEIGHTS.items())
        return {"loss": loss, **_figures(losses)}

    def _rebuild(self, waveform: Tensor) -> Tensor:
        with torch.no_grad():
            latents = self.codec.dequantize(self.codec.encode(waveform))
        return self.codec.decoder(latents)

    def _distances(self, rebuilt: Tensor, waveform: Tensor) -> dict[str, Tensor]:
        return {
            "noise": noise_to_signal(rebuilt, waveform).mean(),
            "heard": heard_distance(rebuilt, waveform, self.codec.config.sample_rate),
            "partials": partials_distance(rebuilt, waveform),
        }

    def _loud_distances(self, rebuilt: Tensor, waveform: Tensor) -> dict[str, Tensor]:
        narrow, wide = loud_distances(rebuilt, waveform, self.codec.config.sample_rate)
        return {"narrow": narrow, "wide": wide}


class AdversarialObjective(SharpenObjective):
    """The decoder against a discriminator, which learns at the same time to tell its sound from real sound.

    One backward pass serves both. The discriminator's own loss (hinge, Lim and Ye 2017, arXiv:1705.02894) sees the
    decoder's sound cut off from the decoder; the decoder's losses see the discriminator's weights as constants.
    """

    rates = {"discriminator": 5.0}  # it begins at random, and has less time than EnCodec's million steps

    def __init__(self, codec: Codec):
        super().__init__(codec)
        windows = list(DISCRIMINATOR_WINDOWS)
        self.discriminator = MultiScaleSTFTDiscriminator(
            filters=DISCRIMINATOR_FILTERS, n_ffts=windows, win_lengths=windows, hop_lengths=[n // 4 for n in windows]
        )

    def forward(self, waveform: Float[Tensor, "batch channels samples"]) -> dict[str, Tensor]:
        """The loss and its parts; "judged" is the discriminator's own, 2 where it cannot tell real from rebuilt."""
        with own_precision(waveform.device):
            rebuilt = self._rebuild(waveform)
            level = emphasise(waveform).square().mean(dim=(1, 2), keepdim=True).add(1e-6).rsqrt()
            scores, maps = self.discriminator(emphasise(waveform) * level)
            judged = sum(F.relu(1 - real).mean() for real in scores) / len(scores)
            judged = judged + sum(
                F.relu(1 + fake).mean() for fake in self.discriminator(emphasise(rebuilt.detach()) * level)[0]
            ) / len(scores)
            heard = rebuilt.detach().requires_grad_()
            losses = self._distances(heard, waveform) | self._adversarial(emphasise(heard) * level, maps)
            gradient = balanced(losses, heard)
        return {"loss": (rebuilt * gradient).sum() + judged, "judged": judged.detach(), **_figures(losses)}

    def _adversarial(self, rebuilt: Tensor, real_maps: list[list[Tensor]]) -> dict[str, Tensor]:
        """How far the discriminator is from being fooled, and how differently it sees real and rebuilt sound."""
        constants = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
        scores, maps = functional_call(self.discriminator, constants, (rebuilt,))
        pairs = [(got, real.detach()) for each, others in zip(maps, real_maps, strict=True)
                 for got, real in zip(each, others, strict=True)]  # fmt: skip
        alike = sum((got - real).abs().mean() / real.abs().mean() for got, real in pairs) / len(pairs)
        return {"fooled": sum(F.relu(1 - score).mean() for score in scores) / len(scores), "alike": alike}


def balanced(losses: dict[str, Tensor], rebuilt: Tensor) -> Tensor:
    """The gradient at the decoder's output, to which each loss gives its share of `SHARES`, whatever its scale.

    Défossez et al. 2022, section 3.4, "Balancer"; there the norms are averaged over steps, here they are the step's.
    """
    total = torch.zeros_like(rebuilt)
    for name, loss in losses.items():
        gradient = torch.autograd.grad(loss, rebuilt, retain_graph=True)[0]
        total += SHARES[name] * gradient / gradient.norm().clamp(min=1e-9)
    return total


def heard_distance(rebuilt: Tensor, waveform: Tensor, sample_rate: int) -> Float[Tensor, ""]:
    """`mel_distance` as it is heard: only down to `AUDIBLE_DB` under the loudest point, and attacks count more.

    An attack is short and tells much of what instrument it is. Where a band has just become 10 dB louder, its
    difference counts `1 + ATTACK_WEIGHT` times, for four columns.
    """
    distances = []
    for got, wanted in log_mel_pairs(rebuilt, waveform, sample_rate):
        floor = wanted.amax(dim=(1, 2), keepdim=True) - AUDIBLE_DB
        wanted, got = torch.maximum(wanted, floor), torch.maximum(got, floor)
        rise = F.max_pool1d(F.pad(wanted.diff(dim=2).clamp(min=0), (4, 0)), 4, stride=1)
        weight = 1 + ATTACK_WEIGHT * rise / 10
        distances.append(((got - wanted).abs() * weight).sum() / weight.sum())
    return torch.stack(distances).mean()


def partials_distance(rebuilt: Tensor, waveform: Tensor) -> Float[Tensor, ""]:
    """How far the root of the amplitudes is off, over its mean, on a linear axis of frequency; over five windows.

    Of mel bands only a quarter lies above 4 kHz, each wider than the distance of two harmonics. Here half of all bins
    lie there, the filter makes them as loud as the lows, and a thin line that is missing counts by its amplitude: in
    decibels a thousand bins of faint noise would outweigh it.
    """
    distances = []
    for n_fft in PARTIAL_WINDOWS:
        got, wanted = (_root_amplitude(emphasise(each)[:, 0], n_fft) for each in (rebuilt, waveform))
        scale = wanted.mean(dim=(1, 2), keepdim=True) + 0.01  # in silence nothing is divided by nothing
        distances.append(((got - wanted).abs() / scale).mean())
    return torch.stack(distances).mean()


def loud_distances(rebuilt: Tensor, waveform: Tensor, sample_rate: int) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """How far the amplitudes of high bands are off, as shares of the clip's own: in narrow bands and in wide ones.

    Both are of amplitudes and not of their decibels, so that the loudest moments count most: a music box's attack. In
    narrow bands squares are compared, which are least at the mean; the root or the decibels of what is mostly silent
    are least near silence, and there the partials went. Where in a wide band a partial lies does not matter: what the
    codes do not tell is made up at the right loudness, in place of everything that it may be, each too soft.
    """
    narrow, wide = [], []
    for n_fft in NARROW_WINDOWS:
        got, wanted = (_band_amplitudes(each, n_fft, NARROW_BANDS, sample_rate) for each in (rebuilt, waveform))
        error, all_of_it = ((each.square()).sum(dim=(1, 2)) for each in (got - wanted, wanted))
        narrow.append((error / (all_of_it + 1e-4) + 1e-6).sqrt().mean())
    for n_fft in WIDE_WINDOWS:
        got, wanted = (_band_amplitudes(each, n_fft, WIDE_BANDS, sample_rate) for each in (rebuilt, waveform))
        wide.append(((got - wanted).abs().mean(dim=(1, 2)) / (wanted.mean(dim=(1, 2)) + 2.5e-4)).mean())
    return torch.stack(narrow).mean(), torch.stack(wide).mean()


def emphasise(waveform: Float[Tensor, "batch channels samples"]) -> Float[Tensor, "batch channels samples"]:
    """The waveform less most of the sample before: pre-emphasis, which lifts the highs."""
    return waveform - EMPHASIS * F.pad(waveform, (1, 0))[..., :-1]


def _root_amplitude(waveform: Float[Tensor, "batch samples"], n_fft: int) -> Float[Tensor, "batch bins columns"]:
    return (_power(waveform, n_fft) + 1e-10).pow(0.25)  # the root's slope at zero is infinite


def _band_amplitudes(
    waveform: Float[Tensor, "batch channels samples"], n_fft: int, edges: Sequence[int], sample_rate: int
) -> Float[Tensor, "batch bands columns"]:
    """The amplitude of all that lies between one edge and the next, in hertz, after pre-emphasis."""
    power = _power(emphasise(waveform)[:, 0], n_fft)
    frequencies = torch.fft.rfftfreq(n_fft, 1 / sample_rate, dtype=power.dtype, device=power.device)
    inside = torch.stack([(frequencies >= low) & (frequencies < high) for low, high in pairwise(edges)])
    return (inside.to(power.dtype) @ power + 1e-10).sqrt()


def _power(waveform: Float[Tensor, "batch samples"], n_fft: int) -> Float[Tensor, "batch bins columns"]:
    window = torch.hann_window(n_fft, dtype=waveform.dtype, device=waveform.device)
    spectrum = torch.stft(waveform, n_fft, n_fft // 4, window=window, return_complex=True)
    return (spectrum.real.square() + spectrum.imag.square()) / (window.sum() / 2) ** 2


def _figures(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """The losses as they are logged; of the noise, its opposite: the signal-to-noise ratio."""
    figures = {name: loss.detach() for name, loss in losses.items()}
    return {"snr": -figures.pop("noise"), **figures}
