"""Open notebooks in JupyterLab in headless Chromium, as a student would: `make browser-test`.

Runs all cells, finds no error, moves the controls of every widget and sees its output change, finds that nothing was
loaded from elsewhere, and leaves pictures in screenshots/ to be looked at. The exit code is 1 if a notebook fails.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from lab import START_SECONDS, serve
from playwright.sync_api import Browser, Error, Locator, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "screenshots"
BROWSERS = "chromium", "chromium-browser", "google-chrome"
RUN_SECONDS, WIDGET_SECONDS = 600, 120  # ten times what a notebook may take alone
WINDOW = {"width": 1300, "height": 2400}

ERRORS = (
    '[data-mime-type="application/vnd.jupyter.error"], [data-mime-type="application/vnd.jupyter.stderr"], '
    ".jupyter-widgets-error-widget, .jp-Dialog"
)
WIDGETS = ".jp-OutputArea-output:has(.jupyter-widgets)"
FINISHED = f"""() => document.querySelector({ERRORS!r}) ||
    [...document.querySelectorAll('.jp-CodeCell .jp-InputArea-prompt')].every(x => /\\[\\d+\\]/.test(x.textContent))"""
SHOWN = "widget => [...widget.querySelectorAll('.widget-html-content')].map(part => part.innerHTML).join()"
CHANGED = f"([widget, before]) => ({SHOWN})(widget) !== before"


def main(names: list[str]) -> int:
    """Go through the notebooks at the given paths; 1 if one of them fails."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit("Chromium is missing. On Debian or Ubuntu: sudo apt install chromium")
    SCREENSHOTS.mkdir(exist_ok=True)
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=browser) as chromium:
        passed = [visit(chromium, Path(name)) for name in names]
    print(f"Pictures to look at: {SCREENSHOTS.relative_to(ROOT)}/")
    return int(not all(passed))


def visit(browser: Browser, path: Path) -> bool:
    """Check one notebook, with a server of its own so that no kernel is left over, and print what was found."""
    started = time.perf_counter()
    page = browser.new_page(viewport=WINDOW)
    with tempfile.TemporaryDirectory() as folder, serve(path, Path(folder)) as (address, token):
        try:
            passed, result = True, check(page, path, address, token)
        except (AssertionError, Error) as error:
            passed, result = False, f"FAILED: {error}"
        photograph(page, path.stem)
    page.close()
    print(f"{path.stem:<32}{time.perf_counter() - started:>4.0f} s   {result}", flush=True)
    return passed


def check(page: Page, path: Path, address: str, token: str) -> str:
    """Run one notebook and use its widgets; what was done, or an AssertionError."""
    foreign: list[str] = []
    page.on("request", lambda request: None if is_local(request.url, address) else foreign.append(request.url))
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    page.goto(f"{address}lab/tree/{path.name}?token={token}&reset")
    page.locator(".jp-CodeCell").nth(len(cells) - 1).wait_for(timeout=START_SECONDS * 1000)
    page.get_by_text("| Idle").wait_for(timeout=START_SECONDS * 1000)  # cells run before the kernel is there are lost
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(FINISHED, timeout=RUN_SECONDS * 1000, polling=500)
    assert_no_error(page)
    widgets = page.locator(WIDGETS)
    expected = sum("application/vnd.jupyter.widget-view+json" in str(cell.outputs) for cell in cells)
    assert widgets.count() == expected, f"{widgets.count()} widgets in the page, {expected} in the file"
    moved = [name for widget in widgets.all() for name in use(page, widget)]
    assert_no_error(page)
    assert not foreign, f"the page asked for {foreign[0]}"
    return f"{len(cells)} cells, {expected} widgets" + (f": {', '.join(moved)}" if moved else "")


def is_local(url: str, address: str) -> bool:
    """Whether `url` is served by JupyterLab or lies in the page itself."""
    return url.startswith((address, address.replace("http", "ws", 1), "data:", "blob:"))


def assert_no_error(page: Page) -> None:
    """No error, warning, broken widget or dialog is in the page."""
    found = page.locator(ERRORS)
    assert not found.count(), found.first.inner_text()


def use(page: Page, widget: Locator) -> list[str]:
    """Move the first control of each kind, by keyboard where a student would, and see the output follow."""
    moves = {
        "slider": (".noUi-handle", lambda control: control.press("ArrowRight")),
        "choice": ("select", lambda control: control.select_option(index=1)),
        "box": ("input[type=checkbox]", lambda control: control.press("Space")),
        "text": ("input[type=text]", lambda control: (control.fill("sad flute melody"), control.press("Enter"))),
        "button": ("button", lambda control: control.click()),
    }
    moved = []
    for name, (selector, move) in moves.items():
        control = widget.locator(selector).first
        if not control.count():
            continue
        before = widget.evaluate(SHOWN)
        move(control)
        try:
            page.wait_for_function(CHANGED, arg=[widget.element_handle(), before], timeout=WIDGET_SECONDS * 1000)
        except Error:
            raise AssertionError(f"the {name} of a widget changes nothing") from None
        moved.append(name)
    assert moved, "a widget without a control"
    return moved


def photograph(page: Page, name: str) -> None:
    """Pictures of the whole notebook, a window at a time, and of every widget as it is after it was used."""
    for old in SCREENSHOTS.glob(f"{name}_*.png"):
        old.unlink()
    for number, widget in enumerate(page.locator(WIDGETS).all(), start=1):
        widget.screenshot(path=SCREENSHOTS / f"{name}_widget_{number}.png")
    notebook = page.locator(".jp-WindowedPanel-outer").first
    height, visible = notebook.evaluate("panel => [panel.scrollHeight, panel.clientHeight]")
    for number, top in enumerate(range(0, height, visible), start=1):
        notebook.evaluate("(panel, top) => panel.scrollTo(0, top)", top)
        page.screenshot(path=SCREENSHOTS / f"{name}_page_{number:02}.png")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
