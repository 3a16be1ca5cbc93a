"""Room 01: back to text, a row that is too long, all cuts at once."""

from exercise_answers import Answer

WRONG = [
    Answer(1, "list kept", "still a list", {'"".join(kept).replace("▁", " ").strip()': "kept"}),
    Answer(1, "joined with blanks", "blank inside a word", {'"".join': '" ".join', '"▁", " "': '"▁", ""'}),
    Answer(1, "specials kept", "still holds a special piece", {' if piece not in ("<pad>", "</s>", "<unk>")': ""}),
    Answer(1, "unknown kept", "still holds a special piece", {', "<unk>"': ""}),
    Answer(1, "last piece dropped", "still holds a special piece", {"kept)": "pieces[:-1])"}),
    Answer(1, "mark kept", "still holds the mark", {'.replace("▁", " ")': ""}),
    Answer(1, "mark taken away", "lost its blanks", {'"▁", " "': '"▁", ""'}),
    Answer(1, "not stripped", "blank too many", {".strip()": ""}),
    Answer(2, "end lost", "lost its end piece", {"row[: longest - 1] + [1]": "row[:longest]"}),
    Answer(2, "end put behind", "not [2, 4]", {"longest - 1": "longest"}),
    Answer(2, "not cut", "not [2, 4]", {"row if len(row) <= longest else row[: longest - 1] + [1]": "row"}),
    Answer(2, "not padded", "still have different lengths", {" + [0] * (width - len(row))": ""}),
    Answer(
        2,
        "padded on the left",
        "Is padding on the left",
        {"row + [0] * (width - len(row))": "[0] * (width - len(row)) + row"},
    ),
    Answer(2, "padded to the limit", "`longest` is a limit", {"max(len(row) for row in rows)": "longest"}),
    Answer(2, "mask of numbers", "torch.bool", {"ids != 0": "(ids != 0).long()"}),
    Answer(2, "ids of floats", "torch.long", {"for row in rows])": "for row in rows], dtype=torch.float32)"}),
    Answer(2, "end masked", "the end piece included", {"ids != 0": "ids > 1"}),
    Answer(2, "mask turned round", "False on padding", {"ids != 0": "ids == 0"}),
    Answer(2, "mask forgotten", "two things", {", ids != 0": ""}),
    Answer(
        2, "lists", "both be tensors", {"torch.tensor(": "(", "ids != 0": "[[id != 0 for id in row] for row in ids]"}
    ),
    Answer(
        2,
        "rows changed",
        "that came in were changed",
        """
def make_batch(rows, longest):
    for row in rows:
        if len(row) > longest:
            row[longest - 1 :] = [1]
    width = max(len(row) for row in rows)
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    return ids, ids != 0
""",
    ),
    Answer(3, "best cut alone", "best cut alone", {"logsumexp(dim=0)": "amax()"}),
    Answer(3, "logarithms added", "exp first", {"[-math.inf, *ways]": "ways", "logsumexp(dim=0)": "sum()"}),
    Answer(3, "no vocabulary", "no piece of the vocabulary", {" if text[start:end] in scores": ""}),
    Answer(3, "whole text forgotten", "one piece, is missing", {"range(end)": "range(end > 1, end)"}),
    Answer(3, "two places only", "sum over every earlier place", {"range(end)": "{0, end - 1}"}),
    Answer(
        3,
        "probability returned",
        "that is the probability",
        """
def log_probability(text, scores):
    table = [1.0]
    for end in range(1, len(text) + 1):
        pieces = [(start, text[start:end]) for start in range(end) if text[start:end] in scores]
        table.append(sum(table[start] * math.exp(scores[piece]) for start, piece in pieces))
    return table[-1]
""",
    ),
    Answer(
        3,
        "logarithm of zero",
        "return -math.inf",
        """
def log_probability(text, scores):
    table = [1.0]
    for end in range(1, len(text) + 1):
        pieces = [(start, text[start:end]) for start in range(end) if text[start:end] in scores]
        table.append(sum(table[start] * math.exp(scores[piece]) for start, piece in pieces))
    return math.log(table[-1])
""",
    ),
    Answer(
        3,
        "runs to zero",
        "runs to zero",
        """
def log_probability(text, scores):
    table = [1.0]
    for end in range(1, len(text) + 1):
        pieces = [(start, text[start:end]) for start in range(end) if text[start:end] in scores]
        table.append(sum(table[start] * math.exp(scores[piece]) for start, piece in pieces))
    return math.log(table[-1]) if table[-1] > 0 else -math.inf
""",
    ),
    Answer(
        3,
        "all cuts tried",
        "every cut is tried",
        """
def log_probability(text, scores):
    if not text:
        return 0.0
    ways = [scores[text[:end]] + log_probability(text[end:], scores)
            for end in range(1, len(text) + 1) if text[:end] in scores]
    return float(torch.tensor([-math.inf, *ways], dtype=torch.float64).logsumexp(dim=0))
""",
    ),
]

RIGHT = [
    Answer(
        1,
        "piece by piece",
        "Right.",
        {'"".join(kept).replace("▁", " ")': '"".join(piece.replace("▁", " ") for piece in kept)'},
    ),
    Answer(2, "type said", "Right.", {"for row in rows])": "for row in rows], dtype=torch.long)"}),
    Answer(
        3,
        "tensors",
        "Right.",
        {"float(torch.tensor([-math.inf, *ways], dtype=torch.float64)": "(torch.tensor([-math.inf, *ways])"},
    ),
]
