"""Committed notebooks are what the code makes now, their figures say which code made them, their cells are short."""

import ast
import json
import re
import subprocess
import tarfile
from functools import cache
from pathlib import Path

import pytest

from deda_fp import freshness

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_belong_to_the_code(path):
    found = freshness.problems(path)
    assert not found, f"{path.name}: {'; '.join(found)}. To mend: {freshness.MEND}."


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_parameters_cell_comes_first_and_holds_the_three_literals(path):
    first = next(cell for cell in freshness.read(path).cells if cell.cell_type == "code")
    assert first.metadata.get("tags") == ["parameters"]
    assert first.source.splitlines()[:3] == ['preset = "lecture"', "seed = 0", "figures_dir = None"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_pictures_have_a_text_that_stands_for_them(path):
    for index, cell in enumerate(freshness.read(path).cells):
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                alt = output.metadata.get("image/png", {}).get("alt", "")
                assert len(alt) >= 20, f"{path.name}: the picture of cell {index} has no caption in italics below it"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_code_cells_are_short_and_only_drawing_and_imports_fold(path):
    """myst-nb folds by the tag, JupyterLab by the other mark."""
    for index, cell in enumerate(freshness.read(path).cells):
        if cell.cell_type != "code":
            continue
        where, size = f"{path.name}, cell {index}", len(cell.source.splitlines())
        folded = "hide-input" in cell.metadata.get("tags", [])
        hidden = cell.metadata.get("jupyter", {}).get("source_hidden", False)
        assert folded == hidden, f"{where}: the tag hide-input and jupyter.source_hidden go together"
        assert size <= (25 if folded else 15), f"{where}: {size} lines; split it, and fold what draws"
        tree = ast.parse(cell.source)
        if folded and not all(isinstance(statement, ast.Import | ast.ImportFrom) for statement in tree.body):
            assert re.search(r"\bpl(t|ots)\.", cell.source), f"{where}: only cells that draw or import are folded"
            calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and hasattr(node.func, "id")}
            checks = any(isinstance(node, ast.Assert) for node in ast.walk(tree))
            assert not checks and not calls & {"print", "display"}, f"{where}: checks and tables stay in sight"


def git(*command, **options):
    return subprocess.run(["git", "-C", ROOT, *command], capture_output=True, **options)


@pytest.fixture(scope="module")
def code_of(tmp_path_factory):
    """commit -> a folder with its code; None if it is none of HEAD's."""
    if git("ls-files", "--error-unmatch", "mfglib/__init__.py").returncode:
        pytest.skip("not a checkout")
    if git("rev-parse", "--is-shallow-repository").stdout.strip() == b"true":
        pytest.skip("a checkout without its history")

    @cache
    def unpacked(commit):
        if git("merge-base", "--is-ancestor", commit, "HEAD").returncode:
            return None
        folder = tmp_path_factory.mktemp("code")
        archive = [
            "archive",
            "-o",
            folder / "code.tar",
            commit,
            "mfglib",
            "deda_fp",
            "notebooks",
            "runs",
            "requirements.lock",
        ]
        git(*archive, check=True)
        with tarfile.open(folder / "code.tar") as code:
            code.extractall(folder, filter="data")
        return folder

    return unpacked


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_figures_name_the_commit_that_drew_them(path, code_of):
    """The code of that commit has the fingerprint with which the notebook was executed."""
    mend = "commit the code, remove the figure's .json, run `make notebooks`, and commit what changed"
    meta = freshness.read(path).metadata["mfglib"]
    for stem in (stem for stem in meta["figures"] if "." not in stem):
        made = json.loads((ROOT / f"figures/data/{stem}.json").read_text(encoding="utf-8"))["git"]
        assert made and not made["dirty"], f"{stem}: drawn by code that was not committed. To mend: {mend}"
        code = code_of(made["commit"])
        assert code, f"{stem}: {made['commit']} is no commit of this branch. To mend: {mend}"
        found = freshness.fingerprint(freshness.read(code / "notebooks" / path.name), code)
        assert found == meta["fingerprint"], f"{stem}: {made['commit']} has other code. To mend: {mend}"
