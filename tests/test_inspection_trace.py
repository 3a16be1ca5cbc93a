"""The trace: what it says of a run must be what the run's own tensors say."""

from __future__ import annotations

import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from musicgen_edu.config import MusicGenConfig
from musicgen_edu.inspection import code_lines
from musicgen_edu.inspection.trace import STAGES, trace
from musicgen_edu.model import MusicGen
from musicgen_edu.projection import TextProjection

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "happy piano melody"


@pytest.fixture(scope="module")
def way(model):
    return trace(model, PROMPT, 0.5, guidance_scale=3.0)


def code_at(line: str) -> str:
    file, _, number = line.rpartition(":")
    return (ROOT / file).read_text(encoding="utf-8").splitlines()[int(number) - 1].strip()


def hooks_left(model: MusicGen) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_every_stage_is_there_in_the_order_of_the_data(way):
    assert [stage.name for stage in way] == list(STAGES)
    assert all(len(stage.axes) == len(stage.shape) for stage in way)
    assert len(way) == len(way.stages) and way["codes"] in list(way)


def test_shapes_are_those_of_the_tensors(model, way):
    ids, mask = model.tokenizer([PROMPT])
    states = model.encode_text([PROMPT]).states
    codes, waveform = way.audio.codes, way.audio.waveform
    tensors = {"ids": ids, "mask": mask, "projected states": states, "codes": codes, "waveform": waveform}
    tensors |= {"text states": model.text_encoder(ids, mask), "latents": model.codec.dequantize(codes)}
    for name, tensor in tensors.items():
        stage = way[name]
        assert (stage.shape, stage.dtype) == (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")), name
        assert stage.memory == tensor.nbytes


def test_decoders_calls_are_put_together_along_the_steps(model, way):
    steps = model.pattern.steps(25) - 1  # the last column is written and never read
    assert way["interleaved steps"].shape == (2, 4, steps)  # two rows: with the prompt and without
    assert way["logits"].shape == (2, 4, steps, 32)
    assert way["logits"].memory == 2 * 4 * steps * 32 * 4
    assert trace(model, PROMPT, 0.1, guidance_scale=1)["logits"].shape[0] == 1


def test_makes_the_music_that_generate_makes(model, way):
    assert torch.equal(way.audio.waveform, model.generate(PROMPT, 0.5, guidance_scale=3.0).waveform)


def test_parameters_are_those_of_the_modules(model, way):
    modules = {"text states": model.text_encoder, "projected states": model.projection, "logits": model.decoder}
    for name, module in (modules | {"waveform": model.codec.decoder}).items():
        assert way[name].parameters == sum(parameter.numel() for parameter in module.parameters())
        assert way[name].parameter_memory == 4 * way[name].parameters
    assert way["latents"].parameters == 4 * 32 * 16  # codebooks × codebook_size × latent_width
    assert way["codes"].parameters == 0


def test_meaning_is_taken_from_the_run(way):
    assert way["prompt"].meaning == f"“{PROMPT}”"
    assert way["codes"].meaning == "50 frames = 1 s"
    assert way["waveform"].meaning == "400 samples = 1 s"
    assert way["text states"].meaning == "16 numbers a token"
    assert "with the prompt and without it" in way["interleaved steps"].meaning


@pytest.mark.parametrize(
    ("name", "file", "code"),
    [
        ("ids", "tokenizer", "ids = "),
        ("mask", "tokenizer", "return ids, ids != self.pad_id"),
        ("text states", "text_encoder", "return self.model("),
        ("projected states", "projection", "return zero_padding(super().forward("),
        ("interleaved steps", "generation", "sequence[:, :, step] = "),
        ("logits", "decoder", "return torch.stack([head(states)"),
        ("codes", "patterns", "return sequence[self._cells("),
        ("latents", "codec", "return self.quantizer.vq.decode("),
        ("waveform", "codec", "return self.decoder(self.dequantize(codes))"),
        ("file", "audio", "write_whole("),
    ],
)
def test_lines_are_those_that_made_the_stage(way, name, file, code):
    assert re.fullmatch(rf"musicgen_edu/{file}\.py:\d+", way[name].line)
    assert code_at(way[name].line).startswith(code)


def test_a_line_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="No line of TextProjection.forward begins with 'yield'"):
        code_lines.source_line(TextProjection.forward, "yield")


def test_error_outside_the_package_has_no_line():
    with pytest.raises(ZeroDivisionError) as caught:
        1 / 0  # noqa: B018
    assert code_lines.error_line(caught.value) == ""


def test_seconds_are_there_and_can_be_hidden(model, way):
    assert all(stage.seconds >= 0 for stage in way) and way["logits"].seconds > 0
    hidden = trace(model, PROMPT, 0.1, show_seconds=False)
    assert "seconds" in way._repr_html_() and "seconds" not in hidden._repr_html_()
    assert str(hidden) == str(trace(model, PROMPT, 0.1, show_seconds=False))


def test_a_batch_and_its_files(model, tmp_path):
    way = trace(model, [PROMPT, "a sad flute melody, slow"], 0.1, seed=[1, 2], file=tmp_path / "pair.wav")
    sizes = [path.stat().st_size for path in sorted(tmp_path.iterdir())]
    assert way["file"].shape == (2, sizes[0]) and way["file"].memory == sum(sizes)
    assert [way[name].shape[0] for name in ("prompt", "ids", "codes", "waveform")] == [2] * 4
    assert way["logits"].shape[0] == 4


def test_a_model_without_projection_has_no_such_stage(model_config, tokenizer):
    decoder = {**vars(model_config.decoder), "hidden_size": 16}
    config = MusicGenConfig(model_config.text_encoder, type(model_config.decoder)(**decoder), model_config.codec)
    way = trace(MusicGen(config, tokenizer), PROMPT, 0.1)
    assert [stage.name for stage in way] == [name for name in STAGES if name != "projected states"]
    with pytest.raises(KeyError, match="no stage 'projected states' in this trace: choose among prompt, ids, mask"):
        way["projected states"]


@pytest.mark.parametrize(
    ("scale", "branches"), [(3.0, "with the prompt and without it"), (1.0, "with the prompt only")]
)
def test_samples_are_rows_of_the_batch(model, scale, branches):
    way = {stage.name: stage for stage in trace(model, "piano", 0.1, samples=3, guidance_scale=scale).stages}
    assert way["prompt"].shape == (3,) and way["ids"].shape[0] == 3 and way["codes"].shape == (3, 4, 5)
    assert branches in way["interleaved steps"].meaning


@pytest.mark.usefixtures("unchecked_annotations")
def test_hooks_are_removed_also_after_an_error(model):
    before = hooks_left(model)  # weight normalisation has some of its own
    with pytest.raises(ValueError, match="empty"):
        trace(model, " ", 0.1)
    with pytest.raises(TypeError, match="string or a list"):
        trace(model, None, 0.1)
    assert hooks_left(model) == before


@pytest.fixture
def broken(model_config, tokenizer) -> MusicGen:
    """A decoder that expects text states of 20 numbers, and gets 16."""
    sizes = {**vars(model_config.decoder), "text_hidden_size": 20}
    config = MusicGenConfig(model_config.text_encoder, type(model_config.decoder)(**sizes), model_config.codec)
    return MusicGen(config, tokenizer, preflight=False)


def test_a_run_that_breaks_ends_in_the_layer_that_broke(broken):
    before, tokens = hooks_left(broken), len(broken.tokenizer.encode(PROMPT))
    message = f"mat1 and mat2 shapes cannot be multiplied ({tokens}x16 and 20x24)"
    with pytest.raises(RuntimeError, match=re.escape(message)):
        trace(broken, PROMPT, 0.1)
    way = trace(broken, PROMPT, 0.1, catch=True)
    assert [stage.name for stage in way] == ["prompt", "ids", "mask", "text states"]
    assert (way.failure.layer, way.failure.message, way.audio) == ("projection", message, None)
    assert "in_features=20, out_features=24" in way.failure.module
    assert code_at(way.failure.line).startswith("return zero_padding(super().forward(")
    assert hooks_left(broken) == before
    assert str(way).endswith(str(way.failure)) and message in str(way.failure)


@pytest.mark.filterwarnings("ignore:The model does not know")
def test_the_table_is_accessible_and_escapes_the_prompt(model):
    way = trace(model, "<b>piano</b>", 0.1)
    region = ElementTree.fromstring(way._repr_html_())  # well-formed
    table = region.find("table")
    assert region.get("tabindex") == "0" and region.get("aria-label") == table.find("caption").text
    assert table.find("caption").text == "What went through the model: “<b>piano</b>”"
    heads = [cell.get("scope") for cell in table.iter("th")]
    assert heads == ["col"] * 8 + ["row"] * len(STAGES)
    rows = [[*row] for row in table.find("tbody")]
    assert all(len(row) == 8 for row in rows)


def test_the_broken_layer_is_marked_in_the_table_and_the_picture(broken):
    way = trace(broken, PROMPT, 0.1, catch=True)
    last = list(ElementTree.fromstring(way._repr_html_()).find("table").find("tbody"))[-1]
    assert last[0].text == "✗ breaks here" and "#d55e00" in last[0].get("style")
    assert way.failure.message in "".join(last[1].itertext())
    picture = way.draw()
    assert way.failure.message in picture.alt and way.failure.message in picture.content.decode()


def test_the_picture_names_every_stage_and_stays_the_same(model, way):
    picture = way.draw()
    svg = ElementTree.fromstring(picture.content)
    words = " ".join(svg.itertext())
    for stage in way:
        assert stage.name in words and " × ".join(stage.axes) in words and f"{stage.name}: {stage.sizes}" in picture.alt
    texts = [float(text.get("y")) for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert max(texts) < float(svg.get("height"))
    assert picture == trace(model, PROMPT, 0.5, guidance_scale=3.0).draw()


def test_a_compact_picture_has_a_line_a_stage_and_the_same_words(way):
    tall, flat = way.draw(), way.draw(compact=True)
    heights = [float(ElementTree.fromstring(drawn.content).get("height")) for drawn in (tall, flat)]
    assert heights[1] < 0.7 * heights[0] and flat.alt == tall.alt
    words = " ".join(ElementTree.fromstring(flat.content).itertext())
    assert all(stage.name in words and " × ".join(stage.axes) in words for stage in way)


def test_the_picture_marks_what_has_changed(model, way):
    longer = trace(model, PROMPT, 0.6, guidance_scale=3.0)
    picture = longer.draw(before=way)
    assert "codes: batch 1 × codebooks 4 × frames 30 (was 1 × 4 × 25)" in picture.alt
    assert picture.alt.count("(was") == 6  # steps, logits, codes, latents, waveform, file: the text is the same
    assert picture.content.decode().count('stroke-width="4"') == 6
    assert way.draw(before=way) == way.draw()


def test_seconds_add_up_to_the_run(model, monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr("musicgen_edu.inspection.trace.time.perf_counter", lambda: next(clock))
    way = trace(model, PROMPT, 0.1)
    # One tick of the clock for each note: ids, mask, states, projection, 3 a step, latents, waveform, file.
    assert math.isclose(sum(stage.seconds for stage in way), 7 + 3 * way["interleaved steps"].shape[2])
