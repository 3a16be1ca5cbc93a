"""What a program sets for all of PyTorch, its default precision and device, changes nothing in the package.

Nor does where the model lies: what it is asked goes there. And what it gives is ordinary.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import musicgen_edu
from musicgen_edu import MusicGen, create_musicgen_model
from musicgen_edu.audio import Audio
from musicgen_edu.codec import StreamingCodecDecoder
from musicgen_edu.composer.score import Attributes
from musicgen_edu.conditioning import hear_melody
from musicgen_edu.config import MelodyConfig
from musicgen_edu.inspection.attention import attend_to_prompt, draw_all_heads, draw_attention
from musicgen_edu.inspection.blind_test import Trial, _players
from musicgen_edu.inspection.codebook_usage import measure_usage
from musicgen_edu.inspection.codebooks import draw_codebooks, rebuild_by_codebooks
from musicgen_edu.inspection.delay_pattern import draw_pattern, pattern_grid
from musicgen_edu.inspection.projection import multiply
from musicgen_edu.inspection.sampling import draw_choice, score_next
from musicgen_edu.inspection.shapes import try_shapes
from musicgen_edu.inspection.text_states import compare_prompts, draw_comparison
from musicgen_edu.inspection.trace import trace
from musicgen_edu.listening import metrics, published
from musicgen_edu.listening.clips import Clips, in_a_room
from musicgen_edu.listening.judges import TASKS, confusion, extract_features, train_judge
from musicgen_edu.listening.measurements import memorisation
from musicgen_edu.patterns import PATTERNS, create_pattern
from musicgen_edu.reality.checks import check_order, check_parts, check_steps, check_words, surprises
from musicgen_edu.reality.permutation_tests import grouping_test, pairing_test, sign_test
from musicgen_edu.spectrogram import log_mel

PACKAGE = Path(musicgen_edu.__file__).parent
FACTORIES = {
    "arange", "empty", "eye", "full", "hamming_window", "hann_window", "linspace", "logspace", "normal", "ones", "rand",
    "randint", "randn", "randperm", "range", "tensor", "tril_indices", "triu_indices", "zeros",
    "fft.fftfreq", "fft.rfftfreq",
}  # fmt: skip
RATE = 16_000


def ambient_factories(source: str) -> list[str]:
    """Return the calls in a module's source that make a tensor and leave its precision or its device to the defaults.

    Both are named by keyword, or by `**like`, where every `like = dict(…)` of the module names both.
    """
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    likes = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assign) and _is_like(node)]
    like = set.intersection(*(_keywords(each) for each in likes)) if likes else set()
    found = []
    for call in calls:
        name = ast.unparse(call.func)
        if name.startswith("torch.") and name[len("torch.") :] in FACTORIES:
            expanded = any(keyword.arg is None and ast.unparse(keyword.value) == "like" for keyword in call.keywords)
            if not {"dtype", "device"} <= _keywords(call) | (like if expanded else set()):
                found.append(ast.unparse(call))
    return found


def _is_like(assignment: ast.Assign) -> bool:
    """`like = dict(…)`, alone or beside another name."""
    call = assignment.value
    return ast.unparse(assignment.targets[0]) == "like" and isinstance(call, ast.Call) and call.func.id == "dict"


def _keywords(call: ast.Call) -> set[str]:
    return {keyword.arg for keyword in call.keywords if keyword.arg}


def test_every_factory_in_the_package_names_precision_and_device():
    found = {
        str(path.relative_to(PACKAGE)): ambient_factories(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")
    }
    assert {path: calls for path, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("torch.zeros(3)", 1),
        ("torch.zeros(3, dtype=torch.float32)", 1),
        ("torch.zeros(3, device=x.device)", 1),
        ("torch.fft.rfftfreq(8)", 1),
        ("y = torch.stack([torch.tensor([1.0, 2.0])])", 1),
        ("torch.zeros(3, **like)", 1),
        ("like = dict(dtype=x.dtype)\ntorch.zeros(3, **like)", 1),
        ("like = dict(dtype=x.dtype, device=x.device)\ntorch.zeros(3, **like)", 0),
        ("torch.zeros(3, dtype=torch.float32, device='cpu')", 0),
        ("torch.zeros_like(x)", 0),
        ("np.zeros(3)", 0),
    ],
)
def test_a_planted_factory_is_found(source, found):
    assert len(ambient_factories(source)) == found


@pytest.fixture(params=[{"dtype": torch.float64}, {"device": "meta"}], ids=["float64", "meta"])
def elsewhere(request):
    """Call something under other defaults."""

    def call(function: Callable[[], object]) -> object:
        torch.set_default_dtype(request.param.get("dtype", torch.float32))
        torch.set_default_device(request.param.get("device", "cpu"))
        try:
            return function()
        finally:
            torch.set_default_dtype(torch.float32)
            torch.set_default_device(None)

    return call


def assert_same(found: object, expected: object) -> None:
    """Equal, tensors in precision, device and every number, whatever holds them."""
    assert type(found) is type(expected)
    if isinstance(expected, Tensor):
        assert (found.dtype, found.device) == (expected.dtype, expected.device)
        assert torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name in expected:
            assert_same(found[name], expected[name])
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif hasattr(expected, "_repr_html_"):
        same = found._repr_html_() == expected._repr_html_()
        assert same  # without a difference of pages, which would take minutes to print
    elif hasattr(expected, "__dict__"):
        assert_same(vars(found), vars(expected))
    else:
        assert found == expected


def sounds(clips: int = 4, seconds: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(clips, seconds * RATE, generator=generator, dtype=torch.float32, device="cpu")
    return 0.1 * noise * (torch.arange(seconds * RATE, dtype=torch.float32, device="cpu") % 8_000 < 1_000)


def some_codes(*shape: int) -> Tensor:
    return torch.randint(32, shape, generator=torch.Generator().manual_seed(2), dtype=torch.long, device="cpu")


PIECES = [
    Attributes("flute", tempo, mode, "soft", "melody", False)
    for tempo in ("slow", "fast")
    for mode in ("major", "minor")
]
LISTENING = {
    "features": lambda: extract_features(sounds(), RATE),
    "tempo": lambda: published.estimate_tempo(sounds(), RATE),
    "tempo fits": lambda: published.tempo_fits(sounds()[:, 0], ["slow"] * 4, True),
    "key": lambda: published.estimate_key(sounds(), RATE),
    "chords": lambda: published.chord_figures(published.track_chords(sounds(), RATE)),
    "rooms": lambda: in_a_room(Clips(sounds(), PIECES, some_codes(4, 4, 9))).waveforms,
    "mel statistics": lambda: metrics.mel_statistics(sounds(), RATE),
    "diversity": lambda: metrics.diversity(sounds(), RATE),
    "memorisation": lambda: memorisation(some_codes(2, 4, 30), some_codes(3, 4, 30), [some_codes(5, 4, 30)]),
    "bigrams": lambda: metrics.bigram_cross_entropy(some_codes(2, 4, 30), [some_codes(5, 4, 30)], 32),
    "grouping": lambda: grouping_test(sounds()[:, :36].reshape(3, 4, 3, 4).abs()),
    "pairing": lambda: pairing_test(sounds()[:, :4]),
    "signs": lambda: sign_test(sounds()[0, :9]),
}  # fmt: skip


@pytest.mark.parametrize("name", LISTENING)
def test_listening_and_chance(elsewhere, name):
    assert_same(elsewhere(LISTENING[name]), LISTENING[name]())


@pytest.mark.parametrize("task", ["mode", "tempo"])
def test_a_judge(elsewhere, task):
    """On a ring of pitch classes, and not."""

    def judge():
        features = extract_features(sounds(), RATE)
        trained = train_judge(TASKS[task], features, PIECES, epochs=2)
        return trained.state_dict(), confusion(trained, features, PIECES, [frozenset({task})] * 4)

    assert_same(elsewhere(judge), judge())


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns(elsewhere, name):
    def lay():
        pattern = create_pattern(name, 4)
        sequence = pattern.interleave(some_codes(2, 4, 7), 32)
        return sequence, pattern.deinterleave(sequence, 7), pattern.mask(7)

    expected = lay()
    musicgen_edu.patterns._tables.cache_clear()
    assert_same(elsewhere(lay), expected)


WHOLE = {
    "generate": lambda model: vars(model.generate(["piano", "flute"], 0.2)),
    "stream": lambda model: [chunk.waveform for chunk in model.stream("piano", 0.3, chunk_duration=0.1)],
    "codec": lambda model: model.codec.decode(model.codec.encode(sounds(1, 1)[:, None, :800])),
    "steps": check_steps,
    "parts": check_parts,
    "order": check_order,
    "words": check_words,
    "trace": lambda model: trace(model, "piano", 0.1, show_seconds=False),
    "attention": lambda model: draw_all_heads(attend_to_prompt(model, "piano", some_codes(1, 4, 5))),
    "codebooks": lambda model: draw_codebooks(rebuild_by_codebooks(model.codec, Audio(sounds(1, 1)[None], 400))),
    "usage": lambda model: measure_usage(some_codes(1, 4, 9), 32),
    "choice": lambda model: draw_choice(*score_next(model, "piano", some_codes(1, 4, 5)), top_k=5),
    "states": lambda model: compare_prompts(model, "piano", "sad flute"),
    "grid": lambda model: draw_pattern(pattern_grid("delay", 4, 5), "delay"),
    "projection": lambda model: multiply(),
    "shapes": lambda model: try_shapes(duration=0.04, hidden_size=256),
    "blind test": lambda model: _players(
        Audio(sounds(1, 1)[None], RATE), Audio(0.5 * sounds(1, 1)[None], RATE), Trial("a", "A", "B")
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_the_model_its_checks_and_its_views(elsewhere, model, name):
    assert_same(elsewhere(lambda: WHOLE[name](model)), WHOLE[name](model))


GIVEN = {
    "generate": lambda model: [getattr(model.generate("piano", 0.2), name) for name in ("codes", "waveform")],
    "stream": lambda model: [chunk.waveform for chunk in model.stream("piano", 0.3, chunk_duration=0.1)],
    "decode": lambda model: [model.decode(some_codes(1, 4, 5))],
    "encode": lambda model: [model.codec.encode(sounds(1, 1)[:, None, :800])],
    "push": lambda model: [StreamingCodecDecoder(model.codec).push(some_codes(1, 4, 5), last=True)],
    "scores": lambda model: score_next(model, "piano", some_codes(1, 4, 5)),
    "surprises": lambda model: [surprises(model, some_codes(1, 4, 5), ["piano"])],
}  # fmt: skip


@pytest.mark.parametrize("name", GIVEN)
def test_what_a_call_gives_is_an_ordinary_tensor(model, name):
    """It may be a label, stand in a loss, and be changed in place."""
    for tensor in GIVEN[name](model):
        assert not tensor.is_inference() and not tensor.requires_grad
        factor = torch.ones(tensor.shape, requires_grad=True)
        (factor * tensor).sum().backward()
        assert torch.equal(factor.grad, tensor.float())
        tensor *= 0


ASKED = {
    "states": lambda model: compare_prompts(model, "piano", "sad flute"),
    "attention": lambda model: attend_to_prompt(model, "piano", some_codes(1, 4, 5)),
    "choice": lambda model: score_next(model, "piano", some_codes(1, 4, 5)),
    "surprises": lambda model: surprises(model, some_codes(1, 4, 5), ["piano"]),
}  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
def test_texts_and_codes_go_to_where_the_model_is(model, name):
    """Without a second device at hand, on meta: all that comes to a part must lie there with it.

    transformers' T5 looks at numbers in its mask, which meta has none of, so that its states are made up.
    """
    moved, seen = copy.deepcopy(model).to("meta"), []

    def encode(ids: Tensor, mask: Tensor) -> Tensor:
        seen.append(("ids", ids.device.type, mask.device.type))
        return torch.zeros(*ids.shape, model.config.text_encoder.hidden_size, dtype=torch.float32, device="meta")

    def read(decoder, inputs: tuple) -> None:
        seen.append(("codes", inputs[0].device.type))

    moved.text_encoder.forward = encode
    moved.decoder.embed_tokens[0].register_forward_pre_hook(read)
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        ASKED[name](moved)
    assert seen[0] == ("ids", "meta", "meta") and set(seen[1:]) <= {("codes", "meta")}
    assert len(seen) > 1 or name == "states"


def test_under_mixed_precision_the_same_music_is_made_and_drawn():
    """Of the shipped model, whose codes are decided so closely that text states of 8 bits change them."""
    model = create_musicgen_model("tiny")
    expected = model.generate("piano melody", 0.5)
    condition = model.encode_text(["piano melody"])
    with torch.autocast("cpu", torch.bfloat16):
        found = model.generate("piano melody", 0.5)
        told = model.encode_text(["piano melody"])
        picture = expected._repr_html_()
        spectrogram = log_mel(expected.waveform[:, 0], 16_000)
    assert torch.equal(told.states, condition.states) and told.states.dtype == torch.float32
    assert torch.equal(found.codes, expected.codes) and torch.equal(found.waveform, expected.waveform)
    assert picture == expected._repr_html_()
    assert torch.equal(spectrogram, log_mel(expected.waveform[:, 0], 16_000))


def test_a_melody_is_told_in_its_own_precision(model_config, tokenizer):
    decoder = replace(model_config.decoder, cross_attention=False)
    model = MusicGen(replace(model_config, decoder=decoder, melody=MelodyConfig(length=3)), tokenizer)
    tune = torch.rand(1, 1, 4000)
    condition, melody = model.encode_text(["piano"]), hear_melody(Audio(tune, 400), 400, MelodyConfig(length=3))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.encode_text(["piano"]).prefix, condition.prefix)
        assert torch.equal(hear_melody(Audio(tune, 400), 400, MelodyConfig(length=3)), melody)


def test_a_model_of_few_bits_is_drawn(model):
    model = copy.deepcopy(model).bfloat16()
    codes = torch.zeros(1, 4, 5, dtype=torch.long)
    draw_attention(attend_to_prompt(model, "piano", codes), 0)
    with torch.no_grad():
        draw_choice(*score_next(model, "piano", codes), top_k=0)
    draw_comparison(compare_prompts(model, "piano", "sad piano"))
