"""Other words in live music, in many sessions at once and without a browser: how surely are they heard?

    python tests/benchmarks/switches.py [--guidance 2 2.5 3] [--sessions 24] [--first-seed 0] [--rung int8]

What `live.py` plays, written only: each session changes its instrument six times, in windows as a live session has
them. The judge of single seconds hears the second that begins so long after the words count; the last one that
`live.py` hears begins at about 0.45, since words count from half a second after they were said. Shares come with
Wilson's interval.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import replace

import torch
from live import EVERY, RATE, hear, train_listener
from torch import Tensor

from musicgen_edu import MusicGen, create_musicgen_model
from musicgen_edu.composer.score import INSTRUMENTS
from musicgen_edu.conditioning import ChangingCondition, Condition
from musicgen_edu.generation import iterate_windows
from musicgen_edu.inspection.live import GUIDANCE
from musicgen_edu.listening.judges import Judge
from musicgen_edu.listening.metrics import wilson_interval
from musicgen_edu.live import STRIDE, WINDOW
from musicgen_edu.optimization import PRODUCTS

CHANGES = 6
BEGINNINGS = 0.0, 0.25, 0.5, 1.0, 3.0  # seconds after the words count
AT_ONCE = 4  # clips that are decoded together


def choose_names(sessions: int) -> list[list[str]]:
    """The instruments of each session, none of them twice."""
    rng = random.Random("switches")
    return [rng.sample(INSTRUMENTS, CHANGES + 1) for _ in range(sessions)]


def write(model: MusicGen, names: list[list[str]], guidance: float, first_seed: int) -> Tensor:
    """The sessions' sound, [sessions, samples]; words change every `EVERY` seconds."""
    rate = model.config.codec.frame_rate

    def told(number: int) -> Condition:
        with torch.no_grad():
            return model.encode_text([f"{each[number]} melody" for each in names])

    condition, pieces, written, number = ChangingCondition(told(0)), [], 0, 1
    for piece in iterate_windows(
        model.decoder, condition, round(EVERY * rate) * (CHANGES + 1), model.pattern,
        replace(model.config.sampling, guidance_scale=guidance), window=round(WINDOW * rate),
        stride=round(STRIDE * rate), seed=range(first_seed, first_seed + len(names)),
    ):  # fmt: skip
        pieces.append(piece)
        written += piece.shape[2]
        if number <= CHANGES and written >= number * round(EVERY * rate):
            condition.now = told(number)
            number += 1
    codes = torch.cat(pieces, dim=2)
    return torch.cat([model.codec.decode(part)[:, 0] for part in codes.split(AT_ONCE)])


def listen(judge: Judge, sound: Tensor, names: list[list[str]], beginning: float) -> int:
    """How many changes are heard in the second that begins so long after them."""
    starts = [round((EVERY * number + beginning) * RATE) for number in range(1, CHANGES + 1)]
    return sum(
        heard == each[number]
        for number, start in enumerate(starts, start=1)
        for heard, each in zip(hear(judge, sound[:, start : start + RATE]), names, strict=True)
    )


def main() -> None:
    """Print a line for each guidance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--guidance", type=float, nargs="+", default=[2.0, GUIDANCE, 3.0])
    parser.add_argument("--sessions", type=int, default=24)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rung", choices=PRODUCTS, help="of the decoder (default: as it is)")
    args = parser.parse_args()
    judge, share = train_listener()
    model, names = create_musicgen_model("tiny").optimize(args.rung), choose_names(args.sessions)
    print(f"judge of single seconds: {share:.2f} of held-out ones right; {args.sessions * CHANGES} changes")
    for guidance in args.guidance:
        sound = write(model, names, guidance, args.first_seed)
        for beginning in BEGINNINGS:
            right = listen(judge, sound, names, beginning)
            low, high = wilson_interval(right, args.sessions * CHANGES)
            share = right / (args.sessions * CHANGES)
            print(f"guidance {guidance:g}, {beginning:4.2f} s after: {share:.2f} ({low:.2f} to {high:.2f})", flush=True)


if __name__ == "__main__":
    main()
