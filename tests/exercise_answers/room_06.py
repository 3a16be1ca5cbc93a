"""Room 06: lengths on the way, one vector level by level, the receptive field, chunks without a seam."""

from exercise_answers import Answer

CHUNKS = """
def decode_chunks(decode, frames, size, reach, hop):
    parts = []
    for first in range(0, len(frames), size):
        {}
    return torch.cat(parts)
"""

WRONG = [
    Answer(1, "rounded down", "a begun stride counts", {"-(-samples // stride)": "samples // stride"}),
    Answer(1, "true division", "columns are whole numbers", {"-(-samples // stride)": "samples / stride"}),
    Answer(1, "rounded to nearest", "a begun stride counts", {"-(-samples // stride)": "round(samples / stride)"}),
    Answer(1, "one more always", "one too many", {"-(-samples // stride)": "samples // stride + 1"}),
    Answer(
        1,
        "each stride from the samples",
        "from what the first one left",
        {"samples = -(-samples // stride)": "left = -(-samples // stride)", "append(samples)": "append(left)"},
    ),
    Answer(1, "samples kept in the list", "samples themselves", {"columns = []": "columns = [samples]"}),
    Answer(1, "return in the loop", "return inside the loop", {"    return columns": "        return columns"}),
    Answer(1, "last one alone", "in a list", {"return columns": "return samples"}),
    Answer(2, "the vector each time", "ask for what is left over", {"table - left": "table - vector"}),
    Answer(2, "the farthest", "argmin, not argmax", {"argmin": "argmax"}),
    Answer(2, "summed over the entries", "every code is 0", {"dim=1": "dim=0"}),
    Answer(2, "no sum over the width", "sum over the width first", {".sum(dim=1)": ""}),
    Answer(2, "subtracted in place", "works in place", {"left = left - table": "left -= table"}),
    Answer(2, "codes alone", "two things", {"return codes, vector - left": "return codes"}),
    Answer(2, "what is left over", "left over at the end", {"vector - left\n": "left\n"}),
    Answer(
        2, "the last entry", "the last entry alone", {"return codes, vector - left": "return codes, table[codes[-1]]"}
    ),
    Answer(2, "return in the loop", "return inside the loop", {"    return codes": "        return codes"}),
    Answer(3, "started at 0", "start at 1", {"field, column = 1, 1": "field, column = 0, 1"}),
    Answer(3, "whole kernel added", "one too many", {"(kernel - 1)": "kernel"}),
    Answer(3, "strides forgotten", "a column is 4 samples wide", {" * column": ""}),
    Answer(
        3,
        "own stride first",
        "add first, multiply afterwards",
        {"        column *= stride\n": "", "        field +=": "        column *= stride\n        field +="},
    ),
    Answer(3, "the stride before alone", "as *all* strides", {"column *= stride": "column = stride"}),
    Answer(3, "strides added", "as *all* strides", {"column *= stride": "column += stride - 1"}),
    Answer(3, "no dilation", "3 columns apart", {" * dilation": ""}),
    Answer(3, "kernel times dilation", "only the 4 gaps", {"(kernel - 1) * dilation": "(kernel * dilation - 1)"}),
    Answer(3, "dilation kept", "its own layer alone", {"column *= stride": "column *= stride * dilation"}),
    Answer(3, "dilation or strides", "multiply", {"dilation * column": "max(dilation, column)"}),
    Answer(4, "no context", "near a seam", CHUNKS.format("parts.append(decode(frames[first : first + size]))")),
    Answer(4, "no context behind", "near a seam", {"begin : end + reach": "begin:end"}),
    Answer(4, "no context before", "near a seam", {"max(first - reach, 0)": "first"}),
    Answer(4, "start below 0", "max(first − reach, 0)", {"max(first - reach, 0)": "first - reach"}),
    Answer(4, "cut at the beginning too", "nothing is cut off there", {"(first - begin) * hop": "reach * hop"}),
    Answer(
        4, "context kept", "cut off on both sides", {"[(first - begin) * hop :][: len(frames[first:end]) * hop]": ""}
    ),
    Answer(4, "all at once", "was called with 10 frames", CHUNKS.format("return decode(frames)")),
    Answer(4, "last chunk lost", "a chunk lost", {"len(frames), size)": "len(frames) - size, size)"}),
    Answer(4, "a list of parts", "torch.cat", {"torch.cat(parts)": "parts"}),
    Answer(4, "size written in", "is a size written in", {"first + size": "first + 4"}),
    Answer(4, "hop written in", "is the hop written in", {"* hop :]": "* 3 :]", "* hop]": "* 3]"}),
    Answer(4, "reach written in", "is the reach written in", {"first - reach": "first - 2", "end + reach": "end + 2"}),
]

RIGHT = [
    Answer(
        1, "math.ceil", "Right.", {"-(-samples // stride)": "math.ceil(samples / stride)", "def": "import math\ndef"}
    ),
    Answer(2, "the sum of the entries", "Right.", {"vector - left\n": "sum(t[c] for t, c in zip(tables, codes))\n"}),
]
