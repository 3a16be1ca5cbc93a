"""The model that comes with the package: complete, small enough, the same in transformers, and true to the seed."""

from __future__ import annotations

import json
import re
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from reference import no_complaints, reference_greedy, reference_logits
from torch.nn.functional import cross_entropy
from transformers import AutoProcessor, AutoTokenizer, MusicgenForConditionalGeneration, pipeline

from musicgen_edu import PRESETS, MusicGen, create_musicgen_model
from musicgen_edu.checkpoints.pretrained import named_tensors
from musicgen_edu.checkpoints.tensors import fingerprint
from musicgen_edu.composer.samples import shipped_codes
from musicgen_edu.presets import SHIPPED
from musicgen_edu.sampling import apply_guidance

PROMPT = "peaceful piano melody"
PROMPTS = [PROMPT, "an energetic marimba arpeggio, fast, with drums", "sad strings"]


@pytest.fixture(scope="module")
def shipped() -> MusicGen:
    return create_musicgen_model("tiny")


@pytest.fixture(scope="module")
def reference() -> MusicgenForConditionalGeneration:
    with no_complaints():
        return MusicgenForConditionalGeneration.from_pretrained(SHIPPED).eval()


def test_it_is_small_enough_and_holds_no_pickle():
    sizes = {file.name: file.stat().st_size for file in SHIPPED.rglob("*") if file.is_file()}
    assert sum(sizes.values()) <= 90_000_000
    assert max(sizes.values()) <= 50_000_000
    assert {name.rsplit(".")[-1] for name in sizes} <= {"json", "model", "safetensors", "md", "txt"}


def test_it_is_what_its_preset_says(shipped):
    config, preset = shipped.config, PRESETS["tiny"]
    assert replace(config, text_encoder=preset.text_encoder) == preset
    assert replace(config.text_encoder, vocab_size=preset.text_encoder.vocab_size) == preset.text_encoder
    assert config.text_encoder.vocab_size == shipped.text_encoder.model.shared.num_embeddings
    assert config.text_encoder.vocab_size >= shipped.tokenizer.vocab_size
    assert (shipped.projection.in_features, shipped.projection.out_features) == (512, 768)


def test_the_report_beside_it_was_measured_on_these_weights(shipped):
    report = json.loads((SHIPPED / "evaluation" / "report.json").read_text(encoding="utf-8"))
    assert report["weights"] == fingerprint(named_tensors(shipped))
    assert report["plan"]["prompts"] >= 300


def test_the_seeds_prompt_has_four_tokens(shipped):
    ids, mask = shipped.tokenizer([PROMPT])
    assert ids.shape == (1, 4) and mask.all()
    assert shipped.tokenizer.pieces(PROMPT) == ["▁peaceful", "▁piano", "▁melody", "</s>"]
    states = shipped.encode_text([PROMPT]).states
    assert states.shape == (1, 4, 768)


def test_the_seeds_error_to_the_letter():
    model = create_musicgen_model("tiny", hidden_size=512, text_hidden_size=768, preflight=False)
    wanted = "mat1 and mat2 shapes cannot be multiplied (4x512 and 768x512)"
    with pytest.raises(RuntimeError, match=f"^{re.escape(wanted)}$"):
        model.generate(PROMPT, duration=0.1)


@pytest.mark.parametrize("fix", [{"hidden_size": 512}, {}])
def test_both_of_the_seeds_fixes_generate(fix):
    model = create_musicgen_model("tiny", **fix)
    assert (model.projection is None) == bool(fix)
    audio = model.generate(PROMPT, duration=0.2)
    assert audio.waveform.shape == (1, 1, 3200) and audio.codes.shape == (1, 4, 10)


def test_overrides_keep_what_was_trained_where_it_fits(shipped):
    state = torch.random.get_rng_state()
    one, again, other = (create_musicgen_model("tiny", num_layers=1, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    weights = [model.decoder.embed_tokens[0].weight for model in (one, again, other, shipped)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2]) and not torch.equal(weights[0], weights[3])
    for name, tensor in shipped.codec.state_dict().items():
        assert torch.equal(tensor, one.codec.state_dict()[name])
    flat = create_musicgen_model("tiny", pattern="parallel")
    assert torch.equal(flat.decoder.embed_tokens[0].weight, weights[3]) and flat.pattern.name == "parallel"


def test_small_generates():
    with torch.inference_mode():
        audio = create_musicgen_model("small", num_layers=2).generate(PROMPT, duration=0.1)
    assert audio.waveform.shape == (1, 1, 3200) and audio.sample_rate == 32_000


@torch.no_grad()
def test_beyond_its_window_it_knows_nothing(shipped):
    """It learned clips of half a minute: in one longer window real codes surprise it more than in a window of its own.

    Clips of five seconds in a row, the last of them foretold in 40 s and in 13 s.
    """
    assert (shipped.config.window, shipped.config.stride) == (30, 18)
    codes = torch.cat(list(shipped_codes().codes[:8, None].long()), dim=2)  # [1, 4, 2000]

    def surprise(codes: torch.Tensor) -> torch.Tensor:
        sequence = shipped.pattern.interleave(codes, 1024)[:, :, :-1]
        scores = shipped.pattern.deinterleave(
            shipped.decoder(sequence, shipped.encode_text([PROMPT])), codes.shape[2], first_step=1
        )
        return cross_entropy(scores[:, :, -250:].flatten(0, 2), codes[:, :, -250:].flatten())

    far, near = surprise(codes), surprise(codes[:, :, -650:])
    assert near < 0.7 * far


def test_transformers_reads_prompts_the_same_way(shipped):
    with no_complaints():
        tokenizer = AutoTokenizer.from_pretrained(SHIPPED)
        processor = AutoProcessor.from_pretrained(SHIPPED)
    texts = [*PROMPTS, "ＰＩＡＮＯ, Ünïcode & co.", "a guitar; drums!", "пианино"]
    ids, mask = shipped.tokenizer(texts)
    options = {"padding": True, "return_tensors": "pt"}
    for read in (tokenizer(texts, **options), processor(text=texts, **options)):
        assert torch.equal(read.input_ids, ids) and torch.equal(read.attention_mask, mask.long())


def test_transformers_gives_the_same_scores_codes_and_samples(shipped, reference):
    ids, mask = shipped.tokenizer(PROMPTS)
    codes = torch.randint(0, 1024, (3, 4, 40))
    sequence = shipped.pattern.interleave(codes, 1024)
    with torch.inference_mode():
        logits, null_logits = shipped(sequence, ids, mask), shipped(sequence, ids, torch.zeros_like(mask))
        waveform = reference.audio_encoder.decode(codes[None], [None]).audio_values
        heard = reference.audio_encoder.encode(waveform).audio_codes[0]
    text = {"input_ids": ids, "attention_mask": mask.long()}
    torch.testing.assert_close(logits, reference_logits(reference, sequence, **text), atol=1e-4, rtol=0)
    null = {"encoder_outputs": (torch.zeros(*ids.shape, 512),), "attention_mask": torch.zeros_like(ids)}
    torch.testing.assert_close(null_logits, reference_logits(reference, sequence, **null), atol=1e-4, rtol=0)
    torch.testing.assert_close(shipped.codec.decode(codes), waveform, atol=1e-5, rtol=0)
    assert (shipped.codec.encode(waveform) == heard).float().mean() > 0.999


def test_transformers_writes_the_same_greedy_music(shipped, reference):
    frames = 50
    ids, mask = shipped.tokenizer(PROMPTS)
    text = {"input_ids": ids, "attention_mask": mask.long()}
    null = {"encoder_outputs": (torch.zeros(*ids.shape, 512),), "attention_mask": torch.zeros_like(ids)}
    audio = shipped.generate(PROMPTS, frames / 50, temperature=0, guidance_scale=3)
    sequence = shipped.pattern.interleave(audio.codes, 1024)
    with torch.inference_mode():
        own = apply_guidance(shipped(sequence, ids, mask), shipped(sequence, ids, torch.zeros_like(mask)), 3)
    conditional = reference_logits(reference, sequence, **text)
    theirs = apply_guidance(conditional, reference_logits(reference, sequence, **null), 3)
    difference = (own - theirs).abs().max()
    best = theirs.topk(2, dim=-1)
    clear = (best.values[..., 0] - best.values[..., 1] > 10 * difference)[:, :, :-1]
    checked = clear & shipped.pattern.mask(frames)[:, 1:]
    assert difference < 1e-3 and checked.float().mean() > 0.5
    assert torch.equal(best.indices[:, :, :-1, 0][checked], sequence[:, :, 1:][checked])
    codes, waveform = reference_greedy(reference, frames, **text)
    parted = (shipped.pattern.interleave(codes, 1024) != sequence).any(dim=1)[:, 1:]
    assert not (parted.cumsum(1).eq(1) & clear.all(dim=1)).any(), "the sequences part, and not at a near-tie"
    if not parted.any():
        torch.testing.assert_close(audio.waveform, waveform, atol=1e-4, rtol=0)


def test_the_pipeline_makes_music():
    with no_complaints():
        output = pipeline("text-to-audio", str(SHIPPED), device="cpu")(PROMPT, forward_params={"max_new_tokens": 28})
    assert output["sampling_rate"] == 16_000 and output["audio"].size == 25 * 320


def test_the_same_seed_gives_the_same_samples_alone_and_in_a_batch(shipped):
    batch = shipped.generate(PROMPTS, duration=2, seed=[1, 2, 3])
    for row, prompt in enumerate(PROMPTS):
        alone = shipped.generate(prompt, duration=2, seed=row + 1)
        assert torch.equal(batch.codes[row], alone.codes[0])
        torch.testing.assert_close(batch.waveform[row], alone.waveform[0], atol=1e-4, rtol=0)


def test_streamed_chunks_are_the_same_music(shipped):
    audio = shipped.generate(PROMPT, duration=3, seed=5)
    chunks = [chunk.waveform for chunk in shipped.stream(PROMPT, duration=3, seed=5, chunk_duration=0.5)]
    assert len(chunks) > 3
    torch.testing.assert_close(torch.cat(chunks, dim=2), audio.waveform, atol=1e-4, rtol=0)


def test_it_can_be_saved_as_it_is_shipped(shipped, tmp_path):
    shipped.save_pretrained(tmp_path, dtype=torch.bfloat16)
    again = named_tensors(MusicGen.from_pretrained(tmp_path))
    assert all(torch.equal(tensor, again[name]) for name, tensor in named_tensors(shipped).items())


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a process's peak so")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_opening_takes_little_more_memory_than_the_weights(dtype):
    """In a process of its own; `tests/benchmarks/loading.py` prints the same for the shape of Meta's small model."""
    open_alone = runpy.run_path(str(Path(__file__).parent / "benchmarks" / "loading.py"))["open_alone"]
    megabytes, share, _ = open_alone(SHIPPED, dtype)
    assert megabytes > 80, "too few weights to tell them from what else is allocated"
    assert 1 <= share <= 1.15
