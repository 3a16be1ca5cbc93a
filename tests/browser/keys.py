"""Use widgets as someone without a mouse does: Tab from control to control, and the keys that each of them takes."""

from __future__ import annotations

from playwright.sync_api import ElementHandle, Error, Locator, Page

ANSWER_SECONDS = 120  # ten times what a control may need alone
MOST_TABS = 120
FOCUSABLE = "input:not([disabled]), button:not([disabled]), select, [role=slider]"
TEXT = "sad flute melody"
# What is pressed, and what brings the control back, so that each is tried from where the view begins.
KEYS = {
    "slider": (["ArrowUp"], ["ArrowDown"]),
    "slider at its end": (["ArrowDown"], ["ArrowUp"]),
    "choice": (["ArrowDown"], ["ArrowUp"]),
    "list": (["ArrowDown"], ["ArrowUp"]),
    "box": (["Space"], ["Space"]),
    "text": (["ControlOrMeta+a", *TEXT.replace(" ", "_"), "Enter"], []),
    "button": (["Enter"], []),
}
KIND = """element => {
    const kinds = {range: "slider", radio: "choice", checkbox: "box", text: "text", number: "slider"};
    const kind = element.getAttribute("role") === "slider" ? "slider" : element.tagName === "BUTTON" ? "button" :
        element.tagName === "SELECT" ? "list" : kinds[element.type];
    const end = element.max ?? element.getAttribute("aria-valuemax");
    const now = element.getAttribute("aria-valuenow") ?? element.value;
    return kind === "slider" && Number(now) >= Number(end) ? "slider at its end" : kind ?? "";
}"""
NAME = """element => element.labels?.[0]?.textContent.trim() || element.textContent.trim() || element.title
    || element.getAttribute("aria-label") || element.type"""
SHOWN = """widget => [...widget.querySelectorAll('.widget-html-content, .musicgen-shown')]
    .map(part => part.innerHTML).join()"""
CHANGED = f"([widget, before]) => ({SHOWN})(widget) !== before"
# Radio buttons of one name are one group to the browser, and take each other's value.
GROUP_NAMES = "groups => groups.map(group => [...new Set([...group.querySelectorAll('input')].map(x => x.name))])"
ACTIVE_CELL = "() => [...document.querySelectorAll('.jp-Cell')].findIndex(cell => cell.matches('.jp-mod-active'))"


def use(page: Page, widget: Locator) -> list[str]:
    """Reach every control of a widget by Tab, press its keys and see the view answer; the kinds that were met.

    Raises AssertionError where a key goes to JupyterLab instead, a button loses the keyboard, or nothing answers.
    """
    assert widget.locator(FOCUSABLE).count(), "a widget without a control"
    widget.locator(FOCUSABLE).first.focus()
    kinds, met = [], []
    for _ in range(MOST_TABS):
        control = page.evaluate_handle("document.activeElement").as_element()
        if not widget.evaluate("(widget, control) => widget.contains(control)", control):
            break
        kind = control.evaluate(KIND)
        if kind and not any(control.evaluate("(control, other) => control === other", other) for other in met):
            move(page, widget, control, kind)
            met.append(control)
            kinds.append(kind.removesuffix(" at its end"))
        page.keyboard.press("Tab")
    assert kinds, "Tab reaches no control of a widget"
    groups = widget.locator("[role=radiogroup]").evaluate_all(GROUP_NAMES)
    assert len({name for names in groups for name in names}) == len(groups), "two choices share their buttons"
    return list(dict.fromkeys(kinds))


def move(page: Page, widget: Locator, control: ElementHandle, kind: str) -> None:
    """Press the keys of one control, there and back; each time the view must answer and the cell stay the same."""
    name, cell = f"the {kind} “{control.evaluate(NAME)}”", page.evaluate(ACTIVE_CELL)
    for keys in filter(None, KEYS[kind]):
        before = widget.evaluate(SHOWN)
        for key in keys:
            page.keyboard.press("Space" if key == "_" else key)
        assert page.evaluate(ACTIVE_CELL) == cell, f"{keys[-1]} at {name} goes to another cell"
        try:
            page.wait_for_function(CHANGED, arg=[widget.element_handle(), before], timeout=ANSWER_SECONDS * 1000)
        except Error:
            raise AssertionError(f"{name} changes nothing that is shown") from None
        page.get_by_text("| Idle").wait_for(timeout=ANSWER_SECONDS * 1000)
        if kind != "choice":  # whose keyboard focus moves to what was chosen
            focused = page.evaluate("control => document.activeElement === control", control)
            assert focused, f"{name} loses the keyboard once it is used"
