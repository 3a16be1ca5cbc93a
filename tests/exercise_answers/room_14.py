"""Room 14: the branch that adds nothing, a product of four bits, the copy that costs."""

from exercise_answers import Answer

GATHER = "return attention(states, *attention.keys_and_values(text), mask), 0"
NUMBERS = "torch.stack([packed % 16, packed // 16], dim=2).flatten(1)"
WEIGHTS = "numbers.unflatten(1, (-1, 32)) * scale[..., None] + offset[..., None]"
EXPANDED = "*(each.expand(3, -1, -1, -1) for each in attention.keys_and_values(text))"
CUT = "return memory[:, :, : start + 1].float()"

WRONG = [
    Answer(1, "one thing", "two things should come back", {", mask), 0": ", mask)"}),
    Answer(
        1,
        "zeros written",
        "never asked",
        "def null_branch(attention, states):\n    return torch.zeros_like(states), 0",
    ),
    Answer(
        1,
        "not called",
        "never called",
        {GATHER: "keys, values = attention.keys_and_values(text)\n    return torch.zeros_like(states), 0"},
    ),
    Answer(
        1, "noise for a text", "is zeros, not noise", {"torch.zeros(len(states), 6, ": "torch.randn(len(states), 6, "}
    ),
    Answer(1, "states for a text", "not the states", {"keys_and_values(text)": "keys_and_values(states)"}),
    Answer(
        1,
        "text asks",
        "the states that ask",
        {
            "attention(states, *attention": "attention(text, *attention",
            "6, states.shape[2]": "5, states.shape[2]",
            "1, 1, 6": "1, 1, 5",
        },
    ),
    Answer(
        1,
        "one row",
        "should be [3, 6, 32]",
        {
            "torch.zeros(len(states), 6": "torch.zeros(1, 6",
            "*attention.keys_and_values(text)": EXPANDED,
        },
    ),
    Answer(1, "mask forgotten", "the mask is missing", {"(text), mask)": "(text))"}),
    Answer(
        1,
        "mask turned round",
        "lets something be looked at",
        {"torch.zeros(len(states), 1": "torch.ones(len(states), 1"},
    ),
    Answer(1, "queries and output saved", "rows with a prompt still read", {", mask), 0": ", mask), 2 * 32 * 32 * 4"}),
    Answer(
        1,
        "half of the bytes",
        "each once for all rows",
        {", mask), 0": ", mask), sum(each.weight.nbytes for each in attention.children()) // 2"},
    ),
    Answer(1, "bytes of the states", "bytes? The rows", {", mask), 0": ", mask), states.nbytes"}),
    Answer(1, "states added", "attention did not gather", {"return attention(": "return states + attention("}),
    Answer(
        2,
        "halves exchanged",
        "low and high half are exchanged",
        {"[packed % 16, packed // 16]": "[packed // 16, packed % 16]"},
    ),
    Answer(
        2,
        "halves one after the other",
        "they take turns",
        {NUMBERS: "torch.cat([packed % 16, packed // 16], dim=1)"},
    ),
    Answer(2, "no offset", "the offset is missing", {" + offset[..., None]": ""}),
    Answer(2, "no scale", "the scale is missing", {" * scale[..., None]": ""}),
    Answer(
        2,
        "offset scaled",
        "the offset is not scaled",
        {WEIGHTS: "(numbers.unflatten(1, (-1, 32)) + offset[..., None]) * scale[..., None]"},
    ),
    Answer(2, "offset taken away", "is added, not taken away", {" + offset": " - offset"}),
    Answer(
        2,
        "one scale a row",
        "every group of 32",
        {"scale[..., None]": "scale[:, :1, None]", "offset[..., None]": "offset[:, :1, None]"},
    ),
    Answer(
        2,
        "turned round",
        "rows come first",
        {"return states @ groups.flatten(1).T": "return groups.flatten(1) @ states.T"},
    ),
    Answer(
        2,
        "weights returned",
        "a tensor [rows, columns]",
        {"return states @ groups.flatten(1).T": "return groups.flatten(1)"},
    ),
    Answer(2, "two groups written in", "is a number written in", {"(-1, 32)": "(2, -1)"}),
    Answer(3, "still bfloat16", "wants float32", {".float()": ""}),
    Answer(3, "all widened", "cut first, widen then", {CUT: "return memory.float()[:, :, : start + 1]"}),
    Answer(3, "all returned", "cut it off", {CUT: "return memory.float()"}),
    Answer(3, "not written", "not in the memory", {"    memory[:, :, start : start + 1] = new\n": ""}),
    Answer(
        3,
        "joined",
        "not in the memory",
        "def remember(memory, start, new):\n    return torch.cat([memory[:, :, :start].float(), new], dim=2)",
    ),
    Answer(3, "one place early", "were changed", {"start : start + 1": "start - 1 : start"}),
    Answer(3, "new step cut off", "end at start + 1", {CUT: "return memory[:, :, :start].float()"}),
    Answer(3, "new step alone", "31 steps are written", {CUT: "return memory[:, :, start : start + 1].float()"}),
    Answer(
        3,
        "new step unrounded",
        "not what the memory holds",
        {CUT: "return torch.cat([memory[:, :, :start].float(), new], dim=2)"},
    ),
    Answer(3, "cloned besides", "copied more than once", {CUT: "return memory[:, :, : start + 1].clone().float()"}),
    Answer(
        3,
        "joined again",
        "copied more than once",
        {CUT: "return torch.cat([memory[:, :, :start].float(), memory[:, :, start : start + 1].float()], dim=2)"},
    ),
    Answer(3, "number written in", "is a number written in", {CUT: "return memory[:, :, :31].float()"}),
]

RIGHT = [
    Answer(
        2,
        "with a loop",
        "Right.",
        """
def packed_product(states, packed, scale, offset):
    weight = torch.empty(len(packed), 2 * packed.shape[1])
    weight[:, ::2], weight[:, 1::2] = packed & 15, packed >> 4
    weight = weight * scale.repeat_interleave(32, dim=1) + offset.repeat_interleave(32, dim=1)
    return F.linear(states, weight)
""",
    ),
    Answer(3, "narrow", "Right.", {CUT: "return memory.narrow(2, 0, start + 1).to(torch.float32)"}),
]
