"""Walks through the slides of `make slides` in Chromium: nothing is fetched from elsewhere, no formula is left as TeX,
and the console stays empty. It is a part of `make browser-test`. Screenshots of some are in results/browser/slides.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import site_pages as site
from playwright.sync_api import Browser

ROOT = Path(__file__).resolve().parents[2]
SLIDES, OUT = ROOT / "results/slides", ROOT / "results/browser/slides"


def visit(browser: Browser, check: Callable[..., None]) -> None:
    """Walk through each lecture; one line for each."""
    OUT.mkdir(parents=True, exist_ok=True)
    for file in sorted(SLIDES.glob("*.slides.html")):
        page, said, walked = browser.new_page(viewport={"width": 1280, "height": 800}), [], 0
        page.on("console", lambda message, said=said: said.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error, said=said: said.append(str(error)))
        page.on("request", lambda asked, said=said: said.append(asked.url) if site.elsewhere(asked.url) else None)
        page.goto(file.as_uri(), wait_until="load")
        page.evaluate("async () => { await MathJax.startup.promise }")
        page.wait_for_function("() => document.querySelector('section.present') !== null")
        while walked < 200:
            if walked % 8 == 0:
                page.wait_for_timeout(1000)  # the transition
                page.screenshot(path=OUT / f"{file.name.partition('.')[0]}-{walked:02d}.png")
            before = page.url
            page.keyboard.press("Space")
            page.wait_for_timeout(50)
            if page.url == before:
                break
            walked += 1
        formulas = page.locator("mjx-container").count()
        wrong = [*said, *page.evaluate(site.RAW)]
        fine = not wrong and walked >= 10 and formulas > 0
        check(f"{file.name}: {walked + 1} slides, {formulas} formulas", fine, "; ".join(wrong[:6]) or "too few")
        page.close()


def main() -> int:
    from run import Checks, chromium

    check = Checks()
    with chromium() as browser:
        visit(browser, check)
    return int(check.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
