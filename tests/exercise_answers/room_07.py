"""Room 07: how many frames are ready, min-p, what the cache costs, a price on repetition."""

from exercise_answers import Answer

WRONG = [
    Answer(1, "codebook 0 alone", "codebook 0 alone", "def frames_ready(step, codebooks):\n    return step"),
    Answer(1, "one too few", "one too few", {" + 1": ""}),
    Answer(1, "one too many", "one too many", {" + 1": " + 2"}),
    Answer(1, "below zero", "not a negative number", {"max(0, step - codebooks + 1)": "step - codebooks + 1"}),
    Answer(1, "delay written in", "wrong for 8", {"codebooks + 1": "3"}),
    Answer(1, "divided", "not [0, 0, 1, 2]", {"max(0, step - codebooks + 1)": "step // codebooks"}),
    Answer(
        1,
        "nothing before the first",
        "the answer is 0",
        "def frames_ready(step, codebooks):\n    if step >= codebooks:\n        return step - codebooks + 1",
    ),
    Answer(2, "half of the best score", "take softmax", {"scores.softmax(dim=-1)": "scores"}),
    Answer(2, "best of all rows", "of the same row", {".amax(dim=-1, keepdim=True)": ".max()"}),
    Answer(2, "bar of 0.5", "of the same row", {"min_p * probabilities.amax(dim=-1, keepdim=True)": "min_p"}),
    Answer(2, "axis lost", "keepdim=True", {", keepdim=True": ""}),
    Answer(2, "zero for minus infinity", "need the score −inf", {"-torch.inf": "0.0"}),
    Answer(2, "probabilities returned", "keeps its score", {"return scores": "return probabilities"}),
    Answer(
        2,
        "mask returned",
        "the scores themselves",
        {"scores.masked_fill(probabilities < bar, -torch.inf)": "probabilities >= bar"},
    ),
    Answer(2, "turned round", "the other way round", {"probabilities < bar": "probabilities >= bar"}),
    Answer(2, "strictly more", "at least", {"probabilities < bar": "probabilities <= bar"}),
    Answer(2, "in place", "without the underscore", {"masked_fill(": "masked_fill_("}),
    Answer(
        2,
        "dropped from the row",
        "stay in their place",
        {"return scores.masked_fill(probabilities < bar, -torch.inf)": "return scores[probabilities >= bar]"},
    ),
    Answer(2, "axis by number", "the last, dim=-1", {"dim=-1": "dim=1"}),
    Answer(3, "keys alone", "keys and values", {"2 * layers": "layers"}),
    Answer(3, "bytes forgotten", "takes 4 bytes", {" * 4": ""}),
    Answer(3, "keys alone, bytes forgotten", "and 4 bytes each", {"2 * layers": "layers", " * 4": ""}),
    Answer(3, "one layer", "every layer keeps its own", {"layers * ": ""}),
    Answer(3, "one row", "every row of the batch", {"rows * ": ""}),
    Answer(3, "heads counted", "the heads share", {" * 4": " * 4 * 12"}),
    Answer(3, "queries kept", "queries are not kept", {"2 * layers": "3 * layers"}),
    Answer(3, "bits", "those are bits", {" * 4": " * 32"}),
    Answer(3, "numbers written in", "is a number written in", {"* model_width": "* 768"}),
    Answer(
        4,
        "indexed",
        "the special token has no score",
        """
def discourage(scores, previous, price):
    answer = scores.clone()
    for row in range(len(scores)):
        for codebook in range(scores.shape[1]):
            answer[row, codebook, previous[row, codebook]] -= price
    return answer
""",
    ),
    Answer(
        4,
        "one_hot",
        "the special token has no score",
        "def discourage(scores, previous, price):\n    return scores - price * F.one_hot(previous, scores.shape[-1])",
    ),
    Answer(
        4,
        "special token clamped",
        "hit another code",
        """
def discourage(scores, previous, price):
    taken = previous.clamp(max=scores.shape[-1] - 1)[:, :, None]
    return scores.scatter_add(-1, taken, torch.full(taken.shape, -price))
""",
    ),
    Answer(4, "third axis forgotten", "needs a third axis", {"previous[:, :, None]": "previous"}),
    Answer(4, "every code", "every code has lost", {" * (codes == previous[:, :, None])": ""}),
    Answer(4, "added", "a price is subtracted", {"scores - price": "scores + price"}),
    Answer(4, "turned round", "the other way round", {"codes == previous": "codes != previous"}),
    Answer(4, "first row's codes for all", "row by row", {"previous[:, :, None]": "previous[:1, :, None]"}),
    Answer(
        4,
        "in place",
        "the input was changed",
        "def discourage(scores, previous, price):\n"
        "    scores -= price * (torch.arange(scores.shape[-1]) == previous[:, :, None])\n    return scores",
    ),
]
