"""The measurements of an evaluation, one function a question: each gives what the report holds of it, as a dict."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from musicgen_edu.codec import Codec
from musicgen_edu.composer.captions import describe
from musicgen_edu.composer.compose import LEAD_IN, OTHER_HABITS, compose
from musicgen_edu.composer.render import SAMPLE_RATE, Renderer
from musicgen_edu.composer.score import FRAME_RATE, MODES
from musicgen_edu.listening import metrics, published
from musicgen_edu.listening.clips import (
    BATCH,
    Clips,
    Prompt,
    generate_clips,
    in_a_room,
    last_window,
    real_clips,
    rebuild,
)
from musicgen_edu.listening.judges import JUDGES, TASKS, Features, Judge, confusion, extract_features, train_judges
from musicgen_edu.model import MusicGen
from musicgen_edu.reality.checks import surprises
from musicgen_edu.spectrogram import mel_distance

# Seeds that training never uses: it counts from 0.
JUDGE_SEED, REAL_SEED, OTHER_REAL_SEED = 10_000_000, 23_000_000, 24_000_000


@dataclass(frozen=True)
class Plan:
    """How much is measured. `guidance_scales` and `durations` may be empty."""

    prompts: int = 300
    duration: float = 5.0
    judge_clips: int = 2000  # renders that the judges learn from
    real_clips: int = 300  # held-out renders: the ceiling, the codec's test set, the Fréchet distance's reference
    sweep_prompts: int = 100  # for each guidance scale and each duration
    guidance_scales: tuple[float, ...] = ()
    durations: tuple[float, ...] = (10.0, 20.0)
    seed: int = 0


def hear(clips: Clips) -> Features:
    """The features of clips, a batch at a time."""
    parts = [extract_features(part, SAMPLE_RATE) for part in clips.waveforms.split(BATCH)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def train_all(renderer: Renderer, codec: Codec, frames: int, plan: Plan) -> dict[str, dict[str, Judge]]:
    """Judges that learned from real renders, from the codec's reconstruction of the same, and from another composer.

    The third heard every key, chords on nearly every degree, and the echoes of rooms: habits that our model never
    learned, so that it is no judge of whether a clip has *our* composer's.
    """
    real = real_clips(renderer, codec, frames, JUDGE_SEED, plan.judge_clips, held_out=False)
    other = real_clips(renderer, codec, frames, JUDGE_SEED, plan.judge_clips, held_out=False, habits=OTHER_HABITS)
    sources = dict(zip(JUDGES, (real, rebuild(real, codec), in_a_room(other, plan.seed)), strict=True))
    return {name: train_judges(hear(clips), clips.attributes, plan.seed) for name, clips in sources.items()}


def measure_codec(real: Clips, rebuilt: Clips) -> dict:
    """SI-SDR and mel distance of reconstructions, over all clips and for each instrument, with 95 % intervals."""
    sdr = metrics.si_sdr(rebuilt.waveforms, real.waveforms)
    pairs = zip(rebuilt.waveforms[:, None, None], real.waveforms[:, None, None], strict=True)
    mel = torch.stack([mel_distance(one, other, SAMPLE_RATE) for one, other in pairs])
    names = [attributes.instrument for attributes in real.attributes]

    def both(rows: list[int]) -> dict:
        return {"clips": len(rows), "si_sdr": _mean(sdr[rows]), "mel_distance": _mean(mel[rows])}

    by_name = {name: both([row for row, other in enumerate(names) if other == name]) for name in sorted(set(names))}
    return {"all": both(list(range(len(names)))), **by_name}


def adherence(
    judges: dict[str, dict[str, Judge]], made: Clips, prompts: Sequence[Prompt], beside: dict[str, Clips]
) -> dict:
    """For each task: how often each judge hears in generated clips what their prompts name, beside other clips.

    "chance" is what always giving the commonest right answer would score on the generated clips. Under "confusion"
    stand all answers: a row for each right one, a column for each that was heard.
    """
    clips = {"generated": made, **beside}
    features = {name: hear(each) for name, each in clips.items()}
    result = {}
    for task in TASKS:
        counts = {
            f"{name}, {kind}": confusion(judges[kind][task], features[name], each.attributes, each.named)
            for kind in JUDGES
            for name, each in clips.items()
        }
        shares = {name: _share(int(count.diagonal().sum()), int(count.sum())) for name, count in counts.items()}
        result[task] = {"chance": _chance(task, prompts), **shares}
        result[task]["confusion"] = {name: count.tolist() for name, count in counts.items()}
    return result


def by_definition(clips: Clips) -> dict:
    """Tempo and mode by published definitions, and how harmony moves; none of them has learned from our music."""
    words = [attributes.tempo for attributes in clips.attributes]
    tempos = published.estimate_tempo(clips.waveforms, SAMPLE_RATE)
    _, modes = published.estimate_key(clips.waveforms, SAMPLE_RATE)
    figures = {
        name: _share_of(published.tempo_fits(tempos, words, octaves).tolist(), clips.asked("tempo"))
        for name, octaves in (("tempo within 4 %", False), ("tempo or its multiples", True))
    }
    for mode in MODES:
        asked = [ask and each.mode == mode for ask, each in zip(clips.asked("mode"), clips.attributes, strict=True)]
        figures[f"mode by key profile, {mode}"] = _share_of([heard == mode for heard in modes], asked)
    chords = published.chord_figures(published.track_chords(clips.waveforms, SAMPLE_RATE))
    return figures | {f"chords: {name}": value for name, value in chords.items()}


def _chance(task: str, prompts: Sequence[Prompt]) -> float | None:
    question = TASKS[task]
    labels = [question.label(prompt.attributes) for prompt in prompts if question.attribute in prompt.named]
    counts = Counter(labels)
    return max(counts.values()) / counts.total() if counts else None


def measure_frechet(renderer: Renderer, codec: Codec, made: Clips, real: Clips, frames: int) -> dict:
    """Fréchet distance of generated to real clips over that of real to other real clips, all sets of one size."""
    count = min(len(made.waveforms), len(real.waveforms))
    other = real_clips(renderer, codec, frames, OTHER_REAL_SEED, count)
    sets = [metrics.mel_statistics(clips.waveforms[:count], SAMPLE_RATE) for clips in (made, real, other)]
    generated, floor = metrics.frechet_distance(sets[0], sets[1]), metrics.frechet_distance(sets[2], sets[1])
    return {"clips": count, "generated to real": generated, "real to real": floor, "ratio": generated / floor}


def measure_diversity(
    model: MusicGen, renderer: Renderer, prompt: Prompt, plan: Plan, scale: float | None = None
) -> dict:
    """Eight seeds of one prompt against eight pieces that the composer writes for the same attributes, in dB."""
    made = generate_clips(model, [prompt] * 8, plan.duration, plan.seed, scale)
    rngs = [random.Random(f"diversity {plan.seed} {index}") for index in range(8)]
    frames = round(plan.duration * FRAME_RATE)
    pieces = [renderer.render(compose(prompt.attributes, frames, rng)) for rng in rngs]
    real = last_window(torch.stack([torch.from_numpy(piece) for piece in pieces]))
    of_both = {"generated": made.waveforms, "real": real}
    return {"prompt": prompt.text} | {name: metrics.diversity(each, SAMPLE_RATE) for name, each in of_both.items()}


def memorisation(
    made: Int[Tensor, "clips codebooks frames"], real: Int[Tensor, "others codebooks frames"],
    training_codes: Sequence[Tensor],
) -> dict:  # fmt: skip
    """The longest run of frames that a clip shares with training, in codebook 0 alone and in all codebooks.

    Fresh real clips share runs with training too, since music repeats itself: a model that shares no longer ones has
    learned and not memorised.
    """
    views = {
        "codebook 0": lambda codes: codes[:, 0],
        "all codebooks": metrics.join_codebooks,
    }
    result = {}
    for view, symbols in views.items():
        corpus = [symbols(part) for part in training_codes]
        for kind, codes in (("generated", made), ("real", real)):
            runs = metrics.longest_shared_runs(symbols(codes), corpus).float()
            result[f"{view}, {kind}"] = {"frames": codes.shape[2], "longest": int(runs.max()), "mean": _mean(runs)}
    return result


@torch.no_grad()
def cross_entropy(model: MusicGen, real: Clips, from_start: bool = True) -> dict[str, float]:
    """Mean surprise in nats at the codes of held-out real clips, given held-out captions of them.

    Beside it the surprise with each clip's caption given to the next one, and with none: what the words are worth. That
    shows at the first note, before the clip's own past tells the same; clips cut out of longer ones do not have it.
    """
    rngs = [random.Random(f"caption {row}") for row in range(len(real.codes))]
    right = [describe(*pair, held_out=True)[0] for pair in zip(real.attributes, rngs, strict=True)]
    figures = {}
    for name, texts in (("right", right), ("wrong", right[1:] + right[:1]), ("no", right)):
        nats = torch.cat([
            surprises(model, real.codes[rows], [texts[row] for row in rows.tolist()], withheld=name == "no")
            for rows in torch.arange(len(real.codes), dtype=torch.long, device="cpu").split(BATCH)
        ])  # fmt: skip
        figures[f"decoder, {name} captions"] = float(nats.mean())
        if from_start:
            figures[f"decoder, {name} captions, first note"] = float(nats[:, :, LEAD_IN].mean())
    return figures


def at_scale(
    model: MusicGen, judges: dict, prompts: Sequence[Prompt], plan: Plan, renderer: Renderer, scale: float
) -> dict:
    """Adherence and diversity at one guidance scale."""
    made = generate_clips(model, prompts, plan.duration, plan.seed, scale)
    spread = measure_diversity(model, renderer, prompts[0], plan, scale)
    return {"adherence": adherence(judges, made, prompts, {}), "diversity": spread}


def at_duration(model: MusicGen, renderer: Renderer, prompts: Sequence[Prompt], plan: Plan, duration: float) -> dict:
    """Adherence in the last five seconds of clips of one length, by judges who learned from the same window."""
    frames = round(duration * FRAME_RATE)
    judges = train_all(renderer, model.codec, frames, plan)
    made = generate_clips(model, prompts, duration, plan.seed)
    real = real_clips(renderer, model.codec, frames, REAL_SEED, len(prompts))
    return {
        "adherence": adherence(judges, made, prompts, {"ceiling": real}),
        "by_definition": {name: by_definition(each) for name, each in {"generated": made, "ceiling": real}.items()},
    }


def _mean(values: Tensor) -> dict:
    return dict(zip(("value", "low", "high"), metrics.mean_interval(values.float()), strict=True))


def _share_of(right: Sequence[bool], asked: Sequence[bool]) -> dict | None:
    """The share that is right among what was asked."""
    return _share(sum(one for one, ask in zip(right, asked, strict=True) if ask), sum(asked))


def _share(right: int, asked: int) -> dict | None:
    """A proportion as the report holds it; None where nothing was asked."""
    if not asked:
        return None
    low, high = metrics.wilson_interval(right, asked)
    return {"value": right / asked, "low": low, "high": high, "trials": asked}
