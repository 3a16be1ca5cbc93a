"""Shared fixtures, and the run-time check of every shape annotation in the package."""

from __future__ import annotations

import os
import random

os.environ["HF_HUB_OFFLINE"] = "1"  # no test waits for a network

from hypothesis import settings
from jaxtyping import config as jaxtyping_config
from jaxtyping import install_import_hook

# Random tests draw the same examples on every machine; `make random-tests` draws others, time after time.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("random", derandomize=False, deadline=None)
settings.load_profile("same")

install_import_hook("musicgen_edu", "beartype.beartype")  # before the package's first import, or nothing is checked

import pytest  # noqa: E402
import torch  # noqa: E402

import musicgen_edu  # noqa: E402, F401  (first of all: it keeps transformers importable beside a CPU-only torch)
from musicgen_edu.composer.captions import caption  # noqa: E402
from musicgen_edu.composer.render import Renderer  # noqa: E402
from musicgen_edu.composer.score import ALL_ATTRIBUTES  # noqa: E402
from musicgen_edu.config import CodecConfig, DecoderConfig, MusicGenConfig, TextEncoderConfig  # noqa: E402
from musicgen_edu.model import MusicGen  # noqa: E402
from musicgen_edu.tokenizer import Tokenizer, train_tokenizer  # noqa: E402


@pytest.fixture(autouse=True)
def fixed_seed():
    """Every test starts from the same random state."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def captions() -> list[str]:
    """Made-up captions with the words of the prompt language."""
    instruments = "piano", "acoustic guitar", "electric guitar", "strings", "flute", "music box"
    moods, tempos = ("happy", "sad", "peaceful", "loud"), ("slow", "medium", "fast")
    endings = "melody, {}, with drums", "arpeggio, {}, without drums", "chords at a {} tempo"
    return [
        f"{'an' if mood == 'energetic' else 'a'} {mood} {instrument} {ending.format(tempo)}"
        for instrument in instruments
        for mood in (*moods, "energetic")
        for tempo in tempos
        for ending in endings
    ]


@pytest.fixture(scope="session")
def tokenizer(captions, tmp_path_factory) -> Tokenizer:
    """A tokenizer trained on `captions`."""
    return train_tokenizer(captions, tmp_path_factory.mktemp("tokenizer") / "spiece.model")


@pytest.fixture(scope="session")
def real_tokenizer(tmp_path_factory) -> Tokenizer:
    """A tokenizer of the composer's own captions."""
    texts = [caption(ALL_ATTRIBUTES[seed % 720], random.Random(seed)) for seed in range(1_500)]
    return train_tokenizer(texts, tmp_path_factory.mktemp("words") / "spiece.model")


@pytest.fixture
def text_encoder_config() -> TextEncoderConfig:
    """A T5 encoder small enough for a test."""
    return TextEncoderConfig(vocab_size=100, hidden_size=16, num_layers=2, num_heads=2, head_size=8, ffn_size=32)


@pytest.fixture
def decoder_config() -> DecoderConfig:
    """A decoder small enough for a test, fed by `text_encoder_config`."""
    return DecoderConfig(
        codebook_size=20, num_codebooks=4, hidden_size=24, num_layers=2, num_heads=3, ffn_size=40, text_hidden_size=16
    )


@pytest.fixture(scope="session")
def model_config(tokenizer) -> MusicGenConfig:
    """A whole model small enough to generate in milliseconds: 50 frames of 8 samples a second."""
    text_encoder = TextEncoderConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=16, num_layers=1, num_heads=2, head_size=8, ffn_size=32
    )
    decoder = DecoderConfig(
        codebook_size=32, num_codebooks=4, hidden_size=24, num_layers=1, num_heads=2, ffn_size=32, text_hidden_size=16
    )
    codec = CodecConfig(sample_rate=400, ratios=(4, 2), num_filters=4, hidden_size=16, codebook_size=32)
    return MusicGenConfig(text_encoder, decoder, codec)


@pytest.fixture(scope="session")
def model(model_config, tokenizer) -> MusicGen:
    """`model_config` with random weights, of which the decoder's make it sure of itself. Do not change it."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = MusicGen(model_config, tokenizer)
        for parameter in model.decoder.lm_heads.parameters():
            torch.nn.init.normal_(parameter)
        return model


@pytest.fixture(scope="session")
def renderer() -> Renderer:
    """FluidSynth and its soundfont. Tests that use it are skipped where these are missing, and fail where CI is set."""
    try:
        return Renderer()
    except FileNotFoundError as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))


@pytest.fixture
def alone():
    """One thread, so that sums have one order, and an `accelerate` that no test before has set up."""
    state = pytest.importorskip("accelerate.state").AcceleratorState
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    state._reset_state(reset_partial_state=True)
    yield
    state._reset_state(reset_partial_state=True)
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.fixture
def unchecked_annotations():
    """Switch the annotations' check off, to meet the package's own errors on wrong types as a user meets them."""
    jaxtyping_config.update("jaxtyping_disable", True)
    yield
    jaxtyping_config.update("jaxtyping_disable", False)
