"""The grid of a pattern as numbers, as a picture whose signs need no colour, and as a view that is moved in Python."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import ipywidgets
import pytest
import torch

from musicgen_edu.inspection.delay_pattern import (
    EMPTY,
    MAX_CODEBOOKS,
    MAX_FRAMES,
    describe_grid,
    draw_pattern,
    explore_pattern,
    pattern_grid,
)
from musicgen_edu.patterns import PATTERNS, create_pattern

SVG = "{http://www.w3.org/2000/svg}"


def controls(view: ipywidgets.Widget) -> dict[str, ipywidgets.Widget]:
    """Everything that can be moved now, by its label."""
    pattern, settings, delays, _ = view.children
    return {control.description: control for control in (pattern, *settings.children, *delays.children)}


def shown(view: ipywidgets.Widget) -> str:
    return view.children[-1].value


def test_the_grid_is_the_patterns_own():
    assert pattern_grid("delay", 3, 2).tolist() == [[-1, 0, 1, -1, -1], [-1, -1, 0, 1, -1], [-1, -1, -1, 0, 1]]
    stereo = create_pattern("delay", 4, [0, 0, 1, 1]).frame_index(3)
    assert torch.equal(pattern_grid("delay", 4, 3, [0, 0, 1, 1]), stereo)


def test_the_sentence_counts_steps_and_empty_cells():
    assert describe_grid(pattern_grid("delay", 4, 4)) == (
        "4 frames in 8 steps, step 0 included; 16 of 32 cells hold no frame."
    )
    assert describe_grid(pattern_grid("parallel", 2, 3)).endswith("2 of 8 cells hold no frame.")


@pytest.mark.parametrize("name", PATTERNS)
def test_every_cell_has_its_sign_and_empty_ones_are_hatched(name):
    grid = pattern_grid(name, 4, 3)
    picture = draw_pattern(grid, "A pattern", lit=1)
    drawing = ET.fromstring(picture.content)
    fills = [rect.get("fill") for rect in drawing.findall(f"{SVG}rect")]
    signs = [text.text for text in drawing.findall(f"{SVG}text")][-grid.numel() :]
    assert signs == [EMPTY if frame < 0 else str(frame) for frame in grid.flatten().tolist()]
    assert fills.count("url(#hatching)") == signs.count(EMPTY) == int((grid < 0).sum())
    lit = [text for text in drawing.findall(f"{SVG}text") if text.get("font-weight") == "bold" and text.text == "1"]
    assert len(lit) == 4


def test_the_alt_text_reads_the_table_out_and_the_title_is_escaped():
    picture = draw_pattern(pattern_grid("delay", 2, 2), "Mine & yours", lit=0)
    assert picture.alt.startswith("Mine & yours. 2 frames in 4 steps")
    assert "Codebook 0: × 0 1 ×. Codebook 1: × × 0 1. The cells of frame 0 are lit." in picture.alt
    assert b"Mine &amp; yours" in picture.content and 'alt="Mine &amp; yours.' in picture._repr_html_()


def test_every_size_of_the_view_can_be_drawn():
    for name in PATTERNS:
        largest = draw_pattern(pattern_grid(name, MAX_CODEBOOKS, MAX_FRAMES), name)
        assert 640 <= int(ET.fromstring(largest.content).get("width")) < 1400


def test_the_view_starts_with_the_picture_and_labels_every_control():
    view = explore_pattern("delay", 4, 5)
    assert draw_pattern(pattern_grid("delay", 4, 5), "The delay pattern", 1)._repr_html_() in shown(view)
    labels = ["pattern", "codebooks", "frames", "follow frame", "delay 0", "delay 1", "delay 2", "delay 3"]
    assert list(controls(view)) == labels
    assert all(control.tooltip for control in controls(view).values())


def test_moving_a_control_changes_the_picture():
    view = explore_pattern()
    for label, value, seen in [
        ("frames", 7, "7 frames in 11 steps"),
        ("codebooks", 3, "7 frames in 10 steps"),
        ("pattern", "flatten", "7 frames in 22 steps"),
        ("pattern", "delay", "7 frames in 10 steps"),
        ("delay 2", 5, "7 frames in 13 steps"),
        ("follow frame", 6, "The cells of frame 6 are lit."),
    ]:
        controls(view)[label].value = value
        assert seen in shown(view), label


def test_a_pattern_brings_its_own_delays():
    view = explore_pattern("delay", 4)
    controls(view)["pattern"].value = "partial_delay"
    assert [controls(view)[f"delay {k}"].value for k in range(4)] == [0, 1, 1, 1]
    controls(view)["codebooks"].value = 6
    assert [controls(view)[f"delay {k}"].value for k in range(6)] == [0, 1, 1, 1, 1, 1]
    controls(view)["codebooks"].value = 2
    assert "delay 2" not in controls(view)


def test_the_followed_frame_stays_within_the_clip():
    view = explore_pattern("delay", 4, 8)
    controls(view)["follow frame"].value = 7
    controls(view)["frames"].value = 3
    assert controls(view)["follow frame"].value == 2 and "The cells of frame 2 are lit." in shown(view)
    controls(view)["frames"].value = 1
    assert "1 frame in 5 steps" in shown(view)


@pytest.mark.parametrize(
    ("moved", "to", "delays"),
    [(0, 4, [4, 4, 4]), (0, 1, [1, 1, 2]), (1, 6, [0, 6, 6]), (2, 0, [0, 0, 0]), (2, 1, [0, 1, 1]), (2, 8, [0, 1, 8])],
)
def test_a_delay_takes_its_neighbours_along(moved, to, delays):
    view = explore_pattern("delay", 3)
    assert "The delay pattern." in shown(view)
    controls(view)[f"delay {moved}"].value = to
    assert [controls(view)[f"delay {k}"].value for k in range(3)] == delays
    assert "The delay pattern, with your own delays." in shown(view) and 'role="alert"' not in shown(view)
    assert f"5 frames in {6 + max(delays)} steps" in shown(view)


def test_more_codebooks_bring_the_patterns_own_delays_back():
    view = explore_pattern("delay", 3)
    controls(view)["delay 0"].value = 2
    controls(view)["codebooks"].value = 4
    assert "The delay pattern." in shown(view) and "your own" not in shown(view)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="There is no codebook pattern 'spiral'"):
        pattern_grid("spiral", 4, 4)
    with pytest.raises(ValueError, match="frames must be a whole number of at least 1"):
        pattern_grid("delay", 4, 0)
