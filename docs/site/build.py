"""Build the site in results/site/html from notebooks, documents, report and docstrings (`make site`).

Nothing is executed: outputs are the stored ones. The site needs no net: MathJax comes from npm once and is kept in
results/site/static, and no page asks for anything from elsewhere. A warning of Sphinx is an error, and so is a link to
a file or an anchor of the site that does not exist.
"""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from deda_fp.vendored import MATHJAX, TEX, fetch

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "results/site"
SOURCE, STATIC, HTML = OUT / "source", OUT / "static", OUT / "html"
PACKAGES = ("mfglib", "deda_fp")
LINK = re.compile(r"\]\(([^)\s#]+)[^)]*\)")

REPORT = """# The report

{{download}}`The report (PDF) <{pdf}>`: the paper's claims beside what was measured.

<object data="report.pdf" type="application/pdf"><p>This browser shows no PDF: use the link above.</p></object>
"""


def pages() -> list[Path]:
    """What the site shows, from the project's root: documents, notebooks, and exercises without their solutions."""
    found = [ROOT / "CHANGELOG.md", *ROOT.glob("docs/*.md"), *ROOT.glob("docs/howto/*.md")]
    found += [*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("notebooks/exercises/*.ipynb")]
    return sorted(path.relative_to(ROOT) for path in found)


def linked(page: Path) -> set[Path]:
    """The files of the project, from its root, that a page links to or shows."""
    targets = LINK.findall((ROOT / page).read_text(encoding="utf-8"))
    files = [(ROOT / page.parent / unquote(target)).resolve() for target in targets if "://" not in target]
    return {file.relative_to(ROOT) for file in files if file.is_file() and file.is_relative_to(ROOT)}


def public(module: Path) -> bool:
    """Whether a module is for users: it, and all packages around it, have names without an underscore."""
    return not any(part.startswith("_") for part in module.with_suffix("").parts if part != "__init__")


def packages() -> list[Path]:
    """All packages, from the project's root; each has a page of the reference."""
    return sorted(init.parent.relative_to(ROOT) for top in PACKAGES for init in (ROOT / top).rglob("__init__.py"))


def reference(package: Path) -> str:
    """A page on the modules of a package, given from the project's root."""
    name = ".".join(package.parts)
    text = [f"# {name}", f"```{{eval-rst}}\n.. automodule:: {name}\n   :no-members:\n```"]
    for file in sorted((ROOT / package).glob("*.py")):
        module = f"{name}.{file.stem}"
        if public(file.relative_to(ROOT)) and file.stem != "__init__" and ast.parse(file.read_text("utf-8")).body:
            text.append(f"## {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n```")
    return "\n\n".join(text) + "\n"


def stage() -> None:
    """Put the sources of all pages, and what they link to, into one folder, laid out as the project is."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    shown = [Path("README.md"), *pages()]
    for file in {*shown, *(file for page in shown for file in linked(page)), Path("paper/report.pdf")}:
        (SOURCE / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, SOURCE / file)
    front = (SOURCE / "README.md").read_text(encoding="utf-8")
    (SOURCE / "report.md").write_text(REPORT.format(pdf="paper/report.pdf"), encoding="utf-8")
    (SOURCE / "reference").mkdir()
    for package in packages():
        (SOURCE / f"reference/{'.'.join(package.parts)}.md").write_text(reference(package), encoding="utf-8")
    lines = (ROOT / "docs/site/contents.md").read_text(encoding="utf-8").splitlines()
    there = [line for line in lines if "*" not in line or any(SOURCE.glob(f"{line}.*"))]  # what is not written yet
    (SOURCE / "index.md").write_text("\n".join([front, *there, ""]), encoding="utf-8")
    (SOURCE / "README.md").unlink()


def vendor() -> None:
    """Put MathJax and the style sheet where Sphinx looks for static files."""
    STATIC.mkdir(parents=True, exist_ok=True)
    shutil.copy2(ROOT / "docs/site/site.css", STATIC)
    fetch(MATHJAX, {TEX: STATIC / "mathjax/tex-svg-full.js"})


class Links(HTMLParser):
    """`links`: (tag, address) of all that a page links to or loads; `ids`: its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links, self.ids = [], set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids |= {values[key] for key in ("id", "name") if values.get(key)}
        self.links += [(tag, values[key]) for key in ("href", "src", "data") if values.get(key)]


def faults(folder: Path) -> Iterator[str]:
    """What is wrong with the links of a built site: to files or anchors that do not exist, or loaded from elsewhere."""
    parsed = {
        file: Links(file.read_text(encoding="utf-8"))
        for file in sorted(folder.rglob("*.html"))
        if file.parent.name != "_static"
    }
    for file, page in parsed.items():
        for tag, address in sorted(set(page.links)):
            url, where = urlsplit(address), f"{file.relative_to(folder)}: <{tag}> {address}"
            if url.scheme in ("data", "mailto"):
                continue
            if url.scheme or url.netloc:
                if tag != "a":
                    yield f"{where} is loaded from elsewhere"
                continue
            target = (file.parent / unquote(url.path)).resolve() if url.path else file
            if not target.is_file():
                yield f"{where} does not exist"
            elif url.fragment and target in parsed and unquote(url.fragment) not in parsed[target].ids:
                yield f"{where} has no such anchor"


def main() -> int:
    OUT.mkdir(parents=True, exist_ok=True)
    vendor()
    stage()
    shutil.rmtree(HTML, ignore_errors=True)
    command = [sys.executable, "-m", "sphinx", "-M", "html", SOURCE, OUT, "-c", ROOT / "docs/site", "-q", "-j", "auto"]
    if subprocess.run([*command, "-W", "--keep-going"], cwd=ROOT).returncode:
        return 1
    shutil.copy2(ROOT / "paper/report.pdf", HTML)
    dead = list(faults(HTML))
    print(
        "\n".join(dead) or f"{len(list(HTML.rglob('*.html')))} pages, no dead link: {HTML.relative_to(ROOT)}/index.html"
    )
    return int(bool(dead))


if __name__ == "__main__":
    sys.exit(main())
