"""Run directories: settings in, a resumable run out. safetensors and JSON only; nothing here can execute code."""

import hashlib
import inspect
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mfglib.sources import fingerprint


class RunDirectory:
    """settings.json, the newest checkpoint-KKKK.safetensors, learners-KKKK.safetensors of each iteration, and
    history.csv, which is there once the run is done.

    A checkpoint holds all weights, M_SL and the history so far. It is written beside and renamed, so that a run killed
    at any moment leaves a whole one. Random numbers derive from (seed, iteration, purpose): there is no other state.
    The learners' weights stay, so that every iteration can be measured later (`mfglib.solver.replay`).
    """

    def __init__(self, path: str | Path, settings: dict[str, Any], *, overwrite: bool = False) -> None:
        self.path = Path(path)
        settings = json.loads(json.dumps(settings | {"code": CODE}))
        file = self.path / "settings.json"
        if file.exists() and (found := json.loads(file.read_text(encoding="utf-8"))) != settings:
            different = sorted(name for name in settings if found.get(name) != settings[name])
            if not overwrite:
                raise ValueError(
                    f"directory: {self.path} holds a run with other settings ({', '.join(different)}); "
                    f"choose another directory, or pass overwrite=True to delete that run"
                )
            _remove(self.path)
        elif not file.exists() and self.path.is_dir() and any(f.suffix != ".part" for f in self.path.iterdir()):
            raise ValueError(f"directory: {self.path} is not empty and holds no run; choose another one")
        self.path.mkdir(parents=True, exist_ok=True)
        write(file, json.dumps(settings, indent=1))

    def latest(self) -> Path | None:
        """The newest whole checkpoint."""
        return max(self.path.glob("checkpoint-*.safetensors"), default=None)

    def save(self, state: dict[str, Tensor], rows: list[dict[str, Any]]) -> None:
        """Write the state after iteration rows[-1], then drop the checkpoint before it."""
        before = self.latest()
        (self.path / "history.csv").unlink(missing_ok=True)  # of a shorter run, which this one extends
        k = rows[-1]["iteration"]
        # Algo. 1's past best responses are those of earlier iterations, which have their own files.
        learners = {n: v for n, v in state.items() if n.startswith("weights.") and not n.startswith("weights.past.")}
        _save(learners_file(self.path, k), learners)
        file = self.path / f"checkpoint-{k:04d}.safetensors"
        _save(file, state, metadata={"history": json.dumps(rows)})
        if before is not None and before != file:
            before.unlink()

    def load(self, device: str) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
        """The newest checkpoint's state and history; both empty if there is none."""
        file = self.latest()
        if file is None:
            return {}, []
        with safe_open(file, framework="pt", device=device) as stored:
            state = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a dict)
            return state, json.loads(stored.metadata()["history"])

    def finish(self, rows: list[dict[str, Any]]) -> None:
        write(self.path / "history.csv", pd.DataFrame(rows).to_csv(index=False))


def learners_file(directory: Path, k: int) -> Path:
    """Where a run keeps the weights after iteration k."""
    return directory / f"learners-{k:04d}.safetensors"


def describe(game: object) -> dict[str, Any]:
    """The class of a game, its public attributes as JSON values, and a hash of its methods' source where there is one:
    what a run directory must match to resume."""
    public = {name: _member(game, name) for name in dir(game) if not name.startswith("_")}
    values = {name: _jsonable(value) for name, value in public.items() if not callable(value)}
    methods = {name: _source(value) for name, value in public.items() if callable(value)}
    digest = hashlib.blake2b(json.dumps(methods, sort_keys=True).encode(), digest_size=8).hexdigest()
    return {"class": type(game).__qualname__, "methods": digest, **values}


def _member(game: object, name: str) -> Any:
    """An attribute, or why there is none: a property may only make sense for some games of its class."""
    try:
        return getattr(game, name)
    except Exception as reason:
        return f"{type(reason).__name__}: {reason}"


def _source(function: Any) -> str:
    """Source, or else bytecode, as text."""
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        code = getattr(function, "__code__", None)
        return "" if code is None else f"{code.co_code.hex()} {code.co_names} {_jsonable(code.co_consts)}"


def _jsonable(value: Any) -> Any:
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    if type(value).__repr__ is object.__repr__ and hasattr(value, "__dict__"):  # the repr says nothing of its values
        own = {name: _jsonable(v) for name, v in vars(value).items() if not callable(v)}
        return {"class": type(value).__qualname__, **own}
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))  # an address would differ at the next start


def _save(file: Path, tensors: dict[str, Tensor], **options: Any) -> None:
    """Write beside and rename."""
    temporary = file.with_suffix(".part")
    save_file(tensors, temporary, **options)
    os.replace(temporary, file)


def _remove(directory: Path) -> None:
    """Delete a run directory; killed half-way, it is gone under its own name all the same."""
    aside = directory.with_name(directory.name + ".removed")
    shutil.rmtree(aside, ignore_errors=True)
    directory.rename(aside)
    shutil.rmtree(aside)


CODE = fingerprint(["mfglib.solver"])  # at import: what runs is what was read then, whatever is edited since


def write(file: Path, text: str) -> None:
    """Write beside and rename: a reader never sees half a file. An unchanged one keeps its time, as Snakemake asks."""
    if file.exists() and file.read_text(encoding="utf-8") == text:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(file.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, file)
