"""Room 15: how thin an adapter is, merging it, mixing new clips and old ones, an excerpt of a short clip."""

from exercise_answers import Answer

WRONG = [
    Answer(1, "not divided", "divide by those of W", {" / (outputs * inputs)": ""}),
    Answer(1, "only A", "only one of the two", {"(outputs + inputs) /": "inputs /"}),
    Answer(1, "only B divided by outputs", "only one of the two", {"rank * (outputs + inputs)": "rank * outputs"}),
    Answer(
        1, "turned round", "turn the fraction round", "def adapter_share(m, n, r):\n    return m * n / (r * (m + n))"
    ),
    Answer(1, "a square", "long and thin", {"rank * (outputs + inputs)": "rank * rank"}),
    Answer(1, "W added up", "both sides grow alike", {"(outputs * inputs)": "(outputs + inputs)"}),
    Answer(1, "per cent", "that is per cent", {"return rank": "return 100 * rank"}),
    Answer(1, "A times B", "both sides grow alike", {"(outputs + inputs)": "(outputs * inputs)"}),
    Answer(1, "rank written in", "is a number written in", {"rank * (": "16 * ("}),
    Answer(
        1,
        "a text",
        "a number should come back",
        {"return rank * (outputs + inputs) / (outputs * inputs)": "return '3 per cent'"},
    ),
    Answer(2, "scale forgotten", "the scale is missing", {"alpha / len(down) * ": ""}),
    Answer(2, "alpha alone", "the scale is alpha / rank", {"alpha / len(down)": "alpha"}),
    Answer(2, "scale turned round", "turned round", {"alpha / len(down)": "len(down) / alpha"}),
    Answer(2, "divided by the inputs", "divided by the inputs", {"len(down)": "down.shape[1]"}),
    Answer(2, "the change alone", "the change alone", {"weight + ": ""}),
    Answer(2, "taken away", "it is added", {"weight + ": "weight - "}),
    Answer(2, "order", "the shapes do not fit", {"up @ down": "down @ up"}),
    Answer(2, "element by element", "the shapes do not fit", {"up @ down": "up * down"}),
    Answer(
        2,
        "in place",
        "was changed",
        "def merge(weight, down, up, alpha):\n    weight += alpha / len(down) * up @ down\n    return weight",
    ),
    Answer(2, "rank written in", "is the rank written in", {"len(down)": "2"}),
    Answer(3, "shares exchanged", "the shares are exchanged", {"size * share": "size * (1 - share)"}),
    Answer(3, "no old music", "drawn from an empty list", {" if old else 0": ""}),
    Answer(3, "all new", "0 of 8 clips are old", {"round(size * share) if old else 0": "0"}),
    Answer(
        3,
        "a coin for each",
        "left to chance",
        """
def mix(new, old, size, share, rng):
    coins = [rng.random() < share for clip in range(size)]
    if not old:
        coins = [False] * size
    return [rng.choice(old if coin else new) for coin in coins]
""",
    ),
    Answer(3, "one too many", "the batch has 9 clips", {"range(size - rehearsed)": "range(size - rehearsed + 1)"}),
    Answer(3, "new ones not taken off", "the batch has 10 clips", {"range(size - rehearsed)": "range(size)"}),
    Answer(3, "cut off", "you cut it off", {"round(size * share)": "int(size * share)"}),
    Answer(3, "number written in", "is a number written in", {"round(size * share)": "2"}),
    Answer(
        3,
        "one clip repeated",
        "drawn and then repeated",
        {
            "[rng.choice(old) for clip in range(rehearsed)]": "(rehearsed and [rng.choice(old)] * rehearsed or [])",
        },
    ),
    Answer(3, "another generator", "not with `random`", {"rng.choice": "random.choice"}),
    Answer(3, "the first ones", "not drawn at random", {"rng.choice(old)": "old[0]", "rng.choice(new)": "new[0]"}),
    Answer(
        3,
        "a sample",
        "cannot give more",
        {"[rng.choice(new) for clip in range(size - rehearsed)]": "rng.sample(new, size - rehearsed)"},
    ),
    Answer(
        3, "two lists", "a flat list", {"([rng": "[[rng", "\n            + [": ", [", "rehearsed)])": "rehearsed)]]"}
    ),
    Answer(4, "not padded", "pad behind", {"torch.nn.functional.pad(part, (0, missing))": "part"}),
    Answer(4, "padded in front", "stands in front", {"(0, missing)": "(missing, 0)"}),
    Answer(
        4, "start forgotten", "begins at 0", {"codes[:, start : start + frames]": "codes[:, : min(frames, 10 - start)]"}
    ),
    Answer(4, "mask exchanged", "are exchanged", {"< frames - missing": ">= frames - missing"}),
    Answer(4, "everything counts", "four do not", {"< frames - missing": "< frames"}),
    Answer(
        4,
        "a mask of codes",
        "not for each code",
        {"torch.arange(frames) < frames - missing": "(torch.arange(frames) < frames - missing).expand(len(codes), -1)"},
    ),
    Answer(
        4,
        "numbers",
        "should be True and False",
        {"torch.arange(frames) < frames - missing": "(torch.arange(frames) < frames - missing).float()"},
    ),
    Answer(
        4,
        "goes round",
        "filled with music",
        {"codes[:, start : start + frames]": "codes.roll(-start, dims=1)[:, :frames]"},
    ),
    Answer(
        4,
        "zeros taken for padding",
        "0 is a code like any other",
        {"torch.arange(frames) < frames - missing": "(padded != 0).any(dim=0)"},
    ),
    Answer(4, "codes alone", "two tensors", {", torch.arange(frames) < frames - missing": ""}),
]

RIGHT = [
    Answer(
        3,
        "shuffled",
        "Right.",
        {"return (": "batch = (", "rehearsed)])": "rehearsed)])\n    rng.shuffle(batch)\n    return batch"},
    ),
    Answer(
        4,
        "zeros first",
        "Right.",
        """
def excerpt(codes, frames, start):
    padded = codes.new_zeros(len(codes), frames)
    counted = torch.zeros(frames, dtype=torch.bool)
    part = codes[:, start : start + frames]
    padded[:, : part.shape[1]], counted[: part.shape[1]] = part, True
    return padded, counted
""",
    ),
]
