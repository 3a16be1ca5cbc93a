"""Room 09: teaches the codec to hear. Reconstruction in time and in frequency, and a quantizer that stays alive.

Défossez et al. 2022 (arXiv:2210.13438), sections 3.3 and 3.4, without the discriminators, which join later
(`sharpening.py`). The quantizer's own update
in `encodec` 0.1.1 loses the entries that it revives, so it is written out here (`update_codebook`).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from musicgen_edu.codec import Codec
from musicgen_edu.devices import own_precision
from musicgen_edu.spectrogram import mel_distance

SILENCE = 1e-6  # a mean square that counts as silence: −60 dB


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
            with own_precision(latents.device):
                latents, commitment = quantize_for_training(self.codec, latents)
        rebuilt = self.codec.decoder(latents).float()
        with own_precision(latents.device):
            noise = noise_to_signal(rebuilt, waveform).mean()
            mel = mel_distance(rebuilt, waveform, self.codec.config.sample_rate)
        loss = noise / 10 + mel / 5 + commitment
        return {"loss": loss, "snr": -noise.detach(), "mel": mel.detach(), "commitment": commitment.detach()}


def noise_to_signal(rebuilt: Tensor, waveform: Tensor) -> Float[Tensor, " batch"]:
    """Energy of the error over the energy of the signal, in dB, a figure a clip: loud and soft clips count alike."""
    error = (rebuilt - waveform).square().mean(dim=(1, 2)) + SILENCE
    return 10 * torch.log10(error / (waveform.square().mean(dim=(1, 2)) + SILENCE))


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
    chosen = torch.randint(len(vectors), (codebook.codebook_size,), dtype=torch.long, device=vectors.device)
    fresh = vectors[chosen]
    if torch.distributed.is_initialized():
        torch.distributed.broadcast(fresh, 0)  # or each process would revive them with vectors of its own
    codebook.cluster_size.masked_fill_(dead, 0.5)
    codebook.embed_avg.copy_(torch.where(dead[:, None], 0.5 * fresh, codebook.embed_avg))
    codebook.embed.copy_(codebook.embed_avg / codebook.cluster_size[:, None])
