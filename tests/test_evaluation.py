"""Room 13: the measures against values known by hand, the judges on real renders, the whole evaluation in miniature."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from musicgen_edu.checkpoints.pretrained import named_tensors
from musicgen_edu.checkpoints.tensors import fingerprint
from musicgen_edu.composer.compose import compose
from musicgen_edu.composer.render import SAMPLE_RATE
from musicgen_edu.composer.score import Attributes, is_held_out
from musicgen_edu.config import CodecConfig, DecoderConfig, MusicGenConfig, TextEncoderConfig
from musicgen_edu.listening import evaluation, metrics
from musicgen_edu.listening.clips import draw_prompts
from musicgen_edu.listening.evaluation import Plan, evaluate, main, read_training_codes
from musicgen_edu.listening.judges import TASKS, extract_features, right_answers, train_judge
from musicgen_edu.listening.report import to_markdown, write_report
from musicgen_edu.model import MusicGen


def test_si_sdr_is_the_ratio_of_what_lies_along_the_target_to_the_rest():
    target, noise = torch.tensor([[3.0, 4.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.5]])  # orthogonal, energies 25 and 0.25
    assert metrics.si_sdr(target + noise, target).item() == pytest.approx(20, abs=1e-4)


def test_si_sdr_does_not_depend_on_scale():
    target = torch.randn(2, 400)
    estimate = target + 0.3 * torch.randn(2, 400)
    assert torch.allclose(metrics.si_sdr(7 * estimate, target), metrics.si_sdr(estimate, target), atol=1e-3)
    assert torch.allclose(metrics.si_sdr(estimate, 0.1 * target), metrics.si_sdr(estimate, target), atol=1e-3)


def test_wilson_interval_has_known_values():
    assert metrics.wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # Wilson's, as in textbooks
    low, high = metrics.wilson_interval(10, 10)
    assert (low, high) == pytest.approx((10 / (10 + 1.96**2), 1), abs=1e-4)


@pytest.mark.parametrize(("successes", "trials"), [(1, 0), (3, 2), (-1, 5)])
def test_wilson_interval_refuses_what_is_no_proportion(successes, trials):
    with pytest.raises(ValueError, match="at least one trial"):
        metrics.wilson_interval(successes, trials)


def test_mean_interval_of_four_values():
    mean, low, high = metrics.mean_interval(torch.tensor([1.0, 3.0, 1.0, 3.0]))
    half = 1.959964 * math.sqrt(4 / 3) / 2
    assert (mean, low, high) == pytest.approx((2, 2 - half, 2 + half), abs=1e-5)


def test_frechet_distance_of_a_set_to_itself_is_zero():
    features = torch.randn(50, 8)
    assert metrics.frechet_distance(features, features) == pytest.approx(0, abs=1e-8)


def test_frechet_distance_of_shifted_and_scaled_sets_is_the_closed_form():
    features = torch.randn(200, 5, dtype=torch.double)
    shift = torch.tensor([1.0, -2.0, 0.0, 0.0, 2.0], dtype=torch.double)
    assert metrics.frechet_distance(features.float(), (features + shift).float()) == pytest.approx(9, abs=1e-3)
    spread = float(torch.cov(features.T).trace() + features.mean(dim=0).square().sum())  # (3 − 1)² of each deviation
    assert metrics.frechet_distance(features.float(), (3 * features).float()) == pytest.approx(4 * spread, rel=1e-4)


def test_longest_shared_runs_are_counted_within_clips():
    corpus = [torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 9]]), torch.tensor([[4, 1, 2]])]
    codes = torch.tensor([[0, 2, 3, 4], [5, 6, 7, 0], [0, 0, 0, 0], [4, 1, 2, 3]])
    assert metrics.longest_shared_runs(codes, corpus).tolist() == [3, 2, 0, 3]  # 5, 6, 7 would cross clips


def test_longest_shared_runs_equal_a_naive_search():
    codes, other = torch.randint(3, (4, 12)), torch.randint(3, (5, 20))

    def shares(run: list[int]) -> bool:
        return any(run == row[k : k + len(run)] for row in other.tolist() for k in range(20))

    def naive(row: list[int]) -> int:
        return max(j - i for i in range(12) for j in range(i, 13) if shares(row[i:j]))

    assert metrics.longest_shared_runs(codes, [other]).tolist() == [naive(row) for row in codes.tolist()]


def test_joined_codebooks_are_equal_only_where_all_codes_are():
    codes = torch.tensor([[[1, 1, 2], [3, 3, 1]]])
    first, again, other = metrics.join_codebooks(codes)[0].tolist()
    assert first == again != other and min(first, other) >= 0


def test_eight_codebooks_are_not_confused():
    """Joined as the digits of one number they would overflow: 2048 ** 8 = 2 ** 88."""
    codes = torch.randint(2048, (1, 8, 1), generator=torch.Generator().manual_seed(0)).repeat(1, 1, 1 + 8 * 100)
    for place in range(8):
        codes[0, place, 1 + 100 * place : 101 + 100 * place] = torch.randperm(2048)[:100]
    distinct = len(codes[0].unique(dim=1).T)
    assert len(metrics.join_codebooks(codes).unique()) == distinct > 700


def test_bigram_table_knows_what_follows_what():
    cycle = torch.arange(4).repeat(200)[None, None]
    assert metrics.bigram_cross_entropy(cycle[:, :, :40], [cycle], 4) < 0.05
    assert metrics.bigram_cross_entropy(torch.randint(4, (1, 1, 4000)), [torch.randint(4, (1, 1, 4000))], 4) == (
        pytest.approx(math.log(4), abs=0.02)
    )


def test_diversity_is_zero_for_equal_clips_and_six_decibels_for_half_the_amplitude():
    clip = 0.5 * torch.randn(1, SAMPLE_RATE)
    assert metrics.diversity(clip.repeat(3, 1), SAMPLE_RATE) == 0
    assert metrics.diversity(torch.cat([clip, clip / 2]), SAMPLE_RATE) == pytest.approx(6.02, abs=0.01)


def test_timbre_is_the_same_when_played_louder_and_level_is_not():
    clip = 0.1 * torch.randn(1, 3 * SAMPLE_RATE)
    soft, loud = extract_features(clip, SAMPLE_RATE), extract_features(3 * clip, SAMPLE_RATE)
    assert torch.allclose(soft["timbre"], loud["timbre"], atol=0.05)
    assert (loud["level"] - soft["level"]).mean() == pytest.approx(20 * math.log10(3), abs=0.1)


def test_rhythm_peaks_at_the_time_between_attacks():
    clicks = torch.zeros(1, 5 * SAMPLE_RATE)
    clicks[:, SAMPLE_RATE // 5 :: SAMPLE_RATE * 2 // 5] = 1  # every 0.4 s, which is lag 40
    rhythm = extract_features(clicks, SAMPLE_RATE)["rhythm"][0]
    assert rhythm[20:100].argmax() + 20 + 1 in (40, 80)


def test_the_judge_of_mode_answers_alike_in_every_key():
    features = {"harmony": torch.rand(40, 10, 12)}
    attributes = [Attributes("flute", "slow", mode, "soft", "melody", False) for mode in ("major", "minor")] * 20
    judge = train_judge(TASKS["mode"], features, attributes, epochs=1)
    scores = [judge({"harmony": features["harmony"].roll(key, dims=2)}) for key in range(12)]
    assert all(torch.allclose(scores[0], each, atol=1e-4) for each in scores)


def test_only_named_attributes_are_judged():
    features = {"timbre": torch.randn(20, 6)}
    attributes = [Attributes("flute", "slow", "major", "soft", "melody", index % 2 == 0) for index in range(20)]
    judge = train_judge(TASKS["drums"], features, attributes, epochs=1)
    named = [frozenset({"drums"}) if index < 5 else frozenset({"mode"}) for index in range(20)]
    assert right_answers(judge, features, attributes, named)[1] == 5
    assert TASKS["loudness"].label(attributes[0]) == 0


def test_prompts_are_held_out_and_seeded():
    prompts = draw_prompts(30)
    assert all(is_held_out(prompt.attributes) for prompt in prompts)
    assert prompts == draw_prompts(30) != draw_prompts(30, seed=1)


def test_judges_beat_chance_on_real_renders(renderer):
    """Few renders of three instruments are enough to hear the instrument, drums, loudness and tempo of forty others."""

    def clips(count: int, seed: int):
        rng = random.Random(seed)
        chosen = [
            Attributes(
                rng.choice(("piano", "flute", "organ")),
                rng.choice(("slow", "fast")),
                rng.choice(("major", "minor")),
                rng.choice(("soft", "loud")),
                "chords",
                rng.random() < 0.5,
            )  # fmt: skip
            for _ in range(count)
        ]
        audio = torch.stack([torch.from_numpy(renderer.render(compose(each, 200, rng))) for each in chosen])
        return extract_features(audio, SAMPLE_RATE), chosen

    features, attributes = clips(150, 0)
    held_out, truth = clips(40, 1)
    for task in ("instrument", "drums", "loudness", "tempo"):
        right, asked = right_answers(train_judge(TASKS[task], features, attributes), held_out, truth)
        assert asked == 40 and right >= 30, f"{task}: {right} of {asked}"


@pytest.fixture(scope="module")
def small_model(tokenizer) -> MusicGen:
    """A model at the renderer's 16 kHz with random weights, small enough to be evaluated in seconds."""
    text = TextEncoderConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=16, num_layers=1, num_heads=2, head_size=8, ffn_size=32
    )
    decoder = DecoderConfig(
        codebook_size=32, hidden_size=24, num_layers=1, num_heads=2, ffn_size=32, text_hidden_size=16
    )
    codec = CodecConfig(num_filters=2, hidden_size=8, codebook_size=32)
    return MusicGen(MusicGenConfig(text, decoder, codec), tokenizer)


@pytest.mark.filterwarnings("ignore::musicgen_edu.UnknownWordsWarning")
def test_a_whole_evaluation_in_miniature(renderer, small_model, tmp_path):
    plan = Plan(16, 3.0, 16, 16, 16, guidance_scales=(1.0,), durations=(4.0,))
    training = [torch.randint(32, (3, 4, 60))]
    report = evaluate(small_model, plan, training)
    assert report["weights"] == fingerprint(named_tensors(small_model))
    assert report["codec"]["all"]["clips"] == 16
    assert set(report["adherence"]) == set(TASKS)
    assert report["frechet"]["ratio"] > 0 and report["cross_entropy"]["decoder, right captions"] > 0
    assert 0 < report["memorisation"]["codebook 0, generated"]["longest"] < 20
    write_report(report, tmp_path)
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == json.loads(json.dumps(report))
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert text == to_markdown(report) and "## Guidance 1" in text and "The last five seconds of 4 s" in text
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.json", "report.md"]


def test_refuses_models_and_plans_that_cannot_be_measured(model, small_model):
    with pytest.raises(ValueError, match="400 Hz"):
        evaluate(model, Plan())
    with pytest.raises(ValueError, match="16 prompts"):
        evaluate(small_model, replace(Plan(), prompts=2))
    with pytest.raises(ValueError, match="3 to 600 seconds"):
        evaluate(small_model, replace(Plan(), duration=1.0))


def test_training_codes_must_be_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="No training codes"):
        read_training_codes(tmp_path)


def test_command_line_options_reach_the_plan(tmp_path, monkeypatch, small_model, capsys):
    plans = []
    monkeypatch.setattr(evaluation, "create_musicgen_model", lambda name: small_model)
    monkeypatch.setattr(evaluation, "evaluate", lambda model, plan, codes: plans.append(plan) or {})
    monkeypatch.setattr(evaluation, "write_report", lambda report, folder: (folder / "report.md").write_text("done"))
    options = ["--quick", "--prompts", "20", "--guidance-sweep", "--durations", "5", "10"]
    assert main([*options, "--output", str(tmp_path)]) == 0
    assert plans[0].prompts == 20 and plans[0].guidance_scales == (1, 2, 3, 5) and plans[0].durations == (5, 10)
    assert plans[0].judge_clips == evaluation.QUICK.judge_clips and capsys.readouterr().out == "done\n"


@pytest.mark.parametrize("codes", [torch.zeros(3, dtype=torch.long), torch.zeros(1, 4, 5)], ids=["one axis", "floats"])
def test_training_codes_that_are_none_are_refused_at_the_door(tmp_path, codes):
    save_file({"codes": codes}, tmp_path / "codes-1.safetensors")
    with pytest.raises(ValueError, match="is damaged, or holds no codes"):
        read_training_codes(tmp_path)


def test_a_folder_for_training_codes_is_refused(tmp_path):
    (tmp_path / "codes-1.safetensors").mkdir()
    with pytest.raises(ValueError, match="codes-1.safetensors is damaged, or holds no codes"):
        read_training_codes(tmp_path)
