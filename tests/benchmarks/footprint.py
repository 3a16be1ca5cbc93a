"""Bytes that musicgen-small's decoder in int4, its cache and its codec take, beyond what the process held before.

The decoder is built and packed layer by layer, as many weights at once as one layer has, and writes ten seconds; the
codec decodes as they come. Of the codec only the half that decodes is made, all that generation uses.
"""

from __future__ import annotations

import re
import resource
from pathlib import Path

import torch
from torch import nn

from musicgen_edu.codec import Codec, StreamingCodecDecoder
from musicgen_edu.conditioning import Condition
from musicgen_edu.config import PRESETS
from musicgen_edu.decoder import MusicGenDecoder
from musicgen_edu.generation import iterate_codes
from musicgen_edu.optimization import optimize
from musicgen_edu.patterns import create_pattern

DECODED_AT_ONCE = 25  # frames: half of what a second of sound takes while it is decoded, at a tenth more work


def peak() -> int:
    """Peak resident bytes of this process; on Linux of its own only, not of the one that started it."""
    status = Path("/proc/self/status")
    if status.is_file():
        return int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts bytes


def materialise(module: nn.Module) -> nn.Module:
    """Give a module its memory, and random values."""
    module.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.02)
    return module


def fill(decoder: MusicGenDecoder, codec: Codec) -> None:
    """Give the decoder its values, packed layer by layer, and the codec's decoder its own, folded."""
    for part in (*decoder.layers, *decoder.lm_heads):
        optimize(nn.ModuleList([materialise(part)]), "int4", keep_weights=False)
    materialise(decoder.embed_tokens), materialise(decoder.layer_norm)
    codec.encoder = None
    materialise(codec).fold_weight_norm()


def main() -> None:
    """Write and decode ten seconds, and print the bytes."""
    with torch.device("meta"):
        decoder, codec = MusicGenDecoder(PRESETS["small"].decoder), Codec(PRESETS["small"].codec)
    before = peak()
    fill(decoder, codec)
    frames, pattern = 500, create_pattern("delay", 4)
    text = torch.randn(1, 10, 1024, device="cpu", dtype=torch.float32)
    condition = Condition(text, torch.ones(1, 10, device="cpu", dtype=torch.bool))
    sound, waiting = StreamingCodecDecoder(codec), []
    for codes in iterate_codes(decoder, condition, frames, pattern):
        waiting.append(codes)
        if len(waiting) == DECODED_AT_ONCE:
            sound.push(torch.cat(waiting, dim=2))
            waiting.clear()
    print(peak() - before)


if __name__ == "__main__":
    main()
