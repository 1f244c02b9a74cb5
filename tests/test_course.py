"""docs/course.md: parts that fit a class, and the notebooks and panels that it names."""

import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
COURSE = (ROOT / "docs/course.md").read_text(encoding="utf-8")
NOTEBOOKS = {path.stem[:2]: path for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))}
WORDS, LINES = 2500, 250  # of a class of 90 minutes


def sections(number: str) -> dict[str, tuple[int, int]]:
    """Words of text and lines of code under each heading of second level: "1", "2", ..., and "" before the first.

    Exercises are homework, and folded solutions of the text are not read in class.
    """
    found, name = {"": [0, 0]}, ""
    for cell in nbformat.read(NOTEBOOKS[number], 4).cells:
        if cell.cell_type == "code":
            found[name][1] += len(cell.source.splitlines())
            continue
        for part in re.split(r"^(?=## )", cell.source, flags=re.M):
            if heading := re.match(r"## (\d+)?", part):
                name = heading[1] or part.splitlines()[0][3:]
            found.setdefault(name, [0, 0])[0] += len(part.split())
    return {name: tuple(size) for name, size in found.items() if name != "Exercises"}


def parts() -> list[tuple[str, str, list[str]]]:
    """(name, notebook, sections) of each row of the table of parts."""
    rows = re.findall(r"^\| (\d\d[a-z]?) \| [^|]* \| ([\d–, ]+) \|", COURSE, re.M)
    found = []
    for name, listed in rows:
        numbers = []
        for piece in listed.split(","):
            first, _, last = piece.strip().partition("–")
            numbers += [str(n) for n in range(int(first), int(last or first) + 1)]
        found.append((name, name[:2], numbers))
    return found


@pytest.mark.parametrize(("name", "number", "numbers"), [pytest.param(*part, id=part[0]) for part in parts()])
def test_a_part_fits_a_class(name, number, numbers):
    sizes = sections(number)
    assert set(numbers) <= set(sizes)
    first = min(map(int, numbers)) == min(int(n) for n in sizes if n.isdigit())
    words, lines = (sum(sizes[n][i] for n in numbers) + (sizes[""][i] if first else 0) for i in (0, 1))
    assert words <= WORDS and lines <= LINES, f"{name}: {words} words, {lines} lines"


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_parts_cover_each_notebook_once(number):
    covered = [n for _, part, numbers in parts() if part == number for n in numbers]
    numbered = [n for n in sections(number) if n.isdigit()]
    assert covered == numbered or number > "09"  # later notebooks are taught as their authors say


def test_panels_and_pages_that_it_names_exist():
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "deda_fp/view").glob("*.py"))
    panels = set(re.findall(r"`(\w+_(?:explorer|laboratory))`", COURSE))
    assert len(panels) >= 6 and all(f"def {name}(" in code for name in panels)
    for target in re.findall(r"\]\(([^)#:]+)\)", COURSE):
        assert (ROOT / "docs" / target).exists(), target


def test_glossary_points_to_notebooks_that_use_the_term():
    page = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| .* \| ([\d, ]+) \|$", page, re.M)
    assert len(rows) >= 30 and [name.lower() for name, _ in rows] == sorted(name.lower() for name, _ in rows)
    for name, where in rows:
        stem = re.sub(r"(ies|y|s)$", "", re.split(r" \(|,", name)[0].lower())
        for number in where.split(", "):
            cells = nbformat.read(NOTEBOOKS[number], 4).cells
            text = " ".join(cell.source for cell in cells).lower().replace("\n", " ")
            assert stem in text, f"{name}: notebook {number} does not have it"
