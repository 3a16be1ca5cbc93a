"""Training curves: logs read from files, smoothed by hand and by function, the picture of them, and the widget."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from musicgen_edu.inspection.training_curves import draw_curves, explore_curves, read_log, read_logs, smooth

SHIPPED = Path(__file__).parents[1] / "musicgen_edu" / "data" / "logs"


def write(file: Path, rows: list[dict], tail: str = "") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)
    return file


def falling(steps: int = 20, **figures: float) -> list[dict]:
    return [{"step": 10 * step + 9, "minutes": step / 4, "loss": 7.0 / (step + 1), **figures} for step in range(steps)]


@pytest.fixture
def folder(tmp_path) -> Path:
    write(tmp_path / "codec.jsonl", falling(snr=3.0))
    write(tmp_path / "decoder" / "log.jsonl", falling(codebook0=2.0, codebook1=3.0))
    write(tmp_path / "decoder" / "words" / "log.jsonl", falling(5))
    return tmp_path


def test_a_log_becomes_columns(tmp_path):
    log = read_log(write(tmp_path / "log.jsonl", falling(3, snr=1.5)))
    assert log == {"step": [9, 19, 29], "minutes": [0, 0.25, 0.5], "loss": [7, 3.5, 7 / 3], "snr": [1.5] * 3}


def test_a_line_that_a_kill_cut_off_is_left_out_and_a_missing_figure_is_nan(tmp_path):
    rows = [*falling(2), {"step": 29, "minutes": 0.5, "loss": 1.0, "in_text": 0.5}]
    log = read_log(write(tmp_path / "log.jsonl", rows, tail='{"step": 39, "minu'))
    assert log["step"] == [9, 19, 29]
    assert [math.isnan(value) for value in log["in_text"]] == [True, True, False]


@pytest.mark.parametrize("text", ["", "one\n", "{]}\n", '{"loss": 1.0}\n', '{"step": "first"}\n', '{"step": null}\n'])
def test_what_is_no_log_is_refused_by_its_name(tmp_path, text):
    file = tmp_path / "notes.jsonl"
    file.write_text(text)
    with pytest.raises(ValueError, match="notes.jsonl is no log of a training"):
        read_log(file)


def test_logs_are_named_by_file_or_by_folder(folder, tmp_path):
    logs = read_logs(folder)
    assert list(logs) == ["codec", "decoder", "decoder/words"]
    assert len(logs["decoder/words"]["loss"]) == 5
    assert list(read_logs(folder / "decoder" / "words")) == ["log"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no log .* in empty"):
        read_logs(tmp_path / "empty")


def test_the_shipped_logs_can_be_read_and_drawn():
    logs = read_logs(SHIPPED)
    assert {"codec", "decoder"} <= logs.keys()
    for log in logs.values():
        assert {"step", "minutes", "loss"} <= log.keys()
        assert len({len(values) for values in log.values()}) == 1
    assert "decoder from " in draw_curves(logs).alt


def test_smoothing_is_the_weighted_mean_of_what_was_seen():
    values = [4.0, 2.0, 3.0]
    assert smooth(values, 0) == values
    assert smooth(values, 0.5) == pytest.approx([4, (2 + 0.5 * 4) / 1.5, (3 + 0.5 * 2 + 0.25 * 4) / 1.75])
    assert smooth([5.0] * 30, 0.97) == pytest.approx([5.0] * 30), "no start at 0"
    assert smooth([], 0.5) == []


def test_a_gap_counts_for_nothing():
    smoothed = smooth([math.nan, 4.0, math.nan, 2.0], 0.5)
    assert math.isnan(smoothed[0]) and smoothed[1:] == pytest.approx([4, 4, (2 + 0.25 * 4) / 1.25])


@pytest.mark.parametrize("weight", [-0.1, 1, math.nan])
def test_a_weight_outside_its_range_is_refused(weight):
    with pytest.raises(ValueError, match="at least 0 and less than 1"):
        smooth([1.0], weight)


def test_the_picture_tells_where_each_line_starts_and_ends(folder):
    logs = read_logs(folder)
    shown = draw_curves(logs, smoothing=0)
    assert shown.media_type == "image/png"
    assert shown.alt == (
        "Training curves over steps: codec from 7.00 to 0.35; decoder from 7.00 to 0.35; "
        "decoder/words from 7.00 to 1.40."
    )
    assert draw_curves(logs, alt="Three losses that fall.").alt == "Three losses that fall."
    assert len({draw_curves(logs, **settings).content for settings in (
        {}, {"smoothing": 0}, {"across": "minutes"}, {"log_scale": True})}) == 4  # fmt: skip


def test_lines_are_named_by_log_by_figure_or_by_both(folder):
    logs = read_logs(folder)
    both = ("codebook0", "codebook1")
    assert "over minutes of training: codec from" in draw_curves(logs, across="minutes").alt
    assert ": codebook0 from 2.00 to 2.00; codebook1 from" in draw_curves({"decoder": logs["decoder"]}, both).alt
    assert ": decoder: codebook0 from 2.00 to 2.00; decoder: codebook1" in draw_curves(logs, both).alt


def test_more_lines_than_styles_are_drawn():
    logs = {f"run {number}": {"step": [0, 1], "loss": [2.0, 1.0]} for number in range(9)}
    assert draw_curves(logs).alt.count(" from ") == 9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"figures": ("perplexity",)}, "None of the chosen logs has 'perplexity' over steps; they have loss, snr"),
        ({"across": "weeks"}, "counts step or minutes, not 'weeks'"),
        ({"smoothing": 1}, "less than 1"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_sentence(folder, settings, message):
    with pytest.raises(ValueError, match=message):
        draw_curves(read_logs(folder), **settings)


def parts(folder):
    ticks, *controls, shown = explore_curves(read_logs(folder)).children
    return {control.description: control for control in (*ticks.children, *controls)}, shown


def test_the_view_follows_every_control(folder):
    controls, shown = parts(folder)
    names = ["codec", "decoder", "decoder/words", "figure", "across", "smoothing", "logarithmic"]
    assert list(controls) == names and all(control.tooltip for control in controls.values())
    seen = [shown.value]
    for name, value in (
        ("smoothing", 0.0), ("across", "minutes"), ("logarithmic", True), ("codec", False), ("decoder/words", False),
        ("figure", "codebook1"),
    ):  # fmt: skip
        controls[name].value = value
        seen.append(shown.value)
    assert "decoder from 3.00 to 3.00" in shown.value and "<img" in shown.value
    assert len(set(seen)) == 7


def test_the_view_says_in_red_what_it_cannot_draw_and_goes_on(folder):
    controls, shown = parts(folder)
    controls["codec"].value, controls["figure"].value = False, "snr"
    assert "None of the chosen logs has &#x27;snr&#x27;" in shown.value and 'role="alert"' in shown.value
    controls["decoder"].value = controls["decoder/words"].value = False
    assert "choose at least one" in shown.value
    controls["codec"].value = True
    assert "codec from 3.00 to 3.00" in shown.value
