"""Run directories: settings in, a resumable run out. safetensors and JSON only; nothing here can execute code."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mfglib.runs.files import replacing, write

Parts = dict[str, dict[str, Tensor]]  # of each learner


class RunDirectory:
    """settings.json, the newest checkpoint-KKKK.safetensors, learners-KKKK.safetensors of each iteration, and
    history.csv, which is there once the run is done.

    A checkpoint holds what later iterations depend on (`Learner.state`) and the history so far. It is written beside
    and renamed, so that a run killed at any moment leaves a whole one. Random numbers derive from (seed, iteration,
    purpose): there is no other state. What was learned stays, so that every iteration can be measured later.

    `settings["certificate"]` does not make a run another one: it says how the history was certified.

    Raises ValueError if the directory holds another run, unless `overwrite`, or something else.
    """

    def __init__(self, path: str | Path, settings: dict[str, Any], *, overwrite: bool = False) -> None:
        self.path, self.settings = Path(path), json.loads(json.dumps(settings))
        self.certified: Any = self.settings["certificate"]
        file = self.path / "settings.json"
        if file.exists():
            found = json.loads(file.read_text(encoding="utf-8"))
            names = sorted((found.keys() | self.settings.keys()) - {"certificate"})
            different = [name for name in names if found.get(name) != self.settings.get(name)]
            if different and not overwrite:
                raise ValueError(
                    f"directory: {self.path} holds a run with other settings ({', '.join(different)}); "
                    f"choose another directory, or pass overwrite=True to delete that run"
                )
            if different:
                _remove(self.path)
            else:
                self.certified = found.get("certificate")
        elif self.path.is_dir() and any(f.suffix != ".part" for f in self.path.iterdir()):
            raise ValueError(f"directory: {self.path} is not empty and holds no run; choose another one")
        self.path.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            write(file, json.dumps(self.settings, indent=1))

    def latest(self) -> Path | None:
        """The newest whole checkpoint."""
        return max(self.path.glob("checkpoint-*.safetensors"), default=None)

    def save(self, learners: dict[str, Any], faced: Any, rows: list[dict[str, Any]]) -> None:
        """Write what is to be kept of the learners after iteration rows[-1], and of the population that its best
        response was trained against (None in iteration 0), then drop the checkpoint before it."""
        before = self.latest()
        (self.path / "history.csv").unlink(missing_ok=True)  # of a shorter run, which this one extends
        k = rows[-1]["iteration"]
        learned = {part: getattr(learner, "learned", learner.state)() for part, learner in learners.items()}
        _save(learners_file(self.path, k), learned)
        file = self.path / f"checkpoint-{k:04d}.safetensors"
        state = {part: learner.state() for part, learner in learners.items()}
        state |= {} if faced is None else {"faced": faced.state()}
        _save(file, state, metadata={"history": json.dumps(rows)})
        if before is not None and before != file:
            before.unlink()

    def load(self, device: str) -> tuple[Parts, list[dict[str, Any]]]:
        """The newest checkpoint's state and history; both empty if there is none."""
        file = self.latest()
        if file is None:
            return {}, []
        with safe_open(file, framework="pt", device=device) as stored:
            return _parts(stored), json.loads(stored.metadata()["history"])

    def certify(self, state: Parts, rows: list[dict[str, Any]]) -> None:
        """Keep a history that was certified anew by the judge of today."""
        (self.path / "history.csv").unlink(missing_ok=True)
        _save(self.path / f"checkpoint-{rows[-1]['iteration']:04d}.safetensors", state, {"history": json.dumps(rows)})
        write(self.path / "settings.json", json.dumps(self.settings, indent=1))
        self.certified = self.settings["certificate"]

    def finish(self, rows: list[dict[str, Any]]) -> None:
        write(self.path / "history.csv", pd.DataFrame(rows).to_csv(index=False))


def learners_file(directory: Path, k: int) -> Path:
    """Where a run keeps what iteration k has learned."""
    return directory / f"learners-{k:04d}.safetensors"


def read_learners(directory: Path, k: int, device: str) -> Parts:
    """What iteration k has learned; FileNotFoundError names the file if it is missing."""
    file = learners_file(directory, k)
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing: the run kept no learners of iteration {k}")
    with safe_open(file, framework="pt", device=device) as stored:
        return _parts(stored)


def _parts(stored: Any) -> Parts:
    parts: Parts = {}
    for name in stored.keys():  # noqa: SIM118 (not a dict)
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = stored.get_tensor(name)
    return parts


def _save(file: Path, parts: Parts, metadata: dict[str, str] | None = None) -> None:
    tensors = {f"{part}.{name}": value for part, state in parts.items() for name, value in state.items()}
    with replacing(file) as temporary:
        save_file(tensors, temporary, metadata)


def _remove(directory: Path) -> None:
    """Delete a run directory; killed half-way, it is gone under its own name all the same."""
    aside = directory.with_name(directory.name + ".removed")
    shutil.rmtree(aside, ignore_errors=True)
    directory.rename(aside)
    shutil.rmtree(aside)
