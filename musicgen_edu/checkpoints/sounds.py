"""How a checkpoint hears a sound that it is given: `preprocessor_config.json`, and what `config.json` says of melodies.

A melody's window and hop stand in the first, its bins and its length in the second, where transformers has them.
"""

from __future__ import annotations

from typing import Any

from transformers import MusicgenMelodyConfig

from musicgen_edu.checkpoints.values import checked
from musicgen_edu.config import MelodyConfig, MusicGenConfig

Json = dict[str, Any]
_CONFIG_NAMES = {"bins": "num_chroma", "length": "chroma_length"}
MAX_COLUMNS = 10_000  # beside the codes: attention grows with its square
MIN_WINDOW, MAX_WINDOW = 64, 2**20  # samples
_EXTRACTOR_NAMES = {"window": "n_fft", "hop_length": "hop_length"}


def melody_config(melody: MelodyConfig) -> Json:
    """Return the part of `config.json` that tells of the melody."""
    return {theirs: getattr(melody, ours) for ours, theirs in _CONFIG_NAMES.items()}


def feature_extractor_config(config: MusicGenConfig) -> Json:
    """Return the content of `preprocessor_config.json`: how transformers' processor prepares a waveform."""
    melody, rate = config.melody, config.codec.sample_rate
    if melody is not None:
        return {
            "feature_extractor_type": "MusicgenMelodyFeatureExtractor",
            "feature_size": melody.bins,
            "num_chroma": melody.bins,
            "sampling_rate": rate,
            **{theirs: getattr(melody, ours) for ours, theirs in _EXTRACTOR_NAMES.items()},
        }
    return {
        "feature_extractor_type": "EncodecFeatureExtractor",
        "feature_size": config.decoder.audio_channels,
        "sampling_rate": rate,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": True,
        "chunk_length_s": None,
        "overlap": None,
    }


def read_melody(config: Json, extractor: Json) -> MelodyConfig:
    """Read how a melody is heard; `extractor` is empty where a folder has no `preprocessor_config.json`.

    Raises ValueError for a value that cannot be.
    """
    defaults, own = MusicgenMelodyConfig(), MelodyConfig()
    read = {}
    for field, name in _CONFIG_NAMES.items():
        read[field] = checked(f"config.json has {name}", config.get(name, getattr(defaults, name)), int)
    for field, name in _EXTRACTOR_NAMES.items():
        value = extractor.get(name, getattr(own, field))
        read[field] = checked(f"preprocessor_config.json has {name}", value, int)
    melody = MelodyConfig(**read)
    if melody.length > MAX_COLUMNS or not MIN_WINDOW <= melody.window <= MAX_WINDOW:
        raise ValueError(
            f"Its melody has chroma_length={melody.length} and n_fft={melody.window}: at most {MAX_COLUMNS} columns, "
            f"and windows of {MIN_WINDOW} to {MAX_WINDOW} samples."
        )
    return melody


def check_melody(melody: MelodyConfig, model_width: int, sample_rate: int, extractor: Json) -> None:
    """Raise ValueError where the parts of a checkpoint do not agree on the melody."""
    if model_width == melody.bins:
        raise ValueError(
            f"Its decoder is as wide as its chroma ({melody.bins}), which needs no projection and has none."
        )
    for name, wanted in (("num_chroma", melody.bins), ("sampling_rate", sample_rate)):
        if extractor.get(name, wanted) != wanted:
            raise ValueError(
                f"Its preprocessor_config.json has {name}={extractor[name]!r:.60}, its config.json {wanted}."
            )
