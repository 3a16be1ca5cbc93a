"""Play music live in JupyterLab, in headless Chromium, and listen at the loudspeakers: `make live-test`.

Beside a running cell the words are changed and the sound goes on; what comes out is what was written, sample for
sample; Stop frees the thread. The exit code is 1 if that fails. Whether the sound runs dry depends on what else the
machine does: tests/benchmarks/live.py asks that.
"""

from __future__ import annotations

import base64
import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
from lab import START_SECONDS, serve
from playwright.sync_api import Error, Page, sync_playwright

SCREENSHOTS = Path(__file__).resolve().parents[2] / "screenshots"
BROWSERS = "chromium", "chromium-browser", "google-chrome"
WAIT_SECONDS = 120
GREETED_MILLISECONDS = 6000  # what live.js may take to be heard beside a cell
PLAY_SECONDS = 6.0  # before and after the change
POLL_MILLISECONDS = 100
# Everything that goes to the loudspeakers is also kept, from the context's first frame on, and so is what was given.
RECORD = """(() => {
    const worklet = `registerProcessor("recorder", class extends AudioWorkletProcessor {
        process([input]) {
            this.port.postMessage([currentFrame, input.length ? input[0].slice() : new Float32Array(128)]);
            return true;
        }
    })`;
    const address = URL.createObjectURL(new Blob([worklet], {type: "text/javascript"}));
    const record = context => context.audioWorklet.addModule(address).then(() => {
        context.recorder = new AudioWorkletNode(context, "recorder");
        context.recorder.port.onmessage = message => {
            window.heard.push(message.data);
            window.sounding += message.data[1].some(sample => sample);
        };
        context.recorder.connect(context.destination);
    });
    const Own = window.AudioContext;
    window.AudioContext = class extends Own {
        constructor(options) {
            super(options);
            Object.assign(window, {context: this, heard: [], given: [], sounding: 0});
            record(this);
        }
    };
    const connect = AudioNode.prototype.connect;
    AudioNode.prototype.connect = function (target, ...rest) {
        const {recorder, destination} = this.context;
        if (recorder && target === destination && this !== recorder) connect.call(this, recorder);
        return connect.call(this, target, ...rest);
    };
    const copy = AudioBuffer.prototype.copyToChannel;
    AudioBuffer.prototype.copyToChannel = function (samples, channel) {
        window.given.push(samples.slice());
        return copy.call(this, samples, channel);
    };
})()"""
AS_TEXT = """blocks => {
    const all = new Float32Array(blocks.reduce((sum, block) => sum + block.length, 0));
    blocks.reduce((start, block) => (all.set(block, start), start + block.length), 0);
    const bytes = new Uint8Array(all.buffer), parts = [];
    for (let start = 0; start < bytes.length; start += 8192)
        parts.push(String.fromCharCode(...bytes.subarray(start, start + 8192)));
    return btoa(parts.join(""));
}"""
VIEW = """import threading, time
import musicgen_edu.inspection.live as view
from musicgen_edu import create_musicgen_model, live

sessions, Session = [], view.LiveSession
view.LiveSession = lambda *words, **options: sessions.append(Session(*words, **options)) or sessions[-1]
view.play_live(create_musicgen_model("tiny").optimize("int8"), "happy piano melody")"""
BESIDE = """while not any(session.switches for session in sessions):  # only a message beside this cell ends it
    time.sleep(0.1)
print("changed beside a running cell")"""
FREED = """while any(thread.name == live.THREAD for thread in threading.enumerate()):
    time.sleep(0.1)
print("the thread has ended")"""


@contextlib.contextmanager
def open_notebook(*sources: str) -> Iterator[Page]:
    """A page of JupyterLab with these cells, the first of which shows the view; its sound is recorded."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit("Chromium is missing. On Debian or Ubuntu: sudo apt install chromium")
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}  # or JupyterLab asks for one
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "live.ipynb"
        nbformat.write(notebook, path)
        (Path(folder) / "served").mkdir()
        with serve(path, Path(folder) / "served") as (address, token):
            page = playwright.chromium.launch(executable_path=browser).new_page()
            page.add_init_script(RECORD)
            page.goto(f"{address}lab/tree/{path.name}?token={token}&reset")
            page.locator(".jp-CodeCell").nth(len(sources) - 1).wait_for(timeout=START_SECONDS * 1000)
            page.get_by_text("| Idle").wait_for(timeout=START_SECONDS * 1000)
            run(page, 0)
            page.get_by_role("button", name="Play").wait_for(timeout=WAIT_SECONDS * 1000)
            page.wait_for_timeout(GREETED_MILLISECONDS)
            page.get_by_text("| Idle").wait_for(timeout=WAIT_SECONDS * 1000)
            yield page
            page.context.browser.close()


def run(page: Page, cell: int) -> None:
    """Run a cell."""
    page.locator(".jp-CodeCell .cm-content").nth(cell).click()
    page.keyboard.press("Shift+Enter")


def wait_for_output(page: Page, text: str) -> None:
    """Wait until a cell has put out this text."""
    page.locator(".jp-OutputArea-output").get_by_text(text).wait_for(timeout=WAIT_SECONDS * 1000)


def say(page: Page, prompt: str) -> float:
    """Type other words and press Enter; return how many seconds the page's sound had run then."""
    box = page.get_by_label("prompt")
    box.fill(prompt)
    seconds = page.evaluate("context.currentTime")
    box.press("Enter")
    return seconds


def wait_until_heard(page: Page, seconds: float) -> None:
    """Wait until so many seconds of music have been played since the first was."""
    # Asked seldom, of a number that is counted as it comes: a page that is kept busy by questions falls silent.
    heard = "seconds => sounding * 128 / context.sampleRate >= seconds"
    page.wait_for_function(heard, arg=seconds, polling=POLL_MILLISECONDS, timeout=1000 * (WAIT_SECONDS + seconds))


def listen(page: Page) -> tuple[np.ndarray, int, list[np.ndarray], int]:
    """Everything that was heard, the frame at which that begins, the chunks that were given, and the rate."""
    rate, first = page.evaluate("[context.sampleRate, heard[0][0]]")
    ends = np.cumsum(page.evaluate("given.map(chunk => chunk.length)"))
    given, heard = (
        np.frombuffer(base64.b64decode(page.evaluate(f"({AS_TEXT})({blocks})")), dtype=np.float32)
        for blocks in ("given", "heard.map(([_, block]) => block)")
    )
    return heard, first, np.split(given[: ends[-1]], ends[:-1]), rate


def find_gaps(heard: np.ndarray, given: list[np.ndarray]) -> list[int]:
    """The samples at which the sound ran dry. Raises AssertionError where something else is heard than was given."""
    at, gaps = int(np.flatnonzero(heard)[0]) - int(np.flatnonzero(given[0])[0]), []
    for number, chunk in enumerate(given):
        if not is_heard(heard[at:], chunk):
            gaps.append(at)
            if not heard[at:].any():  # it is to begin again
                break
            at += int((heard[at:] != 0).argmax()) - int((chunk != 0).argmax())
            assert is_heard(heard[at:], chunk), f"chunk {number} of {len(given)} is not heard as it was given"
        at += len(chunk)
    return gaps


def is_heard(heard: np.ndarray, chunk: np.ndarray) -> bool:
    """Whether what is heard begins with the chunk, as far as it has been played.

    The browser's mixer rounds: a few samples in a minute differ in their last bits (by 4e-12, as measured once).
    """
    length = min(len(heard), len(chunk))
    return bool((np.abs(heard[:length] - chunk[:length]) < 1e-7).all())


def check() -> str:
    """Play, change the words beside a running cell, stop; what was found."""
    with open_notebook(VIEW, BESIDE, FREED) as page:
        run(page, 1)
        page.get_by_role("button", name="Play").click()
        wait_until_heard(page, PLAY_SECONDS)
        say(page, "sad flute melody")
        wait_for_output(page, "changed beside a running cell")
        wait_until_heard(page, 2 * PLAY_SECONDS)
        heard, _, given, rate = listen(page)
        SCREENSHOTS.mkdir(exist_ok=True)
        page.locator(".jp-OutputArea-output").first.screenshot(path=SCREENSHOTS / "live.png")
        run(page, 2)
        page.get_by_role("button", name="Stop").click()
        wait_for_output(page, "the thread has ended")
        gaps = [round(gap / rate, 1) for gap in find_gaps(heard, given)]
        seconds = sum(map(len, given)) / rate
        return f"{seconds:.1f} s written, and heard sample for sample; ran dry {len(gaps)} times {gaps or ''}"


def main() -> int:
    """Print what was found; 1 if it is not as it should be."""
    try:
        print(f"live: {check()}", flush=True)
    except (AssertionError, Error) as error:
        print(f"live: FAILED: {error}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
