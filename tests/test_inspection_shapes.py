"""The widget of sizes: shapes come from a run, and a mismatch is named by the preflight and by PyTorch."""

from __future__ import annotations

import ipywidgets
import pytest

from musicgen_edu.inspection.controls import Shown, View
from musicgen_edu.inspection.shapes import draw_shapes, explore_shapes, try_shapes

pytestmark = pytest.mark.usefixtures("unchecked_annotations")  # or the annotations would object before PyTorch does
SEEDS_ERROR = "mat1 and mat2 shapes cannot be multiplied (4x512 and 768x512)"


@pytest.fixture(scope="module")
def view():
    return explore_shapes(duration=0.1)


def control(view: View, name: str) -> ipywidgets.Widget:
    return next(child for child in view.children[0].children if child.description == name)


def test_sizes_change_the_shapes_of_the_run():
    way, sentence = try_shapes("a happy piano melody", 0.1, codebooks=2, hidden_size=256)
    assert sentence == "" and way.failure is None
    assert way["ids"].shape == (1, 5) and way["projected states"].shape == (1, 5, 256)
    assert way["codes"].shape == (1, 2, 5) and way["waveform"].shape == (1, 1, 1600)


def test_more_codebooks_than_the_shipped_codec_has():
    assert try_shapes(duration=0.1, codebooks=8)[0]["codes"].shape == (1, 8, 5)


def test_equal_widths_need_no_projection():
    way, sentence = try_shapes(duration=0.1, hidden_size=512, project_text=False)
    assert sentence == "" and "projected states" not in [stage.name for stage in way]


def test_seeds_error_to_the_letter():
    way, sentence = try_shapes(duration=0.1, hidden_size=512, text_hidden_size=768)
    assert (way.failure.layer, way.failure.message) == ("projection", SEEDS_ERROR)
    assert "gives states of width 512" in sentence and "expects width 768" in sentence
    assert SEEDS_ERROR in draw_shapes(duration=0.1, hidden_size=512, text_hidden_size=768).alt


def test_without_projection_the_cross_attention_breaks():
    way, sentence = try_shapes(duration=0.1, project_text=False)
    assert way.failure.layer == "decoder.layers.0.encoder_attn.k_proj" and "encoder_attn.k_proj" in sentence
    assert way.failure.message.endswith("(8x512 and 768x768)")
    assert way.stages[-1].name == "interleaved steps"


def test_every_control_has_a_label_and_a_tooltip(view):
    controls, output = view.children[0].children, view.children[1]
    names = ["prompt", "duration", "codebooks", "hidden_size", "text_hidden_size", "project_text"]
    assert [child.description for child in controls] == names
    assert all(child.tooltip for child in controls) and isinstance(output, Shown)


def test_the_view_follows_its_controls(view):
    output = view.children[-1]
    before = output.value
    assert "the widths fit" in before and "<img alt=" in before and "<table>" in before
    control(view, "codebooks").value = 3
    assert output.value != before and "batch 1 × codebooks 3 × frames 5" in output.value
    assert "(was 1 × 4 × 5)" in output.value and "(was" not in before
    control(view, "hidden_size").value = 512
    control(view, "text_hidden_size").value = 768
    assert f"PyTorch: {SEEDS_ERROR}" in output.value and "Preflight: The text encoder gives" in output.value
    assert output.value.count('role="alert"') == 2
    control(view, "project_text").value = False
    assert "the widths fit" in output.value


def test_a_blank_prompt_is_one_red_sentence(view):
    control(view, "prompt").value = ""
    value = view.children[-1].value
    assert value.startswith('<p role="alert"') and "The prompt is empty" in value and value.count("<p") == 1
    control(view, "prompt").value = "a xylophone"  # a word that the model does not know: no warning reaches the reader
    assert "a xylophone" in view.children[-1].value
