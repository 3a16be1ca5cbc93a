"""Room 05: how often the decoder runs, any delays, when a frame can be heard, the loss."""

from exercise_answers import Answer

FULL_COLUMNS = """
def frames_ready(grid, step):
    return int((grid[:, : step + 1] >= 0).all(dim=0).sum())
"""
IGNORED = """
import torch.nn.functional as F


def masked_loss(logits, sequence, grid):
    special = logits.shape[-1]
    return F.cross_entropy(logits.movedim(-1, 1), sequence[:, :, 1:], ignore_index=special)
"""
NO_LOSS_THERE = IGNORED.replace("ignore_index", "reduction='sum', ignore_index")
CUT = "grid[:, 1:] >= 0"

WRONG = [
    Answer(1, "step 0 counted", "you counted step 0", {"round(50 * seconds)": "round(50 * seconds) + 1"}),
    Answer(1, "seconds for frames", "50 runs a second", {"round(50 * seconds)": "seconds"}),
    Answer(1, "one delay too many", "not codebooks", {"codebooks - 1": "codebooks"}),
    Answer(1, "delay costs nothing", "has ended too", {"frames + codebooks - 1": "frames"}),
    Answer(
        1, "flatten with delay", "no delay at the end", {"frames * codebooks": "frames * codebooks + codebooks - 1"}
    ),
    Answer(1, "flatten as parallel", "one code a run", {"frames * codebooks": "frames"}),
    Answer(1, "four written in", "is a number written in", {"codebooks - 1": "3", "* codebooks": "* 4"}),
    Answer(1, "one pattern without an answer", "end every branch", {"[name]": ".get(name if name != 'delay' else '')"}),
    Answer(
        2,
        "width by codebooks",
        "too wide",
        {"1 + max(delays) + frames": "frames + len(delays)"},
    ),
    Answer(2, "width without step 0", "5 steps here", {"1 + max(delays)": "max(delays)"}),
    Answer(2, "list subtracted", "make a tensor of the delays", {"torch.tensor(delays)[:, None]": "delays"}),
    Answer(2, "no column", "need a column", {"[:, None]": ""}),
    Answer(2, "step 0 forgotten", "the 1 missing", {"step - 1 - delay": "step - delay"}),
    Answer(2, "one frame too many", "does not have", {"frame < frames": "frame <= frames"}),
    Answer(2, "end forgotten", "does not have", {"(frame >= 0) & (frame < frames)": "frame >= 0"}),
    Answer(2, "start forgotten", "no less", {"(frame >= 0) & (frame < frames)": "frame < frames"}),
    Answer(2, "frame 0 lost", "ask for >= 0", {"frame >= 0": "frame > 0"}),
    Answer(2, "zero for none", "yours hold 0", {", -1)": ", 0)"}),
    Answer(
        2,
        "row for delay",
        "in place of its delay",
        {"torch.tensor(delays)[:, None]": "torch.arange(len(delays))[:, None]"},
    ),
    Answer(3, "first row", "the first codebook", {"written.min()": "written[0]"}),
    Answer(3, "furthest row", "the first codebook", {"written.min()": "written.max()"}),
    Answer(3, "last row", "not the last", {"written.min()": "written[-1]"}),
    Answer(3, "own column left out", "including the step's own", {": step + 1]": ":step]"}),
    Answer(3, "frame 0 is none", "frame 0 makes one", {".values + 1": ".values"}),
    Answer(3, "full columns", "columns that are full", FULL_COLUMNS),
    Answer(
        3,
        "delay by arithmetic",
        "wrong for coarse first",
        "def frames_ready(grid, step):\n    return max(0, step + 1 - len(grid))",
    ),
    Answer(
        4,
        "no mask",
        "for which there is no output",
        {"logits[:, valid].flatten(0, 1), targets[:, valid]": "logits.flatten(0, 2), targets"},
    ),
    Answer(4, "mask not cut", "drop the first column", {CUT: "grid >= 0"}),
    Answer(4, "targets not cut", "drop the first column", {"sequence[:, :, 1:]": "sequence"}),
    Answer(
        4,
        "mask cut at the end",
        "Is the mask cut like the targets",
        {CUT: "grid[:, :-1] >= 0", "targets[:, valid].flatten()": "targets[:, valid].flatten() % 5"},
    ),
    Answer(
        4,
        "classes last",
        "wants its axes",
        {"logits[:, valid].flatten(0, 1), targets[:, valid].flatten()": "logits, targets"},
    ),
    Answer(4, "sum", "the mean was asked for", NO_LOSS_THERE),
    Answer(
        4,
        "divided by all cells",
        "divided by all 8",
        {"return F.cross_entropy(": "return valid.sum() / valid.numel() * F.cross_entropy("},
    ),
    Answer(4, "a float", "needs its gradient", {"targets[:, valid].flatten())": "targets[:, valid].flatten()).item()"}),
    Answer(
        4,
        "no mean",
        "is there a reduction",
        {"targets[:, valid].flatten())": "targets[:, valid].flatten(), reduction='none')"},
    ),
    Answer(
        4, "bits", "nats are asked for", {"targets[:, valid].flatten())": "targets[:, valid].flatten()) / 0.6931472"}
    ),
]

RIGHT = [
    Answer(2, "frame by frame", "Right.", {"(frame >= 0) & (frame < frames)": "frame.clamp(0, frames - 1) == frame"}),
    Answer(3, "tensor", "Right.", {"int(written.min())": "written.min()"}),
    Answer(4, "special token ignored", "Right.", IGNORED),
]
