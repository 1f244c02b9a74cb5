"""One bibliography (`deda_fp.bibliography`): what is cited is in it, and notebooks list what they cite."""

import re

import nbformat
import pytest

from deda_fp import bibliography

PAGES = [bibliography.ROOT / "docs/course.md", bibliography.ROOT / "docs/glossary.md"]


@pytest.mark.parametrize("key", bibliography.entries())
def test_an_entry_is_complete_and_its_ids_well_formed(key):
    entry = bibliography.entries()[key]
    assert {"title", "author", "year"} <= set(entry) and re.fullmatch(r"(19|20)\d\d", entry["year"])
    assert key == re.sub(r"[^a-z]", "", _ascii(entry["names"].split(", ")[0])) + entry["year"]
    for id in bibliography.ARXIV.findall(entry.get("url", "") + " " + entry.get("journal", "")):
        assert re.fullmatch(r"\d{4}\.\d{4,5}", id)
    assert re.fullmatch(r"10\.\d{4,}/\S+", entry.get("doi", "10.1000/x"))
    assert not re.search(r"[{}\\]", bibliography.reference(entry))


def _ascii(text):
    return text.lower().translate(str.maketrans("éèüöäóáū", "eeuoaoau"))


def test_a_reference_is_a_line():
    known = bibliography.entries()
    assert bibliography.reference(known["fournier2015"]) == (
        "- Nicolas Fournier and Arnaud Guillin. On the rate of convergence in Wasserstein distance of the empirical "
        "measure. *Probability Theory and Related Fields* 162, 707–738, 2015. <https://doi.org/10.1007/s00440-014-0583-7>"
    )
    assert "Miklós Ajtai, János Komlós and Gábor Tusnády. On" in bibliography.reference(known["ajtai1984"])


def test_citations_are_found_by_names_and_year_or_by_identifier():
    text = "Walker (1977); (Elie et al., 2020); Fournier and Guillin, 2015; arXiv 2510.22158, Lasry (1907); Smith, 2001"
    found, unknown = bibliography.cited(text)
    assert found == ["magnino2025", "elie2020", "walker1977", "fournier2015"]
    assert unknown == ["Lasry (1907)", "Smith (2001)"]


@pytest.mark.parametrize("path", [*bibliography.NOTEBOOKS, *PAGES], ids=lambda path: path.stem)
def test_what_is_cited_is_in_the_bibliography(path):
    if path.suffix == ".md":
        text = path.read_text(encoding="utf-8")
    else:
        text = "\n".join(c.source for c in nbformat.read(path, 4).cells if c.cell_type == "markdown")
    found, unknown = bibliography.cited(" ".join(text.split()))
    assert unknown == [] and (found or path.suffix == ".md")


@pytest.mark.parametrize("path", bibliography.NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_lists_what_it_cites(path):
    notebook = nbformat.read(path, 4)
    assert notebook.cells[-1].source == bibliography.listed(notebook), "run `python -m deda_fp.bibliography`"
