"""The site's sources: every page is in its contents, every link leads somewhere, docstrings become what Sphinx reads.

The site itself is built by `make site`, and looked at by `make browser-test`.
"""

import fnmatch
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def module(name):
    spec = importlib.util.spec_from_file_location(f"site_{name}", ROOT / f"docs/site/{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


build = module("build")
conf = module("conf")
PAGES = build.pages()
CONTENTS = re.findall(r"^[\w/.\[\]*-]+$", (ROOT / "docs/site/contents.md").read_text(encoding="utf-8"), re.M)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_page_is_in_the_contents_and_its_links_lead_somewhere(page):
    name = page.with_suffix("").as_posix()
    assert any(fnmatch.fnmatch(name, entry) and name.count("/") == entry.count("/") for entry in CONTENTS)
    for target in build.LINK.findall((ROOT / page).read_text(encoding="utf-8")):
        if "://" not in target and not target.startswith("mailto:"):
            assert (ROOT / page.parent / target).exists(), target


def test_every_entry_of_the_contents_is_a_page():
    made = {"report", *(f"reference/{'.'.join(package.parts)}" for package in build.packages())}
    there = made | {page.with_suffix("").as_posix() for page in PAGES}
    for entry in CONTENTS:
        if "*" not in entry:
            assert entry in there, entry


def test_solutions_of_exercises_are_left_out():
    assert not [page for page in PAGES if "solution" in str(page)]
    assert {page.name for page in PAGES} >= {"index.ipynb", "00_mean_field_games.ipynb", "results.md", "exact.md"}


def test_the_reference_has_every_module_once():
    text = "\n".join(build.reference(package) for package in build.packages())
    files = [file.relative_to(ROOT) for package in build.PACKAGES for file in (ROOT / package).rglob("*.py")]
    names = {".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files if build.public(file)}
    assert sorted(re.findall(r"automodule:: (\S+)", text)) == sorted(names)
    assert "mfglib.games.domain" in names and not [name for name in names if "._" in name]


def test_a_docstring_becomes_paragraphs_and_lists():
    lines = [
        "A *star*, a |bar| and `x`s.",
        "",
        "Args:",
        "    a: one",
        "        more.",
        "    b, c: two.",
        "",
        "Raises it_.",
    ]
    conf.docstring(None, "", "", None, None, lines)
    assert lines == [
        r"A \*star\*, a \|bar\| and ``x``\ s.",
        "",
        "Args:",
        "",
        "* a: one more.",
        "",
        "* b, c: two.",
        "",
    ] + [
        r"Raises it\_.",
        "",
    ]


def test_a_docstring_with_columns_stays_as_it_is():
    lines = ["one    two", "1      2"]
    conf.docstring(None, "", "", None, None, lines)
    assert lines == ["::", "", "    one    two", "    1      2", ""]


def test_dead_links_and_foreign_scripts_are_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<p id="here"><a href="#here"></a><a href="#gone"></a><a href="b.html"></a><a href="https://e.org"></a>'
        '<script src="https://e.org/x.js"></script>',
        encoding="utf-8",
    )
    found = list(build.faults(tmp_path))
    assert len(found) == 3 and all(any(w in f for f in found) for w in ("#gone", "b.html", "x.js"))
