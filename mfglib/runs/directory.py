"""Run directories: settings in, a resumable run out. safetensors and JSON only; nothing here can execute code."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from mfglib.files import DamagedFile, Parts, read_parts, read_table, write, write_parts, write_table
from mfglib.runs.identity import same_policy
from mfglib.trial import same_behaviour

# What runs, and what measures them, write: all that `overwrite` deletes, the settings last.
WRITTEN = (
    "checkpoint-*.safetensors",
    "learners-*.safetensors",
    "history.csv*",
    "errors.csv*",
    ".*.part",
    "settings.json",
)


class RunDirectory:
    """settings.json, the newest checkpoint-KKKK.safetensors, learners-KKKK.safetensors of each iteration, and
    history.csv, which is there once the run is done.

    A checkpoint holds what later iterations depend on (`Learner.state`) and the history so far. It is written beside
    and renamed, so that a run killed at any moment leaves a whole one. Random numbers derive from (seed, iteration,
    purpose): there is no other state. What was learned stays, so that every iteration can be measured later.

    The directory is locked until `close`, or until the process is gone. `settings["certificate"]` does not make a run
    another one: it says how the history was certified. Nor does `settings["kept"]`, the first iteration of which a
    packed run (`mfglib.runs.packed`) has learners; it has no checkpoint, and opens for its own number of `iterations`.

    Raises ValueError if the directory holds another run or a damaged one, or a packed one of another length, unless
    `overwrite`, which then deletes what runs write; if it holds something else; and if another process writes to it.
    """

    def __init__(
        self, path: str | Path, settings: dict[str, Any], iterations: int | None = None, *, overwrite: bool = False
    ) -> None:
        if not str(path):
            raise ValueError("directory: expected a path, got an empty one")
        self.path, self.settings = Path(path).expanduser(), json.loads(json.dumps(settings))
        self.certified: Any = self.settings["certificate"]
        self.kept: int | None = None
        self.path.mkdir(parents=True, exist_ok=True)
        if not self._written() and any(file.name[0] != "." for file in self.path.iterdir()):
            raise ValueError(f"directory: {self.path} is not empty and holds no run; choose another one")
        self._lock = FileLock(self.path / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(
                f"directory: expected one that no other process writes to, got {self.path}; wait for that run to end, "
                f"or choose another"
            ) from None
        try:
            self._begin(iterations, overwrite)
        except BaseException:
            self.close()
            raise

    def _begin(self, iterations: int | None, overwrite: bool) -> None:
        file = self.path / "settings.json"
        try:
            found = read_settings(self.path) if file.exists() else None
            if found is None and any(file.name[0] != "." for file in self._written()):
                raise DamagedFile(file, "it is missing")
            self._compare(found or self.settings)
            self.kept = (found or {}).get("kept")
            self.state, self.rows = self._load()
            if self.kept is not None and not self.kept <= len(self.rows) - 1 == iterations:
                raise ValueError(
                    f"directory: {self.path} is packed: {len(self.rows) - 1} iterations, learners from {self.kept} on; "
                    f"ask for as many, choose another directory, or pass overwrite=True to train anew"
                )
        except (ValueError, FileNotFoundError):
            if not overwrite:
                raise
            for old in self._written():
                old.unlink()
            self.state, self.rows, found, self.kept = {}, [], None, None
        if found is None:
            write(file, json.dumps(self.settings, indent=1))
        else:
            self.certified = found.get("certificate")

    def _written(self) -> list[Path]:
        return [file for pattern in WRITTEN for file in self.path.glob(pattern)]

    def _compare(self, found: dict[str, Any]) -> None:
        names = sorted((found.keys() | self.settings.keys()) - {"certificate", "kept"})
        different = [name for name in names if not _same(name, found.get(name), self.settings.get(name))]
        if different:
            raise ValueError(
                f"directory: {self.path} holds a run with other settings ({', '.join(different)}); "
                f"choose another directory, or pass overwrite=True to delete that run"
            )

    def _load(self) -> tuple[Parts, list[dict[str, Any]]]:
        """The newest checkpoint's state and history, once all that the run has kept is known to be whole; both empty if
        there is none. Of a packed run, the history."""
        file = self.latest()
        if self.kept is not None:
            state, rows = {}, read_table(self.path / "history.csv").to_dict("records")
        elif file is None:
            return {}, []
        else:
            state, rows = read_parts(file, iteration_of(file), self.settings.get("device", "cpu"))
            if [row["iteration"] for row in rows] != list(range(iteration_of(file) + 1)):
                raise DamagedFile(file, "its history is not that of its iteration")
        for k in range(self.kept or 0, len(rows)):
            read_learners(self.path, k)
        return state, rows

    def close(self) -> None:
        self._lock.release()

    def latest(self) -> Path | None:
        """The newest whole checkpoint."""
        return newest(self.path)

    def save(self, learners: dict[str, Any], faced: Any, rows: list[dict[str, Any]]) -> None:
        """Write what is to be kept of the learners after iteration rows[-1], and of the population that its best
        response was trained against (None in iteration 0), then drop the checkpoint before it."""
        before, k = self.latest(), rows[-1]["iteration"]
        (self.path / "history.csv").unlink(missing_ok=True)  # of a shorter run, which this one extends
        learned = {part: getattr(learner, "learned", learner.state)() for part, learner in learners.items()}
        write_parts(learners_file(self.path, k), learned, k)
        state = {part: learner.state() for part, learner in learners.items()}
        self.checkpoint(state | ({} if faced is None else {"faced": faced.state()}), rows)
        if before is not None and iteration_of(before) != k:
            before.unlink()

    def checkpoint(self, state: Parts, rows: list[dict[str, Any]]) -> None:
        k = rows[-1]["iteration"]
        write_parts(self.path / f"checkpoint-{k:04d}.safetensors", state, k, rows)

    def certify(self, state: Parts, rows: list[dict[str, Any]]) -> None:
        """Keep a history that was certified anew by the judge of today."""
        settings = self.settings
        if self.kept is not None:
            settings = settings | dict(kept=self.kept)
            self.finish(rows)
        else:
            (self.path / "history.csv").unlink(missing_ok=True)
            self.checkpoint(state, rows)
        write(self.path / "settings.json", json.dumps(settings, indent=1))
        self.certified = self.settings["certificate"]

    def finish(self, rows: list[dict[str, Any]]) -> None:
        write_table(self.path / "history.csv", pd.DataFrame(rows))


def _same(name: str, found: Any, wanted: Any) -> bool:
    if name == "behaviour" and isinstance(found, dict):  # of the game, in numbers that are rounded
        return same_behaviour(found, wanted)
    if name == "initial_policy":
        return same_policy(found, wanted)
    return found == wanted


def read_settings(directory: Path) -> dict[str, Any]:
    """The settings of the run in a directory; raises DamagedFile, or FileNotFoundError."""
    file = directory / "settings.json"
    try:
        found = json.loads(file.read_bytes().decode())
    except ValueError as error:  # JSON, or UTF-8
        raise DamagedFile(file, error) from error
    if not isinstance(found, dict):
        raise DamagedFile(file, f"it holds a {type(found).__name__}")
    return found


def newest(directory: Path) -> Path | None:
    """The newest checkpoint of a run."""
    return max(directory.glob("checkpoint-*.safetensors"), default=None)


def iteration_of(file: Path) -> int:
    """k of checkpoint-KKKK or learners-KKKK; DamagedFile for another name."""
    name = file.stem.rpartition("-")[2]
    if not name.isdigit():
        raise DamagedFile(file, "its name has no iteration")
    return int(name)


def learners_file(directory: Path, k: int) -> Path:
    """Where a run keeps what iteration k has learned."""
    return directory / f"learners-{k:04d}.safetensors"


def read_learners(directory: Path, k: int, device: str = "cpu") -> Parts:
    """What iteration k has learned; FileNotFoundError names the file if it is missing, DamagedFile if it is damaged."""
    return read_parts(learners_file(directory, k), k, device)[0]
