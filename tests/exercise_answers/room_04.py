"""Room 04: hide a word, a mask for new steps behind a past, count the decoder, a detector of leaks."""

from exercise_answers import Answer

INDEX = """
def hide(mask, pieces, word):
    hidden = mask.clone()
    hidden[0, pieces.index(word)] = False
    return hidden
"""
FIRST = INDEX.replace("index(word)", 'index("▁" + word)')
IN_PLACE = """
def hide(mask, pieces, word):
    for place, piece in enumerate(pieces):
        if piece == "▁" + word:
            mask[0, place] = False
    return mask
"""
BLOCKS = """
def causal_mask(past, new):
    seen = torch.ones(new, past, dtype=torch.bool)
    return torch.cat([seen, torch.ones(new, new, dtype=torch.bool).tril()], dim=1)
"""
JACOBIAN = """
def leaks(function, steps=6, width=4):
    jacobian = torch.autograd.functional.jacobian(function, torch.randn(steps, width))
    influence = jacobian.abs().sum(dim=(1, 3))
    return bool((influence.triu(1) != 0).any())
"""
WHOLE = """
def leaks(function, steps=6, width=4):
    states = torch.randn(steps, width, requires_grad=True)
    (gradient,) = torch.autograd.grad(function(states).square().sum(), states)
    return bool((gradient[1:] != 0).any())
"""
WEIGHTED = "(output[step] * torch.randn(width)).sum()"

WRONG = [
    Answer(1, "sign for a blank forgotten", "nothing is hidden", {'piece.lstrip("▁")': "piece"}),
    Answer(1, "found by index", "it is “▁drums”", INDEX),
    Answer(1, "the first only", "stop at the first", FIRST),
    Answer(1, "changed in place", "the given mask was changed", IN_PLACE),
    Answer(1, "given mask forgotten", "the padding has become visible", {"mask & seen": "seen"}),
    Answer(1, "turned round", "the word alone is seen", {"!= word": "== word"}),
    Answer(1, "list", "a tensor is wanted", {"torch.tensor(": "(", "mask & seen": "seen"}),
    Answer(1, "numbers", "dtype bool", {"mask & seen": "mask.long() * seen"}),
    Answer(1, "no batch axis", "shape [1, 6]", {"mask & seen": "(mask & seen)[0]"}),
    Answer(1, "part of a piece", "compare the whole piece", {'piece.lstrip("▁") != word': "word not in piece"}),
    Answer(2, "past forgotten", "shift the diagonal", {"tril(past)": "tril()"}),
    Answer(2, "not itself", "does not see itself", {"tril(past)": "tril(past - 1)"}),
    Answer(2, "one ahead", "which is its future", {"tril(past)": "tril(past + 1)"}),
    Answer(2, "no mask", "which is its future", {".tril(past)": ""}),
    Answer(2, "upper triangle", "turned round", {"tril(past)": "triu(past + 1)"}),
    Answer(2, "numbers", "bool of shape", {", dtype=torch.bool": ""}),
    Answer(
        2, "all rows", "of the 5 rows the last 2", {"torch.ones(new,": "torch.ones(past + new,", "tril(past)": "tril()"}
    ),
    Answer(2, "new steps alone", "look at the past too", {"past + new": "new", "tril(past)": "tril()"}),
    Answer(2, "diagonal by the new steps", "wrong without one", {"tril(past)": "tril(new + 1)"}),
    Answer(3, "no row for the special token", "special token needs a row", {"(codebook_size + 1)": "codebook_size"}),
    Answer(3, "heads for the special token", "never predict", {"* codebook_size *": "* (codebook_size + 1) *"}),
    Answer(3, "last norm forgotten", "one norm more", {" + 2 * width + heads": " + heads"}),
    Answer(3, "norm without shift at the end", "a factor and a shift", {" + 2 * width + heads": " + width + heads"}),
    Answer(3, "one attention", "two attentions", {"2 * 4 * width * width": "4 * width * width"}),
    Answer(3, "three matrices", "four matrices", {"2 * 4 * width": "2 * 3 * width"}),
    Answer(3, "one feed-forward matrix", "there and back", {"2 * width * ffn_size": "width * ffn_size"}),
    Answer(3, "two norms", "three norms", {"3 * 2 * width": "2 * 2 * width"}),
    Answer(3, "norms without shifts", "a factor and a shift", {"3 * 2 * width": "3 * width"}),
    Answer(3, "biases in attention", "no bias", {"3 * 2 * width": "3 * 2 * width + 8 * width"}),
    Answer(3, "one layer", "num_layers layers", {"num_layers * layer": "layer"}),
    Answer(
        3,
        "two mistakes at once",
        "one norm more",
        {" + 2 * width + heads": " + heads", "3 * 2 * width": "2 * 2 * width"},
    ),
    Answer(3, "one table and one head", "as many of each", {"num_codebooks * ": ""}),
    Answer(3, "a number written in", "is a number written in", {"num_codebooks * ": "3 * "}),
    Answer(4, "output added up", "weight the numbers", {WEIGHTED: "output[step].sum()"}),
    Answer(4, "first step only", "go through all steps", {"range(steps)": "range(1)"}),
    Answer(4, "itself is a leak", "look strictly after", {"step + 1 :": "step :"}),
    Answer(4, "one step too late", "only t + 2", {"step + 1 :": "step + 2 :"}),
    Answer(4, "all outputs at once", "one step's output at a time", WHOLE),
    Answer(4, "no gradient asked for", "requires_grad=True", {", requires_grad=True": ""}),
    Answer(4, "not one number", "that of one number", {WEIGHTED: "output[step]"}),
    Answer(4, "graph not kept", "retain_graph=True", {", retain_graph=True": ""}),
    Answer(4, "before the step", "one step's output at a time", {"gradient[step + 1 :]": "gradient[:step]"}),
    Answer(4, "never found", "without any mask passes", {"return True": "return False"}),
]

RIGHT = [
    Answer(1, "cloned", "Right.", IN_PLACE.replace("    for", "    mask = mask.clone()\n    for", 1)),
    Answer(2, "two blocks", "Right.", BLOCKS),
    Answer(3, "in another order", "Right.", {"3 * 2 * width": "6 * width", "2 * 4 *": "8 *"}),
    Answer(4, "whole Jacobian", "Right.", JACOBIAN),
    Answer(4, "squares", "Right.", {WEIGHTED: "output[step].square().sum()"}),
]
