"""What must be true of the looks of every output, at every width: nothing is cut off, nothing shuts anyone out."""

from __future__ import annotations

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

WIDTHS = 1300, 800
OUTPUTS = ".jp-OutputArea-output"
WORST = {"serious", "critical"}  # what axe calls that which keeps someone out
# Parts that stick out to the right of what holds them, or hide their own ends. What may scroll says so by its role.
CUT_OFF = """() => [...document.querySelectorAll(".jp-OutputArea-output")].flatMap(output => {
    const edge = output.getBoundingClientRect().right + 1, found = [];
    const parts = output.querySelectorAll("img, audio, .jupyter-widgets, .jupyter-widgets *, .musicgen-edu *");
    for (const part of parts) {
        if (part.closest("[role=region], details:not([open]) > :not(summary), .sr-only")) continue;
        const style = getComputedStyle(part), box = part.getBoundingClientRect();
        if (!box.width || style.visibility === "hidden") continue;
        const hidden = style.overflowX !== "visible" && part.scrollWidth > part.clientWidth + 1;
        const name = `${part.tagName.toLowerCase()}.${part.className} “${(part.alt ?? part.textContent).slice(0, 40)}”`;
        if (box.right > edge) found.push(`${name} sticks out by ${Math.round(box.right - edge)} pixels`);
        else if (hidden && part.tagName !== "INPUT") found.push(`${name} hides its end`);
    }
    for (const value of output.querySelectorAll(".musicgen-slider > output")) {
        const slider = value.previousElementSibling.getBoundingClientRect();
        if (value.getBoundingClientRect().top > slider.bottom) found.push(`“${value.textContent}” leaves its slider`);
    }
    return found;
})"""


def assert_looks(page: Page) -> None:
    """Raise AssertionError where an output is cut off at one of the widths, or axe finds a serious violation."""
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": page.viewport_size["height"]})
        page.wait_for_timeout(500)  # JupyterLab lays out anew
        cut_off = page.evaluate(CUT_OFF)
        assert not cut_off, f"at a width of {width}: {'; '.join(cut_off[:5])}"
        violations = Axe().run(page, context=OUTPUTS).response["violations"] if page.locator(OUTPUTS).count() else []
        worst = [
            f"{violation['id']} × {len(violation['nodes'])} ({violation['nodes'][0]['html'][:120]})"
            for violation in violations
            if violation["impact"] in WORST
        ]
        assert not worst, f"axe at a width of {width}: {'; '.join(worst)}"
