"""Room 06: codes ↔ waveform. EnCodec, assembled from the `encodec` package's own modules.

An encoder of strided convolutions turns every `hop_length` samples into one latent vector; a residual vector quantizer
writes that vector as K indices, each coarse-to-fine refinement of the one before; a mirrored decoder turns the indices
back into sound. Défossez et al. 2022, "High Fidelity Neural Audio Compression", arXiv:2210.13438, section 3.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from numbers import Integral

import torch
import torch.nn.functional as F
from encodec.modules import SEANetDecoder, SEANetEncoder
from encodec.quantization import ResidualVectorQuantizer
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from musicgen_edu._checks import check_codes, check_number
from musicgen_edu.audio import Audio
from musicgen_edu.config import CodecConfig
from musicgen_edu.devices import own_precision, return_freed_memory

# encodec's names on the left, those of transformers' EncodecModel on the right.
_EXPORT_RULES = (
    (r"^(encoder|decoder)\.model\.", r"\1.layers."),
    (r"\.conv\.conv\.", ".conv."),
    (r"\.convtr\.convtr\.", ".conv."),
    (r"^quantizer\.vq\.layers\.(\d+)\._codebook\.", r"quantizer.layers.\1.codebook."),
)


class Codec(nn.Module):
    """Waveform to codes and back. `encoder`, `quantizer` and `decoder` are modules of the `encodec` package."""

    def __init__(self, config: CodecConfig):
        super().__init__()
        self.config = config
        shared = dict(
            channels=config.channels, dimension=config.hidden_size, n_filters=config.num_filters,
            n_residual_layers=config.num_residual_layers, ratios=list(config.ratios), norm="none",
            kernel_size=config.kernel_size, last_kernel_size=config.last_kernel_size,
            residual_kernel_size=config.residual_kernel_size, dilation_base=config.dilation_growth_rate,
            causal=config.causal, pad_mode=config.pad_mode,
            true_skip=not config.conv_shortcut,  # transformers asks the other way round
            compress=config.compress, lstm=config.num_lstm_layers,
        )  # fmt: skip
        self.encoder = SEANetEncoder(**shared)
        self.decoder = SEANetDecoder(**shared, trim_right_ratio=config.trim_right_ratio)
        for module in [*self.encoder.modules(), *self.decoder.modules()]:
            # encodec 0.1.1 itself takes torch's older weight_norm, whose modules cannot be copied after a backward pass
            if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
                weight_norm(module)
        self.quantizer = ResidualVectorQuantizer(
            dimension=config.hidden_size,
            n_q=config.num_codebooks,
            bins=config.codebook_size,
            kmeans_init=False,  # room 09 places the entries; encodec's own start would overwrite them at its first call
        )

    # Not inference_mode: what comes out may be a label, or be changed in place, in a training.
    @torch.no_grad()
    def encode(
        self,
        waveform: Float[Tensor, "batch channels samples"] | Audio,
        lengths: Int[Tensor, " batch"] | Sequence[int] | None = None,
    ) -> Int[Tensor, "batch codebooks frames"]:
        """Waveform in [-1, 1] to codes, one frame every `config.hop_length` samples (the last one padded).

        `lengths` are the samples of each clip of a padded batch: a clip's codes are then those that it has alone, and
        zeros follow its last frame (number `ceil(length / hop_length)`).

        Raises:
            TypeError: it is no waveform of floating-point numbers, or a length is no whole number.
            ValueError: the rate (of an `Audio`) or the channels are not the codec's, the clip is empty or holds no
                finite numbers, or a length does not lie in its clip.
        """
        waveform = self._check_waveform(waveform)
        if lengths is None:
            return self._encode(waveform)
        lengths = self._check_lengths(lengths, len(waveform), waveform.shape[2])
        rows = [self._encode(clip[None, :, :length])[0] for clip, length in zip(waveform, lengths, strict=True)]
        frames = max(row.shape[1] for row in rows)
        return torch.stack([F.pad(row, (0, frames - row.shape[1])) for row in rows])

    def _encode(self, waveform: Float[Tensor, "batch channels samples"]) -> Int[Tensor, "batch codebooks frames"]:
        with own_precision(waveform.device):  # the codes' precision is the codec's own
            latents = self.encoder(waveform.to(next(self.parameters())))
            codes = self.quantizer.vq.encode(latents).transpose(0, 1)
            # The nearest entry to NaN would be the first, and NaN the nearest to all: it would become music.
            if not (latents.isfinite().all() and self.dequantize(codes).isfinite().all()):
                raise ValueError("The codec hears no finite numbers: the waveform or the codec's weights are broken.")
            return codes

    def _check_lengths(self, lengths: Sequence[int] | Tensor, clips: int, samples: int) -> list[int]:
        wanted = f"There must be a length from 1 to {samples} samples for each clip"
        lengths = lengths.tolist() if isinstance(lengths, Tensor) else lengths
        if not isinstance(lengths, Sequence) or len(lengths) != clips:
            raise ValueError(f"{wanted}, not {lengths!r:.60}.")
        return [check_number(wanted, length, Integral, 1, samples) for length in lengths]

    def _check_waveform(self, waveform: Tensor | Audio) -> Float[Tensor, "batch channels samples"]:
        config, mend = self.config, f"`audio.convert({self.config.sample_rate}, {self.config.channels})` mends that"
        if isinstance(waveform, Audio):
            if waveform.sample_rate != config.sample_rate:
                raise ValueError(
                    f"The codec takes {config.sample_rate} samples a second, not {waveform.sample_rate}: {mend}."
                )
            waveform = waveform.waveform
        if not isinstance(waveform, Tensor) or not waveform.is_floating_point():
            raise TypeError("The codec takes a waveform of floating-point numbers between −1 and 1, or an Audio.")
        if waveform.ndim != 3 or waveform.shape[1] != config.channels or waveform.numel() == 0:
            raise ValueError(
                f"The codec takes a waveform [batch, {config.channels}, samples], not {list(waveform.shape)}; "
                f"of an Audio's channels, {mend}."
            )
        return waveform

    @torch.no_grad()
    def decode(self, codes: Int[Tensor, "batch codebooks frames"]) -> Float[Tensor, "batch channels samples"]:
        """Codes to waveform: frames × `config.hop_length` samples. The first few codebooks alone decode as well.

        Raises:
            ValueError: there are more codebooks than the quantizer has, no frames, or a code is no entry of a codebook.
            TypeError: the codes are no whole numbers.
        """
        codes = check_codes(codes)
        if not codes.shape[2]:
            raise ValueError("Codes hold no frames: there is nothing to decode.")
        with own_precision(codes.device):  # bfloat16 would add noise at −40 dB
            return self.decoder(self.dequantize(codes))

    def dequantize(self, codes: Int[Tensor, "batch codebooks frames"]) -> Float[Tensor, "batch latent_width frames"]:
        """The latent vectors that the codes stand for: for each frame, the sum of one entry a codebook."""
        codes = check_codes(codes)  # they may be kept as 16-bit numbers
        if not 1 <= codes.shape[1] <= self.config.num_codebooks:
            raise ValueError(f"Codes hold {codes.shape[1]} codebooks, but this codec has {self.config.num_codebooks}.")
        check_range(codes, self.config.codebook_size)
        return self.quantizer.vq.decode(codes.transpose(0, 1))

    def export_state_dict(self) -> dict[str, Tensor]:
        """The weights under the names of transformers' `EncodecModel`."""
        return {_exported_name(name): tensor for name, tensor in self.state_dict().items()}

    def load_exported_state_dict(self, tensors: dict[str, Tensor], assign: bool = False) -> None:
        """Load weights that have the names of transformers' `EncodecModel`; `assign` takes them over without a copy.

        Raises:
            RuntimeError: a tensor is missing, unexpected or of the wrong shape (PyTorch's message names it).
        """
        own_names = {_exported_name(name): name for name in self.state_dict()}
        self.load_state_dict({own_names.get(name, name): tensor for name, tensor in tensors.items()}, assign=assign)

    def fold_weight_norm(self) -> None:
        """Hold each convolution's weight itself, which its length and its direction give anew at every call else.

        The samples stay the same. Training and checkpoints want the two: there is no way back.
        """
        for module in self.modules():
            if is_parametrized(module, "weight"):
                remove_parametrizations(module, "weight")
        return_freed_memory()

    def __reduce__(self) -> tuple:
        """Let the codec be copied and sent to other processes: torch's parametrised modules refuse to be pickled."""
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        return _restore, (type(self), self.config, self.state_dict(), trained, self.training)


def split_channels(
    codes: Int[Tensor, "batch codebooks frames"], channels: int
) -> Int[Tensor, "rows channel_codebooks frames"]:
    """Take the codebooks of the channels apart: they alternate, 1 left, 1 right, 2 left, …, and the codec is mono.

    The channels of one clip are rows that follow each other. Raises TypeError for what are no codes, ValueError where
    the channels cannot share them.
    """
    if check_codes(codes).shape[1] % channels:
        raise ValueError(f"Codes hold {codes.shape[1]} codebooks, which {channels} channels cannot share.")
    return codes.unflatten(1, (-1, channels)).transpose(1, 2).flatten(0, 1)


def join_channels(
    codes: Int[Tensor, "rows channel_codebooks frames"], channels: int
) -> Int[Tensor, "batch codebooks frames"]:
    """Undo `split_channels`."""
    return codes.unflatten(0, (-1, channels)).transpose(1, 2).flatten(1, 2)


def encode_channels(
    codec: Codec, waveform: Float[Tensor, "batch channels samples"]
) -> Int[Tensor, "batch codebooks frames"]:
    """Codes of each channel by itself, which is how a mono codec hears stereo, joined. Raises what `encode` raises."""
    return join_channels(codec.encode(waveform.flatten(0, 1)[:, None]), waveform.shape[1])


def _restore(
    kind: type[Codec], config: CodecConfig, tensors: dict[str, Tensor], trained: set[str], training: bool
) -> Codec:
    with torch.device("meta"):
        codec = kind(config)
    if not any(".parametrizations." in name for name in tensors):
        codec.fold_weight_norm()
    codec.load_state_dict(tensors, assign=True)
    for name, parameter in codec.named_parameters():
        parameter.requires_grad_(name in trained)
    return codec.train(training)


def _exported_name(name: str) -> str:
    for pattern, replacement in _EXPORT_RULES:
        name = re.sub(pattern, replacement, name)
    return name


def check_range(codes: Int[Tensor, "batch codebooks frames"], codebook_size: int) -> None:
    """Raise ValueError unless every code is an entry of a codebook of this size."""
    if codes.is_meta:  # shapes without numbers
        return
    if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < codebook_size:
        raise ValueError(f"Codes lie in 0…{codebook_size - 1}, not in {codes.min()}…{codes.max()}.")


class StreamingCodecDecoder:
    """Decodes codes as they come. The chunks, joined, equal `Codec.decode` on all the codes at once.

    The decoder is not causal: a sample depends on frames to its left and right. So a chunk is held back until the
    frames within reach have come, and decoded with as much context on its left. Only the LSTM remembers further; its
    state is carried from chunk to chunk.
    """

    def __init__(self, codec: Codec):
        layers = codec.decoder.model
        config = codec.config
        has_lstm = config.num_lstm_layers > 0
        self._codec = codec
        self._lstm = layers[1] if has_lstm else None
        self._lstm_state = None
        width = config.num_filters * 2 ** len(config.ratios)
        # A causal convolution looks back by all its taps but one, another one by half as many to each side.
        taps = config.kernel_size - 1 if config.causal else config.kernel_size // 2
        self._head = _OverlappedLayers(layers[:1], width, taps, 1)
        self._tail = _OverlappedLayers(layers[1 + has_lstm :], config.channels, _reach(config), config.hop_length)

    @torch.no_grad()
    def push(
        self, codes: Int[Tensor, "batch codebooks frames"], last: bool = False
    ) -> Float[Tensor, "batch channels samples"]:
        """Take the next frames and return the samples that no later frame can change. `last` flushes the rest."""
        codes = check_codes(codes)
        with own_precision(codes.device):
            latents = self._head.push(self._codec.dequantize(codes), last)
            return self._tail.push(self._remember(latents), last)

    def _remember(self, latents: Float[Tensor, "batch width frames"]) -> Float[Tensor, "batch width frames"]:
        """The LSTM with its residual connection (encodec's `SLSTM`), its state carried on from the last chunk."""
        if self._lstm is None or latents.shape[-1] == 0:
            return latents
        inputs = latents.permute(2, 0, 1)
        outputs, self._lstm_state = self._lstm.lstm(inputs, self._lstm_state)
        return (outputs + inputs).permute(1, 2, 0)


class _OverlappedLayers:
    """Layers whose output depends on `reach` frames to each side, run chunk by chunk with that much overlap."""

    def __init__(self, layers: nn.Sequential, channels: int, reach: int, samples_per_frame: int):
        self._layers, self._channels, self._reach, self._rate = layers, channels, reach, samples_per_frame
        self._frames = None  # frames that are not settled yet, after those kept as context
        self._context = 0

    def push(self, frames: Tensor, last: bool) -> Tensor:
        self._frames = frames if self._frames is None else torch.cat([self._frames, frames], dim=-1)
        known = self._frames.shape[-1]
        # The last frames may still be changed by those to come; the first ones, kept as context, were given already.
        settled = known if last else max(known - self._reach, self._context)
        if settled == self._context:
            return frames.new_zeros(len(frames), self._channels, 0)
        output = self._layers(self._frames)[..., self._context * self._rate : settled * self._rate]
        first_kept = max(settled - self._reach, 0)
        self._frames, self._context = self._frames[..., first_kept:], settled - first_kept
        return output


def _reach(config: CodecConfig) -> int:
    """How many frames to each side can touch a sample, through all layers of the decoder behind its LSTM."""
    reach, rate = 0.0, 1
    for ratio in config.ratios:
        reach += 1 / rate  # a transposed convolution of 2 × ratio taps overlaps its neighbour
        rate *= ratio
        dilations = (config.dilation_growth_rate**layer for layer in range(config.num_residual_layers))
        reach += sum((config.residual_kernel_size - 1) * dilation for dilation in dilations) / rate
    return math.ceil(reach + (config.last_kernel_size - 1) / rate)
