"""Room 13: the exact binomial test, Wilson's interval, a confusion matrix, stopping when you like the result."""

from exercise_answers import Answer

WRONG = [
    Answer(
        1,
        "exactly so many",
        "exactly 12 right",
        "def p_value(right, trials):\n    return math.comb(trials, right) / 2**trials",
    ),
    Answer(1, "started one late", "starts at 13", {"range(right,": "range(right + 1,"}),
    Answer(1, "or fewer", "12 or fewer", {"range(right, trials + 1)": "range(right + 1)"}),
    Answer(1, "last one left out", "write trials + 1", {"trials + 1": "trials"}),
    Answer(1, "ways forgotten", "math.comb", {"math.comb(trials, k)": "1"}),
    Answer(1, "not divided", "divide by all", {" / 2**trials": ""}),
    Answer(1, "number written in", "wrong for 3 of 3", {"2**trials": "2**16"}),
    Answer(1, "trials written in", "wrong for 20 of 30", {"trials + 1": "17"}),
    Answer(
        2,
        "the naive interval",
        "the naive interval",
        {" + z**2 / (2 * trials)": "", " + z**2 / (4 * trials**2)": "", "1 + z**2 / trials": "1"},
    ),
    Answer(2, "brackets of the middle", "Mind the brackets", {"z**2 / (2 * trials)": "z**2 / 2 * trials"}),
    Answer(2, "brackets of the root", "Mind the brackets", {"z**2 / (4 * trials**2)": "z**2 / 4 * trials**2"}),
    Answer(2, "not divided", "nothing is divided", {" / scale, (": ", (", " / scale\n": "\n"}),
    Answer(2, "z forgotten", "the width is not", {"half = z * ": "half = "}),
    Answer(2, "root forgotten", "the width is not", {"math.sqrt(": "("}),
    Answer(
        2,
        "middle not moved",
        "drawn towards one half",
        {"middle = share + z**2 / (2 * trials)": "middle = share * (1 + z**2 / trials)"},
    ),
    Answer(
        2,
        "ends exchanged",
        "the lower end comes first",
        {"(middle - half) / scale, (middle + half) / scale": "(middle + half) / scale, (middle - half) / scale"},
    ),
    Answer(
        2,
        "middle and half",
        "the lower end comes first",
        {"(middle - half) / scale, (middle + half) / scale": "middle / scale, half / scale"},
    ),
    Answer(2, "trials written in", "is a number written in", {"z**2 / (4 * trials**2)": "z**2 / (4 * 16**2)"}),
    Answer(3, "rows divided", "at most 1", {"matrix.sum().item()": "matrix.shape[0]"}),
    Answer(3, "not divided", "that is how many", {" / matrix.sum().item()": ""}),
    Answer(3, "share of mistakes", "the share of the mistakes", {"matrix.trace().item()": "mistakes.sum().item()"}),
    Answer(3, "diagonal kept", "which is no mistake", {".fill_diagonal_(0)": ""}),
    Answer(3, "not cloned", "the matrix was changed", {"matrix.clone()": "matrix"}),
    Answer(3, "row and column exchanged", "are exchanged", {"row, column = divmod": "column, row = divmod"}),
    Answer(3, "two things", "three things", {", row, column\n": ", (row, column)\n"}),
    Answer(
        3,
        "place in the row",
        "not row 3",
        {"row, column = divmod(int(mistakes.argmax()), matrix.shape[1])": "row, column = int(mistakes.argmax()), 0"},
    ),
    Answer(
        4,
        "only at the end",
        "look after every answer",
        "def would_stop(answers):\n    return binomial_p_value(sum(answers), len(answers)) <= 0.05",
    ),
    Answer(4, "all right answers each time", "*so far* count", {"sum(answers[:n])": "sum(answers)"}),
    Answer(4, "last answer left out", "Is the last answer counted", {"len(answers) + 1": "len(answers)"}),
    Answer(4, "limit of a tenth", "p = 0.0625", {"0.05": "0.1"}),
    Answer(4, "turned round", "4 of 4 right", {"<= 0.05": "> 0.05"}),
    Answer(4, "a p-value", "is True or False", {"any(": "min(", " <= 0.05": ""}),
    Answer(4, "all right or nothing", "may be made up for", {"any(": "any(all(answers[:n]) and "}),
    Answer(
        4,
        "returned at once",
        "a return",
        """
def would_stop(answers):
    for n in range(1, len(answers) + 1):
        if binomial_p_value(sum(answers[:n]), n) <= 0.05:
            return True
""",
    ),
]
