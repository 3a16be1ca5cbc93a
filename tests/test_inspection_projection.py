"""The picture of a multiplication that fits or does not, and the view in which one changes its widths."""

from __future__ import annotations

import base64

import pytest

from musicgen_edu.inspection.controls import Shown, View
from musicgen_edu.inspection.projection import draw_multiplication, explore_projection, multiply

REPORTED = "mat1 and mat2 shapes cannot be multiplied (4x512 and 768x512)"


def parts(view: View) -> tuple[dict, Shown]:
    """The controls by their names, and what is shown."""
    controls, shown = view.children
    return {control.description: control for control in controls.children}, shown


def svg(picture) -> str:
    return picture.content.decode()


def test_the_reported_error_is_pytorchs_own():
    product = multiply()
    assert product.message == REPORTED and product.result is None
    assert (product.left, product.right, product.weight) == ((4, 512), (768, 512), (512, 768))


def test_the_same_message_without_the_transpose():
    product = multiply(expected_width=512, model_width=768, transposed=False)
    assert product.message == REPORTED and product.weight == product.right == (768, 512)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"prompts": 2, "text_tokens": 7}, "(14x512 and 768x512)"),
        ({"text_width": 768, "expected_width": 512, "model_width": 768}, "(4x768 and 512x768)"),
        ({"model_width": 768}, "(4x512 and 768x768)"),
        ({"model_width": 1024}, "(4x512 and 768x1024)"),
    ],
)
def test_neighbours_of_the_message(sizes, message):
    assert multiply(**sizes).message.endswith(message)


def test_what_fits_has_a_result_and_no_message():
    product = multiply(2, 5, 512, 512, 768)
    assert product.result == (2, 5, 768) and product.message == ""


@pytest.mark.parametrize("name", ["prompts", "text_tokens", "text_width", "expected_width", "model_width"])
def test_sizes_below_one_are_refused(name):
    with pytest.raises(ValueError, match="at least 1"):
        multiply(**{name: 0})


def test_the_picture_says_in_words_what_it_shows():
    bad, good = draw_multiplication(multiply()), draw_multiplication(multiply(expected_width=512, model_width=768))
    assert REPORTED in bad.alt and REPORTED in svg(bad) and "512 ≠ 768" in svg(bad)
    assert "Out comes [1, 4, 768]" in good.alt and "512 = 512" in svg(good) and "refuses" not in svg(good)
    assert 'fill="#ffffff"' in svg(bad), "without paper a dark theme hides the ink"


def test_the_view_answers_to_every_control():
    controls, shown = parts(explore_projection())
    assert all(control.tooltip for control in controls.values()) and len(controls) == 6
    assert shown.value.count("</p>") == 1 and f"✗ {REPORTED}</p>" in shown.value
    picture = base64.b64decode(shown.value.split("base64,")[1].split('"')[0]).decode()
    assert REPORTED not in picture, "PyTorch's sentence stands there once"
    changes = {"prompts": 2, "text tokens": 3, "encoder gives": 768, "layer gives": 1024, "transpose the weight": False,
               "layer expects": 512}  # fmt: skip
    for name, value in changes.items():
        before = shown.value
        controls[name].value = value
        assert shown.value != before, name


def test_the_view_shows_no_alarm_where_shapes_fit():
    controls, shown = parts(explore_projection())
    controls["layer expects"].value = 512
    controls["layer gives"].value = 768
    assert "alert" not in shown.value
    picture = base64.b64decode(shown.value.split("base64,")[1].split('"')[0]).decode()
    assert "out: [1, 4, 768]" in picture
