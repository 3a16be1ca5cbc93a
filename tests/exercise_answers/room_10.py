"""Room 10: the p-value, counted calls, a part cut with a control."""

from exercise_answers import Answer

WRONG = [
    Answer(1, "real world left out", "never 0", {"(as_good + 1) / (len(worlds) + 1)": "as_good / len(worlds)"}),
    Answer(1, "counted below alone", "above the line", {"(as_good + 1)": "as_good"}),
    Answer(1, "counted above alone", "not below it", {"(len(worlds) + 1)": "len(worlds)"}),
    Answer(1, "larger is better", "smaller is better here", {"<=": ">="}),
    Answer(1, "strictly smaller", "exactly as good", {"world <= real": "world < real"}),
    Answer(1, "a count", "a share was asked for", {" / (len(worlds) + 1)": ""}),
    Answer(2, "hook left", "its hook is still there", {"hook.remove()": "pass"}),
    Answer(2, "action not called", "never called", {"        action()": "        action"}),
    Answer(2, "called twice", "more than once", {"        action()": "        action(), action()"}),
    Answer(2, "a list", "is its length", {"len(runs)": "runs"}),
    Answer(
        2,
        "hook too late",
        "before the action",
        {"runs = []": "runs = []\n    action()", "        action()": "        pass"},
    ),
    Answer(2, "output replaced", "replaces the output", {"runs.append(1)": "runs.append(1) or len(runs)"}),
    Answer(
        2,
        "every module's hook",
        "belongs on `module`",
        {"module.register_forward_hook": "nn.modules.module.register_module_forward_hook"},
    ),
    Answer(
        2,
        "counter kept",
        "counting anew",
        {"def count_runs(module, action):\n    runs = []": "runs = []\ndef count_runs(module, action):"},
    ),
    Answer(2, "count forgotten", "nothing comes back", {"\n    return len(runs)": ""}),
    Answer(3, "no control", "Run twice with", {"    if not torch.equal(whole, again):\n        return None\n": ""}),
    Answer(3, "hook left", "a hook is still there", {"hook.remove()": "pass"}),
    Answer(
        3,
        "nothing cut",
        "return zeros in place",
        {"lambda module, inputs, output: torch.zeros_like(output)": "lambda *_: None"},
    ),
    Answer(
        3,
        "number by number",
        "`torch.equal` compares the whole",
        {"not torch.equal(model(states), whole)": "model(states) != whole"},
    ),
    Answer(3, "turned round", "has a say", {"return not torch.equal": "return torch.equal"}),
    Answer(3, "the model cut", "on `part` alone", {"part.register": "model.register"}),
    Answer(
        3,
        "weights set to zero",
        "leave its weights alone",
        """
def has_a_say(model, part, states):
    whole, again = model(states), model(states)
    if not torch.equal(whole, again):
        return None
    with torch.no_grad():
        for weight in part.parameters():
            weight.zero_()
    return not torch.equal(model(states), whole)
""",
    ),
    Answer(3, "no return", "a return for each way out", {"return not torch": "not torch"}),
    Answer(
        3,
        "hook before the control",
        "leave no hook behind",
        """
def has_a_say(model, part, states):
    whole, again = model(states), model(states)
    hook = part.register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
    if not torch.equal(whole, again):
        return None
    cut = model(states)
    hook.remove()
    return not torch.equal(cut, whole)
""",
    ),
]
