"""Live music in a real browser: does the sound ever run dry, and how soon is another instrument heard?

    python tests/benchmarks/live.py

JupyterLab and headless Chromium on this machine, the shipped model; for over a minute other words are typed every few
seconds, each for another instrument. What goes to the loudspeakers is recorded and compared with what was written. A
judge of instruments, trained on seconds of the codec's sound, hears the second that ends two seconds after each change.
The exit code is 1 where the sound ran dry or fewer than eight of the ten instruments are heard by then.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import torch

from musicgen_edu import create_musicgen_model
from musicgen_edu.composer.samples import shipped_codes
from musicgen_edu.composer.score import ALL_ATTRIBUTES, INSTRUMENTS, Attributes
from musicgen_edu.listening.judges import TASKS, Judge, timbre, train_judge
from musicgen_edu.spectrogram import log_mel

sys.path.append(str(Path(__file__).parents[1] / "browser"))
from play_live import VIEW, find_gaps, listen, open_notebook, say, wait_until_heard  # noqa: E402

RATE = 16_000
SWITCHES, EVERY, MINUTE = 10, 5.5, 60.0  # changes, and seconds
WITHIN, NEEDED = 2.0, 8
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


def choose_prompts() -> list[str]:
    """The first instrument and one for each change; none follows itself."""
    rng = random.Random("live")
    names = rng.sample(INSTRUMENTS, len(INSTRUMENTS))
    return [names[index % len(names)] for index in range(SWITCHES + 1)]


def play(names: list[str]) -> tuple[np.ndarray, list[str], list[float]]:
    """What was heard, where it ran dry, and the seconds of it at which the words changed."""
    view = VIEW.replace('"happy piano melody"', f'"{names[0]} melody"')
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


def delay(judge: Judge, heard: np.ndarray, change: float, name: str) -> float:
    """Seconds from a change to the end of the first second of sound that is heard as the new instrument."""
    starts = [round((change + number * STEP) * RATE) for number in range(round((EVERY - 1) / STEP))]
    windows = torch.stack([torch.from_numpy(heard[start : start + RATE].copy()) for start in starts])
    names = hear(judge, windows)
    return names.index(name) * STEP + 1 if name in names else float("inf")


def main() -> int:
    """Print a line for each change, and what is needed."""
    names = choose_prompts()
    heard, gaps, changes = play(names)
    judge, share = train_listener()
    print(f"judge of single seconds: {share:.2f} of held-out ones right, by chance {1 / len(INSTRUMENTS):.2f}")
    in_time = 0
    for before, name, change in zip(names[:-1], names[1:], changes, strict=True):
        end = round((change + WITHIN) * RATE)
        (at_two,) = hear(judge, torch.from_numpy(heard[None, end - RATE : end].copy()))
        in_time += at_two == name
        waited = delay(judge, heard, change, name)
        print(f"{change:6.2f} s  {before:>16} -> {name:<16} after {WITHIN:g} s: {at_two:<16} first: {waited:.2f} s")
    seconds = (len(heard) - int(np.flatnonzero(heard)[0])) / RATE
    print(f"{seconds:.1f} s heard" + (f"; it ran dry: {', '.join(gaps)}" if gaps else ", sample for sample as written"))
    print(
        f"the new instrument is heard within {WITHIN:g} s of {in_time} changes out of {SWITCHES}; {NEEDED} are needed"
    )
    return int(bool(gaps) or in_time < NEEDED)


if __name__ == "__main__":
    sys.exit(main())
