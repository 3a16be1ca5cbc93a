"""What compiled steps of a small decoder do, beside the same steps as they are: one line of JSON.

    python tests/compiled_steps.py int8

A process of its own, since the compiler cannot read through the run-time check of annotations that the tests switch on.
"""

from __future__ import annotations

import copy
import json
import pickle
import sys
import threading
from dataclasses import replace

import torch

from musicgen_edu import steps
from musicgen_edu.conditioning import Condition
from musicgen_edu.config import DecoderConfig, SamplingSettings
from musicgen_edu.decoder import DecoderCache, MusicGenDecoder
from musicgen_edu.generation import generate_codes
from musicgen_edu.optimization import optimize
from musicgen_edu.patterns import create_pattern

FRAMES = 12
steps.AT_ONCE = 1  # so that both layers must be served by what is compiled for one
CONFIG = DecoderConfig(32, 4, 64, 2, 4, 128, text_hidden_size=16)


def make_inputs(batch: int, text_tokens: int) -> tuple[torch.Tensor, Condition]:
    """Codes, and prompts of which the last says nothing."""
    mask = torch.ones(batch, text_tokens, dtype=torch.bool)
    mask[-1] = False
    states = torch.randn(batch, text_tokens, 64) * mask[..., None]
    return torch.randint(0, 32, (batch, 4, FRAMES)), Condition(states, mask)


@torch.inference_mode()
def score(decoder: MusicGenDecoder, codes: torch.Tensor, condition: Condition, known: int = 1) -> torch.Tensor:
    """Logits with a cache: `known` codes in one call, the others a step at a time."""
    cache = DecoderCache(CONFIG, len(codes), FRAMES + len(codes), dtype=decoder.cache_dtype)
    calls = [codes[:, :, :known], *codes[:, :, known:].split(1, dim=2)]
    return torch.cat([decoder(call, condition, cache).float() for call in calls], dim=2)


def write(decoder: MusicGenDecoder, condition: Condition) -> list:
    """Codes of the best scores, each the next one's past."""
    greedy = SamplingSettings(temperature=0, top_k=0)
    return generate_codes(decoder, condition, 5 * FRAMES, create_pattern("delay", 4), greedy).tolist()


def before_the_codes() -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of a decoder in int8 whose layers have no text, which stands before the codes: plain, and compiled."""
    decoder = MusicGenDecoder(replace(CONFIG, cross_attention=False))
    codes, said = make_inputs(2, 5)
    condition = Condition(said.states, said.mask, said.states[:, :2], said.states[:, 2:4])
    optimize(decoder, "int8")
    plain = score(decoder, codes, condition)
    optimize(decoder, "int8", compiled=True)
    return plain, score(decoder, codes, condition)


def compare(plain: torch.Tensor, compiled: torch.Tensor) -> dict[str, float]:
    """The largest difference, and the share of equal best codes where the two best are further apart than twice it."""
    difference, best = float((plain - compiled).abs().max()), plain.topk(2, dim=-1).values
    clear = best[..., 0] - best[..., 1] > 2 * difference
    same = (plain.argmax(dim=-1) == compiled.argmax(dim=-1))[clear]
    return {"difference": difference, "clear": float(clear.float().mean()), "same": float(same.float().mean())}


def graphs() -> int:
    """How often the compiler was called."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def refusal(run) -> str:
    """What `run()` says as it refuses."""
    try:
        run()
    except RuntimeError as error:
        return str(error)
    return ""


def main(rung: str) -> dict[str, object]:
    """All comparisons, by name."""
    torch.manual_seed(0)
    decoder = MusicGenDecoder(CONFIG)
    inputs, others = make_inputs(2, 5), make_inputs(4, 7)
    unpacked, written = score(decoder, *inputs), write(decoder, inputs[1])
    optimize(decoder, rung)
    wanted = {"steps": score(decoder, *inputs), "known codes": score(decoder, *inputs, known=5),
              "other shapes": score(decoder, *others)}  # fmt: skip
    optimize(decoder, rung, compiled=True)
    found = {"steps": score(decoder, *inputs)}
    after_warm_up = graphs()
    found |= {"known codes": score(decoder, *inputs, known=5), "other shapes": score(decoder, *others)}
    for name, other in {"a copy": copy.deepcopy(decoder), "pickled": pickle.loads(pickle.dumps(decoder))}.items():
        wanted[name], found[name] = found["steps"], score(other, *inputs)
    report = {name: compare(wanted[name], logits) for name, logits in found.items()}
    report["graphs"], report["graphs later"] = after_warm_up, graphs()
    report["writes the same"] = write(decoder, inputs[1]) == written
    threads = [threading.Thread(target=lambda: report.update(thread=compare(wanted["steps"], score(decoder, *inputs))))]
    [thread.start() for thread in threads], [thread.join() for thread in threads]
    report["without text"] = compare(*before_the_codes())
    report["training"] = refusal(lambda: decoder(*inputs))
    decoder.load_state_dict(copy.deepcopy(decoder.state_dict()))
    report["changed weights"] = refusal(lambda: score(decoder, *inputs))
    optimize(decoder, None)
    report["undone"] = bool(torch.equal(score(decoder, *inputs), unpacked))
    return report


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
