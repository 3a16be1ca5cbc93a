"""A trace through the whole pipeline: one call gives every form that the data takes from prompt to WAV.

Nothing is read from a configuration: forward hooks listen at the doors of the model's modules while it makes music, and
note what goes in and what comes out.
"""

from __future__ import annotations

import os
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor, nn

from musicgen_edu import generation
from musicgen_edu.audio import Audio
from musicgen_edu.inspection.code_lines import error_line, source_line
from musicgen_edu.inspection.stages import Failure, Stage, Trace
from musicgen_edu.model import MusicGen
from musicgen_edu.patterns import CodebookPattern
from musicgen_edu.request import read_request
from musicgen_edu.tokenizer import as_prompts

# The stages in their order: the axes of each, and what it means; in braces stands what the run says.
STAGES = {
    "prompt": (("batch",), "{prompt}"),
    "ids": (("batch", "text_tokens"), "the numbers of the prompt's pieces, and the end mark"),
    "mask": (("batch", "text_tokens"), "True on text, False on padding"),
    "text states": (("batch", "text_tokens", "text_width"), "{text_width} numbers a token"),
    "projected states": (("batch", "text_tokens", "model_width"), "the same tokens, {model_width} numbers each"),
    "interleaved steps": (("batch", "codebooks", "steps"), "one step a call; {branches}"),
    "logits": (("batch", "codebooks", "steps", "codebook_size"), "a score for each of {codebook_size:,} codes"),
    "codes": (("batch", "codebooks", "frames"), "{frames_a_second:g} frames = 1 s"),
    "latents": (("batch", "latent_width", "frames"), "a frame's codes, looked up and summed"),
    "waveform": (("batch", "channels", "samples"), "{samples_a_second:,} samples = 1 s"),
    "file": (("batch", "bytes"), "WAV, 16 bits a sample"),
}


def trace(
    model: MusicGen,
    prompt: str | list[str],
    duration: float | int = 2.0,
    seed: int | list[int] | None = 0,
    *,
    file: str | os.PathLike | None = None,
    catch: bool = False,
    show_seconds: bool = True,
    **settings: float | int | None,
) -> Trace:
    """Make music as `model.generate` does, with the same arguments, and return every stage that the data went through.

    The decoder is called once a step: its stages are the calls put together along the steps. Every moment of the run
    belongs to one stage, so that the seconds add up to the whole. `file` keeps the WAV, which otherwise is written and
    thrown away; `catch=True` returns a run that broke as a trace that ends in the layer that broke.

    Raises what `model.generate` and `Audio.save` raise; a RuntimeError of PyTorch's only without `catch`.
    """
    notes, prompts = _Notes(), as_prompts(prompt)  # a way from text to sound has a text
    audio, failure = None, None
    try:
        with _listening(model, notes):
            audio = model.generate(prompt, duration, seed=seed, progress=lambda *_: notes.tick("codes"), **settings)
        _note_result(notes, audio, file)
    except RuntimeError as error:
        if not catch:
            raise
        failure = _find_failure(model, error)
    clips = notes.shapes.get("ids", (len(prompts),))[0]  # several samples of a prompt are several rows
    notes.add("prompt", (clips,), "str", sum(len(text.encode()) for text in prompts))
    notes.facts["prompt"] = ", ".join(f"“{text}”" for text in prompts)
    notes.facts["branches"] = _branches(notes, clips)
    return Trace(tuple(_stages(model, notes)), failure, audio, show_seconds)


class _Notes:
    """What was met at the doors: shapes, bytes and seconds, by the stages' names."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}
        self.memory: dict[str, int] = {}
        self.seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        self.facts: dict[str, object] = {}
        self._last = time.perf_counter()

    def tick(self, name: str) -> None:
        """The time since the last tick went into this stage."""
        now = time.perf_counter()
        self.seconds[name] += now - self._last
        self._last = now

    def tensor(self, name: str, tensor: Tensor) -> None:
        """A tensor has come: the first of this stage, or the next one along its steps."""
        self.tick(name)
        self.add(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), tensor.nbytes)

    def add(self, name: str, shape: tuple[int, ...], dtype: str, memory: int) -> None:
        if name in self.shapes and "steps" in STAGES[name][0]:
            axis, before = STAGES[name][0].index("steps"), self.shapes[name]
            shape = (*shape[:axis], before[axis] + shape[axis], *shape[axis + 1 :])
            memory += self.memory[name]
        self.shapes[name], self.dtypes[name], self.memory[name] = shape, dtype, memory


@contextmanager
def _listening(model: MusicGen, notes: _Notes) -> Iterator[None]:
    """Put a hook at each door for as long as the block runs."""

    def at_entrance(module: nn.Module, *names: str):
        def note(module, inputs):
            for name, tensor in zip(names, inputs, strict=False):
                notes.tensor(name, tensor)

        return module.register_forward_pre_hook(note)

    def at_exit(module: nn.Module, name: str):
        return module.register_forward_hook(lambda module, inputs, output: notes.tensor(name, output))

    hooks = [at_entrance(model.text_encoder, "ids", "mask"), at_exit(model.text_encoder, "text states")]
    if model.projection is not None:
        hooks.append(at_exit(model.projection, "projected states"))
    hooks += [at_entrance(model.decoder, "interleaved steps"), at_exit(model.decoder, "logits")]
    hooks += [at_entrance(model.codec.decoder, "latents"), at_exit(model.codec.decoder, "waveform")]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _note_result(notes: _Notes, audio: Audio, file: str | os.PathLike | None) -> None:
    """What `generate` gives back, and the file made of it."""
    notes.add("codes", tuple(audio.codes.shape), str(audio.codes.dtype).removeprefix("torch."), audio.codes.nbytes)
    notes.facts["frames_a_second"] = audio.codes.shape[2] / audio.duration
    notes.facts["samples_a_second"] = audio.sample_rate
    with tempfile.TemporaryDirectory() as folder:
        paths = audio.save(Path(folder) / "music.wav" if file is None else file)
        sizes = [path.stat().st_size for path in (paths if isinstance(paths, list) else [paths])]
    notes.tick("file")
    notes.add("file", (len(sizes), sizes[0]), "bytes", sum(sizes))


def _branches(notes: _Notes, clips: int) -> str:
    rows = notes.shapes.get("interleaved steps", (clips,))[0] // clips
    return "with the prompt and without it" if rows == 2 else "with the prompt only"


def _stages(model: MusicGen, notes: _Notes) -> Iterator[Stage]:
    makers, lines = _makers(model), _lines(model)
    for name, (axes, meaning) in STAGES.items():
        if name not in notes.shapes:
            continue
        shape, weights = notes.shapes[name], makers.get(name, [])
        yield Stage(
            name, axes, shape, notes.dtypes[name], meaning.format(**dict(zip(axes, shape, strict=True)), **notes.facts),
            notes.memory[name], notes.seconds[name], lines[name],
            sum(weight.numel() for weight in weights), sum(weight.nbytes for weight in weights),
        )  # fmt: skip


def _makers(model: MusicGen) -> dict[str, list[Tensor]]:
    """The learned numbers behind a stage. The codec's codebooks are buffers, since no gradient teaches them."""
    modules = {"text states": model.text_encoder, "projected states": model.projection, "logits": model.decoder}
    modules |= {"waveform": model.codec.decoder}
    weights = {name: list(module.parameters()) for name, module in modules.items() if module is not None}
    return weights | {"latents": [layer._codebook.embed for layer in model.codec.quantizer.vq.layers]}


def _lines(model: MusicGen) -> dict[str, str]:
    projection = model.projection if model.projection is not None else model.text_encoder
    return {
        "prompt": source_line(read_request, "prompts ="),
        "ids": source_line(type(model.tokenizer).__call__, "ids ="),
        "mask": source_line(type(model.tokenizer).__call__),
        "text states": source_line(type(model.text_encoder).forward),
        "projected states": source_line(type(projection).forward),
        "interleaved steps": source_line(generation._write_steps, "sequence[:, :, step] ="),
        "logits": source_line(type(model.decoder).forward),
        "codes": source_line(CodebookPattern.deinterleave),
        "latents": source_line(type(model.codec).dequantize),
        "waveform": source_line(type(model.codec).decode),
        "file": source_line(Audio.save, "write_whole"),
    }


def _find_failure(model: MusicGen, error: RuntimeError) -> Failure:
    """Name the innermost module that was running, and the innermost line of the package."""
    names = {id(module): name for name, module in model.named_modules()}
    owners = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    module = next((owner for owner in reversed(owners) if id(owner) in names), model)
    return Failure(names[id(module)] or "the model", repr(module), str(error), error_line(error))
