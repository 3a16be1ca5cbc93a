"""Room 03: say it before PyTorch does, a preflight, the transpose that nobody misses, recover a projection."""

from exercise_answers import Answer

PAIRS = """
def first_misfit(width, layers):
    for index, (layer, after) in enumerate(zip(layers, layers[1:])):
        if layer.out_features != after.in_features:
            return index
"""
WIDTHS = """
def first_misfit(width, layers):
    given = [width, *(layer.out_features for layer in layers)]
    misfits = [index for index, layer in enumerate(layers) if layer.in_features != given[index]]
    return misfits[0] if misfits else None
"""
WRITTEN = """
def layer_from(matrix):
    layer = nn.Linear(*matrix.shape, bias=False)
    layer.weight.copy_(matrix.T)
    return layer
"""

WRONG = [
    Answer(1, "as stored", "as it is stored", {"{in_features}x{out_features}": "{out_features}x{in_features}"}),
    Answer(1, "batch forgotten", "rows are batch × text_tokens", {"batch * text_tokens": "text_tokens"}),
    Answer(1, "tokens forgotten", "rows are batch × text_tokens", {"batch * text_tokens": "batch"}),
    Answer(1, "None where it fits", "an empty text", {'return ""': "return None"}),
    Answer(1, "always a message", "an empty text", {"if text_width == in_features": "if False"}),
    Answer(
        1,
        "compared with out",
        "compare the width with in_features",
        {"== in_features": "== out_features"},
    ),
    Answer(1, "blanks round the cross", "PyTorch says", {"}x{text_width}": "} x {text_width}"}),
    Answer(1, "all three axes", "PyTorch says", {"{batch * text_tokens}x": "{batch}x{text_tokens}x"}),
    Answer(2, "whether it fits", "and not whether", {"return index": "return False", "return None": "return True"}),
    Answer(2, "minus one", "return None then", {"return None": "return -1"}),
    Answer(2, "the layer", "its index is asked for", {"return index": "return layer"}),
    Answer(2, "width never changes", "becomes layer.out_features", {"        width = layer.out_features\n": ""}),
    Answer(2, "counted from one", "as 0", {"return index": "return index + 1"}),
    Answer(2, "outputs compared", "becomes layer.out_features", {"layer.in_features !=": "layer.out_features !="}),
    Answer(2, "neighbours only", "as 0", PAIRS),
    Answer(
        2,
        "the last",
        "the FIRST misfit",
        {"return index": "found = index", "return None": "return found", "    for": "    found = None\n    for"},
    ),
    Answer(2, "two layers only", "end too early", {"enumerate(layers)": "enumerate(layers[:2])"}),
    Answer(3, "no parameter", "nn.Parameter", {"nn.Parameter(matrix.T.contiguous())": "matrix.T"}),
    Answer(3, "transpose forgotten", "turned over", {"matrix.T.contiguous()": "matrix"}),
    Answer(
        3,
        "transpose forgotten in data",
        "turned over",
        {"layer.weight = nn.Parameter(matrix.T.contiguous())": "layer.weight.data = matrix"},
    ),
    Answer(
        3,
        "sizes exchanged",
        "is due",
        {"text_width, model_width = matrix.shape": "model_width, text_width = matrix.shape"},
    ),
    Answer(3, "bias left on", "bias=False", {", bias=False": ""}),
    Answer(
        3,
        "weight left random",
        "still the random one",
        {"    layer.weight = nn.Parameter(matrix.T.contiguous())\n": ""},
    ),
    Answer(3, "written in place", "torch.no_grad()", WRITTEN),
    Answer(3, "matrix returned", "return an nn.Linear", {"return layer": "return layer.weight"}),
    Answer(
        4,
        "no ones",
        "squeezed into the weight",
        {
            "torch.cat([states, torch.ones(len(states), 1)], dim=1)": "states",
            "solution[:-1].T, solution[-1]": "solution.T, solution.mean(dim=0)",
        },
    ),
    Answer(4, "not transposed", "the transposed weight", {"solution[:-1].T": "solution[:-1]"}),
    Answer(4, "solution forgotten", "`.solution`", {".solution ": " "}),
    Answer(4, "ones below", "dim=1", {"dim=1": "dim=0"}),
    Answer(4, "one tensor", "two things", {"solution[:-1].T, solution[-1]": "solution"}),
    Answer(4, "ones in the weight", "cut it off", {"solution[:-1].T": "solution.T"}),
    Answer(4, "first row", "you took the first", {"solution[-1]\n": "solution[0]\n"}),
    Answer(4, "a row with two axes", "they should be [9, 6] and [9]", {"solution[-1]\n": "solution[-1:]\n"}),
]

RIGHT = [
    Answer(
        1,
        "multiplied out",
        "Right.",
        {
            "batch, text_tokens, text_width = shape": "*rest, text_width = shape",
            "batch * text_tokens": "torch.Size(rest).numel()",
        },
    ),
    Answer(2, "all widths first", "Right.", WIDTHS),
    Answer(
        3, "in data", "Right.", {"layer.weight = nn.Parameter(matrix.T.contiguous())": "layer.weight.data = matrix.T"}
    ),
    Answer(
        4,
        "ones first",
        "Right.",
        {
            "[states, torch.ones(len(states), 1)]": "[torch.ones(len(states), 1), states]",
            "solution[:-1].T, solution[-1]": "solution[1:].T, solution[0]",
        },
    ),
]
