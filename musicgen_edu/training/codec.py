"""Room 09: teaches the codec to hear. Reconstruction in time and in frequency, and a quantizer that stays alive.

Défossez et al. 2022 (arXiv:2210.13438), sections 3.3 and 3.4, without the discriminators. The quantizer's own update
in `encodec` 0.1.1 loses the entries that it revives, so it is written out here (`update_codebook`).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from musicgen_edu.codec import Codec
from musicgen_edu.spectrogram import log_mel_pairs, mel_distance
from musicgen_edu.training.codec_start import convolutions, norm_and_direction

SILENCE = 1e-6  # a mean square that counts as silence: −60 dB
AUDIBLE_DB = 40.0  # what lies further below a segment's loudest moment is hardly heard
ATTACK_WEIGHT = 5.0  # see `heard_distance`


class CodecObjective(nn.Module):
    """The codec with its losses. With `quantize=False` it is an autoencoder, which the quantizer's start needs."""

    def __init__(self, codec: Codec, quantize: bool = True):
        super().__init__()
        self.codec = codec
        self.quantize = quantize

    def forward(self, waveform: Float[Tensor, "batch channels samples"]) -> dict[str, Tensor]:
        """The loss and its parts: error against signal in dB, mel distance in dB, commitment."""
        latents = self.codec.encoder(waveform).float()
        commitment = latents.new_zeros(())
        if self.quantize:
            with torch.autocast(latents.device.type, enabled=False):
                latents, commitment = quantize_for_training(self.codec, latents)
        rebuilt = self.codec.decoder(latents).float()
        with torch.autocast(latents.device.type, enabled=False):
            noise = noise_to_signal(rebuilt, waveform).mean()
            mel = mel_distance(rebuilt, waveform, self.codec.config.sample_rate)
        loss = noise / 10 + mel / 5 + commitment
        return {"loss": loss, "snr": -noise.detach(), "mel": mel.detach(), "commitment": commitment.detach()}


class SharpenObjective(nn.Module):
    """The codec's decoder alone, behind codes that stay as they are, so that no MusicGen has to learn new ones.

    Spectrograms count more here than samples do, and only where they can be heard. All is computed in float32: once the
    codec is good, gradients in bfloat16 point far away from those in float32 (training/RUNS.md, round five).
    """

    def __init__(self, codec: Codec):
        super().__init__()
        self.codec = codec
        codec.encoder.requires_grad_(False)
        # A few numbers near 0.001 carry the scale of all latents: one step of Adam would throw it off.
        norm_and_direction(convolutions(codec.decoder)[0])[0].requires_grad_(False)

    def forward(self, waveform: Float[Tensor, "batch channels samples"]) -> dict[str, Tensor]:
        """The loss and its parts: error against signal, and distance as it is heard, both in dB."""
        with torch.autocast(waveform.device.type, enabled=False):
            with torch.no_grad():
                latents = self.codec.dequantize(self.codec.encode(waveform))
            rebuilt = self.codec.decoder(latents)
            noise = noise_to_signal(rebuilt, waveform).mean()
            heard = heard_distance(rebuilt, waveform, self.codec.config.sample_rate)
        return {"loss": 0.03 * noise + heard / 2, "snr": -noise.detach(), "heard": heard.detach()}


def noise_to_signal(rebuilt: Tensor, waveform: Tensor) -> Float[Tensor, " batch"]:
    """Energy of the error over the energy of the signal, in dB, a figure a clip: loud and soft clips count alike."""
    error = (rebuilt - waveform).square().mean(dim=(1, 2)) + SILENCE
    return 10 * torch.log10(error / (waveform.square().mean(dim=(1, 2)) + SILENCE))


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


def quantize_for_training(
    codec: Codec, latents: Float[Tensor, "batch width frames"]
) -> tuple[Float[Tensor, "batch width frames"], Float[Tensor, ""]]:
    """Quantize, move the codebooks towards what they stand for, and let gradients pass straight through.

    Returns the quantized latents and the commitment loss: how far the latents lie from their entries, level by level,
    as a share of the latents' variance.
    """
    vectors = latents.transpose(1, 2).flatten(0, 1)
    residual, commitment = vectors, 0.0
    for layer in codec.quantizer.vq.layers:
        codebook = layer._codebook
        indices = codebook.quantize(residual.detach())
        entries = codebook.embed[indices]
        commitment = commitment + (residual - entries).square().mean()
        if codec.training:
            update_codebook(codebook, residual.detach(), indices)
        residual = residual - entries
    quantized = vectors + (-residual).detach()  # straight-through on the sum: vectors − residual = sum of the entries
    commitment = 0.25 * commitment / vectors.detach().var()
    return quantized.unflatten(0, (len(latents), -1)).transpose(1, 2), commitment


@torch.no_grad()
def update_codebook(
    codebook: nn.Module, vectors: Float[Tensor, "vectors width"], indices: Int[Tensor, " vectors"], decay: float = 0.99
) -> None:
    """Exponential moving averages of each entry's vectors; an entry that is hardly used restarts at one of them."""
    counts = torch.bincount(indices, minlength=codebook.codebook_size).float()
    sums = torch.zeros_like(codebook.embed_avg).index_add_(0, indices, vectors)
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(counts)
        torch.distributed.all_reduce(sums)
    codebook.cluster_size.lerp_(counts, 1 - decay)
    codebook.embed_avg.lerp_(sums, 1 - decay)
    dead = codebook.cluster_size < 0.05
    fresh = vectors[torch.randint(len(vectors), (codebook.codebook_size,), device=vectors.device)]
    if torch.distributed.is_initialized():
        torch.distributed.broadcast(fresh, 0)  # or each process would revive them with vectors of its own
    codebook.cluster_size.masked_fill_(dead, 0.5)
    codebook.embed_avg.copy_(torch.where(dead[:, None], 0.5 * fresh, codebook.embed_avg))
    codebook.embed.copy_(codebook.embed_avg / codebook.cluster_size[:, None])
