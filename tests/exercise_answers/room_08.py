"""Room 08: which codebook is hard, withheld captions, withheld pasts, a large batch on a small machine."""

from exercise_answers import Answer

SURPRISES = """
def by_codebook(logits, sequence, valid):
    answers, counted = sequence[:, :, 1:], valid[:, 1:]
    picked = answers.clamp(max=logits.shape[-1] - 1)[..., None]
    surprise = -logits.log_softmax(dim=-1).gather(-1, picked)[..., 0]
    {}
"""

WRONG = [
    Answer(1, "special token unmasked", "a special token is among the answers", {", counted[k]": ""}),
    Answer(1, "valid not shifted", "Shift both", {"valid[:, 1:]": "valid"}),
    Answer(
        1,
        "nothing shifted",
        "shifted as the answers are",
        {"sequence[:, :, 1:], valid[:, 1:]": "sequence[:, :, :-1], valid[:, :-1]"},
    ),
    Answer(1, "answers not shifted", "shift both", {"sequence[:, :, 1:]": "sequence[:, :, :-1]"}),
    Answer(
        1,
        "divided by all cells",
        "divided by all cells",
        SURPRISES.format("return (surprise * counted).mean(dim=(0, 2))"),
    ),
    Answer(1, "summed", "the sum of the surprises", SURPRISES.format("return (surprise * counted).sum(dim=(0, 2))")),
    Answer(1, "every cell counted", "hold no frame are counted", SURPRISES.format("return surprise.mean(dim=(0, 2))")),
    Answer(1, "one mean", "one mean a codebook", SURPRISES.format("return surprise[:, counted].mean()")),
    Answer(1, "sign", "turned round", {"torch.stack(": "-torch.stack("}),
    Answer(1, "bits", "these are bits", {"    ])": "    ]) / math.log(2)"}),
    Answer(2, "more withheld", "a number less than", {"drawn >= chance": "drawn < chance"}),
    Answer(2, "equal withheld", "0.2 is not less", {">=": ">"}),
    Answer(2, "along the columns", "drawn[:, None]", {"[:, None]": ""}),
    Answer(
        2,
        "padding unmasked",
        "padding has become text",
        {"mask & (drawn >= chance)[:, None]": "(drawn >= chance)[:, None].expand_as(mask)"},
    ),
    Answer(
        2,
        "numbers",
        "has become torch.float32",
        {"mask & (drawn >= chance)[:, None]": "mask * (drawn >= chance)[:, None].float()"},
    ),
    Answer(2, "rows dropped", "the rows stay", {"mask & (drawn >= chance)[:, None]": "mask[drawn >= chance]"}),
    Answer(
        2,
        "in place",
        "was changed",
        "def withhold(mask, drawn, chance):\n    mask[drawn < chance] = False\n    return mask",
    ),
    Answer(
        2,
        "token by token",
        "its whole row",
        "def withhold(mask, drawn, chance):\n    return mask & (torch.arange(mask.shape[1]) > 1)",
    ),
    Answer(3, "the future withheld", "the future was withheld", {"< first": ">= first"}),
    Answer(3, "one too many", "`<=` where `<` is meant", {"< first": "<= first"}),
    Answer(3, "one too few", "One too few", {"steps[None, None, :] <": "steps[None, None, :] + 1 <"}),
    Answer(3, "axes forgotten", "the shapes do not fit", {"[None, None, :]": "", "first[:, None, None]": "first"}),
    Answer(
        3,
        "codebook axis forgotten",
        "the shapes do not fit",
        {"steps[None, None, :]": "steps", "first[:, None, None]": "first[:, None]"},
    ),
    Answer(3, "zeros", "becomes the special token", {"withheld, special,": "withheld, 0,"}),
    Answer(
        3,
        "in place",
        "itself was changed",
        {"torch.where(withheld, special, sequence)": "sequence.masked_fill_(withheld, special)"},
    ),
    Answer(
        3,
        "codebooks withheld",
        "the last axis",
        """
def withhold_past(sequence, first, special):
    answer = sequence.clone()
    for row in range(len(sequence)):
        answer[row, : first[row]] = special
    return answer
""",
    ),
    Answer(
        3, "cut off", "it is replaced", "def withhold_past(sequence, first, special):\n    return sequence[:, :, 1:]"
    ),
    Answer(4, "summed", "the mean was asked for", {" / len(batches)": ""}),
    Answer(
        4,
        "emptied in the loop",
        "only the last batch counts",
        {"    for batch in batches:\n": "    for batch in batches:\n        weight.grad = None\n"},
    ),
    Answer(4, "not emptied before", "held before was added in", {"    weight.grad = None\n    for": "    for"}),
    Answer(
        4,
        "left behind",
        "must be None at the end",
        {"gradient, weight.grad = weight.grad, None": "gradient = weight.grad"},
    ),
    Answer(
        4,
        "zeroed in place",
        "the name holds the zeros",
        {
            "gradient, weight.grad = weight.grad, None": "gradient = weight.grad\n    weight.grad.zero_()",
            "return": "weight.grad = None\n    return",
        },
    ),
    Answer(
        4,
        "one backward",
        "Call it for each batch",
        """
def accumulate(loss_of_batch, weight, batches):
    weight.grad = None
    torch.stack([loss_of_batch(batch) for batch in batches]).mean().backward()
    gradient, weight.grad = weight.grad, None
    return gradient
""",
    ),
    Answer(
        4,
        "a step taken",
        "the weight itself has moved",
        {"    return": "    with torch.no_grad():\n        weight -= 0.1 * gradient\n    return"},
    ),
]

RIGHT = [
    Answer(
        4,
        "the mean afterwards",
        "Right.",
        {
            "(loss_of_batch(batch) / len(batches))": "loss_of_batch(batch)",
            "return gradient": "return gradient / len(batches)",
        },
    ),
]
