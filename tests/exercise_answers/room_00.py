"""Answers to the exercises of room 00."""

from __future__ import annotations

from exercise_answers import Answer

WRONG = [
    Answer(1, "batch forgotten", "Is the batch there", {"[1, 4, ": "[4, ", "[1, 1, ": "[1, "}),
    Answer(1, "samples for frames", "50 frames a second", {"seconds * 50)]": "seconds * 16_000)]"}),
    Answer(1, "one codebook", "codes are [batch, codebooks, frames]", {"[1, 4, ": "[1, 1, "}),
    Answer(1, "length written in", "is a length written in", {"round(seconds * 50)": "150"}),
    Answer(1, "not returned", "nothing comes back", {"return": "answer ="}),
    Answer(2, "joined along the batch", "join along dim=1", {", dim=1": ""}),
    Answer(
        2,
        "turned round",
        "turned round",
        {"outline[:, :count], detail[:, count:]": "detail[:, :count], outline[:, count:]"},
    ),
    Answer(
        2,
        "frames cut",
        "turned round, or another axis",
        {"[:, :count]": "[:, :, :count]", "[:, count:]": "[:, :, count:]", "dim=1": "dim=2"},
    ),
    Answer(
        2,
        "changed in place",
        "an input was changed",
        "def mix(outline, detail, count):\n    outline[:, count:] = detail[:, count:]\n    return outline",
    ),
    Answer(2, "count on one side", "is `count` used on both sides", {"detail[:, count:]": "detail[:, 1:]"}),
    Answer(3, "no logarithm", "takes log2(1024) = 10 bits", {"math.log2(codebook_size)": "codebook_size"}),
    Answer(3, "one codebook", "that is one codebook", {"codebooks * ": ""}),
    Answer(3, "one frame", "that is one frame", {"frame_rate * ": ""}),
    Answer(3, "natural logarithm", "the natural logarithm", {"math.log2": "math.log"}),
    Answer(3, "bytes", "that is bytes", {"math.log2(codebook_size)": "math.log2(codebook_size) / 8"}),
    Answer(3, "ten written in", "is the 10 written in", {"math.log2(codebook_size)": "10"}),
]
