"""The mel spectrogram that training, evaluation and pictures share: how loud each band of pitch is, in decibels."""

from __future__ import annotations

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

from musicgen_edu.devices import own_precision

MEL_RESOLUTIONS = ((256, 40), (1024, 80), (2048, 100))  # (samples in a window, mel bands)
FLOOR_DB = -80.0  # what lies below counts as silence; a full-scale sine is near 0 dB


def log_mel(
    waveform: Float[Tensor, "batch samples"], sample_rate: int, n_fft: int = 1024, bands: int = 80
) -> Float[Tensor, "batch bands columns"]:
    """Power in each mel band in dB, `FLOOR_DB` at the least; a Hann window of `n_fft` samples every quarter of it.

    Differentiable. The mel scale is Slaney's, the filters have unit peak (`transformers.audio_utils.mel_filter_bank`).
    """
    window = torch.hann_window(n_fft, dtype=waveform.dtype, device=waveform.device)
    spectrum = torch.stft(waveform, n_fft, n_fft // 4, window=window, return_complex=True)
    power = (spectrum.real.square() + spectrum.imag.square()) / (window.sum() / 2) ** 2
    with torch.inference_mode(False):  # what is kept must serve a later training as well
        bank = _filters(sample_rate, n_fft, bands, waveform.device).to(waveform.dtype)
    with own_precision(waveform.device):
        return 10 * torch.log10(bank @ power + 10 ** (FLOOR_DB / 10))


def mel_distance(rebuilt: Tensor, waveform: Tensor, sample_rate: int) -> Float[Tensor, ""]:
    """Mean absolute difference of log-mel spectrograms in dB, over three resolutions."""
    pairs = log_mel_pairs(rebuilt, waveform, sample_rate)
    return torch.stack([(got - wanted).abs().mean() for got, wanted in pairs]).mean()


def log_mel_pairs(rebuilt: Tensor, waveform: Tensor, sample_rate: int) -> list[tuple[Tensor, Tensor]]:
    """Both spectrograms, at each resolution."""
    return [
        (log_mel(rebuilt[:, 0], sample_rate, n_fft, bands), log_mel(waveform[:, 0], sample_rate, n_fft, bands))
        for n_fft, bands in MEL_RESOLUTIONS
    ]


@cache
def _filters(sample_rate: int, n_fft: int, bands: int, device: torch.device) -> Float[Tensor, "bands bins"]:
    bank = mel_filter_bank(n_fft // 2 + 1, bands, 0.0, sample_rate / 2, sample_rate, norm=None, mel_scale="slaney")
    return torch.from_numpy(bank.T.copy()).float().to(device)
