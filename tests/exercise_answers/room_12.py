"""Room 12: the tone of a frequency, planning windows, the cells that are known, weaving two channels."""

from exercise_answers import Answer

WRONG = [
    Answer(1, "octaves counted", "forgets the octave", {" % 12": ""}),
    Answer(1, "counted from A", "count from C", {"69 + ": ""}),
    Answer(
        1, "not rounded", "round to the nearest", {"round(69 + 12 * math.log2(frequency / 440))": "(frequency / 39)"}
    ),
    Answer(1, "cut off", "do not cut off", {"round(": "int("}),
    Answer(1, "natural logarithm", "logarithm to base 2", {"math.log2(": "math.log("}),
    Answer(1, "twelve forgotten", "twelve times", {"12 * ": ""}),
    Answer(1, "turned round", "is it twelve times", {"frequency / 440": "440 / frequency"}),
    Answer(
        1,
        "number written in",
        "is a number written in",
        "def tone_of(frequency):\n    return {261.63: 0, 246.94: 11}.get(frequency, 9)",
    ),
    Answer(2, "end to end", "share nothing", {"windows[-1][0] + stride": "windows[-1][1]"}),
    Answer(2, "last one not cut", "reaches beyond", {"min(start + window, frames)": "start + window"}),
    Answer(
        2,
        "one too many",
        "nothing new",
        "def windows_of(frames, window, stride):\n"
        "    return [(start, min(start + window, frames)) for start in range(0, frames, stride)]",
    ),
    Answer(
        2,
        "the last one forgotten",
        "shorter window is missing",
        "def windows_of(frames, window, stride):\n"
        "    return [(start, start + window) for start in range(0, frames - window + 1, stride)]",
    ),
    Answer(2, "context for stride", "are exchanged", {"[0] + stride": "[0] + window - stride"}),
    Answer(2, "first one not cut", "ends where it ends", {"(0, min(window, frames))": "(0, window)"}),
    Answer(2, "begins at 1", "not [(1,", {"[(0, ": "[(1, "}),
    Answer(
        2,
        "no window for a short clip",
        "is one window",
        "def windows_of(frames, window, stride):\n"
        "    starts = range(0, frames - window + stride, stride)\n"
        "    return [(start, min(start + window, frames)) for start in starts]",
    ),
    Answer(
        2,
        "one more at the end",
        "the second one ends with the clip",
        "def windows_of(frames, window, stride):\n"
        "    starts = range(0, max(1, frames - window + stride), stride)\n"
        "    windows = [(start, min(start + window, frames)) for start in starts]\n"
        "    return windows if frames != 80 else windows + [(60, 80)]",
    ),
    Answer(2, "number written in", "is a number written in", {"[0] + stride": "[0] + 30"}),
    Answer(3, "step 0 forgotten", "step 0 is the special token's", {"step - 1 - ": "step - "}),
    Answer(
        3, "no delay", "starts one step late", {" - torch.arange(codebooks)[:, None]": " + torch.zeros(codebooks, 1)"}
    ),
    Answer(3, "one frame too many", "count from 0", {"frame < known": "frame <= known"}),
    Answer(3, "empty cells counted", "hold no frame", {"(frame >= 0) & ": ""}),
    Answer(
        3, "turned", "codebooks are rows", {"(frame < known)": "(frame < known)).T", "return (frame": "return ((frame"}
    ),
    Answer(3, "one step missing", "one step is missing", {"frames + codebooks": "frames + codebooks - 1"}),
    Answer(3, "numbers", "booleans", {"(frame < known)": "(frame < known).long()"}),
    Answer(
        3, "delays turned round", "starts first", {"torch.arange(codebooks)[:": "torch.arange(codebooks).flip(0)[:"}
    ),
    Answer(3, "number written in", "is a number written in", {"frame < known": "frame < 2"}),
    Answer(
        3,
        "late by one at most",
        "wrong for four",
        {"torch.arange(codebooks)[:": "torch.arange(codebooks).clamp(max=1)[:"},
    ),
    Answer(3, "steps written in", "is a number written in", {"frames + codebooks": "5"}),
    Answer(
        4,
        "one behind the other",
        "they should alternate",
        "def weave(left, right):\n    return torch.cat([left, right], dim=1)",
    ),
    Answer(4, "right first", "the right comes first", {"[left, right]": "[right, left]"}),
    Answer(4, "clips joined", "become four", "def weave(left, right):\n    return torch.cat([left, right])"),
    Answer(4, "frames joined", "twice as long", "def weave(left, right):\n    return torch.cat([left, right], dim=2)"),
    Answer(
        4, "right block first", "the left first", "def weave(left, right):\n    return torch.cat([right, left], dim=1)"
    ),
    Answer(4, "stacked in front", "they should alternate", {"dim=2": "dim=1"}),
    Answer(
        4,
        "frames woven",
        "frames and codebooks must stay apart",
        "def weave(left, right):\n"
        "    return torch.stack([left, right], dim=3).flatten(1).view(len(left), -1, left.shape[2])",
    ),
    Answer(4, "axis not joined", "woven, not", {".flatten(1, 2)": ""}),
]

RIGHT = [
    Answer(1, "by a table", "Right.", {"69 + 12 * math.log2(frequency / 440)": "9 + 12 * math.log2(frequency / 440)"}),
    Answer(
        2,
        "from the plan of the package",
        "Right.",
        "def windows_of(frames, window, stride):\n"
        "    starts = [0, *range(stride, frames - window + stride, stride)]\n"
        "    return [(start, min(start + window, frames)) for start in starts]",
    ),
    Answer(
        4,
        "by slices",
        "Right.",
        "def weave(left, right):\n"
        "    both = torch.zeros(len(left), 2 * left.shape[1], left.shape[2], dtype=left.dtype)\n"
        "    both[:, 0::2], both[:, 1::2] = left, right\n"
        "    return both",
    ),
]
