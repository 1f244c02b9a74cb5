"""The exercises: starters fail with a hint, solutions pass, likely mistakes are named, and nbgrader takes them."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import numpy as np
import pytest

from deda_fp import exercises
from deda_fp.exercises import expect

SOLUTIONS = exercises.solutions()
NAMES = [path.name for path in SOLUTIONS]
# exercise -> what a student may write in place of what is right, and a word of the hint that follows
MISTAKES = {
    "01": ("(c_a + c_x + c_m)", "(c_x + c_m)", "where is c_a"),
    "02": ("K = -B * P_next", "K = B * P_next", "K is negative"),
    "03": ("+ sigma**2", "+ sigma", "standard deviation"),
    "04": ("dK**2 * v", "0 * v", "the term with v_t is missing"),
    "05": (") / k)", "))", "1/k of the way"),
    "06": ("w *= 1 - step", "w *= 1", "later steps shrink"),
    "07": ("norm.pdf(x, m[1], s[1])", "norm.pdf(x, m[0], s[0])", "among those who are *here*"),
    "08": (" + np.log1p(c * np.cos(x))", "", "log f'(x) is missing"),
    "09": ("(x * mu).sum()", "x.mean()", "weighted by mu"),
    "10": ("np.exp(-cost)", "np.exp(cost)", "expensive places have fewer agents"),
    "11": ("np.sqrt(n)", "n", "variances of independent agents add"),
    "12": ("- population.log_prob", "+ population.log_prob", "change the sign"),
}


def read(path):
    return nbformat.read(path, as_version=4)


def run(notebook):
    """What each check cell raises, None if it passes; a cell that is no check must not fail."""
    names, results = {"__name__": "__main__"}, []
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        check = cell.metadata["nbgrader"]["grade"]
        try:
            exec(compile(cell.source, cell.id, "exec"), names)  # noqa: S102
            failure = None
        except Exception as error:
            if not check:
                raise
            failure = error
        if check:
            results.append(failure)
    return results


def test_there_are_twelve_and_starters_are_those_of_the_solutions():
    assert [name[:2] for name in NAMES] == [f"{i:02}" for i in range(1, 13)]
    assert sorted(path.name for path in exercises.FOLDER.glob("*.ipynb")) == NAMES
    for path in SOLUTIONS:
        stored = read(exercises.FOLDER / path.name)
        assert stored == exercises.starter(read(path)), f"{path.name}: run python -m deda_fp.exercises"
        assert "BEGIN SOLUTION" not in json.dumps(stored)


@pytest.mark.parametrize("path", SOLUTIONS, ids=NAMES)
def test_solution_passes(path):
    results = run(read(path))
    assert len(results) >= 2 and results == [None] * len(results)


@pytest.mark.parametrize("name", NAMES)
def test_starter_fails_each_check_with_a_hint(name):
    for error in run(read(exercises.FOLDER / name)):
        assert isinstance(error, NotImplementedError) and "the text above" in str(error)


@pytest.mark.parametrize("path", SOLUTIONS, ids=NAMES)
def test_likely_mistake_is_named(path):
    right, wrong, hint = MISTAKES[path.name[:2]]
    notebook = read(path)
    answers = [cell for cell in notebook.cells if cell.metadata["nbgrader"]["solution"] and right in cell.source]
    answers[0].source = answers[0].source.replace(right, wrong, 1)
    raised = [error for error in run(notebook) if error]
    assert isinstance(raised[0], AssertionError) and hint in str(raised[0])


@pytest.mark.parametrize("path", SOLUTIONS[:-1], ids=NAMES[:-1])  # the last compares no numbers
def test_each_hint_can_be_given(path, monkeypatch):
    """No mistake has the right result, another shape, or the result of a mistake before it."""
    hints = []

    def audit(what, got, expected, mistakes=(), tolerance=1e-6):
        results = [np.asarray(value, float) for value in (expected, *(wrong for wrong, _ in mistakes))]
        hints.extend(hint for _, hint in mistakes)
        for i, value in enumerate(results):
            assert value.shape == results[0].shape, f"{what}: {mistakes[i - 1]}"
            assert not any(np.allclose(value, other, tolerance, tolerance) for other in results[:i]), (what, i)

    monkeypatch.setattr(exercises, "expect", audit)
    assert not any(run(read(path))) and len(hints) >= 3


@pytest.mark.parametrize("path", SOLUTIONS, ids=NAMES)
def test_cells_say_to_nbgrader_what_they_are(path):
    cells = read(path).cells
    marks = [cell.metadata["nbgrader"] for cell in cells]
    assert len({mark["grade_id"] for mark in marks}) == len(marks)
    for cell, mark in zip(cells, marks, strict=True):
        assert mark["schema_version"] == 3 and mark["cell_type"] == cell.cell_type and mark["task"] is False
        assert mark["solution"] == ("### BEGIN SOLUTION" in cell.source) == (not mark["locked"])
        assert ("points" in mark) == mark["grade"] and mark.get("points", 1) > 0
        assert not (mark["grade"] and mark["solution"])
    text = cells[0].source
    assert all(word in text for word in ("**Goal:**", "**Time:**", "**Needs:**"))


def test_expect_takes_the_right_number_and_hints_at_others():
    expect("two", 2.0 + 1e-9, 2)
    with pytest.raises(AssertionError, match="got None. Does the function end with `return`"):
        expect("two", None, 2)
    with pytest.raises(AssertionError, match=r"shape \(2,\), expected shape \(\)"):
        expect("two", np.ones(2), 2)
    with pytest.raises(AssertionError, match="two: got -2.. Hint: sign"):
        expect("two", -2, 2, [(-2, "sign")])
    with pytest.raises(AssertionError, match="None of the usual mistakes"):
        expect("two", 3, 2, [(-2, "sign")])


def test_pack_holds_no_solution(tmp_path):
    exercises.main(["--pack", str(tmp_path / "new/pack.zip")])
    with zipfile.ZipFile(tmp_path / "new/pack.zip") as packed:
        assert [Path(name).name for name in packed.namelist()] == NAMES
        assert all(b"BEGIN SOLUTION" not in packed.read(name) for name in packed.namelist())


def test_nbgrader_releases_and_validates(tmp_path):
    """It makes our starters from our solutions; its checks pass for a solution and fail for its starter."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # nbgrader starts alembic, by its name
    nbgrader = shutil.which("nbgrader", path=programs)
    if not nbgrader:
        pytest.skip("nbgrader is not installed: `make exercises` installs it and runs this test")
    exercises.course(tmp_path)

    def call(*arguments):
        environment = os.environ | {"PATH": programs, "PYTHONPATH": str(exercises.FOLDER.parents[1])}
        return subprocess.run(
            [nbgrader, *arguments], cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8"
        )

    made = call("generate_assignment", "exercises", "--create")
    assert made.returncode == 0, made.stderr
    for name in NAMES:
        released, ours = read(tmp_path / "release/exercises" / name), read(exercises.FOLDER / name)
        assert [cell.source for cell in released.cells] == [cell.source for cell in ours.cells]
    solution, starter = f"source/exercises/{NAMES[0]}", f"release/exercises/{NAMES[0]}"
    passed, failed = call("validate", solution), call("validate", starter)
    assert "Success! Your notebook passes all the tests." in passed.stdout, passed.stderr
    assert "FAILED" in failed.stdout and "the text above" in failed.stdout, failed.stdout + failed.stderr
