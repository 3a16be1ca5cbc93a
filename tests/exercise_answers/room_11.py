"""Room 11: bytes of a checkpoint, names of older days, a planted fault, bisection."""

from exercise_answers import Answer

SWAP = "attention.k_proj, attention.v_proj = attention.v_proj, attention.k_proj"

WRONG = [
    Answer(1, "sides added", "the sides were added", {"math.prod(shape)": "sum(shape)"}),
    Answer(
        1,
        "numbers counted",
        "those are numbers",
        {' * (4 if name.startswith("audio_encoder.") else size)': ""},
    ),
    Answer(1, "bits", "those are bits", {"math.prod(shape) *": "8 * math.prod(shape) *"}),
    Answer(
        1,
        "float32 everywhere",
        "are for the codec only",
        {'(4 if name.startswith("audio_encoder.") else size)': "4"},
    ),
    Answer(
        1,
        "the codec too",
        "stays in float32",
        {'(4 if name.startswith("audio_encoder.") else size)': "size"},
    ),
    Answer(
        1,
        "any encoder",
        "both take `size` bytes",
        {'name.startswith("audio_encoder.")': '"encoder" in name'},
    ),
    Answer(1, "returned in the loop", "only one of two", {"    return total": "        return total"}),
    Answer(1, "the last alone", "only one of two", {"total +=": "total ="}),
    Answer(1, "no sides", "one number, not none", {"math.prod(shape)": "(math.prod(shape) if shape else 0)"}),
    Answer(1, "no return", "end `bytes_needed` with a return", {"\n    return total": ""}),
    Answer(
        2,
        "v forgotten",
        "replace the end of both",
        {'    (r"\\.weight_v$", ".parametrizations.weight.original1"),\n': ""},
    ),
    Answer(
        2,
        "lengths and rows confused",
        "yours are reversed",
        {"original0": "original_", "original1": "original0", "original_": "original1"},
    ),
    Answer(
        2,
        "dot lost",
        "are wanted; you have",
        {'".parametrizations.weight.original0"': '"parametrizations.weight.original0"'},
    ),
    Answer(
        2,
        "positions kept",
        "the stored positions are still there",
        {'    renamed.pop("decoder.model.decoder.embed_positions.weights", None)\n': ""},
    ),
    Answer(
        2,
        "second name kept",
        "still has its second name",
        {'    (r"^text_encoder\\.encoder\\.embed_tokens\\.weight$", "text_encoder.shared.weight"),\n': ""},
    ),
    Answer(
        2,
        "the decoder's tables too",
        "the decoder has tables",
        {'r"^text_encoder\\.encoder\\.embed_tokens\\.weight$"': 'r"^.*embed_tokens.*$"'},
    ),
    Answer(
        2,
        "the table left out",
        "the table of pieces is lost",
        {"    return renamed": '    renamed.pop("text_encoder.shared.weight", None)\n    return renamed'},
    ),
    Answer(2, "anywhere in a name", "only the end of a name counts", {'r"\\.weight_g$"': 'r"\\.weight_g"'}),
    Answer(2, "no return", "end with a return", {"\n    return renamed": ""}),
    Answer(
        2,
        "in place",
        "build a new one",
        """
def with_names_of_today(tensors):
    tensors.pop("decoder.model.decoder.embed_positions.weights", None)
    return tensors
""",
    ),
    Answer(
        3,
        "local names swapped",
        "two local names only",
        {SWAP: "keys, values = attention.k_proj, attention.v_proj\n    keys, values = values, keys"},
    ),
    Answer(3, "swapped twice", "were they swapped twice", {SWAP: f"{SWAP}\n    {SWAP}"}),
    Answer(
        3,
        "overwritten",
        "Clone it first",
        {
            SWAP: "keys, values = attention.k_proj.weight.data, attention.v_proj.weight.data\n"
            "    keys.copy_(values)\n    values.copy_(keys)"
        },
    ),
    Answer(3, "self-attention", "`encoder_attn` was asked for", {"layer.encoder_attn": "layer.self_attn"}),
    Answer(
        3,
        "queries and keys",
        "other numbers than each other's",
        {SWAP: "attention.q_proj, attention.k_proj = attention.k_proj, attention.q_proj"},
    ),
    Answer(
        3,
        "weights for layers",
        "no layer any more",
        {SWAP: "attention.k_proj, attention.v_proj = attention.v_proj.weight, attention.k_proj.weight"},
    ),
    Answer(
        3,
        "one thing more",
        "something else changed too",
        {SWAP: f"{SWAP}\n    attention.out_proj.weight.data.mul_(2)"},
    ),
    Answer(
        4,
        "one after the other",
        "Halve what is left",
        """
def first_bad(differs, layers):
    for n in range(1, layers + 1):
        if differs(n):
            return n - 1
""",
    ),
    Answer(4, "counted from 1", "counted from 0", {"return bad - 1": "return bad"}),
    Answer(
        4,
        "always somebody's fault",
        "where nothing differs, None is wanted",
        {"    if not differs(layers):\n        return None\n": ""},
    ),
    Answer(4, "the first taken for good", "the very first layer was bad", {"good, bad = 0,": "good, bad = 1,"}),
    Answer(
        4,
        "the wrong half",
        "the very first layer was bad",
        {
            "            bad = middle\n        else:\n            good = middle": "            good = middle\n"
            "        else:\n            bad = middle"
        },
    ),
    Answer(4, "a look before the first", "a look after 0 layers", {"good, bad = 0,": "good, bad = -1,"}),
    Answer(
        4,
        "a look too many",
        "7 will do",
        {"if not differs(layers):": "if not differs(layers) or not differs(layers):"},
    ),
]

RIGHT = [
    Answer(
        1,
        "PyTorch counts",
        "",
        {"math.prod(shape)": "torch.Size(shape).numel()"},
    ),
    Answer(
        2,
        "without regular expressions",
        "",
        """
def with_names_of_today(tensors):
    weight = ".parametrizations.weight.original"
    renamed = {}
    for name, tensor in tensors.items():
        if name == "decoder.model.decoder.embed_positions.weights":
            continue
        if name == "text_encoder.encoder.embed_tokens.weight":
            name = "text_encoder.shared.weight"
        for number, end in enumerate((".weight_g", ".weight_v")):
            if name.endswith(end):
                name = name.removesuffix(end) + weight + str(number)
        renamed[name] = tensor
    return renamed
""",
    ),
    Answer(
        3,
        "a clone",
        "",
        {
            SWAP: "keys = attention.k_proj.weight.data.clone()\n"
            "    attention.k_proj.weight.data.copy_(attention.v_proj.weight.data)\n"
            "    attention.v_proj.weight.data.copy_(keys)"
        },
    ),
    Answer(
        4,
        "the library's bisection",
        "",
        """
import bisect

def first_bad(differs, layers):
    found = bisect.bisect_left(range(1, layers + 1), True, key=differs)
    return found if found < layers else None
""",
    ),
]
