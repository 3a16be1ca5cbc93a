"""Room 09: teaches the codec to hear. Reconstruction in time and in frequency, and a quantizer that stays alive.

Défossez et al. 2022 (arXiv:2210.13438), sections 3.3 and 3.4, without the discriminators. The quantizer's own update
in `encodec` 0.1.1 loses the entries that it revives, so it is written out here (`update_codebook`).
"""

from __future__ import annotations

import math

import torch
from encodec.modules import SConv1d, SConvTranspose1d
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from musicgen_edu.codec import Codec
from musicgen_edu.spectrogram import log_mel

MEL_RESOLUTIONS = ((256, 40), (1024, 80), (2048, 100))  # (samples in a window, mel bands)
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
        _convolutions(codec.decoder)[0].weight_g.requires_grad_(False)

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


def mel_distance(rebuilt: Tensor, waveform: Tensor, sample_rate: int) -> Float[Tensor, ""]:
    """Mean absolute difference of log-mel spectrograms in dB, over three resolutions."""
    pairs = _log_mels(rebuilt, waveform, sample_rate)
    return torch.stack([(got - wanted).abs().mean() for got, wanted in pairs]).mean()


def heard_distance(rebuilt: Tensor, waveform: Tensor, sample_rate: int) -> Float[Tensor, ""]:
    """`mel_distance` as it is heard: only down to `AUDIBLE_DB` under the loudest point, and attacks count more.

    An attack is short and tells much of what instrument it is. Where a band has just become 10 dB louder, its
    difference counts `1 + ATTACK_WEIGHT` times, for four columns.
    """
    distances = []
    for got, wanted in _log_mels(rebuilt, waveform, sample_rate):
        floor = wanted.amax(dim=(1, 2), keepdim=True) - AUDIBLE_DB
        wanted, got = torch.maximum(wanted, floor), torch.maximum(got, floor)
        rise = F.max_pool1d(F.pad(wanted.diff(dim=2).clamp(min=0), (4, 0)), 4, stride=1)
        weight = 1 + ATTACK_WEIGHT * rise / 10
        distances.append(((got - wanted).abs() * weight).sum() / weight.sum())
    return torch.stack(distances).mean()


def _log_mels(rebuilt: Tensor, waveform: Tensor, sample_rate: int) -> list[tuple[Tensor, Tensor]]:
    """Both spectrograms, at each resolution."""
    return [
        (log_mel(rebuilt[:, 0], sample_rate, n_fft, bands), log_mel(waveform[:, 0], sample_rate, n_fft, bands))
        for n_fft, bands in MEL_RESOLUTIONS
    ]


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


@torch.no_grad()
def start_codebooks(codec: Codec, latents: Float[Tensor, "vectors width"], rounds: int = 12) -> None:
    """Place every level's entries by k-means on what the levels before it leave over."""
    residual = latents
    for layer in codec.quantizer.vq.layers:
        codebook = layer._codebook
        entries = residual[torch.randperm(len(residual))[: codebook.codebook_size]].clone()
        for _ in range(rounds):
            indices = torch.cdist(residual, entries).argmin(dim=1)
            counts = torch.bincount(indices, minlength=len(entries)).float()
            sums = torch.zeros_like(entries).index_add_(0, indices, residual)
            empty = counts == 0
            sums[empty] = residual[torch.randint(len(residual), (int(empty.sum()),))]
            entries = sums / counts.clamp(min=1)[:, None]
        codebook.embed.copy_(entries)
        codebook.cluster_size.fill_(1.0)
        codebook.embed_avg.copy_(entries)
        residual = residual - entries[torch.cdist(residual, entries).argmin(dim=1)]


@torch.no_grad()
def start_as_lapped_transform(codec: Codec, waveforms: Float[Tensor, "batch channels samples"]) -> None:
    """Set the convolutions so that the codec begins as a lapped cosine transform (MDCT), and not as noise.

    From PyTorch's own start a codec this small falls into silence. Here the first strides sort samples into channels,
    the last one applies the transform's window and basis over two frames, and the decoder mirrors it: before any
    training the sound comes through, its upper harmonics missing. Small amplitudes keep the ELUs nearly linear.

    Source of the transform: Princen, Johnson and Bradley 1987 (time-domain aliasing cancellation).
    """
    config = codec.config
    hop, amplitude = config.hop_length, 0.25
    width = min(config.hidden_size, hop)
    basis = _lapped_basis(hop, width)
    windows = F.pad(waveforms[:, 0], (hop, hop)).unfold(-1, 2 * hop, hop)
    scales = 1.5 * ((windows @ basis.T).flatten(0, 1).std(dim=0) + 1e-4).sqrt()[:, None]
    last = config.ratios[0]
    analysis = (basis / scales).view(width, 2 * last, -1).transpose(1, 2) / amplitude
    synthesis = (basis * scales).view(width, 2 * last, -1).transpose(1, 2) * amplitude

    encoder, decoder = _convolutions(codec.encoder), _convolutions(codec.decoder)
    middle, identity = config.kernel_size // 2, torch.eye(width)
    _set_weight(encoder[0], [(slice(1), slice(1), middle, amplitude)])
    _set_weight(decoder[-1], [(slice(1), slice(1), middle, 1 / amplitude)])
    active = 1
    for convolution, transposed, ratio in zip(encoder[1:-2], decoder[-2:1:-1], config.ratios[:0:-1], strict=True):
        left = ratio - ratio // 2
        sorting = [
            (slice(j * active, (j + 1) * active), slice(active), left + j, torch.eye(active)) for j in range(ratio)
        ]
        _set_weight(convolution, sorting)
        _set_weight(transposed, sorting)
        active *= ratio
    _set_weight(encoder[-2], [(slice(width), slice(active), slice(None), 0.2 * analysis)])
    _set_weight(decoder[1], [(slice(width), slice(active), slice(None), synthesis / 0.2)])
    _set_weight(encoder[-1], [(slice(width), slice(width), middle, 5 * identity)])
    _set_weight(decoder[0], [(slice(width), slice(width), middle, 0.2 * identity)])
    _quieten_side_paths(codec)


@torch.no_grad()
def make_encoder_memoryless(codec: Codec) -> None:
    """Set the encoder's LSTM to zero, for good: beside its skip connection it then adds nothing.

    A frame's codes then depend on the sound around it alone, and not on all that came before, so that a note has the
    same codes wherever it is struck: a language that a small decoder can learn. The codec's decoder keeps its memory.
    """
    for layer in codec.encoder.model:
        if hasattr(layer, "lstm"):
            for weight in layer.lstm.parameters():
                weight.zero_().requires_grad_(False)


def _convolutions(seanet: nn.Module) -> list[nn.Module]:
    """The convolutions on the main path, in order, residual blocks left out."""
    plain = {SConv1d: lambda layer: layer.conv.conv, SConvTranspose1d: lambda layer: layer.convtr.convtr}
    return [plain[type(layer)](layer) for layer in seanet.model if type(layer) in plain]


def _lapped_basis(hop: int, width: int) -> Float[Tensor, "width samples"]:
    """The first `width` functions of the MDCT with a sine window: 2 × hop samples long, hop apart, orthonormal."""
    n, k = torch.arange(2 * hop) + 0.5, torch.arange(width)[:, None] + 0.5
    return math.sqrt(2 / hop) * torch.sin(math.pi * n / (2 * hop)) * torch.cos(math.pi / hop * (n + hop / 2) * k)


def _set_weight(convolution: nn.Module, parts: list[tuple]) -> None:
    """Give a weight-normalised convolution (rows, columns, taps, values), a little noise elsewhere, and no bias."""
    weight = 0.02 * torch.randn_like(convolution.weight_v) / math.sqrt(convolution.weight_v[0].numel())
    for rows, columns, taps, values in parts:
        weight[rows, columns, taps] += values
    norms = weight.flatten(1).norm(dim=1)[:, None, None]
    convolution.weight_g.copy_(norms)
    convolution.weight_v.copy_(weight * (1 / norms).clamp(min=1.0))  # rows of tiny norm make Adam unstable
    convolution.bias.zero_()


def _quieten_side_paths(codec: Codec) -> None:
    """Residual blocks and LSTMs begin almost silent beside the path that skips them."""
    for layer in [*codec.encoder.model, *codec.decoder.model]:
        if hasattr(layer, "block"):
            first, last = layer.block[1].conv.conv, layer.block[3].conv.conv
            last.weight_g.mul_(0.03)
            first.bias.zero_()
            last.bias.zero_()
        if hasattr(layer, "lstm"):
            for weight in layer.lstm.parameters():
                weight.mul_(0.2)
