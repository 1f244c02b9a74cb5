"""docs/decisions.md and the code agree: ids match both ways, and what the page names exists."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/decisions.md").read_text(encoding="utf-8")
IDS = r"[A-Z]\d+(?:(?:, and |, | and )[A-Z]\d+)*"  # one, or a list such as "F1, F2"


def named(text: str) -> set[str]:
    """The ids after "decision" or "decisions" in a source text, also where a line of a comment ends in between."""
    text = re.sub(r"\s+(?:#\s+)?", " ", text)
    return {i for ids in re.findall(rf"\b[Dd]ecisions? ({IDS})\b", text) for i in re.findall(r"[A-Z]\d+", ids)}


def in_code() -> dict[str, list[str]]:
    """id -> the files of the two packages that name it."""
    files: dict[str, list[str]] = {}
    for package in ("mfglib", "deda_fp"):
        for file in sorted((ROOT / package).rglob("*.py")):
            for i in named(file.read_text(encoding="utf-8")):
                files.setdefault(i, []).append(str(file.relative_to(ROOT)))
    return files


def on_page() -> list[str]:
    """The first cell of each row."""
    return re.findall(r"^\| *([A-Z]\d+) *\|", PAGE, flags=re.MULTILINE)


def test_ids_are_read_from_prose_lists_and_broken_lines():
    assert named("tanh saturates (decision N1).") == {"N1"}
    assert named("Decisions F1, F2 and F3, and T4; not X9") == {"F1", "F2", "F3", "T4"}
    assert named("    # more bins (decision\n    # S4), a lower rate\n") == {"S4"}
    assert named("a decision of the T agents, decisions A_1") == set()


def test_every_id_in_the_code_is_on_the_page():
    missing = {i: files for i, files in in_code().items() if i not in on_page()}
    assert not missing, f"docs/decisions.md has no row for {missing}"


def test_every_id_on_the_page_is_in_the_code():
    missing = sorted(set(on_page()) - set(in_code()))
    assert not missing, f"nothing in mfglib/ or deda_fp/ names {missing}"


def test_ids_on_the_page_are_unique():
    rows = on_page()
    assert rows and len(rows) == len(set(rows)), sorted(i for i in rows if rows.count(i) > 1)


def test_every_row_is_whole():
    for line in PAGE.splitlines():
        if re.match(r"\| *[A-Z]\d+ *\|", line):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            assert len(cells) == 6 and all(cells), f"expected six cells, none empty: {line}"


def test_every_file_on_the_page_exists():
    pattern = r"\b(?:mfglib|deda_fp|benchmarks|tests|notebooks|figures)/[\w./-]*\w\.\w+"
    paths = set(re.findall(pattern, PAGE))
    assert paths
    missing = sorted(path for path in paths if not (ROOT / path).is_file())
    assert not missing, f"docs/decisions.md names files that do not exist: {missing}"
