"""Opens every page of the built site in Chromium, as wide as a phone and as a desk: nothing sticks out, no formula is
left as TeX, the console stays empty, nothing is fetched from elsewhere, and the search finds.

    python tests/browser/site_pages.py [PART OF A NAME]

It is a part of `make browser-test`. Screenshots are kept in results/browser/site.
"""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page
from playwright.sync_api import Error as PlaywrightError

ROOT = Path(__file__).resolve().parents[2]
HTML, OUT = ROOT / "results/site/html", ROOT / "results/browser/site"
WIDTHS = (390, 1280)
NOISE = ("favicon",)

# Text outside of code that MathJax should have made a formula: a command with a brace, a delimiter, or two dollars.
RAW = r"""() => {
  for (const shut of document.querySelectorAll('details')) shut.open = true;
  const root = document.querySelector('article, main') || document.body;
  const walk = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  const found = [...document.querySelectorAll('mjx-merror, [data-mjx-error]')].map(e => 'MathJax: ' + e.textContent);
  while (walk.nextNode()) {
    const node = walk.currentNode;
    if (node.parentElement.closest('pre, code, script, style, mjx-container')) continue;
    const raw = node.textContent.match(/.{0,20}(\\[a-zA-Z]+[{_^\s\\]|\\[\[\]()]|\$\$|\$[^$]*\\[^$]*\$).{0,30}/);
    if (raw) found.push(raw[0]);
  }
  return found;
}"""
# Elements that reach beyond the window, unless something around them scrolls or cuts.
WIDER = """() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width && document.body.scrollWidth <= width) return [];
  const held = e => e && e !== document.body && (getComputedStyle(e).overflowX !== 'visible' || held(e.parentElement));
  return ['page ' + document.documentElement.scrollWidth, ...[...document.querySelectorAll('body *')]
    .filter(e => e.getBoundingClientRect().right > width + 1 && !held(e.parentElement))
    .map(e => `${e.tagName}.${e.className}`)].slice(0, 6);
}"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def served() -> Iterator[str]:
    """The site's address, on a free port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=HTML)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def opened(page: Page, address: str) -> None:
    """Open a page and wait until its formulas are set."""
    answer = page.goto(address, wait_until="load")
    if answer.status != 200:
        raise PlaywrightError(f"status {answer.status}")
    page.evaluate("async () => { if (window.MathJax?.startup) await MathJax.startup.promise }")


def look(page: Page, name: str, said: list[str]) -> list[str]:
    """What is wrong with the open page."""
    wrong = [f"console: {text}" for text in said if not any(noise in text for noise in NOISE)]
    wrong += [f"raw TeX: {text}" for text in page.evaluate(RAW)]  # opens what is folded
    wrong += [f"sticks out: {what}" for what in page.evaluate(WIDER)]
    if not name.startswith("_modules"):
        page.screenshot(path=OUT / f"{name.replace('/', '-')}-{page.viewport_size['width']}.png")
    return wrong


def visit(browser: Browser, check: Callable[..., None], only: str = "") -> None:
    """Check all pages at all widths, or those with `only` in their names; one line for each width and fault."""
    OUT.mkdir(parents=True, exist_ok=True)
    names = [path.relative_to(HTML).with_suffix("").as_posix() for path in sorted(HTML.rglob("*.html"))]
    names = [name for name in names if only in name and not name.startswith("_static")]
    with served() as address:
        for width in WIDTHS:
            page = browser.new_page(viewport={"width": width, "height": 900})
            said: list[str] = []
            page.on(
                "console",
                lambda message, said=said: (
                    said.append(f"{message.text} {message.location.get('url', '')}")
                    if message.type == "error"
                    else None
                ),
            )
            page.on("pageerror", lambda error, said=said: said.append(str(error)))
            page.on(
                "request", lambda asked, said=said: said.append(f"asks for {asked.url}") if elsewhere(asked.url) else 0
            )
            faults = 0
            for name in names:
                said.clear()
                try:
                    opened(page, f"{address}/{name}.html")
                    wrong = look(page, name, said)
                except PlaywrightError as reason:
                    wrong = [f"opens: {str(reason).splitlines()[0]}"]
                faults += len(wrong)
                if wrong:
                    check(f"site, {width} wide: {name}", False, "; ".join(wrong[:6]))
            check(f"site, {width} wide: {len(names)} pages without a fault", not faults, f"{faults} faults")
            page.goto(f"{address}/search.html?q=exploitability")
            with contextlib.suppress(PlaywrightError):
                hits = "document.querySelectorAll('#search-results li').length > 5"
                page.wait_for_function(hits, timeout=20_000)  # they come one after the other
            found = page.locator("#search-results li").count()
            check(f"site, {width} wide: the search for exploitability finds {found}", found > 5, "too few")
            page.close()


def elsewhere(url: str) -> bool:
    parts = urlsplit(url)  # Chromium's own pages, for a PDF, are none
    return parts.scheme in ("http", "https", "ws", "wss") and parts.hostname != "127.0.0.1"


def main() -> int:
    from run import Checks, chromium

    check = Checks()
    with chromium() as browser:
        visit(browser, check, only="".join(sys.argv[1:2]))
    return int(check.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
