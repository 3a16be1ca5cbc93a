"""The projection: a linear layer, the seed's error, and the preflight that comes before it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from musicgen_edu.config import PRESETS, DecoderConfig
from musicgen_edu.projection import TextProjection, WidthMismatchError, check_widths, zero_padding


@torch.no_grad()
def test_is_a_linear_layer_whose_padding_is_zero():
    projection, linear = TextProjection(16, 24), nn.Linear(16, 24)
    linear.load_state_dict(projection.state_dict())
    states, mask = torch.randn(2, 5, 16), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    projected = projection(states, mask)
    assert torch.equal(projected[mask.bool()], linear(states)[mask.bool()])
    assert (projected[1, 2:] == 0).all(), "is the mask applied after the bias?"


@torch.no_grad()
def test_null_condition_is_zero():
    assert (TextProjection(16, 24)(torch.randn(1, 5, 16), torch.zeros(1, 5).bool()) == 0).all()


def test_zero_padding_keeps_the_states():
    states = torch.randn(1, 3, 8)
    assert torch.equal(zero_padding(states, torch.ones(1, 3).bool()), states)


def test_seeds_error_without_preflight():
    """A projection for t5-base (768) in a decoder of width 512, fed 4 tokens of width 512."""
    with pytest.raises(RuntimeError, match=r"mat1 and mat2 shapes cannot be multiplied \(4x512 and 768x512\)"):
        TextProjection(768, 512)(torch.randn(1, 4, 512), torch.ones(1, 4).bool())


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_pass_the_preflight(preset):
    check_widths(PRESETS[preset].text_encoder.hidden_size, PRESETS[preset].decoder)


@pytest.mark.parametrize(
    ("sizes", "expected", "parts"),
    [
        (  # the seed's own case
            {"hidden_size": 512, "text_hidden_size": 768},
            768,
            ["projection (Linear(768, 512))", "set text_hidden_size=512 (the", "a text encoder of width 768"],
        ),
        (
            {"hidden_size": 1024, "text_hidden_size": 768},
            768,
            ["projection (Linear(768, 1024))", "makes the projection Linear(512, 1024)", "or set hidden_size=512"],
        ),
        (
            {"hidden_size": 768, "project_text": False},
            768,
            ["k_proj, Linear(768, 768)", "project_text=True and text_hidden_size=512", "or set hidden_size=512, so"],
        ),
        (  # equal widths build no projection, whatever project_text says
            {"hidden_size": 768, "text_hidden_size": 768},
            768,
            ["k_proj, Linear(768, 768)", "text_hidden_size=512, which puts Linear(512, 768)", "or set hidden_size=512"],
        ),
    ],
)
def test_mismatch_names_widths_layer_and_mends(sizes, expected, parts):
    with pytest.raises(WidthMismatchError) as caught:
        check_widths(512, DecoderConfig(**sizes))
    assert (caught.value.text_width, caught.value.expected_width) == (512, expected)
    for part in ("gives states of width 512", f"expects width {expected}", *parts):
        assert part in str(caught.value)


@pytest.mark.parametrize("mend", [{"text_hidden_size": 512}, {"hidden_size": 512, "text_hidden_size": 512}])
def test_the_mends_mend(mend):
    check_widths(512, DecoderConfig(**mend))
    check_widths(512, DecoderConfig(hidden_size=512, project_text=False))
