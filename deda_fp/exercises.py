"""The exercises: what their checks say, and the starters that are made from the solutions.

    python -m deda_fp.exercises                  write notebooks/exercises/*.ipynb from notebooks/exercises/solutions/
    python -m deda_fp.exercises --pack FILE.zip  pack what students get: no solutions
    python -m deda_fp.exercises --course FOLDER  lay out a course for nbgrader

A solution is the one source of its exercise. nbgrader's own marks, BEGIN SOLUTION and END SOLUTION, say which lines a
student writes.
"""

import argparse
import re
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parents[1] / "notebooks/exercises"
STUB = 'raise NotImplementedError("Write this part in place of this line: the text above says what it returns.")'
CONFIG = f'c = get_config()  # noqa: F821 (nbgrader defines it)\nc.ClearSolutions.code_stub = {{"python": {STUB!r}}}\n'
SOLUTION = re.compile(r"^([ \t]*)### BEGIN SOLUTION\n.*?^[ \t]*### END SOLUTION$", re.M | re.S)


def expect(
    what: str, got: Any, expected: Any, mistakes: Iterable[tuple[Any, str]] = (), tolerance: float = 1e-6
) -> None:
    """Pass if `got` is `expected`, numbers or arrays of one shape, within `tolerance`, relative and absolute.

    Otherwise raise AssertionError, with the hint of the first of `mistakes`, pairs of a wrong result and a hint, whose
    result was got.
    """
    if got is None:
        raise AssertionError(f"{what}: got None. Does the function end with `return`?")
    got, expected = np.asarray(got, dtype=float), np.asarray(expected, dtype=float)
    if got.shape != expected.shape:
        raise AssertionError(f"{what}: got an array of shape {got.shape}, expected shape {expected.shape}.")
    if np.allclose(got, expected, tolerance, tolerance):
        print(f"passed: {what}")
        return
    shown = f"{what}: got {np.array2string(got, precision=5, threshold=8)}"
    for wrong, hint in mistakes:
        if np.shape(wrong) == got.shape and np.allclose(got, wrong, tolerance, tolerance):
            raise AssertionError(f"{shown}. Hint: {hint}")
    raise AssertionError(
        f"{shown}, expected {np.array2string(expected, precision=5, threshold=8)}. Hint: if a check "
        "above failed, mend that first. None of the usual mistakes gives this; compare term by term with the text"
    )


def starter(solution: Any) -> Any:
    """The notebook that students get: stubs for solutions, and no outputs."""
    import nbformat

    notebook = nbformat.from_dict(solution)
    for cell in notebook.cells:
        cell.source = SOLUTION.sub(lambda found: found[1] + STUB, cell.source)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def solutions() -> list[Path]:
    """The files of the solutions, in their order."""
    return sorted((FOLDER / "solutions").glob("[0-9]*.ipynb"))


def write_starters() -> None:
    """Write the starter of each solution beside the folder of the solutions."""
    import nbformat

    for path in solutions():
        nbformat.write(starter(nbformat.read(path, as_version=4)), FOLDER / path.name)


def pack(file: Path) -> None:
    """A .zip of the starters; nothing from the folder of the solutions."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in solutions():
            packed.write(FOLDER / path.name, f"exercises/{path.name}")


def course(folder: Path) -> None:
    """A course as nbgrader lays it out: the solutions are the sources of the one assignment `exercises`."""
    source = folder / "source/exercises"
    source.mkdir(parents=True, exist_ok=True)
    for path in solutions():
        shutil.copyfile(path, source / path.name)
    (folder / "nbgrader_config.py").write_text(CONFIG, encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, metavar="FILE")
    parser.add_argument("--course", type=Path, metavar="FOLDER")
    options = parser.parse_args(arguments)
    if options.pack:
        pack(options.pack)
    if options.course:
        course(options.course)
    if not (options.pack or options.course):
        write_starters()


if __name__ == "__main__":
    main()
