"""Every variant of Meta's family equals transformers, and where two models part is found."""

from __future__ import annotations

import copy

import pytest
import torch

from musicgen_edu.config import PRESETS
from musicgen_edu.model import MusicGen
from musicgen_edu.reality import parity
from musicgen_edu.reality.divergence import first_divergence
from musicgen_edu.reality.parity import CHECKS, VARIANTS, opened_pair


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request):
    with opened_pair(VARIANTS[request.param]) as pair:
        yield pair


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_a_variant_is_transformers_own(pair, check):
    result = check(pair)
    assert result.passed, result


def test_the_table_has_a_line_for_each_variant_and_check(monkeypatch, capsys):
    monkeypatch.setattr(parity, "VARIANTS", {"mono": {}, "melody": {"melody": True}})
    monkeypatch.setattr(parity, "CHECKS", [parity.check_scores, parity.check_prefix])
    assert parity.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[:4]] == [
        ["mono", "PASS", "scores"], ["mono", "PASS", "prefix"], ["melody", "PASS", "scores"],
        ["melody", "PASS", "prefix"],
    ]  # fmt: skip


def run(model: MusicGen) -> None:
    ids = torch.tensor([[5, 9, 1]])
    model(torch.zeros(1, model.config.decoder.num_codebooks, 6, dtype=torch.long), ids, torch.ones_like(ids))


def scale(module, factor: float) -> None:
    module.register_forward_hook(lambda module, inputs, output: output * factor)


FAULTS = {
    "a weight": (
        lambda model: model.decoder.layers[1].fc1.weight.data[3].add_(0.5),
        "the weight of decoder.model.decoder.layers.1.fc1.weight differs by 5.0e-01 at [3, ",
    ),
    "a layer's computation": (
        lambda model: scale(model.decoder.layers[0].encoder_attn.q_proj, 1.5),
        "the output of decoder.model.decoder.layers.0.encoder_attn.q_proj differs by",
    ),
    "the text": (
        lambda model: scale(model.text_encoder.model.encoder.block[1].layer[0].SelfAttention.o, 1.01),
        "the output of text_encoder.encoder.block.1.layer.0.SelfAttention.o differs",
    ),
    "numbers that are none": (
        lambda model: scale(model.decoder.layers[0].fc1, float("nan")),
        "the output of decoder.model.decoder.layers.0.fc1 has another shape, or numbers that are none",
    ),
}


@pytest.mark.parametrize(("plant", "found"), FAULTS.values(), ids=FAULTS)
def test_a_planted_fault_is_found(plant, found):
    with opened_pair(VARIANTS["mono"]) as pair:
        faulty = copy.deepcopy(pair.ours)
        assert first_divergence(pair.ours, faulty, run) is None
        plant(faulty)
        assert str(first_divergence(pair.ours, faulty, run)).startswith(found)


EXPLAINED = {
    "scores": (
        parity.check_scores,
        lambda model: scale(model.decoder.layers[1].fc2, 1.001),
        "the output of decoder.model.decoder.layers.1.fc2 differs by",
    ),
    "prefix": (
        parity.check_prefix,
        lambda model: scale(model.text_encoder.model.encoder.block[0].layer[1], 1.01),
        "the output of text_encoder.encoder.block.0.layer.1 differs by",
    ),
    "sound": (
        parity.check_sound,
        lambda model: scale(model.codec.decoder.model[3].convtr.convtr, 1.01),
        "the output of audio_encoder.decoder.layers.3.conv differs by",
    ),
    "sound of an LSTM": (
        parity.check_sound,
        lambda model: model.codec.decoder.model[1].lstm.weight_hh_l0.data.mul_(2),
        "the weight of audio_encoder.decoder.layers.1.lstm.weight_hh_l0 differs by",
    ),
}


@pytest.mark.parametrize(("check", "plant", "found"), EXPLAINED.values(), ids=EXPLAINED)
def test_a_fault_is_found_against_transformers_and_explains_a_failed_check(check, plant, found):
    with opened_pair(VARIANTS["stereo melody"]) as pair:
        assert "no layer differs" in pair.explain(torch.zeros(2, 8, 5, dtype=torch.long))
        assert "no layer differs" in pair.explain(torch.zeros(2, 4, 5, dtype=torch.long), played=True)
        plant(pair.ours)
        result = check(pair)
    assert not result.passed and found in result.found


# Parameters of the decoder, as published or counted in the released checkpoints (millions there, exact here).
DECODERS = {
    "small": 419_584_000,
    "medium": 1_837_556_736,
    "large": 3_255_382_016,
    "stereo-small": 436_365_312,
    "stereo-medium": 1_862_728_704,
    "stereo-large": 3_288_944_640,
    # The same without cross-attention: 4 weights of width², and a norm's 2 × width, a layer.
    "melody": 1_837_556_736 - 48 * (4 * 1536**2 + 2 * 1536),
    "melody-large": 3_255_382_016 - 48 * (4 * 2048**2 + 2 * 2048),
    "stereo-melody": 1_862_728_704 - 48 * (4 * 1536**2 + 2 * 1536),
    "stereo-melody-large": 3_288_944_640 - 48 * (4 * 2048**2 + 2 * 2048),
}


def test_every_released_size_is_counted():
    assert DECODERS.keys() == PRESETS.keys() - {"tiny"}


@pytest.mark.parametrize("name", DECODERS)
def test_released_sizes(name):
    with torch.device("meta"):
        model = MusicGen(PRESETS[name])
    assert sum(parameter.numel() for parameter in model.decoder.parameters()) == DECODERS[name]
    assert model.config.text_encoder == PRESETS["small"].text_encoder, "that of t5-base"
    assert model.projection.in_features == 768
    assert model.config.codec.hop_length == 640 and model.config.codec.frame_rate == 50
    if "melody" in name:
        assert model.melody_projection.in_features == 12 and model.melody_projection.length == 235
    if "stereo" in name:
        assert model.pattern.delays == (0, 0, 1, 1, 2, 2, 3, 3)
