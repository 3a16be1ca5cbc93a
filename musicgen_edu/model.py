"""Room 00: text in, music out. The rooms of this package, composed.

    prompt → tokenizer → text encoder → projection → decoder (step by step, in a codebook pattern) → codec → waveform

Copet et al. 2023, "Simple and Controllable Music Generation", arXiv:2306.05284. The parts and their checkpoints are
those of transformers' `MusicgenForConditionalGeneration`, which opens what `save_pretrained` writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from musicgen_edu._checks import check_codes
from musicgen_edu.audio import Audio, Sound, as_audio
from musicgen_edu.checkpoints.pretrained import read_model, write_model
from musicgen_edu.checkpoints.tensors import MAX_SHARD_SIZE
from musicgen_edu.codec import Codec, StreamingCodecDecoder, check_range, encode_channels, split_channels
from musicgen_edu.conditioning import NO_MELODY, Condition, MelodyProjection, TextMask, before_the_codes, hear_melody
from musicgen_edu.config import MusicGenConfig
from musicgen_edu.decoder import MusicGenDecoder
from musicgen_edu.generation import Progress, iterate_windows
from musicgen_edu.optimization import optimize
from musicgen_edu.patterns import CodebookPattern, pattern_of
from musicgen_edu.projection import TextProjection, check_widths, zero_padding
from musicgen_edu.request import Request, count_frames, read_request
from musicgen_edu.text_encoder import TextEncoder
from musicgen_edu.tokenizer import Tokenizer, warn_of_unknown_words

STREAM_GAIN = 3.0  # dB at which a notebook plays chunks: all alike, measured by tests/benchmarks/listening_level.py
SHORTEST_CHUNK = 5  # frames: each chunk reads its context anew, and frames one by one cost 14 times as much
Melody = Float[Tensor, "batch columns bins"]  # 1 for the loudest tone of each column: conditioning.loudest_tone


class MusicGen(nn.Module):
    """A whole MusicGen, with random weights until a checkpoint is loaded.

    Its modules are `text_encoder`, `projection` (None for equal widths), `melody_projection` (None without melody),
    `decoder` and `codec`. `preflight=False` builds even parts that do not fit, to meet PyTorch's own error.

    Raises:
        WidthMismatchError: the text encoder and the decoder do not fit.
        ValueError: there is no such pattern, or the tokenizer has more pieces than the text encoder embeds.
    """

    def __init__(self, config: MusicGenConfig, tokenizer: Tokenizer | None = None, *, preflight: bool = True) -> None:
        super().__init__()
        decoder = config.decoder
        pattern_of(config)  # refuses an unknown name here, not when generating
        if preflight:
            check_widths(config.text_encoder.hidden_size, decoder)
        if tokenizer is not None and tokenizer.vocab_size > config.text_encoder.vocab_size:
            raise ValueError(
                f"The tokenizer has {tokenizer.vocab_size} pieces, but the text encoder embeds "
                f"{config.text_encoder.vocab_size}: they belong to different models."
            )
        self.config = config
        self.tokenizer = tokenizer
        self.text_encoder = TextEncoder(config.text_encoder)
        sizes = decoder.text_hidden_size, decoder.hidden_size
        self.projection = TextProjection(*sizes) if decoder.has_projection else None
        self.melody_projection = MelodyProjection(config.melody, decoder.hidden_size) if config.melody else None
        self.decoder = MusicGenDecoder(decoder)
        self.codec = Codec(config.codec)

    @property
    def pattern(self) -> CodebookPattern:
        """How the codes are laid out in time."""
        return pattern_of(self.config)

    def forward(
        self,
        codes: Int[Tensor, "batch codebooks steps"],
        text_ids: Int[Tensor, "batch text_tokens"],
        text_mask: TextMask,
        melody: Melody | None = None,
    ) -> Float[Tensor, "batch codebooks steps codebook_size"]:
        """Return the scores of the code after each step. `codes` are interleaved; a mask of zeros drops the caption."""
        check_range(check_codes(codes), self.config.decoder.special_token + 1)
        return self.decoder(codes, self.condition(text_ids, text_mask, melody))

    def encode_text(self, prompts: list[str], melody: Melody | None = None) -> Condition:
        """Return what the decoder is told: the prompts' states in its own width, and the mask, False on padding.

        A model of melodies has both the `melody` (`conditioning.loudest_tone`) and the text before the codes.
        Raises ValueError for a blank prompt or a model without tokenizer, TypeError for a prompt that is no string.
        """
        if self.tokenizer is None:
            raise ValueError("This model has no tokenizer: put its spiece.model into the folder it was loaded from.")
        ids, mask = (tensor.to(self.decoder.device) for tensor in self.tokenizer(prompts))
        return self.condition(ids, mask, melody)

    def condition(
        self, ids: Int[Tensor, "batch text_tokens"], mask: TextMask, melody: Melody | None = None
    ) -> Condition:
        """Return what the decoder is told of ids: `encode_text` behind the tokenizer."""
        return self._condition(self._encode_ids(ids, mask), mask, melody)

    def _condition(
        self, states: Float[Tensor, "batch text_tokens model_width"], mask: TextMask, melody: Melody | None
    ) -> Condition:
        if self.melody_projection is not None:
            return before_the_codes(states, mask, self.melody_projection, melody).to(states.device, states.dtype)
        if melody is not None:
            raise ValueError(NO_MELODY)
        return Condition(states, mask)

    def _encode_ids(
        self, ids: Int[Tensor, "batch text_tokens"], mask: TextMask
    ) -> Float[Tensor, "batch text_tokens model_width"]:
        states = self.text_encoder(ids, mask)
        states = zero_padding(states, mask) if self.projection is None else self.projection(states, mask)
        return states.to(self.decoder.dtype)

    def generate(
        self,
        prompt: str | Sequence[str] | None,
        duration: float | int = 8.0,
        *,
        samples: int = 1,
        seed: int | Sequence[int] | None = 0,
        continue_from: Sound | None = None,
        melody: Sound | None = None,
        window: float | int | None = None,
        stride: float | int | None = None,
        progress: Progress | None = None,
        **settings: float | int | None,
    ) -> Audio:
        """Make music of one prompt, of several at once, or of none: what comes to the model's mind.

        Warns (UnknownWordsWarning) of words that the model does not know.

        Args:
            duration: seconds, rounded to whole frames, at least one.
            samples: clips of each prompt; they follow each other.
            seed: one for every prompt, or a list with one for each; further samples of a prompt take the numbers that
                follow. None is different music each time.
            continue_from: what the music begins with, as the codec renders it: an Audio, (waveform, sample rate) or the
                path of a file, one for all or one a prompt. It counts among the `duration`.
            melody: what the music follows, likewise; for the models that listen to one.
            window: how many seconds are written with one another in view; None is the model's own. A longer clip is
                written in windows, each of which starts `stride` seconds after the one before.
            stride: less than `window`; None is the model's own share of it.
            progress: called as `progress(steps_done, steps)` at every step.
            settings: fields of `SamplingSettings` that shall differ from the model's own: `temperature` (0 is greedy),
                `top_k` (0 keeps all codes), `top_p`, `guidance_scale` (1 switches guidance off). None changes nothing.

        Raises:
            ValueError: a blank prompt, a sound that is silent, too short or too long, a melody where none is heard, a
                duration outside 0 … `request.MAX_DURATION`, or another number outside its range.
            TypeError: something is not of the type it should be.
            OSError: a sound's file cannot be read.
        """
        given = dict(samples=samples, seed=seed, continue_from=continue_from, melody=melody)
        request = read_request(self.config, prompt, duration, window=window, stride=stride, **given, **settings)
        codes = torch.cat(list(self._write_codes(request, progress)), dim=2)
        windows = codes.split(request.window, dim=2)
        parts = self.decode_chunks(windows, request.frames, request.window) if windows[1:] else [self.decode(codes)]
        return Audio(torch.cat(list(parts), dim=2), self.config.codec.sample_rate, codes=codes, prompts=request.prompts)

    def stream(
        self,
        prompt: str | Sequence[str] | None,
        duration: float | int = 8.0,
        *,
        chunk_duration: float | int = 1.0,
        progress: Progress | None = None,
        **options: object,
    ) -> Iterator[Audio]:
        """Yield the music of `generate`, same `options` and same samples, in chunks as they come.

        A chunk is decoded whenever `chunk_duration` seconds of codes are complete, and at least `SHORTEST_CHUNK`
        frames. The codec looks a little ahead, so the first chunks are shorter and the last is longer. A notebook plays
        all chunks `STREAM_GAIN` dB louder. Raises at the call what `generate` raises.
        """
        chunk_frames = max(SHORTEST_CHUNK, count_frames(chunk_duration, self.config.codec, "chunk_duration"))
        request = read_request(self.config, prompt, duration, **options)
        decoded = self.decode_chunks(self._write_codes(request, progress), request.frames, chunk_frames)
        rate, prompts = self.config.codec.sample_rate, request.prompts
        return (Audio(waveform, rate, prompts=prompts, gain=STREAM_GAIN) for waveform in decoded if waveform.shape[2])

    def optimize(self, rung: str | None, *, keep_weights: bool = True, compiled: bool = False) -> MusicGen:
        """Generate faster on the CPU, with the decoder's weights held as `rung` says, and return the model itself.

        "fp32" keeps every weight as it is; "bf16", "int8" and "int4" round them to ever fewer bytes, and the music
        differs as from another seed. None undoes it. Such a model cannot be trained, and it saves its own weights, not
        the rounded ones. `keep_weights=False` gives its own up, and folds the codec's, which saves memory.
        `compiled=True` has a C++ compiler work for some seconds first, and what lies between products is faster too.

        Raises:
            ValueError: an unknown rung, weights or a processor that do not allow it, weights that were given up, or
                nothing to compile with.
        """
        optimize(self.decoder, rung, keep_weights, compiled)
        if rung is not None and not keep_weights:
            self.codec.fold_weight_norm()
        return self

    def _write_codes(self, request: Request, progress: Progress | None) -> Iterator[Tensor]:
        """Tell the decoder what is asked for, and return the iterator of its codes."""
        with torch.no_grad():
            condition = self._tell(request)
        known = None if request.start is None else self.encode(request.start)
        pieces = iterate_windows(
            self.decoder, condition, request.frames, self.pattern, request.settings, window=request.window,
            stride=request.stride, seed=request.seeds, progress=progress,
            known=None if known is None else known.expand(request.clips, -1, -1),
        )  # fmt: skip
        if request.prompts is not None:
            warn_of_unknown_words(self.tokenizer, request.prompts)
        return pieces

    def _tell(self, request: Request) -> Condition:
        melody, rate = None, self.config.codec.sample_rate
        if request.melody is not None:
            melody = hear_melody(request.melody, rate, self.config.melody).to(self.decoder.device)
            melody = melody.expand(request.clips, -1, -1)
        if request.prompts is not None:
            return self.encode_text(request.prompts, melody)
        like = dict(device=self.decoder.device, dtype=self.decoder.dtype)
        nothing = torch.zeros(request.clips, 1, self.config.decoder.hidden_size, **like)
        return self._condition(nothing, torch.zeros_like(nothing[:, :, 0], dtype=torch.bool), melody)

    def decode_chunks(self, pieces: Iterable[Tensor], frames: int, chunk_frames: int) -> Iterator[Tensor]:
        """Yield the samples that codes settle, `chunk_frames` of them at once: memory does not grow with length."""
        decoder, channels = StreamingCodecDecoder(self.codec), self.config.decoder.audio_channels
        waiting, done = [], 0
        for codes in pieces:
            waiting.append(codes)
            done += codes.shape[2]
            if sum(piece.shape[2] for piece in waiting) < chunk_frames and done < frames:
                continue
            codes, waiting = torch.cat(waiting, dim=2), []
            waveform = decoder.push(split_channels(codes, channels), last=done == frames)
            yield waveform.unflatten(0, (-1, channels)).flatten(1, 2)

    def decode(self, codes: Int[Tensor, "batch codebooks frames"]) -> Float[Tensor, "batch channels samples"]:
        """Codes to waveform, each channel by itself: the codec is mono. Raises ValueError where they do not fit it."""
        channels = self.config.decoder.audio_channels
        return self.codec.decode(split_channels(codes, channels)).unflatten(0, (-1, channels)).flatten(1, 2)

    def encode(self, audio: Sound) -> Int[Tensor, "batch codebooks frames"]:
        """Any sound to this model's codes: resampled, mixed to its channels, and each of these encoded by itself."""
        channels = self.config.decoder.audio_channels
        waveform = as_audio(audio).convert(self.config.codec.sample_rate, channels).waveform
        return encode_channels(self.codec, waveform.to(self.decoder.device, torch.float32))

    def save_pretrained(
        self,
        folder: str | os.PathLike,
        *,
        dtype: torch.dtype = torch.float32,
        max_shard_size: int | str = MAX_SHARD_SIZE,
    ) -> None:
        """Write the model as a folder that `from_pretrained` and transformers open.

        All files are complete under a temporary name before the first of them takes its place.
        `dtype` is how weights are stored (the codec's stay float32); both open them as float32. `max_shard_size` is
        a number of bytes, or a size such as "5GB".

        Raises:
            WidthMismatchError: the text encoder and the decoder do not fit, which the format cannot say.
            ValueError: a part of the model was quantised, replaced or wrapped in what is not known, or an option is
                impossible; nothing is written.
            OSError: the folder cannot be written.
        """
        write_model(self, folder, dtype, max_shard_size=max_shard_size)

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        revision: str | None = None,
        progress: Progress | None = None,
    ) -> MusicGen:
        """Open a MusicGen's checkpoint, written by `save_pretrained` or by transformers, in evaluation mode.

        Args:
            source: a folder, or a name on the hub such as "facebook/musicgen-small", which is downloaded once.
            dtype: the precision of text encoder, projection and decoder; the codec's is always float32.
            device: where the model shall compute.
            revision: a branch, tag or commit on the hub.
            progress: called as `progress(bytes_done, bytes_in_all)` after every tensor.

        Raises:
            FileNotFoundError: there is no such folder, name or revision, or its config or its weights are missing.
            ValueError: the folder holds another model, damaged files, pickles only, tensors that do not fit the config,
                or something that these classes do not support; or there is no such device or precision.
            MemoryError: the weights do not fit into the device's free memory.
            OSError: the hub cannot be reached (ConnectionError), wants its owner to be asked (PermissionError), or the
                disk is full.
        """
        return read_model(cls, source, dtype, device, revision, progress)
