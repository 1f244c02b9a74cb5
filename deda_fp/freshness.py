"""What the outputs of a notebook follow from, and whether stored copies are those that the code makes now."""

import ast
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
STORED_PRESET = "lecture"  # of the copies that are committed
MEND = "run `make notebooks`"


class NotebookFailed(Exception):
    """A notebook that cannot be run, or that failed; the message names the notebook and the cell."""


def read(path: Path) -> NotebookNode:
    """A notebook; NotebookFailed, naming the file, where there is none."""
    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise NotebookFailed(f"{path}: expected a notebook, there is no such file") from None
    except (ValueError, AttributeError, nbformat.ValidationError) as error:
        raise NotebookFailed(f"{path}: expected a notebook, got something else ({str(error)[:80]})") from None


def sources_hash(notebook: Path) -> str:
    """Hash of every cell's source, prose included: changes with an edit, not when outputs are stored."""
    return _sha256(*((cell.cell_type, cell.source) for cell in read(notebook).cells))


def fingerprint(notebook: NotebookNode, root: Path = ROOT) -> str:
    """Hash of all that the outputs follow from: the code cells, the project's code that they use, the locked versions
    of the libraries that these import, and the stored runs that the notebook opens.

    Comments and docstrings of the project do not count, so that better words make no stored output stale.
    """
    from mfglib import sources

    cells, modules, files = _code_cells(notebook), used_modules(notebook, root), used_sources(notebook, root)
    trees = _trees(notebook) if _is_python(notebook) else []
    lock = (root / "requirements.lock").read_text(encoding="utf-8").splitlines()
    locked = dict(line.lower().replace("_", "-").split("==") for line in lock if "==" in line)
    used = {name: locked.get(name.lower().replace("_", "-")) for name in sources.libraries(files, trees)}
    opened = {run: _digest(root / "runs" / run) for run in notebook.metadata.get("mfglib", {}).get("runs", [])}
    return _sha256(cells, sources.fingerprint(modules, root), used, opened)


def _digest(variant: Path) -> str | None:
    """Of the stored history of the seed whose learners are stored."""
    file = variant / "seed-0/history.csv.digest"
    return file.read_text(encoding="utf-8") if file.exists() else None


def used_sources(notebook: NotebookNode, root: Path = ROOT) -> list[Path]:
    """The files of the project that a notebook uses, directly or not."""
    from mfglib.sources import sources

    return sources(used_modules(notebook, root), root)


def used_modules(notebook: NotebookNode, root: Path = ROOT) -> list[str]:
    """The project's modules that a notebook imports, with those of the learners that `solve` loads by name; all of them
    if a cell is no plain Python."""
    from deda_fp.batch import modules_of_learners
    from mfglib.sources import PACKAGES, imports, sources

    if not _is_python(notebook):  # a magic, perhaps, which may import anything
        files = [file.relative_to(root) for package in PACKAGES for file in (root / package).rglob("*.py")]
        return sorted(".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files)
    names = [name for tree in _trees(notebook) for name in imports(tree)]
    if root / "mfglib/presets.py" in sources(names, root):
        names += modules_of_learners("\n".join(_code_cells(notebook)))
    return names


def _is_python(notebook: NotebookNode) -> bool:
    try:
        _trees(notebook)
    except SyntaxError:
        return False
    return True


def _trees(notebook: NotebookNode) -> list[ast.Module]:
    return [ast.parse(cell) for cell in _code_cells(notebook)]


def _code_cells(notebook: NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code" and not is_injected(cell)]


def _sha256(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def is_injected(cell: NotebookNode) -> bool:
    return "injected-parameters" in cell.metadata.get("tags", [])


def figure_files(stem: str) -> list[str]:
    """The files of one figure, inside the folder of figures; a name with an ending, as of an animation, is one file."""
    if "." in stem:
        return [stem]
    return [f"{stem}.svg", f"{stem}.png", f"data/{stem}.csv", f"data/{stem}.json"]


def problems(notebook: Path, root: Path = ROOT) -> list[str]:
    """Why a stored notebook is not what the code makes now; empty if it is."""
    nb, found = read(notebook), []
    meta = nb.metadata.get("mfglib", {})
    if meta.get("preset") != STORED_PRESET:
        found.append(f"was not executed at the {STORED_PRESET} preset")
    if meta.get("fingerprint") != fingerprint(nb, root):
        found.append("its code cells, the code that they use or versions of libraries changed since it was executed")
    files = [f"figures/{file}" for stem in meta.get("figures", []) for file in figure_files(stem)]
    if missing := [file for file in files if not (root / file).is_file()]:
        found.append(f"figures are missing: {', '.join(missing)}")
    for index, cell in enumerate(nb.cells):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        text = json.dumps(cell.outputs)
        errors = "".join(output.text for output in cell.outputs if output.get("name") == "stderr")
        if cell.execution_count is None:
            found.append(f"cell {index} was never executed")
        if re.search(r"Warning\b", errors):
            found.append(f"cell {index} shows a warning: mend its cause first")
        if str(root) in text or sys.prefix in text:
            found.append(f"cell {index} shows a path of this machine: print it relative to the project")
    return found
