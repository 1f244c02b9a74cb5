"""notebooks/exercises: starters fail with a hint, solutions pass, and both are what nbgrader expects."""

import copy
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

from deda_fp import exercises
from deda_fp.exercises import FOLDER, expect, pack, results, starter, write_starters

SOLUTIONS = sorted((FOLDER / "solutions").glob("*.ipynb"))
each = pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def graded(cell):
    return cell.metadata.get("nbgrader", {}).get("grade", False)


def run(notebook):
    """Run the code cells in one namespace, on after an error; yields each cell and what it raised, or None."""
    names = {"__name__": "__main__"}
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            try:
                exec(compile(cell.source, f"cell {number}", "exec"), names)  # noqa: S102
                yield cell, None
            except Exception as error:  # noqa: BLE001
                yield cell, error


# --- notebooks


def test_there_are_twelve_with_a_starter_each():
    assert len(SOLUTIONS) == 12
    assert sorted(path.name for path in FOLDER.glob("*.ipynb")) == [path.name for path in SOLUTIONS]


@each
def test_the_solution_passes_and_every_hint_is_given(path, monkeypatch):
    """The wrong results that a check knows by name are told from the right one, and from each other."""
    hints = []

    def tried(name, got, right, mistakes=None, **options):
        expect(name, got, right, mistakes, **options)
        for hint, wrong in (mistakes or {}).items():
            with pytest.raises(AssertionError) as caught:
                expect(name, wrong, right, mistakes, **options)
            assert str(caught.value) == f"{name}: {hint}"
            hints.append(hint)

    monkeypatch.setattr(exercises, "expect", tried)
    for cell, error in run(read(path)):
        if error:
            raise AssertionError(f"{path.name}: {cell.source[:60]!r} failed") from error
    assert len(hints) >= 2, "checks should know some likely mistakes"


@each
def test_the_starter_fails_every_check_and_says_what_to_do(path):
    for cell, error in run(read(FOLDER / path.name)):
        if graded(cell):
            assert isinstance(error, NotImplementedError) and str(error).startswith("your turn: "), cell.source
            assert len(str(error)) > 25
        else:
            assert error is None, f"{cell.source[:60]!r}: {error}"


@each
@pytest.mark.parametrize("line", ["pass", "return 1.0"])
def test_checks_have_a_hint_for_who_returns_nothing_or_one_number(path, line):
    notebook = read(FOLDER / path.name)
    for cell in notebook.cells:
        cell.source = re.sub(r"raise NotImplementedError\(\".*\"\)", line, cell.source)
    for cell, error in run(notebook):
        if graded(cell):
            assert re.search("empty|expected|too (large|small)", str(error)), f"{cell.source[:60]!r}: {error!r}"


@each
def test_the_starter_is_made_from_the_solution(path):
    assert read(FOLDER / path.name) == starter(read(path)), "to mend: python -m deda_fp.exercises"


@each
def test_metadata_and_form(path):
    notebook = read(path)
    text = notebook.cells[0].source
    assert all(f"**{word}.**" in text for word in ("Goal", "Time", "Needs"))
    marks = [cell.metadata.nbgrader for cell in notebook.cells if "nbgrader" in cell.metadata]
    for mark in marks:
        assert mark.schema_version == 3 and mark.task is False and mark.grade != mark.solution
        assert mark.locked == mark.grade == ("points" in mark) == mark.grade_id.startswith("check-")
    names = [mark.grade_id for mark in marks]
    assert len(set(names)) == len(names) and any(mark.grade for mark in marks)
    assert {name.removeprefix("check-") for name in names} <= set(names), "each check follows a cell to be solved"
    for cell in notebook.cells:
        hidden = cell.metadata.get("jupyter", {}).get("source_hidden", False)
        assert graded(cell) == hidden == (cell.metadata.get("tags") == ["hide-input"]), (
            "checks are folded, and nothing else"
        )
        assert not cell.get("outputs") and len(cell.source.splitlines()) <= 40
        if cell.cell_type == "code" and not graded(cell):
            assert len(cell.source.splitlines()) <= 25


# --- hints


def test_expect_says_what_is_wrong_and_not_what_is_right():
    expect("x", 1.0 + 1e-9, 1.0)
    expect("x", [1.0, 0.0], np.array([1.0, 1e-9]))
    cases = [
        (None, 1.0, "x is still empty"),
        (..., 1.0, "x is still empty"),
        ([0.0, None], [0.0, 1.0], "x is still empty"),
        (torch.ones((), requires_grad=True), 1.0, "expected numbers, got tensor"),
        ("two", 2.0, "expected numbers, got 'two'"),
        ([1.0], 1.0, r"expected shape \(\), got \(1,\)"),
        ([1.0, 3.0], [1.0, 2.0], r"x\[1\] is 3, which is too large"),
        (0.5, 1.0, "x is 0.5, which is too small"),
        (float("nan"), 1.0, "expected finite numbers"),
        (-1.0, 1.0, "x: the sign is wrong"),
    ]
    for got, right, message in cases:
        with pytest.raises(AssertionError, match=message):
            expect("x", got, right, {"the sign is wrong": -np.asarray(right)})


@pytest.mark.parametrize("got", [None, 1.0, (1.0,), (1.0, 2.0, 3.0)])
def test_results_says_how_many_are_expected(got):
    assert results("f", [1, None], 2) == (1, None)
    with pytest.raises(AssertionError, match="f: expected 2 results, .*, got "):
        results("f", got, 2)


# --- starters and archive


def notebook_of(*cells):
    made = [nbformat.v4.new_code_cell(source, metadata={"nbgrader": {"solution": solve}}) for source, solve in cells]
    return nbformat.v4.new_notebook(cells=made)


def test_starter_takes_out_every_solution_and_keeps_the_rest():
    source = (
        'def f():\n    ### BEGIN SOLUTION return "one"\n    x = 1\n\n    return x\n    ### END SOLUTION\n\n\ny = 2\n'
    )
    solution = notebook_of((source + "### BEGIN SOLUTION\nz = 3\n### END SOLUTION", True), ("f()", False))
    before = copy.deepcopy(solution)
    made = starter(solution)
    assert made.cells[0].source.split("\n") == [
        "def f():",
        "    raise NotImplementedError(\"your turn: return 'one'\")",
        "",
        "",
        "y = 2",
        'raise NotImplementedError("your turn: ")',
    ]
    assert made.cells[1].source == "f()" and solution == before


@pytest.mark.parametrize("source", ["x = 1", "### BEGIN SOLUTION\nx = 1", "x = 1\n### END SOLUTION"])
def test_marks_that_do_not_pair_are_refused(source):
    with pytest.raises(ValueError, match="cell 0: expected pairs of"):
        starter(notebook_of((source, True)))
    with pytest.raises(ValueError, match="and nowhere else"):
        starter(notebook_of(("### BEGIN SOLUTION\nx = 1\n### END SOLUTION", False)))


def test_the_archive_holds_starters_alone(tmp_path):
    names = pack(tmp_path / "new" / "exercises.zip")
    with zipfile.ZipFile(tmp_path / "new" / "exercises.zip") as archive:
        assert archive.namelist() == names and len(names) == 1 + len(SOLUTIONS)
        for name in names:
            assert "solutions" not in name and b"SOLUTION" not in archive.read(name)


def test_starters_are_written_beside_their_solutions(tmp_path):
    (tmp_path / "solutions").mkdir()
    shutil.copy(SOLUTIONS[0], tmp_path / "solutions")
    assert write_starters(tmp_path) == [tmp_path / SOLUTIONS[0].name]
    assert read(tmp_path / SOLUTIONS[0].name) == read(FOLDER / SOLUTIONS[0].name)


# --- nbgrader


@pytest.fixture(scope="module")
def nbgrader():
    """A function that runs a command of nbgrader, which `make exercises` installs, and returns what it says."""
    if importlib.util.find_spec("nbgrader") is None:
        pytest.skip("nbgrader is not installed: run `make exercises`")

    def run(*arguments, folder):
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # it calls `alembic`
        environment = os.environ | {"PATH": path, "PYTHONPATH": str(FOLDER.parents[1])}
        command = [sys.executable, "-m", "nbgrader", *map(str, arguments)]
        said = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8")
        assert said.returncode == 0, said.stdout + said.stderr
        return said.stdout + said.stderr

    return run


def test_nbgrader_releases_what_we_release(nbgrader, tmp_path):
    """But for the words of what is to be done, for which it has its own."""
    shutil.copytree(FOLDER / "solutions", tmp_path / "source/exercises")
    nbgrader("generate_assignment", "exercises", "--create", f"--course-dir={tmp_path}", folder=tmp_path)
    for path in SOLUTIONS:
        theirs, ours = read(tmp_path / "release/exercises" / path.name), read(FOLDER / path.name)
        for cell, own in zip(theirs.cells, ours.cells, strict=True):
            words = r"(raise NotImplementedError)\(\".*\"\)"
            assert re.sub(r" *# YOUR CODE HERE\n", "", cell.source) == re.sub(words, r"\1()", own.source)
            assert cell.metadata.get("nbgrader", {}).get("grade_id") == own.metadata.get("nbgrader", {}).get("grade_id")


@pytest.mark.skipif("MFGLIB_NBGRADER" not in os.environ, reason="starts 24 kernels: run `make exercises`")
def test_nbgrader_validates_solutions_and_no_starter(nbgrader, tmp_path):
    shutil.copytree(FOLDER, tmp_path / "exercises")
    for folder, passes in (("exercises/solutions", True), ("exercises", False)):
        said = nbgrader("validate", *(f"{folder}/{path.name}" for path in SOLUTIONS), folder=tmp_path)
        assert said.count("Success! Your notebook passes all the tests.") == (len(SOLUTIONS) if passes else 0)
        assert said.count("NotImplementedError: your turn: ") >= (0 if passes else len(SOLUTIONS))
