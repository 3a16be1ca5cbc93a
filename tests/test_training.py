"""The training loop, the decoder's objective and the whole recipe, on sizes that take seconds."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from tiny_recipe import TINY_RECIPE, assert_equal_weights, tiny_model
from torch import Tensor, nn
from torch.nn import functional as F

from musicgen_edu.codec import Codec
from musicgen_edu.composer.captions import INSTRUMENT_NAMES, caption
from musicgen_edu.composer.compose import LEAD_IN, chord_eighths
from musicgen_edu.composer.samples import CodedClips, shipped_clips, shipped_codes
from musicgen_edu.composer.score import ALL_ATTRIBUTES, INSTRUMENTS, VALUES, Piece, is_held_out
from musicgen_edu.conditioning import Condition
from musicgen_edu.config import CodecConfig, MusicGenConfig, SamplingSettings
from musicgen_edu.decoder import DecoderCache
from musicgen_edu.generation import generate_codes
from musicgen_edu.model import MusicGen
from musicgen_edu.patterns import create_pattern
from musicgen_edu.training import loop, recipe
from musicgen_edu.training.aim import aimed_heads, mode_directions
from musicgen_edu.training.codec import CodecObjective
from musicgen_edu.training.codec_start import make_encoder_memoryless
from musicgen_edu.training.contrast import ContrastedDecoder, ContrastObjective
from musicgen_edu.training.data import (
    ClipGroup,
    cached_codes,
    cached_waveforms,
    compose_clip,
    find_changes,
    find_partners,
)
from musicgen_edu.training.decoder import (
    ATTRIBUTES_WEIGHT,
    CAPTION_DROPOUT,
    CODE_NOISE,
    PAST_DROPOUT,
    UNSAID,
    AttributeHeads,
    Batch,
    DecoderObjective,
    disturb_past,
    draw_batch,
    withhold_past,
)
from musicgen_edu.training.recipe import train
from musicgen_edu.training.recipes import RECIPES, Recipe

ROOT = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}

pytestmark = pytest.mark.usefixtures("alone")

# The codec's objective on noise: it draws random numbers and keeps buffers, and both must be resumed.
SCRIPT = """
import sys, time
from pathlib import Path
import torch
from safetensors.torch import save_file
from musicgen_edu.codec import Codec
from musicgen_edu.config import CodecConfig
from musicgen_edu.training.codec import CodecObjective
from musicgen_edu.training.loop import create_accelerator, fit

def objective():
    torch.manual_seed(0)
    config = CodecConfig(ratios=(4, 4), num_filters=2, hidden_size=4, num_codebooks=2, codebook_size=8)
    return CodecObjective(Codec(config))

def batch(step, process):
    generator = torch.Generator().manual_seed(1000 * process + step)
    return 0.1 * torch.randn(2, 1, 2048, generator=generator)

def slow_batch(step, process):
    time.sleep(0.05)
    return batch(step, process)

def run(folder, steps, save_every=7, batch=batch):
    torch.set_num_threads(1)
    accelerator = create_accelerator()
    trained = objective()
    fit(trained, batch, steps=steps, learning_rate=1e-3, folder=Path(folder), accelerator=accelerator, seed=3,
        save_every=save_every)
    return accelerator, trained

if __name__ == "__main__":
    folder, steps, kind = sys.argv[1:]
    accelerator, trained = run(folder, int(steps), batch=slow_batch if kind == "slow" else batch)
    save_file(trained.state_dict(), f"{folder}/process{accelerator.process_index}.safetensors")
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("script") / "train_noise.py"
    file.write_text(SCRIPT)
    return file


@pytest.fixture
def run():
    """The script's `run` in this process."""
    names: dict = {"__name__": "train_noise"}
    exec(compile(SCRIPT, "train_noise.py", "exec"), names)
    return names["run"]


def logged_steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / loop.LOG_FILE).read_text().splitlines()]


# The loop


def test_a_killed_run_resumes_to_the_last_bit(script, run, tmp_path):
    """One run in one go; one in a process of its own that is killed in the middle and started again."""
    _, whole = run(tmp_path / "whole", 40)
    killed = tmp_path / "killed"
    command = [sys.executable, str(script), str(killed), "40", "slow"]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 300
        log = killed / loop.LOG_FILE
        while not (log.exists() and len(log.read_text().splitlines()) >= 2) and time.monotonic() < deadline:
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    saved_step = loop._load_state(killed, *_fresh(run))
    assert 7 <= saved_step < 40 and saved_step % 7 == 0, "killed in the middle"
    AcceleratorState._reset_state(reset_partial_state=True)
    _, resumed = run(killed, 40)
    assert_equal_weights(whole, resumed)
    assert logged_steps(killed) == logged_steps(tmp_path / "whole") == [9, 19, 29, 39]


def _fresh(run) -> tuple[nn.Module, torch.optim.Optimizer]:
    objective = run.__globals__["objective"]()
    return objective, torch.optim.AdamW(objective.parameters())


@pytest.mark.parametrize("kept", [7, 21])
def test_what_a_kill_may_leave_behind_does_no_harm(run, tmp_path, monkeypatch, kept):
    """A half-written state, log lines that run ahead of it, and a last line cut off."""
    _, whole = run(tmp_path / "whole", 30)
    save = loop._save_state

    def save_until_killed(folder, objective, optimizer, step):
        if step > kept:
            (folder / f"{loop.STATE_FILE}.unfinished").write_bytes(b"half a state")
            raise KeyboardInterrupt
        save(folder, objective, optimizer, step)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(loop, "_save_state", save_until_killed)
        run(tmp_path / "killed", 30)
    with (tmp_path / "killed" / loop.LOG_FILE).open("a") as log:
        log.write('{"step": 99, "minutes": 0.1}\n{"step": 109, "minu')
    AcceleratorState._reset_state(reset_partial_state=True)
    _, resumed = run(tmp_path / "killed", 30)
    assert_equal_weights(whole, resumed)
    assert logged_steps(tmp_path / "killed") == [9, 19, 29]


def test_a_finished_run_is_loaded_and_not_run_again(run, tmp_path):
    _, first = run(tmp_path, 12)
    log = (tmp_path / loop.LOG_FILE).read_text()
    _, second = run(tmp_path, 12, batch=lambda step, process: None)  # no batch is asked for
    assert_equal_weights(first, second)
    assert (tmp_path / loop.LOG_FILE).read_text() == log


def test_the_log_holds_means_that_a_notebook_can_plot(run, tmp_path):
    run(tmp_path, 20)
    lines = [json.loads(line) for line in (tmp_path / loop.LOG_FILE).read_text().splitlines()]
    assert all(line.keys() == {"step", "minutes", "loss", "snr", "mel", "commitment"} for line in lines)
    assert all(math.isfinite(value) for line in lines for value in line.values())
    assert 0 <= lines[0]["minutes"] <= lines[1]["minutes"]


def test_the_learning_rate_rises_and_falls():
    rates = [loop.learning_rate_factor(step, 1_000) for step in range(1_000)]
    assert rates[0] == pytest.approx(0.01, abs=1e-3)
    assert max(rates) == pytest.approx(0.98, abs=0.03) and rates.index(max(rates)) == 99
    assert all(after <= before for before, after in zip(rates[99:-1], rates[100:], strict=True))
    assert rates[-1] == pytest.approx(0.02, abs=1e-3)


class Tied(nn.Module):
    """Two names for one tensor, as T5 has for its embedding."""

    def __init__(self):
        super().__init__()
        self.one = nn.Linear(4, 4)
        self.two = nn.Linear(4, 4)
        self.two.weight = self.one.weight

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        return {"loss": (self.two(self.one(batch)) - batch).square().mean()}


class Spoiled(nn.Module):
    """Learns well until a step at which its loss is no number."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, step: Tensor) -> dict[str, Tensor]:
        return {"loss": self.weight.square().sum() * (torch.nan if step > 12 else 1.0)}


@pytest.mark.parametrize("steps", [14, 20], ids=["the last step", "a step before the last"])
def test_a_loss_that_is_no_number_is_never_saved_over_good_weights(tmp_path, steps):
    common = dict(learning_rate=1e-2, folder=tmp_path, accelerator=Accelerator(cpu=True), save_every=10)
    with pytest.raises(FloatingPointError, match="keeps the weights of before"):
        loop.fit(Spoiled(), lambda step, process: torch.tensor(step), steps=steps, **common)
    kept = load_file(tmp_path / loop.STATE_FILE)["weight.weight"]
    assert kept.isfinite().all() and (kept < 1).all()


def test_the_greatest_seed_trains(tmp_path):
    loop.fit(nn_square := Square(), lambda step, process: torch.ones(()), steps=3, learning_rate=0.1, folder=tmp_path,
             accelerator=Accelerator(cpu=True), seed=2**32 - 1)  # fmt: skip
    assert nn_square.weight.item() < 1


class Square(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, scale: Tensor) -> dict[str, Tensor]:
        return {"loss": self.weight.square() * scale}


def test_norms_biases_and_lengths_do_not_decay_and_a_part_may_learn_faster():
    objective = nn.Module()
    objective.norm, objective.linear = nn.LayerNorm(3), nn.Linear(3, 3)
    objective.kernel = nn.utils.parametrizations.weight_norm(nn.Conv1d(3, 3, 2))
    objective.rates = {"linear": 5.0}
    groups = loop.parameter_groups(objective, 0.01)
    names = {id(parameter): name for name, parameter in objective.named_parameters()}
    decayed = {names[id(each)] for group in groups if group["weight_decay"] for each in group["params"]}
    assert decayed == {"linear.weight", "kernel.parametrizations.weight.original1"}
    faster = {names[id(each)] for group in groups if group["rate"] == 5 for each in group["params"]}
    assert faster == {"linear.weight", "linear.bias"} and sum(len(group["params"]) for group in groups) == len(names)


def test_tied_weights_are_saved_and_resumed(tmp_path):
    accelerator = Accelerator(cpu=True, mixed_precision="no")
    common = dict(learning_rate=1e-2, accelerator=accelerator, save_every=5)
    trained = Tied()
    state = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    loop.fit(trained, lambda step, _: torch.eye(4), steps=10, folder=tmp_path, **common)
    again = Tied()
    loop.fit(again, lambda step, _: None, steps=10, folder=tmp_path, **common)
    assert_equal_weights(trained, again)
    assert again.one.weight is again.two.weight
    assert not torch.equal(state["one.weight"], trained.one.weight)


def test_two_processes_end_with_equal_weights(script, tmp_path):
    """By torchrun: on CPUs `accelerate launch` starts one process, however many it is asked for."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        str(script), str(tmp_path), "20", "fast",
    ]  # fmt: skip
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3_000:]
    first, second = (load_file(tmp_path / f"process{index}.safetensors") for index in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert logged_steps(tmp_path) == [9, 19], "one process writes the log"
    lines = [json.loads(line) for line in (tmp_path / loop.LOG_FILE).read_text().splitlines()]
    assert all(math.isfinite(line["loss"]) for line in lines)
    saved = load_file(tmp_path / loop.STATE_FILE)
    assert all(torch.equal(saved[f"weight.{name}"], tensor) for name, tensor in first.items())


# The decoder's objective


@pytest.fixture(params=["delay", "flatten"])
def objective(model_config, tokenizer, request) -> DecoderObjective:
    model = MusicGen(model_config, tokenizer)
    return DecoderObjective(model.text_encoder, model.projection, model.decoder, create_pattern(request.param, 4))


@pytest.fixture
def batch(tokenizer) -> Batch:
    ids, mask = tokenizer(["a happy piano melody", "slow strings", "a sad flute arpeggio, with drums"])
    mask = mask * torch.tensor([True, True, False])[:, None]  # the third caption is withheld
    onsets = torch.zeros(3, 9, dtype=torch.bool)
    onsets[:, [1, 5]] = True
    said = torch.tensor([[0, -1, 0, -1, 0, -1], [3, 0, -1, -1, -1, -1], [-1] * 6])
    return Batch(ids, mask, torch.randint(32, (3, 4, 9)), onsets, said)


def test_the_loss_is_what_the_pattern_masks_in_counted_by_hand(objective, batch):
    """Cell by cell: the logits at each step against the cell of the next one, where that holds a frame."""
    with torch.no_grad():
        entropies = objective.losses(batch)[0]
        sequence = objective.pattern.interleave(batch.codes, 32)
        states = objective.text_encoder(batch.text_ids, batch.text_ids != 0)
        states = objective.projection(states, batch.text_mask)
        logits = objective.decoder(sequence, Condition(states, batch.text_mask))
    frames, mask = objective.pattern.frame_index(9), objective.pattern.mask(9)
    counted = torch.zeros(4, 9)
    for codebook in range(4):
        for step in range(1, sequence.shape[2]):
            if mask[codebook, step]:
                frame = int(frames[codebook, step])
                logs = logits[:2, codebook, step - 1].log_softmax(dim=1)
                by_hand = -logs[[0, 1], sequence[:2, codebook, step]]
                torch.testing.assert_close(entropies[:2, codebook, frame], by_hand, atol=1e-5, rtol=1e-5)
                counted[codebook, frame] += 1
    assert (counted == 1).all(), "every code counts once, and nothing else"


def test_the_three_frames_from_an_onset_on_weigh_three_times(objective, batch):
    with torch.no_grad():
        figures, entropies = objective(batch), objective.losses(batch)[0]
    weights = torch.tensor([1.0, 3, 3, 3, 1, 3, 3, 3, 1])  # onsets in frames 1 and 5
    expected = (entropies * weights).sum() / (3 * 4 * weights.sum())
    torch.testing.assert_close(figures["loss"], expected)
    torch.testing.assert_close(figures["cross_entropy"], entropies.mean())
    torch.testing.assert_close(figures["onset"], entropies[:, :, [1, 5]].mean())
    torch.testing.assert_close(figures["codebook2"], entropies[:, 2].mean())


def test_the_frames_from_a_new_chord_on_weigh_eight_times(objective, batch):
    changes = torch.zeros_like(batch.onsets)
    changes[:, batch.onsets[0].nonzero()[-1]] = True
    objective.eval()
    entropies = objective.losses(batch)[0].mean(dim=1)
    weights = torch.ones_like(entropies)
    for row, onsets in enumerate(batch.onsets):
        for frame in onsets.nonzero().flatten().tolist():
            weights[row, frame : frame + 3] = 3
        for frame in (onsets & changes[row]).nonzero().flatten().tolist():
            weights[row, frame : frame + 3] = 8
    figures = objective(replace(batch, changes=changes))
    aids = sum(figures.get(name, 0) for name in ("in_text", "in_music"))
    expected = (entropies * weights).sum() / weights.sum()
    assert (figures["loss"] - ATTRIBUTES_WEIGHT * aids).item() == pytest.approx(expected.item(), rel=1e-4)


def test_codes_of_a_foreign_past_are_read_but_not_learned(objective, batch):
    counted = torch.arange(9) >= torch.tensor([0, 4, 6])[:, None]
    with torch.no_grad():
        figures, entropies = objective(replace(batch, counted=counted)), objective.losses(batch)[0]
    weights = torch.tensor([1.0, 3, 3, 3, 1, 3, 3, 3, 1]) * counted
    torch.testing.assert_close(figures["loss"], (entropies * weights[:, None]).sum() / (4 * weights.sum()))
    by_codebook = torch.stack([entropies[:, codebook][counted].mean() for codebook in range(4)])
    torch.testing.assert_close(figures["codebook1"], by_codebook[1])
    torch.testing.assert_close(figures["cross_entropy"], by_codebook.mean())
    kept = torch.stack([entropies[0, :, 1], entropies[0, :, 5], entropies[1, :, 5]])  # the onsets that count
    torch.testing.assert_close(figures["onset"], kept.mean())
    objective(replace(batch, counted=counted))["loss"].backward()
    assert objective.decoder.embed_tokens[0].weight.grad[batch.codes[2, 0, 0]].abs().sum() > 0, "it is read"


def test_a_withheld_caption_is_the_null_condition_of_guidance(objective, batch):
    """What the decoder sees then is zeros for states and mask, whatever the words were."""
    with torch.no_grad():
        entropies = objective.losses(batch)[0]
        sequence = objective.pattern.interleave(batch.codes[2:], 32)[:, :, :-1]
        nothing = torch.zeros(1, batch.text_ids.shape[1], 24)
        logits = objective.decoder(sequence, Condition(nothing, torch.zeros_like(batch.text_mask[2:])))
        logits = objective.pattern.deinterleave(logits, 9, first_step=1)
        expected = F.cross_entropy(logits.permute(0, 3, 1, 2), batch.codes[2:], reduction="none")
        torch.testing.assert_close(entropies[2:], expected, atol=1e-5, rtol=1e-5)
        reworded = replace(batch, text_ids=batch.text_ids.clone())
        reworded.text_ids[2] = batch.text_ids[0]
        torch.testing.assert_close(objective.losses(reworded)[0][2], entropies[2])
        reworded.text_ids[0] = batch.text_ids[1]
        assert not torch.allclose(objective.losses(reworded)[0][0], entropies[0], atol=1e-4)


def test_a_padded_caption_costs_the_same_as_alone(objective, batch):
    with torch.no_grad():
        together = objective.losses(batch)[0][1:2]
        length = int(batch.text_mask[1].sum())
        alone = Batch(
            *(getattr(batch, field.name)[1:2] for field in fields(batch) if field.name not in ("counted", "changes"))
        )
        alone = replace(alone, text_ids=alone.text_ids[:, :length], text_mask=alone.text_mask[:, :length])
        torch.testing.assert_close(objective.losses(alone)[0], together, atol=1e-5, rtol=1e-5)


def test_it_learns_one_batch_by_heart(objective, batch):
    optimizer = torch.optim.AdamW(objective.parameters(), lr=2e-2)
    losses = []
    for _ in range(40):
        loss = objective(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 2.5 and losses[-1] < 0.5 * losses[0], losses[::8]
    assert all(parameter.grad is not None for parameter in objective.parameters()), "all three parts learn"


# Heeding the words


def test_attribute_heads_ask_only_for_what_is_said():
    heads, states = AttributeHeads(8), torch.randn(2, 3, 8)
    said = torch.tensor([[4, UNSAID, 1, UNSAID, UNSAID, UNSAID], [UNSAID] * 6])
    logs = [heads.heads[index](states[0]).log_softmax(dim=1)[:, value] for index, value in ((0, 4), (2, 1))]
    torch.testing.assert_close(heads(states, said), -torch.cat(logs).mean())
    assert heads(states, torch.full_like(said, UNSAID)) == 0


def test_the_past_of_some_clips_is_withheld_from_the_start_on():
    torch.manual_seed(0)
    sequence = torch.randint(32, (4_000, 4, 20))
    seen = withhold_past(sequence, 32)
    silenced = (seen == 32).all(dim=1)
    assert torch.equal(seen[~silenced[:, None].expand_as(seen)], sequence[~silenced[:, None].expand_as(seen)])
    assert torch.equal(silenced, silenced.long().cummin(dim=1).values.bool()), "nothing is withheld after what is shown"
    assert abs(silenced.any(dim=1).float().mean() - PAST_DROPOUT) < 0.03


def test_a_small_share_of_the_past_is_wrong():
    torch.manual_seed(0)
    sequence = torch.randint(33, (2_000, 4, 50))
    seen = disturb_past(sequence, 32)
    assert torch.equal(seen[sequence == 32], sequence[sequence == 32]) and int(seen.max()) == 32
    changed = (seen != sequence)[sequence != 32].float().mean()
    assert abs(changed - CODE_NOISE * 31 / 32) < 0.003, "one random code in 32 is the right one"


def test_heeding_words_adds_two_losses_and_exports_nothing(objective, batch, tokenizer):
    parts = objective.text_encoder, objective.projection, objective.decoder, objective.pattern
    heeding = DecoderObjective(*parts, heed_words=True).eval()
    with torch.no_grad():
        plain, figures = objective(batch), heeding(batch)
    torch.testing.assert_close(figures["cross_entropy"], plain["cross_entropy"])
    added = ATTRIBUTES_WEIGHT * (figures["in_text"] + figures["in_music"])
    torch.testing.assert_close(figures["loss"], plain["loss"] + added)
    heeding(batch)["in_text"].backward()
    assert heeding.text_encoder.model.shared.weight.grad.abs().sum() > 0, "the text encoder learns from its aid"
    unaided = DecoderObjective(*parts, heed_words=True, aided=False).train()
    assert unaided.state_dict().keys() == objective.state_dict().keys()
    with torch.no_grad():
        assert unaided(batch).keys() == plain.keys()
        seen = [unaided.losses(batch)[0] for _ in range(50)]
    assert any(not torch.allclose(one, seen[0], atol=1e-3) for one in seen), "the past is disturbed all the same"


# What it learns from


@pytest.fixture(scope="module")
def coded_clips() -> list[tuple[float, CodedClips]]:
    def clips(frames: int, count: int) -> CodedClips:
        attributes = torch.arange(count, dtype=torch.int16)
        codes = attributes[:, None, None].expand(count, 4, frames) % 32
        return CodedClips(codes, attributes, torch.zeros(count, frames, dtype=torch.bool))

    return [(0.75, clips(10, 32)), (0.25, clips(20, 32))]


def test_batches_are_a_function_of_their_seed(coded_clips, real_tokenizer):
    one, same, other = (draw_batch(coded_clips, 80, real_tokenizer, seed) for seed in ("0 5 0", "0 5 0", "0 5 1"))
    assert torch.equal(one.text_ids, same.text_ids) and torch.equal(one.codes, same.codes)
    assert torch.equal(one.text_mask, same.text_mask)
    assert not torch.equal(one.codes[:, 0, 0], other.codes[:, 0, 0])


def test_batches_hold_their_share_of_lengths_and_withheld_captions(coded_clips, real_tokenizer):
    batches = [draw_batch(coded_clips, 80, real_tokenizer, str(seed)) for seed in range(200)]
    assert {tuple(batch.codes.shape) for batch in batches} == {(8, 4, 10), (4, 4, 20)}
    assert 0.65 < sum(batch.codes.shape[2] == 10 for batch in batches) / 200 < 0.85
    withheld = torch.cat([~batch.text_mask.any(dim=1) for batch in batches]).float().mean()
    assert abs(withheld - CAPTION_DROPOUT) < 0.04
    spoken = [batch for batch in batches if batch.text_mask.any()]
    assert all(batch.codes.dtype == torch.int64 and batch.text_ids[:, 0].min() > 2 for batch in spoken)


def test_captions_of_a_batch_are_about_its_clips(coded_clips, real_tokenizer):
    batch = draw_batch(coded_clips[:1], 400, real_tokenizer, "0")
    for ids, code in zip(batch.text_ids, batch.codes[:, 0, 0], strict=True):
        text = real_tokenizer.decode(ids)
        assert ALL_ATTRIBUTES[int(code)].instrument == "piano"  # the first 72 are
        others = [name for instrument, names in INSTRUMENT_NAMES.items() if instrument != "piano" for name in names]
        assert not any(name in text for name in others), text


def test_a_batch_knows_what_its_captions_say(coded_clips, real_tokenizer):
    batch = draw_batch(coded_clips, 800, real_tokenizer, "0")
    values = [list(VALUES[name]) for name in VALUES]
    for row, code in zip(batch.said.tolist(), batch.codes[:, 0, 0].tolist(), strict=True):
        of_clip = [getattr(ALL_ATTRIBUTES[code], name) for name in VALUES]
        assert all(
            said in (UNSAID, known.index(value)) for said, known, value in zip(row, values, of_clip, strict=True)
        )
    assert ((batch.said == UNSAID).all(dim=1) | batch.text_mask.any(dim=1)).all(), "a withheld caption says nothing"
    assert (batch.said != UNSAID).any(dim=0).all()


@pytest.fixture(scope="module")
def spliced_pieces() -> list[Piece]:
    return [compose_clip(250, seed) for seed in range(3_000)]


@pytest.fixture(scope="module")
def spliced_clips(spliced_pieces) -> CodedClips:
    """Clips of the composer without sound: the codes of each are its number."""
    pieces = spliced_pieces
    onsets = torch.zeros(len(pieces), 250, dtype=torch.bool)
    for row, piece in zip(onsets, pieces, strict=True):
        row[piece.onsets] = True
    attributes = torch.tensor([ALL_ATTRIBUTES.index(piece.attributes) for piece in pieces], dtype=torch.int16)
    clips = CodedClips(torch.arange(3_000)[:, None, None].expand(-1, 4, 250), attributes, onsets)
    return replace(clips, partners=find_partners(clips))


def test_changes_are_where_the_composer_changes_the_chord(spliced_clips):
    changes = find_changes(spliced_clips)
    for number in range(200):
        piece = compose_clip(250, number)
        chord = chord_eighths(piece.attributes.tempo) * piece.eighth
        assert changes[number].nonzero().flatten().tolist() == list(range(LEAD_IN + chord, 250, chord))


def test_partners_differ_in_their_mode_alone(spliced_clips, spliced_pieces):
    pieces = spliced_pieces
    for number, partners in enumerate(spliced_clips.partners):
        for partner in partners:
            one, other = pieces[number], pieces[partner]
            assert one.attributes.mode != other.attributes.mode and one.eighth == other.eighth
            assert replace(one.attributes, mode="major") == replace(other.attributes, mode="major")
            assert number in spliced_clips.partners[partner]
    assert sum(bool(partners) for partners in spliced_clips.partners) > 2_000


def test_a_spliced_clip_begins_as_a_partner_and_goes_on_as_itself(spliced_clips, real_tokenizer):
    batch = draw_batch([(1.0, spliced_clips)], 250 * 200, real_tokenizer, "0")
    spliced = 0
    for codes, onsets, counted in zip(batch.codes[:, 0], batch.onsets, batch.counted, strict=True):
        number, first = int(codes[-1]), int(counted.nonzero()[0])
        assert counted[first:].all() and (codes[first:] == number).all()
        assert torch.equal(onsets, spliced_clips.onsets[number])
        if first:
            assert onsets[first] and first < 188, "the piece takes over with something struck, and has time to go on"
            assert int(codes[0]) in spliced_clips.partners[number] and (codes[:first] == codes[0]).all()
            spliced += 1
        else:
            assert not spliced_clips.partners[number]
    assert spliced > 100


def test_clips_are_a_function_of_seed_and_length():
    assert compose_clip(50, 3) == compose_clip(50, 3) != compose_clip(50, 4)
    assert not any(is_held_out(compose_clip(50, seed).attributes) for seed in range(300))
    assert all(is_held_out(compose_clip(50, seed, held_out=True).attributes) for seed in range(100))


# All of it


def test_the_recipe_makes_a_model_from_nothing(renderer, tmp_path):
    trained = train(TINY_RECIPE, tmp_path)
    opened = MusicGen.from_pretrained(tmp_path / "model").eval()
    for (name, one), other in zip(trained.state_dict().items(), opened.state_dict().values(), strict=True):
        stored = one if name.startswith("codec.") else one.bfloat16().float()  # all but the codec ships in bfloat16
        assert torch.equal(stored, other), name
    audio = opened.generate("a happy piano melody with drums", duration=0.5, seed=1)
    assert audio.codes.shape == (1, 4, 25) and audio.waveform.shape == (1, 1, 25 * 320)
    assert audio.waveform.isfinite().all()
    again = MusicGen.from_pretrained(tmp_path / "model").generate(
        "a happy piano melody with drums", duration=0.5, seed=1
    )
    assert torch.equal(again.codes, audio.codes)
    assert {path.name for path in tmp_path.iterdir()} >= {
        "tokenizer.model",
        "codec",
        "codes",
        "captions",
        "decoder",
        "model",
    }

    AcceleratorState._reset_state(reset_partial_state=True)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("co*/*.safetensors")}
    again = train(TINY_RECIPE, tmp_path)  # all done: only loaded
    assert_equal_weights(trained, again)
    assert files == {path: path.stat().st_mtime_ns for path in files}, "nothing is made twice"


def test_a_run_goes_on_from_a_model(renderer, tmp_path):
    first = train(TINY_RECIPE, tmp_path / "first")
    AcceleratorState._reset_state(reset_partial_state=True)
    idle = replace(TINY_RECIPE, codec_steps=0, sharpen_steps=0, adversarial_steps=0, decoder_steps=0)
    second = train(idle, tmp_path / "second", start=tmp_path / "first" / "model")
    for (name, one), other in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(one if name.startswith("codec.") else one.bfloat16().float(), other), name
    assert second.tokenizer(["sad flute"])[0].tolist() == first.tokenizer(["sad flute"])[0].tolist()


def test_heads_are_aimed_and_nothing_else_is_moved(renderer, tmp_path):
    first = train(TINY_RECIPE, tmp_path / "first")
    AcceleratorState._reset_state(reset_partial_state=True)
    groups = (ClipGroup(50, 40, 0.5), ClipGroup(50, 40, 0.5, spliced=True))
    still = dict(codec_steps=0, sharpen_steps=0, adversarial_steps=0, decoder_steps=0)
    aiming = replace(TINY_RECIPE, groups=groups, aim_steps=3, **still)
    second = train(aiming, tmp_path / "second", start=tmp_path / "first" / "model")
    assert first.state_dict().keys() == second.state_dict().keys()
    for (name, one), other in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        same = torch.equal(one if name.startswith("codec.") else one.bfloat16().float(), other)
        assert same != name.startswith("decoder.lm_heads"), name
    assert all(weight.requires_grad for weight in second.decoder.parameters())


def test_aimed_heads_add_two_numbers_a_code_along_the_directions(spliced_clips, real_tokenizer):
    torch.manual_seed(0)
    config = MusicGenConfig(
        replace(TINY_RECIPE.config.text_encoder, vocab_size=real_tokenizer.vocab_size),
        replace(TINY_RECIPE.config.decoder, codebook_size=32), TINY_RECIPE.config.codec,
    )  # fmt: skip
    model = MusicGen(config, real_tokenizer)
    objective = DecoderObjective(model.text_encoder, model.projection, model.decoder, model.pattern)
    clips = replace(spliced_clips, codes=spliced_clips.codes[:, :, :50] % 32, onsets=spliced_clips.onsets[:, :50])
    directions = mode_directions(objective, clips, real_tokenizer)
    before = model.decoder.lm_heads[1].weight.clone()

    turned = []  # how a caption's mode moves what the directions read, over the same music
    for number in range(100):
        attributes, codes, onsets = ALL_ATTRIBUTES[clips.attributes[number]], clips.codes[number], clips.onsets[number]
        told = [caption(replace(attributes, mode=mode), random.Random(number)) for mode in ("major", "minor")]
        if told[0] != told[1]:
            unsaid = torch.full((2, 1), UNSAID)
            both = Batch(*real_tokenizer(told), codes.expand(2, -1, -1), onsets.expand(2, -1), unsaid)
            with torch.no_grad():
                major, minor = (objective.states(both)[1] @ directions.T).mean(dim=1)
            turned.append(major - minor)
    turned = torch.stack(turned).mean(dim=0)
    assert turned[0] > 1 and abs(turned[1]) < 0.3 * turned[0], turned
    with aimed_heads(objective, directions):
        assert {name for name, weight in objective.named_parameters() if weight.requires_grad} == {
            f"decoder.lm_heads.{codebook}.parametrizations.weight.0.amounts" for codebook in range(4)
        }
        assert torch.equal(model.decoder.lm_heads[1].weight, before), "nothing is added at first"
        model.decoder.lm_heads[1].parametrizations.weight[0].amounts.data[7] = torch.tensor([2.0, -1.0])
    expected = before.clone()
    expected[7] += 2 * directions[0] - directions[1]
    torch.testing.assert_close(model.decoder.lm_heads[1].weight, expected)


def test_turned_batches_name_the_other_mode_and_nothing_else(spliced_clips, real_tokenizer):
    told, turned = (draw_batch([(1.0, spliced_clips)], 4_000, real_tokenizer, "5", turn) for turn in (False, True))
    assert torch.equal(told.codes, turned.codes) and torch.equal(told.counted, turned.counted)
    mode = list(VALUES).index("mode")
    others = [column for column in range(len(VALUES)) if column != mode]
    assert torch.equal(told.said[:, others], turned.said[:, others])
    names_it = told.said[:, mode] != UNSAID
    assert names_it.any() and (told.said[names_it, mode] == 1 - turned.said[names_it, mode]).all()
    kept = told.text_mask.any(dim=1)
    assert torch.equal(kept, turned.text_mask.any(dim=1))
    for row in kept.nonzero().flatten().tolist():
        one, other = (set(real_tokenizer.decode(batch.text_ids[row]).split()) for batch in (told, turned))
        assert (one == other) == (not names_it[row]) and len(one ^ other) <= 4, (one, other)


def test_contrast_teaches_the_scores_that_go_away_from_the_turned_caption(spliced_clips, real_tokenizer):
    clips = replace(spliced_clips, codes=spliced_clips.codes[:, :, :50] % 16, onsets=spliced_clips.onsets[:, :50])
    clips = replace(clips, partners=None, changes=None)
    model = tiny_model(real_tokenizer)
    with torch.no_grad():
        model.decoder.layers[0].encoder_attn.out_proj.weight.mul_(10)  # a model that heeds its words
    pair = tuple(draw_batch([(1.0, clips)], 400, real_tokenizer, "3", turn) for turn in (False, True))
    objective = ContrastObjective(model)
    same = objective(((pair[0], pair[0]), (pair[0], pair[0])))
    assert same["loss"].abs() < 1e-6, "nothing is to be learned where nothing is turned"

    with torch.no_grad():
        here, there = (objective.teacher.scores(batch) for batch in pair)
    wanted = (1.4 * here - 0.4 * there).softmax(dim=-1)
    by_hand = F.kl_div(here.log_softmax(dim=-1), wanted, reduction="none").sum(dim=-1).mean()
    figures = objective((pair, pair))
    torch.testing.assert_close(figures["distance"], by_hand)
    assert by_hand > 1e-6 and torch.allclose(figures["loss"], 2 * by_hand)

    before = {name: weight.clone() for name, weight in objective.teacher.state_dict().items()}
    optimizer = torch.optim.Adam(objective.learner.parameters(), 3e-4)
    for _ in range(20):
        optimizer.zero_grad()
        objective((pair, pair))["loss"].backward()
        optimizer.step()
    assert objective((pair, pair))["distance"] < 0.5 * by_hand
    assert all(torch.equal(weight, before[name]) for name, weight in objective.teacher.state_dict().items())


def test_a_contrasted_decoder_writes_as_the_decoder_where_nothing_is_turned(real_tokenizer):
    model = tiny_model(real_tokenizer)
    told = model.encode_text(["happy piano", "sad flute melody"])
    settings = SamplingSettings(top_k=16, guidance_scale=2.0)
    plain = generate_codes(model.decoder, told, 12, model.pattern, settings, seed=[1, 2])
    steps = model.pattern.steps(12)
    same = ContrastedDecoder(model.decoder, told, steps)
    assert torch.equal(generate_codes(same, told, 12, model.pattern, settings, seed=[1, 2]), plain)
    turned = model.encode_text(["sad piano", "happy flute melody"])
    away = ContrastedDecoder(model.decoder, turned, steps)
    column = torch.full((4, 4, 1), 16)
    with torch.no_grad():
        logits = away(column, told.with_null(), DecoderCache(model.decoder.config, 4, steps))
        one = model.decoder(column, told.with_null(), DecoderCache(model.decoder.config, 4, steps))
        other = model.decoder(column[:2], turned, DecoderCache(model.decoder.config, 2, steps))
    torch.testing.assert_close(logits[:2], 1.4 * one[:2] - 0.4 * other)
    assert torch.equal(logits[2:], one[2:]), "the branch without a prompt is left alone"


def test_contrast_is_a_stage_that_goes_on_from_a_model_and_leaves_its_codec(renderer, tmp_path):
    first = train(TINY_RECIPE, tmp_path / "first")
    AcceleratorState._reset_state(reset_partial_state=True)
    still = dict(codec_steps=0, sharpen_steps=0, adversarial_steps=0, decoder_steps=0)
    own = (ClipGroup(30, 5, 1.0),)
    turning = replace(TINY_RECIPE, own_groups=own, contrast_steps=2, contrast_batch=200, **still)
    second = train(turning, tmp_path / "second", start=tmp_path / "first" / "model")
    for (name, one), other in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        if name.startswith("codec."):
            assert torch.equal(one, other), name
    assert not torch.equal(first.decoder.lm_heads[0].weight.bfloat16().float(), second.decoder.lm_heads[0].weight)
    written = load_file(tmp_path / "second" / "contrast" / "own-30.safetensors")
    assert written["codes"].shape == (5, 4, 30) and written["codes"].max() < 16
    AcceleratorState._reset_state(reset_partial_state=True)
    again = train(turning, tmp_path / "second", start=tmp_path / "first" / "model")
    assert_equal_weights(second, again)


def test_a_folder_keeps_one_recipe_and_a_bad_start_is_refused_at_once(tmp_path):
    (tmp_path / "recipe.json").write_text("{}")
    with pytest.raises(ValueError, match="training with other settings .* choose another --folder"):
        train(TINY_RECIPE, tmp_path)
    same_widths = replace(TINY_RECIPE.config.decoder, hidden_size=16, text_hidden_size=16)
    MusicGen(replace(TINY_RECIPE.config, decoder=same_widths)).save_pretrained(tmp_path / "start")
    with pytest.raises(ValueError, match="cannot be trained: that takes a tokenizer, a text projection"):
        train(TINY_RECIPE, tmp_path / "new", start=tmp_path / "start")
    assert not (tmp_path / "new").exists()


def test_options_change_the_recipe_that_is_named(monkeypatch, tmp_path):
    taken = []
    monkeypatch.setattr(recipe, "train", lambda *arguments: taken.append(arguments))
    recipe.main(["--recipe", "gpu", "--clips", "0.5", "--sharpen-steps", "0", "--seed", "3", "--folder", str(tmp_path)])
    gpu = RECIPES["gpu"]
    halved = tuple(replace(group, clips=group.clips // 2) for group in gpu.groups)
    wanted = replace(gpu, codec_clips=gpu.codec_clips // 2, groups=halved, sharpen_steps=0, seed=3)
    assert taken == [(wanted, tmp_path, None)] and wanted.decoder_steps == gpu.decoder_steps > 10_000
    recipe.main([])
    assert taken[1][0] == Recipe() == RECIPES["laptop"]
    recipe.main(["--steps", "7", "--recipe", "gpu"])  # a trial of every stage
    assert {getattr(taken[2][0], name) for name in recipe.STEPS} == {0, 7}  # the heads are not aimed in this one
    assert set(recipe.STEPS) == {each.name for each in fields(Recipe) if each.name.endswith("_steps")}


@pytest.mark.parametrize(
    "options",
    [
        ["--clips", "inf"],
        ["--clips", "-1"],
        ["--seed", "-1"],
        ["--decoder-steps", "-5"],
        ["--recipe", "mode"],
        ["--steps", "-1"],
        ["--recipe", "progressions"],
        ["--recipe", "highs"],
        ["--recipe", "clear"],
    ],
)
def test_bad_options_end_in_a_sentence(options, capsys):
    with pytest.raises(SystemExit) as ended:
        recipe.main(options)
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_damaged_files_of_a_run_are_named(tmp_path):
    (tmp_path / "waveforms.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match="waveforms.safetensors is damaged .* delete it"):
        cached_waveforms(tmp_path / "waveforms.safetensors", 50, 3)
    (tmp_path / loop.STATE_FILE).write_bytes(b"half")
    with pytest.raises(ValueError, match="state.safetensors is damaged .* delete it"):
        loop._load_state(tmp_path, model := nn.Linear(1, 1), torch.optim.AdamW(model.parameters()))


def test_a_memoryless_encoder_codes_a_frame_by_what_is_near():
    torch.manual_seed(0)
    codec = Codec(CodecConfig(num_filters=10, hidden_size=16, codebook_size=16))
    make_encoder_memoryless(codec)
    first, second = torch.randn(2, 1, 1, 100 * 320)
    second[..., 50 * 320 :] = first[..., 50 * 320 :]
    with torch.no_grad():
        difference = (codec.encoder(first) - codec.encoder(second)).abs().amax(dim=(0, 1))
    assert difference[:50].min() > 0 and difference[56:].max() < 1e-6
    CodecObjective(codec)(0.1 * torch.randn(1, 1, 3_200))["loss"].backward()
    assert all(not weight.requires_grad for weight in codec.encoder.model[-3].lstm.parameters())


def test_codes_are_cached_and_belong_to_their_clips(renderer, tmp_path):
    model = MusicGen(TINY_RECIPE.config)
    group = ClipGroup(50, 3, 1.0)
    coded = cached_codes(tmp_path, group, model.codec)
    again = cached_codes(tmp_path, group, MusicGen(TINY_RECIPE.config).codec)  # another codec: it must not be asked
    assert torch.equal(coded.codes, again.codes) and coded.codes.shape == (3, 4, 50)
    for seed, (attributes, onsets) in enumerate(zip(coded.attributes, coded.onsets, strict=True)):
        piece = compose_clip(50, seed)
        assert ALL_ATTRIBUTES[attributes] == piece.attributes
        assert onsets.nonzero().flatten().tolist() == piece.onsets
    waveforms = cached_waveforms(tmp_path / "waveforms.safetensors", 50, 3)
    assert waveforms.shape == (3, 1, 16_000) and waveforms.dtype == torch.int16


def test_the_shipped_codes_and_clips_need_no_synthesizer():
    coded, clips = shipped_codes(), shipped_clips()
    assert coded.codes.shape == (1_500, 4, 250) and 0 <= coded.codes.min() and coded.codes.max() < 1_024
    assert coded.onsets.any(dim=1).all() and not coded.onsets[:, :4].any(), "every clip begins with silence"
    assert set(clips) == set(INSTRUMENTS)
    assert all(clip.waveform.shape == (1, 1, 64_000) and clip.waveform.abs().max() > 0.05 for clip in clips.values())


@pytest.mark.usefixtures("unchecked_annotations")
def test_bfloat16_without_instructions_for_it_is_not_used(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    monkeypatch.setattr(loop, "Accelerator", lambda **options: options)
    assert loop.create_accelerator()["mixed_precision"] == "no"


@pytest.mark.usefixtures("unchecked_annotations")
def test_bfloat16_that_a_gpu_only_imitates_is_not_used(monkeypatch):
    asked = {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: asked.update(options) or False)
    monkeypatch.setattr(loop, "Accelerator", lambda **options: options)
    assert loop.create_accelerator()["mixed_precision"] == "no" and asked == {"including_emulation": False}
