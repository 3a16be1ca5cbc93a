"""Open notebooks in JupyterLab in headless Chromium, as a student would: `make browser-test`.

Runs all cells, finds no error, uses every control of every widget by keyboard and sees the view answer, finds nothing
cut off and no serious violation of accessibility in a wide and a narrow window, and nothing loaded from elsewhere. It
leaves pictures in screenshots/ to be looked at. The exit code is 1 if a notebook fails.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from keys import use
from lab import START_SECONDS, serve
from looks import WIDTHS, assert_looks
from playwright.sync_api import Browser, Error, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "screenshots"
BROWSERS = "chromium", "chromium-browser", "google-chrome"
RUN_SECONDS = 600  # ten times what a notebook may take alone
WINDOW = {"width": WIDTHS[0], "height": 2400}

ERRORS = (
    '[data-mime-type="application/vnd.jupyter.error"], [data-mime-type="application/vnd.jupyter.stderr"], '
    ".jupyter-widgets-error-widget, .jp-Dialog"
)
WIDGETS = ".jp-OutputArea-output:has(.jupyter-widgets)"
FINISHED = f"""() => document.querySelector({ERRORS!r}) ||
    [...document.querySelectorAll('.jp-CodeCell .jp-InputArea-prompt')].every(x => /\\[\\d+\\]/.test(x.textContent))"""


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
    assert_looks(page)
    assert not foreign, f"the page asked for {foreign[0]}"
    return f"{len(cells)} cells, {expected} widgets" + (f": {', '.join(moved)}" if moved else "")


def is_local(url: str, address: str) -> bool:
    """Whether `url` is served by JupyterLab or lies in the page itself."""
    return url.startswith((address, address.replace("http", "ws", 1), "data:", "blob:"))


def assert_no_error(page: Page) -> None:
    """No error, warning, broken widget or dialog is in the page."""
    found = page.locator(ERRORS)
    assert not found.count(), found.first.inner_text()


def photograph(page: Page, name: str) -> None:
    """Pictures of the whole notebook, a window at a time, and of every widget after its use, in both widths."""
    for old in SCREENSHOTS.glob(f"{name}_*.png"):
        old.unlink()
    for width in reversed(WIDTHS):
        page.set_viewport_size(WINDOW | {"width": width})
        for number, widget in enumerate(page.locator(WIDGETS).all(), start=1):
            widget.screenshot(path=SCREENSHOTS / f"{name}_widget_{number}_{width}.png")
    notebook = page.locator(".jp-WindowedPanel-outer").first
    height, visible = notebook.evaluate("panel => [panel.scrollHeight, panel.clientHeight]")
    for number, top in enumerate(range(0, height, visible), start=1):
        notebook.evaluate("(panel, top) => panel.scrollTo(0, top)", top)
        page.screenshot(path=SCREENSHOTS / f"{name}_page_{number:02}.png")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
