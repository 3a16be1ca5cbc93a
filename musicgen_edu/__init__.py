"""MusicGen from scratch, as a course one can hear.

>>> from musicgen_edu import create_musicgen_model
>>> model = create_musicgen_model("tiny")
>>> model.generate("peaceful piano melody", duration=4.0, seed=0).save("piano.wav")

A name is imported from its module when it is first used, so that `import musicgen_edu` costs little more than
`import torch`.
"""

from __future__ import annotations

import importlib
import os

# Threads that wait shall sleep. Spinning, as OpenMP has it, they take the time of everyone else on the machine: six
# kernels on two cores then never finish. It counts only before torch is loaded, so it stands before the next import.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# But not at once: the products of one step of generation follow each other within microseconds, and waking a thread for
# each made a step 3 to 5 times as long. With 2,000 turns of waiting six crowded processes were as fast as with none.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

from musicgen_edu._threads import default_threads
from musicgen_edu._torchaudio import mend_torchaudio

os.environ.setdefault("OMP_NUM_THREADS", str(default_threads()))  # the one variable for threads; before torch, too

__version__ = "0.1.0"

# In the order of the data: config, condition, text, decoder, codec, generation, the whole.
_EXPORTS = {
    "config": ("PRESETS", "CodecConfig", "DecoderConfig", "MusicGenConfig", "SamplingSettings", "TextEncoderConfig"),
    "conditioning": ("Condition",),
    "tokenizer": ("Tokenizer", "UnknownWordsWarning", "train_tokenizer"),
    "text_encoder": ("TextEncoder",),
    "projection": ("TextProjection", "WidthMismatchError", "check_widths"),
    "decoder": ("DecoderCache", "MusicGenDecoder"),
    "patterns": ("PATTERNS", "CodebookPattern", "create_pattern"),
    "codec": ("Codec", "StreamingCodecDecoder"),
    "sampling": ("apply_guidance", "apply_temperature", "keep_top_k", "keep_top_p", "sample"),
    "generation": ("generate_codes", "iterate_codes"),
    "checkpoints.tensors": ("CheckpointError",),
    "audio": ("Audio", "load_audio"),
    "model": ("MusicGen",),
    "presets": ("create_musicgen_model",),
}
_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = ["__version__", *_MODULE_OF]

mend_torchaudio()


def __getattr__(name: str):
    """Import an exported name on its first use (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
