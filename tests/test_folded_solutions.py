"""The folded solutions of the numbered notebooks run, after the cells that they need, at the smoke preset."""

import ast
import builtins
import re
import symtable
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("[0-9]*.ipynb"))
FOLD = re.compile(r"<details>(.*?)</details>", re.S)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)


def folded(notebook):
    """The code of each block in a folded solution, in order."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return [block for text in texts for fold in FOLD.findall(text) for block in BLOCK.findall(fold)]


def names(source):
    """What a piece of code defines or changes, what it needs of before, and what its functions need once called."""
    top = symtable.symtable(source, "cell", "exec")
    tables = [top]
    for table in tables:
        tables += table.get_children()
    made = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported() or s.is_namespace()}
    late = {s.get_name() for table in tables[1:] for s in table.get_symbols() if s.is_referenced() and s.is_global()}
    used = {s.get_name() for s in top.get_symbols() if s.is_referenced()} | late
    for node in ast.walk(ast.parse(source)):  # table["a"] = 1 changes table
        if isinstance(node, (ast.Subscript, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            while isinstance(node, (ast.Subscript, ast.Attribute)):
                node = node.value
            made |= {node.id} if isinstance(node, ast.Name) else set()
    return made, used - set(vars(builtins)), late


def needed(cells, code, late=frozenset()):
    """Those of `cells` that define what `code` needs, and what these need in turn, in their order."""
    chosen, wanted, known = [], names("\n".join(code))[1] | late, {cell: names(cell) for cell in cells}
    for cell in reversed(cells):
        made, used, _ = known[cell]
        if made & wanted:
            chosen.insert(0, cell)
            wanted = (wanted - (made - used)) | used  # what is made anew does not depend on cells before
    called = late.union(*(known[cell][2] for cell in chosen))
    return chosen if called == late else needed(cells, code, called)


@pytest.mark.filterwarnings("ignore")  # a notebook shows them and goes on
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_folded_solutions_run(path, monkeypatch):
    monkeypatch.setenv("MFGLIB_PRESET", "smoke")
    monkeypatch.chdir(path.parent)
    notebook = nbformat.read(path, as_version=4)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    blocks, space = folded(notebook), {"__name__": "__main__", "display": print}
    assert blocks
    try:
        with plt.rc_context():
            for source in [*needed(cells, blocks), *blocks]:
                exec(compile(source, f"{path.stem}: {source[:40]!r}", "exec"), space)  # noqa: S102
    finally:
        plt.close("all")


def test_cells_that_are_needed_are_found():
    cells = [
        "import numpy as np",
        "x = {}",
        "y = 1",
        "def f(z):\n    y = x\n    return y, z",
        "x['a'] = np.ones(y)",
        "y = 5",
    ]
    assert needed(cells, ["f(2)"]) == cells[:5]
    assert needed(cells, ["print(np)"]) == cells[:1] and needed(cells, ["q = y\nq"]) == cells[5:]
