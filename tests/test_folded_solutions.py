"""The folded solutions at the ends of the notebooks run, after those statements of the notebook that they need."""

import ast
import re
import symtable
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from deda_fp.freshness import read

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("[0-9]*.ipynb"))
FOLDED = re.compile(r"<details><summary>Solution</summary>\n(.*?)</details>", re.S)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)


def folded(notebook):
    """The code of all folded solutions, block by block, in their order."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return [block for text in texts for solution in FOLDED.findall(text) for block in BLOCK.findall(solution)]


MUTATORS = {"append", "extend", "update", "add", "insert"}


def scopes(table):
    return [table, *(inner for child in table.get_children() for inner in scopes(child))]


def loops(tree):
    """Names that run through loops, which whoever loops sets itself."""
    targets = [node.target for node in ast.walk(tree) if isinstance(node, ast.For)]
    return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}


def binds(statement):
    """Names that a statement sets or changes, those of loops excepted."""
    top = symtable.symtable(ast.unparse(statement), "cell", "exec")
    names = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    for node in ast.walk(statement):
        if isinstance(node, ast.Attribute) and (isinstance(node.ctx, ast.Store) or node.attr in MUTATORS):
            names |= uses(node.value)
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            names |= uses(node.value)
    return names - loops(statement)


def uses(tree):
    """Names of the notebook that code reads, in functions and comprehensions too, but for their own variables."""
    top, *inner = scopes(symtable.symtable(ast.unparse(tree), "cell", "exec"))
    names = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_referenced()}
    names |= {symbol.get_name() for table in inner for symbol in table.get_symbols() if symbol.is_global()}
    return names - loops(tree)


def sets_anew(statement):
    """Names whose earlier values a statement does not need."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom):
        return binds(statement)
    if isinstance(statement, ast.Assign) and not any(
        isinstance(n, ast.Subscript | ast.Attribute) for n in statement.targets
    ):
        return binds(statement)
    return set()


def needed(cells, blocks):
    """The statements of the cells that the blocks need, directly or not, in their order."""
    names, kept = set(), []
    for block in reversed(blocks):
        for statement in reversed(ast.parse(block).body):
            names = (names - sets_anew(statement)) | uses(statement)
    for statement in reversed([statement for cell in cells for statement in ast.parse(cell).body]):
        if binds(statement) & names:
            names = (names - sets_anew(statement)) | uses(statement)
            kept.append(statement)
    return kept[::-1]


def test_only_what_is_needed_runs():
    cells = ["import math\nc = 0\na = 1\nb = a + 1", "print(undefined)\nc = [b]\nc[0] = a", "d = undefined"]
    assert [ast.unparse(s) for s in needed(cells, ["c"])] == ["a = 1", "b = a + 1", "c = [b]", "c[0] = a"]
    assert [ast.unparse(s) for s in needed(cells, ["b = 1\n[b for d in (b,)]"])] == []


def test_every_notebook_has_solutions_with_code():
    assert len(NOTEBOOKS) >= 10
    for path in NOTEBOOKS:
        text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
        assert len(FOLDED.findall(text)) == text.count("<details>") and folded(read(path)), path.name


@pytest.mark.filterwarnings("default")  # what a notebook warns of, it may: `make test` runs its cells themselves
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_folded_solutions_run(path, monkeypatch):
    monkeypatch.setenv("MFGLIB_PRESET", "smoke")
    monkeypatch.chdir(path.parent)
    notebook = read(path)
    blocks, names = folded(notebook), {"__name__": "__main__"}
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    module = ast.Module(needed(cells, blocks), type_ignores=[])
    exec(compile(module, path.name, "exec"), names)  # noqa: S102
    for number, block in enumerate(blocks, start=1):
        exec(compile(block, f"{path.name}, folded block {number}", "exec"), names)  # noqa: S102
    plt.close("all")
