"""Room 10's checks pass the shipped model, and each refuses what it is there to refuse: mocks, costumes, damage."""

from __future__ import annotations

import copy
import hashlib
import re

import pytest
import torch
from transformers import MusicgenForConditionalGeneration

from musicgen_edu import Audio, MusicGen, cli
from musicgen_edu.checkpoints.tensors import fingerprint
from musicgen_edu.reality import checks as reality_checks
from musicgen_edu.reality.checks import run_checks, without
from musicgen_edu.reality.permutation_tests import grouping_test, pairing_test, sign_test
from musicgen_edu.reality.rounding import farthest, in_both_precisions

pytestmark = pytest.mark.filterwarnings("ignore::musicgen_edu.UnknownWordsWarning")
SAMPLE_RATE = 400  # of the small model


class Mock:
    """Music of nothing but a number that `look` takes from the prompt."""

    def __init__(self, look):
        self.look = look

    def generate(self, prompts, duration, *, seed=0, **settings) -> Audio:
        prompts = [prompts] if isinstance(prompts, str) else prompts
        time = torch.arange(round(duration * SAMPLE_RATE)) / SAMPLE_RATE
        pitches = torch.tensor([20.0 + self.look(prompt) for prompt in prompts])
        return Audio((2 * torch.pi * pitches[:, None, None] * time).sin() / 4, SAMPLE_RATE)


def hash_of(prompt: str) -> int:
    return int(hashlib.sha256(prompt.encode()).hexdigest(), 16) % 150


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """The folder of the small model with random weights."""
    folder = tmp_path_factory.mktemp("random")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def reference(folder) -> MusicgenForConditionalGeneration:
    return MusicgenForConditionalGeneration.from_pretrained(folder).eval()


@pytest.fixture
def changeable(folder) -> MusicGen:
    """A copy of the small model that a test may damage."""
    return MusicGen.from_pretrained(folder)


@pytest.fixture(scope="module")
def results(model, reference) -> dict[str, bool]:
    """What the checks say of random weights."""
    return {check.name: check.passed for check in run_checks(model, reference)}


def verdicts(checks) -> dict[str, bool]:
    return {check.name: check.passed for check in checks}


def test_the_shipped_model_passes_them_all(capsys):
    assert cli.main(["verify"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert [line.split()[:2] for line in lines[:-1]] == [["PASS", name] for name in (*reality_checks.INSIDE, "words")]
    assert all(re.search(r"\d", line) for line in lines[:-1])
    assert lines[-1] == "All checks passed." and err == ""


def test_random_weights_fail_what_only_training_gives(results):
    assert not results["weights"] and not results["captions"] and not results["order"]


def test_random_weights_pass_what_training_has_no_part_in(results):
    assert results["scores"] and results["codes"] and results["sound"] and results["steps"] and results["parts"]


def test_the_command_says_so_with_its_exit_code(folder, capsys):
    assert cli.main(["verify", "--model", str(folder)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10 and lines[0].startswith("FAIL  weights")
    assert lines[-1] == f"Failed checks: {sum(line.startswith('FAIL') for line in lines)}."


@pytest.mark.parametrize("words", [["--model", "missing"], ["--model"], ["--loud"], ["piano"]], ids=" ".join)
def test_bad_input_is_exit_code_2(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        code = cli.main(["verify", *words])
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2 and capsys.readouterr().err


@pytest.mark.parametrize("look", [lambda prompt: 0, len, hash_of], ids=["nothing", "length", "hash"])
def test_a_mock_fails_them_all(look, reference):
    checks = list(run_checks(Mock(look), reference))
    assert len(checks) == 9 and not any(check.passed for check in checks)
    assert "no tokenizer" in checks[0].found


def test_a_mock_that_looks_for_words_passes_only_from_outside(reference):
    def look(prompt):
        return next(50 * number for number, name in enumerate(reality_checks.INSTRUMENTS) if name in prompt)

    checks = verdicts(run_checks(Mock(look), reference))
    assert checks.pop("words") and not any(checks.values())


def test_a_mock_in_the_parts_of_a_model_fails_where_these_have_no_say(changeable, reference):
    changeable.generate = Mock(len).generate
    checks = verdicts(run_checks(changeable, reference))
    assert checks["scores"]
    assert not any(checks[name] for name in ("codes", "sound", "steps", "parts", "words"))


def test_without_a_reference_nothing_inside_passes(model):
    checks = verdicts(run_checks(model, None))
    assert len(checks) == 9 and not any(checks[name] for name in reality_checks.INSIDE)


@pytest.mark.parametrize("damage", [float("nan"), float("inf"), None], ids=str)
def test_weights_refuse_numbers_that_are_none_and_tensors_that_say_nothing(damage):
    tensors = {"good": torch.randn(3, 4), "bad": torch.randn(5)}
    assert reality_checks.check_weights(tensors).passed
    tensors["bad"][:] = 1.0
    if damage is not None:
        tensors["bad"] = torch.tensor([0.0, damage])
    check = reality_checks.check_weights(tensors)
    assert not check.passed and "bad" in check.found
    assert not reality_checks.check_weights({}).passed


def test_a_fingerprint_shows_one_bit_and_not_the_order():
    tensors = {"a": torch.randn(3, 4), "b": torch.randn(5)}
    assert fingerprint(tensors) == fingerprint(dict(reversed(tensors.items())))
    flipped = copy.deepcopy(tensors)
    flipped["b"].view(torch.int32)[2] ^= 1
    assert fingerprint(flipped) != fingerprint(tensors)
    assert fingerprint({"a": tensors["a"].view(4, 3), "b": tensors["b"]}) != fingerprint(tensors)
    assert fingerprint({"c": tensors["a"], "b": tensors["b"]}) != fingerprint(tensors)


def test_scores_refuse_a_small_error(changeable, reference):
    assert reality_checks.check_scores(changeable, reference).passed
    with torch.no_grad():
        changeable.decoder.lm_heads[1].weight[3] *= 1.001
    assert not reality_checks.check_scores(changeable, reference).passed


def test_scores_are_asked_where_the_model_is(changeable, reference, monkeypatch):
    """Without a second device at hand, on meta, which gives no numbers to compare."""
    seen = []

    def encode(ids, mask):
        seen.append((ids.device.type, mask.device.type))
        return torch.zeros(*ids.shape, 16, device="meta")

    changeable.to("meta").decoder.embed_tokens[0].register_forward_pre_hook(
        lambda module, inputs: seen.append((inputs[0].device.type,))
    )
    monkeypatch.setattr(changeable.text_encoder, "forward", encode)
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        reality_checks.check_scores(changeable, reference)
    assert seen == [("meta", "meta"), ("meta",)]


def test_codes_refuse_other_choices(changeable, reference, monkeypatch):
    music = changeable.generate

    def generate(*words, **settings):
        return music(*words, **settings | {"temperature": 1})

    monkeypatch.setattr(changeable, "generate", generate)
    checks = verdicts(reality_checks.check_music_of_codes(changeable, reference))
    assert checks == {"codes": False, "sound": True}


@pytest.mark.parametrize("change", [lambda wave: wave * 1.001, lambda wave: wave[:, :, 1:]], ids=["louder", "shorter"])
def test_sound_refuses_another_waveform(change, changeable, reference, monkeypatch):
    music = changeable.generate

    def generate(*words, **settings):
        audio = music(*words, **settings)
        return Audio(change(audio.waveform), audio.sample_rate, codes=audio.codes)

    monkeypatch.setattr(changeable, "generate", generate)
    checks = verdicts(reality_checks.check_music_of_codes(changeable, reference))
    assert checks == {"codes": True, "sound": False}


def test_parts_refuse_a_layer_that_does_nothing(changeable):
    assert reality_checks.check_parts(changeable).passed
    with torch.no_grad():
        for layer in changeable.decoder.layers:
            layer.encoder_attn.out_proj.weight.zero_()
    check = reality_checks.check_parts(changeable)
    assert not check.passed and ("text encoder" in check.found or "cross-attention" in check.found)


def test_captions_refuse_a_model_that_does_not_read_them(changeable):
    with torch.no_grad():
        for layer in changeable.decoder.layers:
            layer.encoder_attn.out_proj.weight.zero_()
    check = reality_checks.check_captions(changeable)
    assert not check.passed and "p = 1.0000" in check.found


def test_without_cuts_only_while_it_is_open():
    layer = torch.nn.Linear(3, 3)
    states = torch.randn(2, 3)
    kept = layer(states)
    with without([layer]):
        assert not layer(states).any()
    with without([layer], skip=True):
        assert torch.equal(layer(states), states)
    assert torch.equal(layer(states), kept)


def test_both_precisions_leave_the_weights_as_they_were():
    layer = torch.nn.Linear(64, 64)
    before, states = fingerprint(layer.state_dict()), torch.randn(2, 64)
    rounded, exact = in_both_precisions(layer, lambda: layer(states.to(layer.weight.dtype)))
    assert (rounded.dtype, exact.dtype) == (torch.float32, torch.float64)
    assert 0 < farthest(rounded, exact) < 1e-5
    assert fingerprint(layer.state_dict()) == before
    with pytest.raises(RuntimeError):
        in_both_precisions(layer, lambda: layer(states[:, :3]))
    assert layer.weight.dtype == torch.float32


def distances(points: torch.Tensor) -> torch.Tensor:
    """From points [wordings, things, axes]."""
    flat = points.flatten(0, 1)
    return torch.cdist(flat, flat).view(2 * points.shape[:2])


def test_grouping_sees_what_belongs_together():
    things = torch.randn(1, 4, 8)
    same, other, p = grouping_test(distances(things + 0.1 * torch.randn(5, 4, 8)))
    assert same < other and p < 0.01


def test_grouping_is_not_misled_by_the_wording():
    """Wordings may sound as they like: only things count, and equal things leave every shuffled world as good."""
    same, other, p = grouping_test(distances(10 * torch.randn(5, 1, 8).expand(5, 4, 8)))
    assert same == pytest.approx(other) and p == 1


def test_pairing_sees_whose_partner_is_whose():
    costs = torch.rand(8, 8)
    gain, p = pairing_test(costs - torch.eye(8))
    assert 0.5 < gain < 1.5 and p < 0.01
    assert pairing_test(costs + torch.eye(8))[1] > 0.9
    assert pairing_test(torch.rand(8, 1).expand(8, 8)) == (pytest.approx(0, abs=1e-6), 1)


def test_signs_count_exactly():
    assert sign_test(torch.ones(5)) == 1 / 32
    assert sign_test(-torch.ones(5)) == 1
    assert sign_test(torch.zeros(5)) == 1
    assert sign_test(torch.tensor([3.0, -1.0])) == 2 / 4
    assert sign_test(torch.tensor([1.0])) == 1 / 2


@pytest.mark.parametrize(
    "p_value",
    [
        lambda: grouping_test(distances(torch.randn(4, 4, 3)))[2],
        lambda: pairing_test(torch.randn(7, 7))[1],
        lambda: sign_test(torch.randn(8)),
    ],
    ids=["grouping", "pairing", "signs"],
)
def test_chance_passes_as_often_as_the_p_value_says(p_value):
    values = torch.tensor([p_value() for _ in range(200)])
    assert 0.4 < values.mean() < 0.6
    assert (values <= 0.1).float().mean() < 0.2
