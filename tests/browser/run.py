"""Opens every notebook in a real JupyterLab, in Chromium, runs some of them, and moves every dial of their panels;
then every page of the site (site_pages.py) and the slides (slide_pages.py).

    make browser-test

Needs Debian's or Ubuntu's `chromium`. A server with its token starts on a free port, on a copy of the notebooks in
results/browser, where screenshots are kept too. One line a check; status 1 if any failed.
"""

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import site_pages as site
import slide_pages as slides
from playwright.sync_api import Browser, Page, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "results/browser"
RUN_WHOLE = ("00_mean_field_games", "01_lq_closed_form", "03_error_propagation")
MINUTES = 5  # for one notebook to run

# What JupyterLab itself writes to the console, without any notebook being at fault.
NOISE = (
    "favicon",  # asked for by the browser
    "ResizeObserver",  # of the layout
)
EDITOR = {"windowingMode": "none"}  # every cell on the page, also those that are not in view


@contextlib.contextmanager
def jupyterlab() -> Iterator[str]:
    """A server on a copy of the notebooks; yields its address with "{}" for a notebook."""
    shutil.rmtree(OUT, ignore_errors=True)
    shutil.copytree(ROOT / "notebooks", OUT / "notebooks")
    settings = OUT / "settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps(EDITOR), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", f"--ServerApp.port={port}"]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={OUT / 'notebooks'}"]
    command += ["--LabApp.expose_app_in_browser=True", f"--LabApp.user_settings_dir={OUT / 'settings'}"]
    environment = os.environ | {"MFGLIB_PRESET": "smoke", "OMP_NUM_THREADS": "1"}
    with open(OUT / "server.log", "w", encoding="utf-8") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            for _ in range(120):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/lab/tree/{{}}?token={token}&reset"
        finally:
            server.terminate()  # ends its kernels too
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, 9)


class Checks:
    """Lines of what was checked, and how many failed."""

    def __init__(self) -> None:
        self.failed = 0

    def __call__(self, what: str, right: bool, otherwise: object = "") -> None:
        self.failed += not right
        print(f"{'ok    ' if right else 'FAILED'} {what}{'' if right else f': {otherwise}'}", flush=True)


def opened(page: Page, address: str, name: str, said: list[str]) -> None:
    """Open a notebook and wait until its cells and its kernel are there."""
    said.clear()
    page.goto(address.format(f"{name}.ipynb"), wait_until="domcontentloaded")
    page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=90_000)
    if name != "index":
        page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status='idle']", timeout=90_000)
    page.wait_for_timeout(1500)  # mathematics and pictures


def faults(said: list[str]) -> list[str]:
    return [text for text in said if not any(noise in text for noise in NOISE)]


def run_whole(page: Page) -> int:
    """Run all cells; returns how many have an error."""
    running = "[...document.querySelectorAll('.jp-InputPrompt')].some(p => p.textContent.includes('*'))"
    for _ in range(3):  # a kernel that has just started may not hear it
        page.evaluate("void window.jupyterapp.commands.execute('notebook:run-all-cells')")  # its promise may never end
        with contextlib.suppress(PlaywrightTimeout):
            page.wait_for_function(running, timeout=20_000)
            break
    idle = "!document.querySelector(\".jp-Notebook-ExecutionIndicator:not([data-status='idle'])\")"
    page.wait_for_function(f"{idle} && !{running}", timeout=MINUTES * 60_000)
    return page.evaluate(
        """() => window.jupyterapp.shell.currentWidget.content.widgets.filter(cell => cell.model.type === 'code' &&
        [...Array(cell.model.outputs.length).keys()].some(i => cell.model.outputs.get(i).type === 'error')).length"""
    )


def move_panels(page: Page, name: str, check: Checks) -> None:
    """Every dial of every panel, by mouse and by keyboard: the picture and the number beside the dial change."""
    panels = page.locator(".jp-OutputArea-output:has(img.widget-image)")
    check(f"{name}: has a panel", panels.count() > 0, "no panel on the page")
    for i in range(panels.count()):
        panel = panels.nth(i)
        panel.scroll_into_view_if_needed()
        panel.screenshot(path=OUT / f"{name}-panel-{i}-before.png")
        sliders = panel.locator(".widget-slider")
        for j in range(sliders.count()):
            dial = sliders.nth(j)
            label = dial.locator(".widget-label").inner_text()
            track, handle = dial.locator(".noUi-base"), dial.locator(".noUi-handle")
            box, at = track.bounding_box(), handle.bounding_box()
            share = 0.3 if at["x"] + at["width"] / 2 > box["x"] + box["width"] / 2 else 0.7  # not where it is

            def click(track=track, box=box, share=share) -> None:
                track.click(position={"x": share * box["width"], "y": box["height"] / 2}, force=True)

            def press(handle=handle) -> None:
                handle.focus()
                page.keyboard.press("ArrowLeft")

            for how, move in (("mouse", click), ("keyboard", press)):
                before = shown(panel), dial.locator(".widget-readout").inner_text()
                after = changed(page, panel, move, before[0])
                number = dial.locator(".widget-readout").inner_text()
                check(f"{name}: panel {i}, {label}, {how}: the picture changes", after != before[0], "it does not")
                check(f"{name}: panel {i}, {label}, {how}: the number changes", number != before[1], f"still {number}")
        for box in panel.locator("input[type=checkbox]").all():
            before = shown(panel)
            check(f"{name}: panel {i}, check box", changed(page, panel, box.click, before) != before, "it does not")
        for menu in panel.locator("select").all():
            before = shown(panel)
            after = changed(page, panel, lambda menu=menu: menu.select_option(index=1), before)
            check(f"{name}: panel {i}, menu", after != before, "it does not")
        panel.screenshot(path=OUT / f"{name}-panel-{i}-after.png")


def shown(panel: object) -> str:
    return panel.locator("img.widget-image").get_attribute("src")


def changed(page: Page, panel: object, move: Callable[[], None], before: str) -> str:
    """The picture once it is another than `before`, at most five seconds after a move."""
    move()
    for _ in range(50):
        page.wait_for_timeout(100)
        if shown(panel) != before:
            break
    page.wait_for_timeout(300)  # a later picture of the same move
    return shown(panel)


def visit(page: Page, address: str, name: str, said: list[str], check: Checks) -> None:
    """Open a notebook, and if it is one of those run it and move its panels."""
    begin = time.perf_counter()
    opened(page, address, name, said)
    page.screenshot(path=OUT / f"{name}.png")
    check(f"{name}: opens without an error ({time.perf_counter() - begin:.0f} s)", not faults(said), faults(said))
    if name not in RUN_WHOLE:
        return
    begin = time.perf_counter()
    errors = run_whole(page)
    seconds = time.perf_counter() - begin
    check(f"{name}: runs whole at the smoke preset ({seconds:.0f} s)", errors == 0, f"{errors} cells failed")
    move_panels(page, name, check)
    check(f"{name}: no error in the console", not faults(said), faults(said))


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium, without a window; SystemExit if there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((path for name in names if (path := shutil.which(name))), None)
    if path is None:
        raise SystemExit("error: expected Chromium; on Debian and Ubuntu: sudo apt-get install chromium")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def main() -> int:
    check, said = Checks(), []
    with chromium() as browser, jupyterlab() as address:
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        for name in sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")):
            try:
                visit(page, address, name, said, check)
            except PlaywrightTimeout as reason:  # the others may answer
                check(f"{name}: answers in time", False, str(reason).splitlines()[0])
        page.close()
        site.visit(browser, check)
        slides.visit(browser, check)
    print(f"{check.failed} failed; screenshots in {OUT.relative_to(ROOT)}")
    return int(check.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
