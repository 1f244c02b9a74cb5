"""What made a figure: parameters, versions, and the commit of the code that draws."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch

from mfglib import __version__
from mfglib.games.bounded import Law
from mfglib.games.domain import Domain
from mfglib.sources import ROOT

CODE = ("mfglib/*.py", "deda_fp/*.py", "notebooks/*.ipynb", "notebooks/*.py")  # what draws; in git, * is any depth


def provenance(*, seed: int, preset: str, game: Any = None, parameters: Mapping[str, Any] | None = None) -> dict:
    """What made a figure: parameters, seed, preset, versions, and the commit of the code (None outside a checkout)."""
    versions = {"python": platform.python_version()} | {m.__name__: m.__version__ for m in (mpl, np, torch)}
    versions["mfglib"] = __version__
    described = None if game is None else {"class": type(game).__name__, **vars(game)}
    what = {"game": described, "parameters": dict(parameters or {}), "seed": seed, "preset": preset}
    return what | {"versions": versions, "git": commit()}


def as_list(value: Any) -> Any:
    """Arrays, their numbers, and what a game is made of, for JSON; raises TypeError for anything else."""
    if isinstance(value, (Domain, Law)):
        return vars(value)
    if isinstance(value, (np.ndarray, np.generic, torch.Tensor)):
        return value.tolist()
    raise TypeError(f"parameters: expected numbers, text, lists or arrays, got {type(value).__name__}")


def commit(root: Path = ROOT) -> dict[str, Any] | None:
    """The commit that is checked out, and whether the code that draws is another: a module of the packages that differs
    or is new, or a notebook with other code cells. Outputs of notebooks, results and figures do not count.

    None without git, and where git does not know this code: an installed copy may lie in somebody else's checkout.
    """
    try:
        _git(root, "ls-files", "--error-unmatch", "mfglib/__init__.py")
        head = _git(root, "rev-parse", "HEAD").strip()
        listed = _git(root, "diff", "--name-only", "--relative", "-z", "HEAD", "--", *CODE)
        listed += _git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", *CODE)
        dirty = any(_differs(root, file) for file in listed.split("\0") if file)
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": head, "dirty": dirty}


def _differs(root: Path, file: str) -> bool:
    """Whether the code in a file that git lists as changed is other than in the commit."""
    if not file.endswith(".ipynb"):
        return True
    try:
        was, now = _git(root, "show", f"HEAD:./{file}"), (root / file).read_text(encoding="utf-8")
        return _code_cells(was) != _code_cells(now)
    except (OSError, subprocess.CalledProcessError, ValueError, LookupError, TypeError):
        return True  # new, removed, or no notebook


def _code_cells(notebook: str) -> list[str]:
    cells = json.loads(notebook)["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def _git(root: Path, *command: str) -> str:
    # These, which git sets for its hooks, would have it speak of another repository than that of `root`.
    others = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR")
    environment = {name: value for name, value in os.environ.items() if name not in others}
    options = dict(cwd=root, env=environment, capture_output=True, encoding="utf-8", check=True)
    return subprocess.run(["git", *command], **options).stdout
