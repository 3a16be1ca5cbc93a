"""Turns the decoder's heads towards a word that its states know and its codes do not heed.

A decoder may know what its caption says without using it: as long as a clip's past tells the same, the word earns
nothing. Then it stands in the last states as a small shift, which no head reads, and training finds it only slowly
among all that the states hold. Two numbers for every code, learned along that one direction, are found in minutes
(RUNS.md, round six). The model stays what it was: they are added into the heads' weights.
"""

from __future__ import annotations

import random
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from musicgen_edu.composer.captions import describe
from musicgen_edu.composer.samples import CodedClips
from musicgen_edu.composer.score import ALL_ATTRIBUTES, MODES
from musicgen_edu.tokenizer import Tokenizer
from musicgen_edu.training.decoder import UNSAID, Batch, DecoderObjective, turn_mode

ASKED = 100  # clips whose captions are turned around
RIDGE = 0.01  # added to the variance of every direction, so that none counts as perfectly still


@torch.no_grad()
def mode_directions(
    objective: DecoderObjective, clips: CodedClips, tokenizer: Tokenizer, seed: int = 0
) -> Float[Tensor, "2 model_width"]:
    """What to read from the decoder's states: the mode that the caption asks for, and a constant.

    The first is the shift of the states when the caption turns from minor to major, over the states' covariance, as in
    Fisher's linear discriminant. Since the notes of a clip agree with its caption, what it tells is the caption's mode
    less the notes': it is small while they agree, and large once the notes have gone astray. A shift from minor to
    major changes it by 2.
    """
    objective.eval()  # an undisturbed past
    rng = random.Random(seed)
    told, turned, rows = [], [], []
    for row, index in enumerate(clips.attributes[:ASKED].tolist()):
        attributes, wording = ALL_ATTRIBUTES[index], rng.random()
        caption, names = describe(attributes, random.Random(wording))
        if "mode" in names:
            told.append(caption)
            turned.append(describe(turn_mode(attributes), random.Random(wording))[0])
            rows.append(row)
    right, wrong = (_states(objective, clips, rows, captions, tokenizer) for captions in (told, turned))
    signs = [1.0 if ALL_ATTRIBUTES[clips.attributes[row]].mode == MODES[0] else -1.0 for row in rows]
    shift = ((right - wrong) * right.new_tensor(signs)[:, None, None] / 2).mean(dim=(0, 1))
    states = right.flatten(0, 1)
    mean = states.mean(dim=0)
    covariance = (states - mean).T @ (states - mean) / len(states) + RIDGE * torch.eye(
        len(mean), dtype=mean.dtype, device=mean.device
    )
    # Blind to the mean state, else what is learned of the mode would be added to every code all the time.
    mode = torch.linalg.solve(covariance + 10 * torch.outer(mean, mean), shift)
    constant = torch.linalg.solve(covariance, mean)
    return torch.stack([mode / (mode @ shift), constant / (constant @ mean)])


def _states(
    objective: DecoderObjective, clips: CodedClips, rows: list[int], captions: list[str], tokenizer: Tokenizer
) -> Float[Tensor, "batch steps model_width"]:
    ids, mask = tokenizer(captions)
    unsaid = torch.full((len(rows), 1), UNSAID, dtype=torch.long, device="cpu")
    return objective.states(Batch(ids, mask, clips.codes[rows].long(), clips.onsets[rows], unsaid))[1].float()


class Aimed(nn.Module):
    """A head's weight with `amounts` of fixed directions added to it, for `torch.nn.utils.parametrize`."""

    def __init__(self, weight: Float[Tensor, "codes model_width"], directions: Float[Tensor, "directions model_width"]):
        super().__init__()
        self.register_buffer("directions", directions)
        self.amounts = nn.Parameter(directions.new_zeros(len(weight), len(directions)))

    def forward(self, weight: Float[Tensor, "codes model_width"]) -> Float[Tensor, "codes model_width"]:
        """The weight that the head computes with."""
        return weight + self.amounts @ self.directions


@contextmanager
def aimed_heads(objective: DecoderObjective, directions: Float[Tensor, "directions model_width"]):
    """Inside, nothing of `objective` learns but the amounts of the directions in each head; then they are weights."""
    objective.requires_grad_(False)
    heads = objective.decoder.lm_heads
    for head in heads:
        parametrize.register_parametrization(head, "weight", Aimed(head.weight, directions))
    try:
        yield
    finally:
        for head in heads:
            parametrize.remove_parametrizations(head, "weight")
        objective.requires_grad_(True)
