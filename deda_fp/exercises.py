"""The auto-checked exercises: hints for checks, starters made from solutions, and the archive that students get.

    python -m deda_fp.exercises                     make every starter again from its solution
    python -m deda_fp.exercises --pack FILE.zip     starters and a page on how to begin, without solutions

A solution notebook is the source: what stands between `### BEGIN SOLUTION` and `### END SOLUTION` is taken out, and the
words after the first of them say what is to be done. The marks and the metadata of cells are nbgrader's
(https://nbgrader.readthedocs.io), schema 3, so that it can release, collect and grade the same files.
"""

import argparse
import copy
import re
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parents[1] / "notebooks/exercises"
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
SOLUTION = re.compile(rf"^([ \t]*){BEGIN}[ \t]*(.*)\n(?:.*\n)*?[ \t]*{END}[ \t]*$", re.M)
PAGE = """\
Exercises on mean field games, checked as you go.

Each notebook says what it needs and how long it takes. Replace each line `raise NotImplementedError(...)` by your own
code and run the notebook from the top: the folded cells check what you wrote, and say what may be wrong. They know the
solutions, so run them folded.
They need the packages mfglib and deda_fp, which are one distribution, deda-fp.
"""


# --- hints


def expect(name: str, got: Any, right: Any, mistakes: Mapping[str, Any] | None = None, *, rtol: float = 1e-6) -> None:
    """Raise AssertionError, with a hint, unless `got` is `right`: numbers or arrays of one shape, to `rtol` of the
    largest.

    mistakes: hint -> the wrong result that calls for it. Without one that fits, the message says where the first
    difference is and to which side; it never tells the right number.
    """
    right = np.asarray(right, dtype=float)
    if got is None or got is ... or (isinstance(got, list) and any(one is None for one in got)):
        raise AssertionError(f"{name} is still empty: does your function return it?")
    try:
        got = np.asarray(got, dtype=float)
    except (TypeError, ValueError, RuntimeError):
        raise AssertionError(f"{name}: expected numbers, got {got!r}") from None

    def same(other: Any) -> bool:
        other = np.asarray(other, dtype=float)
        return other.shape == got.shape and np.allclose(got, other, rtol=0, atol=rtol * (np.abs(other).max() or 1.0))

    if same(right):
        return
    for hint, wrong in (mistakes or {}).items():
        if same(wrong):
            raise AssertionError(f"{name}: {hint}")
    if got.shape != right.shape:
        raise AssertionError(f"{name}: expected shape {right.shape}, got {got.shape}")
    if not np.isfinite(got).all():
        raise AssertionError(f"{name}: expected finite numbers, got {got}")
    where = np.unravel_index(np.argmax(~np.isclose(got, right, rtol=rtol, atol=0)), right.shape)
    place = f"[{', '.join(map(str, where))}]" if where else ""
    side = "large" if got[where] > right[where] else "small"
    raise AssertionError(f"{name}{place} is {got[where]:.6g}, which is too {side}")


def results(name: str, got: Any, n: int) -> tuple[Any, ...]:
    """`got` as n results; AssertionError, with a hint, if it is not that many."""
    if not isinstance(got, (tuple, list)) or len(got) != n:
        raise AssertionError(f"{name}: expected {n} results, `return first, second`, got {got!r}")
    return tuple(got)


# --- starters


def starter(solution: Any) -> Any:
    """The notebook that students get: a copy of `solution` without what solves it, and without outputs.

    Raises ValueError if a cell that is to be solved has no pair of marks, or if a mark stands alone.
    """
    notebook = copy.deepcopy(solution)
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        cell.source, found = SOLUTION.subn(_your_turn, cell.source)
        if bool(found) != cell.metadata.get("nbgrader", {}).get("solution", False) or "SOLUTION" in cell.source:
            raise ValueError(
                f"cell {number}: expected pairs of {BEGIN} and {END} in cells to be solved, and nowhere else"
            )
    return notebook


def _your_turn(found: re.Match[str]) -> str:
    words = found[2].replace('"', "'")
    return f'{found[1]}raise NotImplementedError("your turn: {words}")'


def write_starters(folder: Path = FOLDER) -> list[Path]:
    """Make each starter in `folder` from its namesake in `folder`/solutions; returns them."""
    import nbformat

    made = []
    for path in sorted((folder / "solutions").glob("[0-9]*.ipynb")):
        nbformat.write(starter(nbformat.read(path, as_version=4)), folder / path.name)
        made.append(folder / path.name)
    return made


def pack(file: Path, folder: Path = FOLDER) -> list[str]:
    """Write the archive that students get: starters and a page, without solutions. Returns its names."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("exercises/README.txt", PAGE)
        for path in sorted(folder.glob("[0-9]*.ipynb")):
            archive.write(path, f"exercises/{path.name}")
        return archive.namelist()


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, metavar="FILE", help="write the archive for students")
    options = parser.parse_args(arguments)
    made = write_starters()
    print(f"{len(made)} starters made in {FOLDER}")
    if options.pack:
        print(f"{options.pack}: {len(pack(options.pack))} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
