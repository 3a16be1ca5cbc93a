"""Writes what `evaluation.py` measured: every figure as JSON, and the same as tables that a person reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from musicgen_edu.files import write_whole
from musicgen_edu.listening.judges import JUDGES, TASKS

COLUMNS = ("generated", "codec", "ceiling")


def write_report(report: dict, folder: Path) -> None:
    """Write report.json and report.md into a folder, each whole or not at all."""
    contents = {"report.json": json.dumps(report, indent=2) + "\n", "report.md": to_markdown(report)}
    for name, content in contents.items():
        write_whole(folder / name, content.encode())


def to_markdown(report: dict) -> str:
    """The report in words and tables. Brackets hold 95 % intervals: Wilson's for shares, the normal one for means."""
    plan = report["plan"]
    frechet, spread = report["frechet"], report["diversity"]
    parts = [
        "# Evaluation",
        f"{plan['prompts']} prompts of {plan['duration']:g} s, held-out captions and attribute combinations; judges "
        f"trained on {plan['judge_clips']} renders; {plan['real_clips']} held-out renders; seed {plan['seed']}; "
        f"{report['minutes']:.1f} minutes. The weights' SHA-256 begins with {report['weights'][:16]} "
        "(`musicgen-edu verify` prints it). Brackets hold 95 % intervals.",
        "## Does it do what the prompt says",
        *_adherence(report["adherence"]),
        *_by_answer(report["adherence"]),
        "## By published definitions",
        _by_definition(report["by_definition"]),
        "## Codec",
        _codec(report["codec"]),
        "## Distance, diversity, surprise",
        f"- Fréchet distance of log-mel statistics over {frechet['clips']} clips: "
        f"generated to real {frechet['generated to real']:.1f}, real to real {frechet['real to real']:.1f}, "
        f"ratio {frechet['ratio']:.1f}.",
        f"- Diversity, eight seeds of “{spread['prompt']}”: generated {spread['generated']:.1f} dB, "
        f"real {spread['real']:.1f} dB.",
        *(f"- Cross-entropy, {name}: {value:.2f} nats." for name, value in report["cross_entropy"].items()),
    ]
    if "memorisation" in report:
        parts += ["## Longest run of frames shared with training", _memorisation(report["memorisation"])]
    for scale, figures in report["guidance"].items():
        spread = figures["diversity"]["generated"]
        parts += [f"## Guidance {scale}: diversity {spread:.1f} dB", *_adherence(figures["adherence"])]
    for seconds, figures in report["durations"].items():
        parts += [
            f"## The last five seconds of {seconds} s", *_adherence(figures["adherence"]),
            _by_definition(figures["by_definition"]),
        ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _adherence(tasks: dict) -> list[str]:
    """A table a judge: what it hears in generated clips, in reconstructions and in real renders."""
    tables = []
    for judge in JUDGES:
        columns = [column for column in COLUMNS if f"{column}, {judge}" in next(iter(tasks.values()))]
        rows = (
            (task, *(_figure(figures[f"{column}, {judge}"]) for column in columns), _figure(figures["chance"]))
            for task, figures in tasks.items()
        )
        tables.append(_table((judge, *columns, "chance"), rows))
    return tables


def _by_answer(tasks: dict) -> list[str]:
    """For instrument and mode: what each judge heard in generated clips, right answer by right answer."""
    parts = []
    for task in ("instrument", "mode"):
        answers = TASKS[task].answers
        for judge in JUDGES:
            counts = tasks[task]["confusion"][f"generated, {judge}"]
            rows = (
                (name, *row, _right(row, index)) for index, (name, row) in enumerate(zip(answers, counts, strict=True))
            )
            parts += [f"### {task.capitalize()} in generated clips, {judge}: asked for (rows), heard (columns)",
                      _table(("", *answers, "right"), rows)]  # fmt: skip
    return parts


def _right(row: Sequence[int], index: int) -> str:
    return f"{row[index] / sum(row):.2f}" if sum(row) else "–"


def _by_definition(figures: dict) -> str:
    columns = [column for column in COLUMNS if column in figures]
    rows = ((name, *(_figure(figures[column][name]) for column in columns)) for name in figures["generated"])
    return _table(("", *columns), rows)


def _codec(groups: dict) -> str:
    rows = (
        (name, group["clips"], _figure(group["si_sdr"]), _figure(group["mel_distance"]))
        for name, group in groups.items()
    )
    return _table(("", "clips", "SI-SDR, dB", "mel distance, dB"), rows)


def _memorisation(runs: dict) -> str:
    rows = ((name, each["frames"], each["longest"], _figure(each["mean"])) for name, each in runs.items())
    return _table(("", "frames in a clip", "longest", "mean"), rows)


def _figure(figure: dict | float | None) -> str:
    if figure is None:
        return "–"
    if isinstance(figure, float):
        return f"{figure:.2f}"
    return f"{figure['value']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}]"


def _table(header: Sequence[str], rows: Iterable[Sequence]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
