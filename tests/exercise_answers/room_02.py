"""Room 02: the mean of a caption, the buckets of a decoder, the gate of a later T5."""

from exercise_answers import Answer

TANH = 'approximate="tanh")'
GATE = f"F.gelu(normed @ wi_0.T, {TANH} * (normed @ wi_1.T)"
EINSUM = """
def pool(states, mask):
    total = torch.einsum("btw,bt->bw", states, mask.float())
    return total / mask.sum(dim=1)[:, None].clamp(min=1)
"""
LOOP = """
def pool(states, mask):
    return [row[seen].mean(dim=0) for row, seen in zip(states, mask)]
"""

WRONG = [
    Answer(1, "mask forgotten", "the padding counts", {"states * mask[..., None]": "states"}),
    Answer(1, "plain mean", "the padding counts", "def pool(states, mask):\n    return states.mean(dim=1)"),
    Answer(1, "axis forgotten", "one axis more", {"mask[..., None]": "mask"}),
    Answer(1, "wrong axis", "axis 1", {".sum(dim=1)\n": ".sum(dim=2)\n"}),
    Answer(1, "whole batch", "axis 1", "def pool(states, mask):\n    return states[mask].mean(dim=0)"),
    Answer(
        1,
        "mean of masked",
        "divided by 3",
        {").sum(dim=1)\n    return total / mask.sum": ").mean(dim=1)\n    return total #"},
    ),
    Answer(1, "not divided", "that is the sum", {" / mask.sum(dim=1, keepdim=True).clamp(min=1)": ""}),
    Answer(1, "nothing over nothing", "NaN", {".clamp(min=1)": ""}),
    Answer(1, "count without its axis", "keepdim=True", {", keepdim=True": ""}),
    Answer(1, "list", "and no loop", LOOP),
    Answer(2, "rounded", "not rounded to 21", {"int(growth * (buckets - near))": "round(growth * (buckets - near))"}),
    Answer(
        2, "rounded up", "not rounded up", {"int(growth * (buckets - near))": "math.ceil(growth * (buckets - near))"}
    ),
    Answer(2, "not cut", "cut to a whole number", {"int(growth * (buckets - near))": "growth * (buckets - near)"}),
    Answer(2, "sign not turned", "exchanged", {"max(-distance, 0)": "max(distance, 0)"}),
    Answer(2, "right counts as left", "to the right gets bucket 0", {"max(-distance, 0)": "abs(distance)"}),
    Answer(2, "right below zero", "to the right gets bucket 0", {"max(-distance, 0)": "-distance"}),
    Answer(2, "encoder's quarter", "not a quarter", {"buckets // 2": "buckets // 4"}),
    Answer(
        2,
        "no end",
        "Is there a min?",
        {"min(near + int(growth * (buckets - near)), buckets - 1)": "near + int(growth * (buckets - near))"},
    ),
    Answer(2, "one bucket too many", "Is there a min?", {"buckets - 1)": "buckets)"}),
    Answer(
        2,
        "logarithm of a negative",
        "a logarithm of 0 or less",
        {"max(-distance, 0)": "distance", "if steps < near": "if abs(steps) < near"},
    ),
    Answer(2, "far forgotten", "the wide buckets are off", {"math.log(far / near)": "math.log(far)"}),
    Answer(2, "a float", "make it an int", {"int(growth * (buckets - near))": "growth * (buckets - near) // 1"}),
    Answer(
        3, "gate on the other map", "on the other map", {GATE: f"(normed @ wi_0.T) * F.gelu(normed @ wi_1.T, {TANH}"}
    ),
    Answer(3, "ReLU", "that is ReLU", {'F.gelu(normed @ wi_0.T, approximate="tanh")': "F.relu(normed @ wi_0.T)"}),
    Answer(3, "exact GELU", "the exact GELU", {', approximate="tanh"': ""}),
    Answer(3, "a switch", "not a switch", {'approximate="tanh"': "approximate=True"}),
    Answer(3, "not transposed", "multiply by its transpose", {"wi_0.T": "wi_0"}),
    Answer(3, "wo not transposed", "multiply by its transpose", {"@ wo.T": "@ wo"}),
    Answer(3, "no way back", "the way back is missing", {" @ wo.T": ""}),
    Answer(3, "maps added", "add nothing", {" * (normed @ wi_1.T)": " + (normed @ wi_1.T)"}),
    Answer(
        3, "GELU of the product", "before the product", {GATE: f"F.gelu((normed @ wi_0.T) * (normed @ wi_1.T), {TANH}"}
    ),
    Answer(3, "residual added", "return the gated part alone", {"return ": "return normed + "}),
    Answer(3, "one map", "wi_1 is missing", {" * (normed @ wi_1.T)": ""}),
    Answer(3, "no GELU", "GELU is missing", {'F.gelu(normed @ wi_0.T, approximate="tanh")': "(normed @ wi_0.T)"}),
]

RIGHT = [
    Answer(1, "a little more than nothing", "Right.", {".clamp(min=1)": ".add(1e-6)"}),
    Answer(1, "einsum", "Right.", EINSUM),
    Answer(2, "floor", "Right.", {"int(growth": "math.floor(growth"}),
    Answer(3, "F.linear", "Right.", {"(normed @ wi_1.T)": "F.linear(normed, wi_1)"}),
]
