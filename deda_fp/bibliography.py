"""The references of notebooks, from paper/references.bib: `python -m deda_fp.bibliography`.

A work is cited by authors and year, as in "Walker (1977)", "Fournier and Guillin (2015)" and "(Elie et al., 2020)", or
by its arXiv identifier. What a notebook cites is listed at its end, in a cell that this writes; `--check` changes
nothing and fails if one is stale. Needs no torch.
"""

import argparse
import re
import sys
import unicodedata
from pathlib import Path

import nbformat

from mfglib.files import replacing

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
HEADING = "## References"
ACCENTS = {"=": "\u0304", "`": "\u0300", "'": "\u0301", "^": "\u0302", "~": "\u0303", '"': "\u0308"}
# "Walker (1977)", "Fournier and Guillin, 2015", "Elie et al. (2020)": names, and the year
NAMES = r"[A-Z][\w’-]+(?:(?:, | and )[A-Z][\w’-]+)*"
CITATION = re.compile(rf"({NAMES})(?:,? et al\.| and others)?(?:,? \(|, )((?:19|20)\d\d)\b")
ARXIV = re.compile(r"(?:arxiv\.org/abs/|arXiv[: ]\s*)(\d{4}\.\d{4,5})")
Entry = dict[str, str]


def entries() -> dict[str, Entry]:
    """key -> the fields of its entry, as text without TeX; `names`, the authors' family names, beside them."""
    text, found = (ROOT / "paper/references.bib").read_text(encoding="utf-8"), {}
    for key, body in re.findall(r"^@\w+\{(\w+),\n(.*?)^\}", text, re.M | re.S):
        fields = re.findall(r"^\s*(\w+)\s*=\s*\{(.*)\},$", body, re.M)
        found[key] = {name: _plain(value) for name, value in fields}
        found[key]["names"] = ", ".join(name.partition(",")[0] for name in found[key]["author"].split(" and "))
    return found


def cited(text: str) -> tuple[list[str], list[str]]:
    """Keys of the works that a text cites, as the bibliography orders them, and the citations of none."""
    known, keys, unknown = entries(), set(), []
    for names, year in CITATION.findall(text):
        family = set(re.split(r", | and ", names))
        fits = [key for key, e in known.items() if e["year"] == year and family <= set(e["names"].split(", "))]
        keys.update(fits)
        unknown += [] if fits else [f"{names} ({year})"]
    for id in ARXIV.findall(text):
        fits = [key for key, e in known.items() if id in (e.get("url", "") + e.get("journal", ""))]
        keys.update(fits)
        unknown += [] if fits else [f"arXiv {id}"]
    return [key for key in known if key in keys], unknown


def reference(entry: Entry) -> str:
    """A work in a line of markdown."""
    authors = [" ".join(reversed(name.split(", "))) for name in entry["author"].split(" and ")]
    who = authors[0] if len(authors) == 1 else ", ".join(authors[:-1]) + " and " + authors[-1]
    where = f"*{entry.get('journal') or entry['booktitle']}*"
    if "volume" in entry:
        where += f" {entry['volume']}" + (f"({entry['number']})" if "number" in entry else "")
    where += f", {entry['pages']}" if "pages" in entry else ""
    link = f"https://doi.org/{entry['doi']}" if "doi" in entry else entry.get("url", "")
    return f"- {who}. {entry['title']}. {where}, {entry['year']}." + (f" <{link}>" if link else "")


def listed(notebook: nbformat.NotebookNode) -> str:
    """The cell of references that a notebook should have, "" if it cites nothing."""
    text = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown" and not _is_list(c))
    keys, known = cited(" ".join(text.split()))[0], entries()
    return "\n".join([HEADING, "", *(reference(known[key]) for key in keys)]) if keys else ""


def write(notebook: nbformat.NotebookNode) -> None:
    """Put the cell of references at the end of a notebook, in the place of an older one."""
    old = [cell for cell in notebook.cells if _is_list(cell)]
    notebook.cells = [cell for cell in notebook.cells if not _is_list(cell)]
    if text := listed(notebook):
        cell = old[0] if old else nbformat.v4.new_markdown_cell(id="references")
        cell.source = text
        notebook.cells.append(cell)


def _is_list(cell: nbformat.NotebookNode) -> bool:
    return cell.cell_type == "markdown" and cell.source.startswith(HEADING)


def _plain(tex: str) -> str:
    text = re.sub(r"\{?\\([`'^~=\"])\{?\\?(\w)\}?\}?", lambda found: found[2] + ACCENTS[found[1]], tex)
    return unicodedata.normalize("NFC", re.sub(r"[{}]", "", text).replace("--", "–"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deda_fp.bibliography", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, fail if a list is stale")
    check, stale = parser.parse_args().check, []
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, 4)
        before = nbformat.writes(notebook)
        write(notebook)
        if nbformat.writes(notebook) != before:
            stale.append(path.name)
            if not check:
                with replacing(path) as temporary:
                    nbformat.write(notebook, temporary)
    if check and stale:
        sys.exit(f"stale references in {', '.join(stale)}: run `python -m deda_fp.bibliography`")


if __name__ == "__main__":
    main()
