"""deda_fp/slides.py: a slide for each section, pictures kept, code and exercises left out, notebooks untouched."""

import html
import re

import nbformat
import pytest
from nbformat import v4

from deda_fp import slides

LECTURES = [slides.ROOT / f"notebooks/{name}.ipynb" for name in slides.LECTURES]


def kinds(notebook):
    return [cell.metadata["slideshow"]["slide_type"] for cell in slides.tagged(notebook).cells]


def test_cells_become_slides_by_what_they_are():
    picture = v4.new_output("display_data", {"image/png": "iVBORw0KGgo="})
    said = v4.new_output("stream", text="3\n")
    cells = [
        v4.new_markdown_cell("# Title\n\ntext\n\n## 1. First\n\nmore"),
        v4.new_code_cell("x = 3"),
        v4.new_code_cell("print(x)", outputs=[said]),
        v4.new_code_cell("draw()", outputs=[picture]),
        v4.new_markdown_cell("*What is seen.*"),
        v4.new_markdown_cell("words"),
        v4.new_markdown_cell("shown otherwise", metadata={"slideshow": {"slide_type": "fragment"}}),
        v4.new_markdown_cell("## Exercises\n\n**1.**"),
        v4.new_code_cell("print(x)", outputs=[said]),
    ]
    notebook = v4.new_notebook(cells=cells)
    before = nbformat.writes(notebook)
    shown = ("slide", "slide", "skip", "-", "subslide", "-", "subslide", "fragment", "skip", "skip")
    assert kinds(notebook) == [*shown]
    assert nbformat.writes(notebook) == before


@pytest.mark.parametrize("notebook", LECTURES, ids=lambda path: path.stem)
def test_a_lecture(notebook, tmp_path):
    source = nbformat.read(notebook, 4)
    text = "\n".join(cell.source for cell in source.cells if cell.cell_type == "markdown")
    headings = [h for h in re.findall(r"^##? (.*)", text, re.M) if h != "Exercises"]
    assert kinds(source).count("slide") == len(headings) >= 6
    page = slides.write(notebook, tmp_path).read_text(encoding="utf-8")
    pictures = [o for cell in source.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert page.count('src="data:image/png') == len(pictures) >= 3
    assert slides.NO_WORDS not in page and html.escape(pictures[-1].metadata["image/png"]["alt"]) in page
    loaded = re.findall(r"<(?:script|link)[^>]*(?:src|href)=\"([^\"]*)", page)
    assert loaded and all(address.startswith(f"{slides.VENDOR}/") for address in loaded)  # none from the net
    assert "import torch" not in page and "Exercises" not in page
