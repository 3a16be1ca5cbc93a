"""A blind listening test: is X the original, or what the codec made of it? Its order, its statistics, and the test."""

from __future__ import annotations

import base64
import math
import random
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import ipywidgets
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from musicgen_edu.audio import Audio, encode_file
from musicgen_edu.inspection.controls import Choice, Shown, Slider, View, play_button, row, stops
from musicgen_edu.inspection.pictures import BLUE, ORANGE, RED, Picture, picture, problem, status
from musicgen_edu.listening.metrics import wilson_interval
from musicgen_edu.player import listening_gain

SIDES = ("A", "B")
MOST_TRIALS = 50  # that the view asks


@dataclass(frozen=True)
class Trial:
    """One question: the clip `name` is heard as A, as B and as X, and X is the same recording as `answer`."""

    name: str
    original: str  # "A" or "B": behind which of them the original stands
    answer: str  # "A" or "B": which of them X is


@dataclass(frozen=True)
class Score:
    """How many trials were answered rightly, and what follows from that."""

    right: int
    trials: int
    p_value: float  # how likely someone who guesses gets as many right, or more
    low: float  # the 95 % interval of the share of right answers, from here
    high: float  # to here


def draw_trials(names: Sequence[str], trials: int, seed: int) -> list[Trial]:
    """The questions that a seed draws: the clips in random order, each as often as the others or once more.

    Which recording is A, and which is X, are two fair coins a trial. Raises ValueError without a clip or a trial.
    """
    if not names or trials < 1:
        raise ValueError(f"A blind test needs at least one clip and one trial, not {len(names)} and {trials}.")
    rng, drawn = random.Random(f"blind test {seed}"), []
    while len(drawn) < trials:
        drawn += rng.sample(list(names), len(names))
    return [Trial(name, rng.choice(SIDES), rng.choice(SIDES)) for name in drawn[:trials]]


def binomial_p_value(right: int, trials: int, chance: float = 0.5) -> float:
    """How likely a guesser gets `right` or more of `trials` right: the exact one-sided binomial test.

    Raises ValueError for more right answers than trials, no trial, or a chance outside 0 … 1.
    """
    if not 0 <= right <= trials or trials < 1 or not 0 <= chance <= 1:
        raise ValueError(f"{right} right answers of {trials} at a chance of {chance:g} are not possible.")
    ways = (math.comb(trials, k) * chance**k * (1 - chance) ** (trials - k) for k in range(right, trials + 1))
    return min(1.0, math.fsum(ways))


def right_answers_needed(trials: int, level: float = 0.05, chance: float = 0.5) -> int | None:
    """The fewest right answers that a guesser gives with probability `level` at most; None where even all are more."""
    return next((k for k in range(trials + 1) if binomial_p_value(k, trials, chance) <= level), None)


def score(trials: Sequence[Trial], answers: Sequence[str]) -> Score:
    """Compare answers ("A" or "B" a trial) with the truth. Raises ValueError unless each trial has one answer."""
    if not trials or len(answers) != len(trials) or not set(answers) <= set(SIDES):
        raise ValueError(f"{len(trials)} trials need as many answers, each A or B, not {list(answers)}.")
    right = sum(trial.answer == answer for trial, answer in zip(trials, answers, strict=True))
    return Score(right, len(trials), binomial_p_value(right, len(trials)), *wilson_interval(right, len(trials)))


def match_levels(
    first: Float[Tensor, "batch channels samples"], second: Float[Tensor, "batch channels samples"]
) -> tuple[Float[Tensor, "batch channels samples"], Float[Tensor, "batch channels samples"]]:
    """The same two recordings, the louder one turned down to the other's RMS: loudness must not tell them apart."""
    one, other = (clip.square().mean().sqrt().clamp(min=1e-9) for clip in (first, second))
    return first * min(1.0, float(other / one)), second * min(1.0, float(one / other))


def draw_score(right: int, trials: int) -> Picture:
    """Draw how a guesser would do, with the bars that are as good as `right` or better hatched, over the interval.

    Raises ValueError where `binomial_p_value` does.
    """
    p_value, (low, high) = binomial_p_value(right, trials), wilson_interval(right, trials)
    ways = [math.comb(trials, k) / 2**trials for k in range(trials + 1)]
    figure = Figure(figsize=(7.5, 3.8), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.bar(range(right), ways[:right], color=BLUE, edgecolor="#222222")
    above.bar(range(right, trials + 1), ways[right:], color=ORANGE, hatch="//", edgecolor="#222222")
    above.set(ylabel="probability")
    above.set_title(f"someone who guesses gets {right} of {trials} or more right: p = {p_value:.3f}", fontsize=10)
    below.plot([low * trials, high * trials], [0, 0], color=RED, linewidth=3, marker="|", markersize=14)
    below.plot(right, 0, "o", color=RED, markersize=8)
    below.axvline(trials / 2, color="#222222", linestyle="--", linewidth=1)
    below.set(yticks=[], ylim=(-1, 1), xlabel="right answers", xlim=(-0.7, trials + 0.7))
    below.set_title(f"95 % interval: {100 * low:.0f} to {100 * high:.0f} % right; dashed: guessing", fontsize=10)
    alt = f"Bars: how often someone who guesses gets each number of {trials} answers right; from {right} on, hatched, "
    alt += f"they add up to {p_value:.3f}. Below: the result, "
    alt += f"its interval {100 * low:.0f} to {100 * high:.0f} %, guessing."
    return picture(figure, alt)


def explore_blind_test(pairs: Mapping[str, tuple[Audio, Audio]], trials: int = 3, seed: int | None = None) -> View:
    """Take the test: listen to A, B and X of each trial, say which of the two X is, and read the result at the end.

    `pairs` holds, by name, an original and another recording of it. Without a seed nobody knows the order.
    """
    count, start, choice, answer = _controls(trials)
    chance, chosen = _explained(count, choice)
    heard, shown = Shown(), Shown(value=status("Choose how many trials, and press Start."))
    drawn: list[Trial] = []
    answers: list[str] = []

    def ask() -> None:
        choice.value, choice.disabled, answer.disabled = None, False, False
        trial, place = drawn[len(answers)], f"Trial {len(answers) + 1} of {len(drawn)}."
        shown.value = status(f"{place} Listen as often as you like; guess if you must.")
        heard.value = _players(*pairs[trial.name], trial)

    def begin(_: ipywidgets.Button) -> None:
        try:
            drawn[:] = draw_trials(list(pairs), count.value, secrets.randbits(32) if seed is None else seed)
            _check(pairs)
        except ValueError as error:
            shown.value = problem(error)
        else:
            answers.clear()
            ask()

    def note(_: ipywidgets.Button) -> None:
        if choice.value is None:
            shown.value = problem("No answer is chosen yet; choose A or B, even if it is a guess.")
            return
        answers.append(choice.value)
        if len(answers) < len(drawn):
            ask()
        else:
            choice.disabled = answer.disabled = True
            heard.value, shown.value = "", _result(drawn, answers)

    start.on_click(begin)
    answer.on_click(note)
    return View([row(count, start), chance, shown, heard, row(choice, answer), chosen], shown)


def _controls(trials: int) -> tuple[Slider, ipywidgets.Button, Choice, ipywidgets.Button]:
    """How many trials, start, the answer, and the button that notes it: the last two wait for the first trial."""
    count = Slider("Trials", stops(1, MOST_TRIALS), trials, tooltip="How many questions to answer")
    start = play_button("Start", "Draw a new random order and begin with the first trial")
    choice = Choice("X is", SIDES, disabled=True, tooltip="Which of the two recordings X is")
    answer = play_button("Answer", "Note this answer and go on to the next trial")
    answer.disabled = True
    return count, start, choice, answer


def _explained(count: Slider, choice: Choice) -> tuple[Shown, Shown]:
    """Two sentences that follow the controls: how many right answers it takes, and which one is chosen."""
    chance, chosen = Shown(value=status(_needed(count.value))), Shown()

    def follow(_: object) -> None:
        chosen.value = status(f"You say {choice.value}: press Answer to note it.") if choice.value else ""

    count.observe(lambda change: chance.set_trait("value", status(_needed(change["new"]))), "value")
    choice.observe(follow, "value")
    return chance, chosen


def _needed(trials: int) -> str:
    """What it takes to show that the two can be told apart."""
    needed = right_answers_needed(trials)
    if needed is None:
        return f"With {trials} trials even all right may be luck: take at least 5 to show that you hear a difference."
    return f"Someone who only guesses gets {needed} of {trials} right, or more, in fewer than 1 test of 20."


def _check(pairs: Mapping[str, tuple[Audio, Audio]]) -> None:
    for name, (original, other) in pairs.items():
        if original.waveform.shape != other.waveform.shape or original.sample_rate != other.sample_rate:
            raise ValueError(f"the two recordings of {name!r} differ in length or rate; cut them to one.")


def _players(original: Audio, other: Audio, trial: Trial) -> str:
    """Players for A, B and X, as WAV: a player's own compression would be heard in both. No picture, it would tell.

    One gain brings them to the listening level: what cannot be heard cannot be told apart.
    """
    both = torch.cat(match_levels(original.waveform, other.waveform))
    first, second = (both * 10 ** (listening_gain(both, original.sample_rate) / 20)).split(len(original.waveform))
    sides = dict(zip(SIDES, (first, second) if trial.original == "A" else (second, first), strict=True))
    sides["X"] = sides[trial.answer]
    return "".join(_player(name, clip[0], original.sample_rate) for name, clip in sides.items())


def _player(name: str, waveform: Float[Tensor, "channels samples"], sample_rate: int) -> str:
    data = base64.b64encode(encode_file(waveform.detach().float().cpu().clamp(-1, 1), sample_rate, ".wav")).decode()
    return f'<p><b>{name}</b> <audio controls aria-label="Recording {name}" src="data:audio/wav;base64,{data}"></audio>'


def _result(trials: Sequence[Trial], answers: Sequence[str]) -> str:
    result = score(trials, answers)
    rows = "".join(
        f"<tr><td>{row}</td><td>{escape(trial.name)}</td><td>{trial.original}</td><td>{trial.answer}</td>"
        f"<td>{answer}{' ✓' if answer == trial.answer else ' ✗'}</td></tr>"
        for row, (trial, answer) in enumerate(zip(trials, answers, strict=True), 1)
    )
    head = "<tr><th>trial</th><th>clip</th><th>original was</th><th>X was</th><th>you said</th></tr>"
    said = f"{result.right} of {result.trials} right, p = {result.p_value:.3f}, "
    said += f"95 % interval {100 * result.low:.0f} to {100 * result.high:.0f} %."
    table = f'<table style="background:#ffffff;color:#222222">{head}{rows}</table>'
    return status(said) + table + draw_score(result.right, result.trials)._repr_html_()
