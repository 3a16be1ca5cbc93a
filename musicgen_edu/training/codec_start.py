"""Room 09: where the codec's training begins. Its convolutions as a lapped transform, its codebooks by k-means.

From random weights a codec this small falls into silence; from here the sound comes through before any training.
"""

from __future__ import annotations

import math

import torch
from encodec.modules import SConv1d, SConvTranspose1d
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from musicgen_edu.codec import Codec


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

    encoder, decoder = convolutions(codec.encoder), convolutions(codec.decoder)
    middle, identity = config.kernel_size // 2, torch.eye(width, dtype=torch.float32, device="cpu")
    _set_weight(encoder[0], [(slice(1), slice(1), middle, amplitude)])
    _set_weight(decoder[-1], [(slice(1), slice(1), middle, 1 / amplitude)])
    active = 1
    for convolution, transposed, ratio in zip(encoder[1:-2], decoder[-2:1:-1], config.ratios[:0:-1], strict=True):
        left = ratio - ratio // 2
        same = torch.eye(active, dtype=torch.float32, device="cpu")  # may be wider than the latents
        sorting = [(slice(j * active, (j + 1) * active), slice(active), left + j, same) for j in range(ratio)]
        _set_weight(convolution, sorting)
        _set_weight(transposed, sorting)
        active *= ratio
    _set_weight(encoder[-2], [(slice(width), slice(active), slice(None), 0.2 * analysis)])
    _set_weight(decoder[1], [(slice(width), slice(active), slice(None), synthesis / 0.2)])
    _set_weight(encoder[-1], [(slice(width), slice(width), middle, 5 * identity)])
    _set_weight(decoder[0], [(slice(width), slice(width), middle, 0.2 * identity)])
    _quieten_side_paths(codec)


@torch.no_grad()
def start_codebooks(codec: Codec, latents: Float[Tensor, "vectors width"], rounds: int = 12) -> None:
    """Place every level's entries by k-means on what the levels before it leave over.

    `encodec`'s own start (`core_vq.kmeans`) leaves an entry that nothing chose where it was; here it moves to a vector
    drawn at random, so that none begins dead. The errors of both are alike.
    """
    residual = latents
    for layer in codec.quantizer.vq.layers:
        codebook = layer._codebook
        order = torch.randperm(len(residual), dtype=torch.long, device="cpu")
        entries = residual[order[: codebook.codebook_size]].clone()
        for _ in range(rounds):
            indices = torch.cdist(residual, entries).argmin(dim=1)
            counts = torch.bincount(indices, minlength=len(entries)).float()
            sums = torch.zeros_like(entries).index_add_(0, indices, residual)
            empty = counts == 0
            fresh = torch.randint(len(residual), (int(empty.sum()),), dtype=torch.long, device="cpu")
            sums[empty] = residual[fresh]  # over a count of at least 1
            entries = sums / counts.clamp(min=1)[:, None]
        codebook.embed.copy_(entries)
        # An entry is its sum over its count. encodec 0.1.1 sets the counts that it found, and the means as if they were
        # sums: its first update shrinks the entries to a few hundredths. With counts of 1, means and sums are the same.
        codebook.cluster_size.fill_(1.0)
        codebook.embed_avg.copy_(entries)
        residual = residual - entries[torch.cdist(residual, entries).argmin(dim=1)]


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


def convolutions(seanet: nn.Module) -> list[nn.Module]:
    """The convolutions on the main path, in order, residual blocks left out."""
    plain = {SConv1d: lambda layer: layer.conv.conv, SConvTranspose1d: lambda layer: layer.convtr.convtr}
    return [plain[type(layer)](layer) for layer in seanet.model if type(layer) in plain]


def norm_and_direction(convolution: nn.Module) -> tuple[nn.Parameter, nn.Parameter]:
    """What weight_norm makes of a weight: the length of each row, and the row up to its length."""
    parts = convolution.parametrizations.weight
    return parts.original0, parts.original1


def _lapped_basis(hop: int, width: int) -> Float[Tensor, "width samples"]:
    """The first `width` functions of the MDCT with a sine window: 2 × hop samples long, hop apart, orthonormal."""
    n, k = (torch.arange(size, dtype=torch.float32, device="cpu") + 0.5 for size in (2 * hop, width))
    k = k[:, None]
    return math.sqrt(2 / hop) * torch.sin(math.pi * n / (2 * hop)) * torch.cos(math.pi / hop * (n + hop / 2) * k)


def _set_weight(convolution: nn.Module, parts: list[tuple]) -> None:
    """Give a weight-normalised convolution (rows, columns, taps, values), a little noise elsewhere, and no bias."""
    norm, direction = norm_and_direction(convolution)
    weight = 0.02 * torch.randn_like(direction) / math.sqrt(direction[0].numel())
    for rows, columns, taps, values in parts:
        weight[rows, columns, taps] += values
    norms = weight.flatten(1).norm(dim=1)[:, None, None]
    norm.copy_(norms)
    direction.copy_(weight * (1 / norms).clamp(min=1.0))  # rows of tiny norm make Adam unstable
    convolution.bias.zero_()


def _quieten_side_paths(codec: Codec) -> None:
    """Residual blocks and LSTMs begin almost silent beside the path that skips them."""
    for layer in [*codec.encoder.model, *codec.decoder.model]:
        if hasattr(layer, "block"):
            first, last = layer.block[1].conv.conv, layer.block[3].conv.conv
            norm_and_direction(last)[0].mul_(0.03)
            first.bias.zero_()
            last.bias.zero_()
        if hasattr(layer, "lstm"):
            for weight in layer.lstm.parameters():
                weight.mul_(0.2)
