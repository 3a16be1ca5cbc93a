"""Live music in a real browser: does the sound ever run dry, and how soon is another instrument heard?

    python tests/benchmarks/live.py [--seeds 0 1 2] [--rung bf16]

JupyterLab and headless Chromium on this machine, the shipped model; for over a minute other words are typed every few
seconds, each for another instrument. What goes to the loudspeakers is recorded and compared with what was written. A
judge of instruments, trained on seconds of the codec's sound, hears each second that ends within two of a change; how
often it hears instruments that nobody asked for stands beside it. One session's ten changes are few, so several are
played. The exit code is 1 where the sound ran dry or fewer than eight new instruments in ten are heard in time.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

import numpy as np
import torch

from musicgen_edu import create_musicgen_model
from musicgen_edu.composer.samples import shipped_codes
from musicgen_edu.composer.score import ALL_ATTRIBUTES, INSTRUMENTS, Attributes
from musicgen_edu.listening.judges import TASKS, Judge, timbre, train_judge
from musicgen_edu.listening.metrics import wilson_interval
from musicgen_edu.optimization import PRODUCTS
from musicgen_edu.spectrogram import log_mel

sys.path.append(str(Path(__file__).parents[1] / "browser"))
from play_live import VIEW, find_gaps, listen, open_notebook, say, wait_until_heard  # noqa: E402

RATE = 16_000
SWITCHES, EVERY, MINUTE = 10, 5.5, 60.0  # changes, and seconds
WITHIN, NEEDED = 2.0, 0.8  # seconds, and the share of the changes
CLIPS, HELD_OUT = 160, 40  # of five seconds, to learn from and to examine the judge with
STEP = 0.25  # seconds


def seconds_of(rows: range) -> tuple[torch.Tensor, list[Attributes]]:
    """The seconds of shipped clips, as the codec plays them, and what they were made to be."""
    clips, codec = shipped_codes(), create_musicgen_model("tiny").codec
    codes = clips.codes[rows.start : rows.stop].long()
    sound = torch.cat([codec.decode(part)[:, 0] for part in codes.split(16)])
    seconds = sound[:, RATE : RATE * (sound.shape[1] // RATE)].unfold(1, RATE, RATE)  # the first begins in silence
    attributes = [ALL_ATTRIBUTES[index] for index in clips.attributes[rows.start : rows.stop].tolist()]
    return seconds.flatten(0, 1), [each for each in attributes for _ in range(seconds.shape[1])]


def hear(judge: Judge, seconds: torch.Tensor) -> list[str]:
    """The instrument of each second of sound."""
    with torch.no_grad():
        scores = judge({"timbre": timbre(log_mel(seconds, RATE))})
    return [INSTRUMENTS[index] for index in scores.argmax(dim=1).tolist()]


def train_listener() -> tuple[Judge, float]:
    """A judge of single seconds, and its share of right answers on clips that it has not seen."""
    sound, attributes = seconds_of(range(CLIPS))
    judge = train_judge(TASKS["instrument"], {"timbre": timbre(log_mel(sound, RATE))}, attributes)
    sound, attributes = seconds_of(range(CLIPS, CLIPS + HELD_OUT))
    right = [name == each.instrument for name, each in zip(hear(judge, sound), attributes, strict=True)]
    return judge, sum(right) / len(right)


def choose_prompts(seed: int) -> list[str]:
    """The first instrument and one for each change; none follows itself."""
    rng = random.Random(f"live {seed}")
    names = rng.sample(INSTRUMENTS, len(INSTRUMENTS))
    return [names[index % len(names)] for index in range(SWITCHES + 1)]


def play(names: list[str], seed: int, rung: str | None) -> tuple[np.ndarray, list[str], list[float]]:
    """What was heard, where it ran dry, and the seconds of it at which the words changed."""
    view = VIEW.replace('"happy piano melody"', f'"{names[0]} melody", seed={seed}')
    view = view.replace('"int8"', repr(rung)) if rung else view
    with open_notebook(view) as page:
        page.get_by_role("button", name="Play").click()
        changes = []
        for number, name in enumerate(names[1:], start=1):
            wait_until_heard(page, EVERY * number)
            changes.append(say(page, f"{name} melody"))
        wait_until_heard(page, max(MINUTE, EVERY * (SWITCHES + 1)) + 1)
        heard, first, given, rate = listen(page)
    assert rate == RATE
    try:
        gaps = [f"{gap / RATE:.1f} s" for gap in find_gaps(heard, given)]
    except AssertionError as error:  # a chunk began too late and was mixed with the next
        gaps = [str(error)]
    return heard, gaps, [seconds - first / RATE for seconds in changes]


def follow(judge: Judge, heard: np.ndarray, change: float) -> list[str]:
    """What is heard in the seconds of sound that end 1, 1.25, 1.5 … seconds after a change."""
    starts = [round((change + number * STEP) * RATE) for number in range(round((EVERY - 1) / STEP))]
    return hear(judge, torch.stack([torch.from_numpy(heard[start : start + RATE].copy()) for start in starts]))


def hear_session(judge: Judge, seed: int, rung: str | None) -> tuple[int, int, float, bool]:
    """Play one session and print a line for each change.

    Returns how many new instruments are heard in time and how many at its end, how many of those that nobody asked for,
    on the mean of these eight, are heard in time, and whether the sound never ran dry.
    """
    names = choose_prompts(seed)
    heard, gaps, changes = play(names, seed, rung)
    in_time, at_end, mistaken, last = 0, 0, 0.0, round((WITHIN - 1) / STEP)
    for before, name, change in zip(names[:-1], names[1:], changes, strict=True):
        seconds = follow(judge, heard, change)
        in_time += name in seconds[: last + 1]
        at_end += name == seconds[last]
        mistaken += len({*seconds[: last + 1]} - {before, name}) / (len(INSTRUMENTS) - 2)
        first = f"{seconds.index(name) * STEP + 1:.2f} s" if name in seconds else "never"
        print(f"{change:6.2f} s  {before:>16} -> {name:<16} first: {first:<7} at {WITHIN:g} s: {seconds[last]}")
    played = (len(heard) - int(np.flatnonzero(heard)[0])) / RATE
    flow = f"it ran dry: {', '.join(gaps)}" if gaps else "sample for sample as written"
    print(f"seed {seed}: {played:.1f} s heard, {flow}; {in_time} of {SWITCHES} in time", flush=True)
    return in_time, at_end, mistaken, not gaps


def main() -> int:
    """Play all sessions; 1 if one ran dry, or too few new instruments are heard in time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rung", choices=PRODUCTS, help="of the decoder (default: the view's own)")
    args = parser.parse_args()
    judge, share = train_listener()
    print(f"judge of single seconds: {share:.2f} of held-out ones right, by chance {1 / len(INSTRUMENTS):.2f}")
    in_time, at_end, mistaken, flowed = zip(*(hear_session(judge, seed, args.rung) for seed in args.seeds), strict=True)
    changes = SWITCHES * len(args.seeds)
    low, high = wilson_interval(sum(in_time), changes)
    print(
        f"the new instrument is heard within {WITHIN:g} s of {sum(in_time)} changes out of {changes} ({low:.2f} to "
        f"{high:.2f}), one that nobody asked for of {sum(mistaken):.1f}; {NEEDED * changes:g} are needed\n"
        f"in the second that ends there it is heard after {sum(at_end)}"
    )
    return int(not all(flowed) or sum(in_time) < NEEDED * changes)


if __name__ == "__main__":
    sys.exit(main())
