"""Room 12: what `MusicGen.generate` is asked for, from a person's words, seconds and files to a model's own numbers.

Besides a text there may be a sound to go on from, a melody to follow, several samples of each prompt, and clips longer
than any that the model was trained on; or nothing at all. Whatever cannot be done is refused here, before any work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real

from musicgen_edu._checks import SMALLEST, check_number
from musicgen_edu.audio import Audio, Sound, as_audio
from musicgen_edu.conditioning import NO_MELODY
from musicgen_edu.config import CodecConfig, MusicGenConfig, SamplingSettings
from musicgen_edu.sampling import seeds_of_samples
from musicgen_edu.tokenizer import as_prompts

MAX_DURATION = 600.0  # seconds: ten minutes, of a model that remembers half a minute at most
MAX_SAMPLES = 100  # of one prompt: more of them fill the memory before they fill an evening
SILENCE = 1e-4  # peak of a sound in which nothing is heard: three steps of 16 bits, −80 dBFS


@dataclass(frozen=True, eq=False)
class Request:
    """What one batch of clips shall be.

    `prompts` and `seeds` have one entry a clip, `prompts` is None where nothing is said. `start` is what the clips
    begin with, at the codec's rate and with the model's channels, `melody` what they follow; both have one sound for
    all or one a clip. `window` and `stride` are frames, as `generation.iterate_windows` takes them.
    """

    prompts: list[str] | None
    clips: int
    frames: int
    settings: SamplingSettings
    seeds: list[int] | None
    window: int
    stride: int
    start: Audio | None
    melody: Audio | None


def read_request(
    config: MusicGenConfig,
    prompt: str | Sequence[str] | None,
    duration: float | int,
    *,
    samples: int = 1,
    seed: int | Sequence[int] | None = 0,
    continue_from: Sound | None = None,
    melody: Sound | None = None,
    window: float | int | None = None,
    stride: float | int | None = None,
    **settings: float | int | None,
) -> Request:
    """Check the arguments of `MusicGen.generate`, which explains them and names what is raised."""
    prompts = None if prompt is None else as_prompts(prompt)
    wanted = f"samples must be at least 1 and at most {MAX_SAMPLES} whole clips of each prompt"
    samples = check_number(wanted, samples, Integral, 1, MAX_SAMPLES)
    frames = count_frames(duration, config.codec)
    chosen = _sampling_settings(config, settings)
    if melody is not None and config.melody is None:
        raise ValueError(NO_MELODY)
    given = 1 if prompts is None else len(prompts)
    if prompts is None and melody is None:
        chosen = replace(chosen, guidance_scale=1.0)  # both branches would say nothing
    return Request(
        prompts and [each for each in prompts for _ in range(samples)],
        given * samples,
        frames,
        chosen,
        seeds_of_samples(seed, given, samples),
        *_windows(config, window, stride),
        None if continue_from is None else _start(continue_from, config, frames, given, samples),
        None if melody is None else _sound(melody, "melody", given, samples),
    )


def count_frames(duration: float | int, codec: CodecConfig, name: str = "duration") -> int:
    """Seconds as whole frames, at least one. Raises TypeError, or ValueError outside 0 … `MAX_DURATION`."""
    wanted = f"{name} must be more than 0 and at most {MAX_DURATION:g} seconds"
    return max(1, round(float(check_number(wanted, duration, Real, SMALLEST, MAX_DURATION)) * codec.frame_rate))


def _sampling_settings(config: MusicGenConfig, changes: dict[str, float | int | None]) -> SamplingSettings:
    """The model's own settings with some changed; a default top-k never exceeds a small codebook."""
    names = [field.name for field in fields(SamplingSettings)]
    if unknown := [name for name in changes if name not in names]:
        raise TypeError(f"There is no setting {unknown[0]!r}: choose among {', '.join(names)}.")
    own = replace(config.sampling, top_k=min(config.sampling.top_k, config.decoder.codebook_size))
    return replace(own, **{name: value for name, value in changes.items() if value is not None})


def _windows(config: MusicGenConfig, window: float | int | None, stride: float | int | None) -> tuple[int, int]:
    """Window and stride in frames; a stride that is not given is the model's own share of the window."""
    length = config.window if window is None else window
    window_frames = count_frames(length, config.codec, "window")
    step = length * config.stride / config.window if stride is None else stride
    stride_frames = count_frames(step, config.codec, "stride")
    if stride_frames >= window_frames:
        raise ValueError(
            f"The stride must be shorter than the window, by a frame at least, so that windows overlap: {step:g} "
            f"seconds are too many for {length:g}."
        )
    return window_frames, stride_frames


def _start(sound: Sound, config: MusicGenConfig, frames: int, given: int, samples: int) -> Audio:
    """The sound that shall go on, cut to whole frames: half a frame would end in silence."""
    codec = config.codec
    audio = _sound(sound, "music to continue", given, samples)
    audio = audio.convert(codec.sample_rate, config.decoder.audio_channels)
    known = audio.waveform.shape[2] // codec.hop_length
    if not known:
        raise ValueError(
            f"The music to continue lasts {1000 * audio.duration:.1f} ms, less than one frame of "
            f"{1000 / codec.frame_rate:.0f} ms: give a longer sound."
        )
    if known >= frames:
        raise ValueError(
            f"The music to continue lasts {audio.duration:.2f} s and counts among the duration: ask for more than the "
            f"{frames / codec.frame_rate:.2f} s that you asked for, or give a shorter sound."
        )
    return replace(audio, waveform=audio.waveform[:, :, : known * codec.hop_length])


def _sound(sound: Sound, name: str, given: int, samples: int) -> Audio:
    audio = as_audio(sound)
    if len(audio.waveform) not in (1, given):
        raise ValueError(f"There is one {name} for all clips, or one a prompt: not {len(audio.waveform)} for {given}.")
    if audio.waveform.abs().max() < SILENCE:
        raise ValueError(f"The {name} is silent: give a sound in which something is heard.")
    if len(audio.waveform) == given > 1:
        audio = replace(audio, waveform=audio.waveform.repeat_interleave(samples, dim=0), codes=None, prompts=None)
    return audio
