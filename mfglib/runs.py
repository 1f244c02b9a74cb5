"""Run directories: settings in, a resumable run out. safetensors and JSON only; nothing here can execute code."""

import dataclasses
import hashlib
import inspect
import json
import os
import re
import shutil
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mfglib.sources import PACKAGES, fingerprint, libraries, remember, sources

remember()  # what runs is what was read now, whatever is edited since
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

    def save(self, state: Parts, learned: Parts, rows: list[dict[str, Any]]) -> None:
        """Write what is to be kept after iteration rows[-1], then drop the checkpoint before it."""
        before = self.latest()
        (self.path / "history.csv").unlink(missing_ok=True)  # of a shorter run, which this one extends
        k = rows[-1]["iteration"]
        _save(learners_file(self.path, k), learned)
        file = self.path / f"checkpoint-{k:04d}.safetensors"
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


# --- what makes a run the same run


def settings_of(
    game: object, learners: dict[str, object], averaging: object, functions: list[Callable], **others: Any
) -> dict[str, Any]:
    """What a run directory must match to go on: the game, the learners and other values, the code that they use, and
    the versions of the libraries that this code imports. `functions`: further code that counts."""
    modules = ["mfglib.fictitious_play", *modules_of(game, *learners.values(), averaging)]
    texts = [textwrap.dedent(inspect.getsource(function)) for function in functions]
    code = dict(code=fingerprint(modules, texts=texts), libraries=libraries(sources(modules)))
    described = {part: describe_learner(learner) for part, learner in learners.items()}
    return dict(game=describe(game), learners=described, averaging=describe_learner(averaging), **others, **code)


def modules_of(*things: object) -> list[str]:
    """The project's modules that the classes of some objects, and their bases, are written in."""
    kinds = {kind for thing in things for kind in type(thing).__mro__}
    return sorted({kind.__module__ for kind in kinds if kind.__module__.split(".")[0] in PACKAGES})


def describe_learner(learner: object) -> dict[str, Any]:
    """The class of a learner, its configuration and other plain attributes, and a hash of its methods if it is not one
    of this project's."""
    kind, config = type(learner), getattr(learner, "config", None)
    plain = {n: v for n, v in vars(learner).items() if isinstance(v, (bool, int, float, str, tuple)) and n[0] != "_"}
    described = {"class": f"{kind.__module__}:{kind.__qualname__}", "attributes": _jsonable_all(plain)}
    described["attributes"].pop("training", None)  # of any nn.Module
    if dataclasses.is_dataclass(config):
        described["config"] = dataclasses.asdict(config)
    own = [k for k in kind.__mro__ if k.__module__.split(".")[0] not in (*PACKAGES, "torch", "builtins", "typing")]
    if own:
        members = [member for k in reversed(own) for member in vars(k).items()]
        methods = {name: getattr(member, "fget", member) for name, member in members}
        described["methods"] = _digest({name: _source(f) for name, f in methods.items() if callable(f)})
    return described


def describe(game: object) -> dict[str, Any]:
    """The class of a game, its public attributes as JSON values, and a hash of its methods' source where there is one:
    what a run directory must match to resume."""
    public = {name: _member(game, name) for name in dir(game) if not name.startswith("_")}
    values = _jsonable_all({name: value for name, value in public.items() if not callable(value)})
    methods = {name: _source(value) for name, value in public.items() if callable(value)}
    return {"class": type(game).__qualname__, "methods": _digest(methods), **values}


def _digest(texts: dict[str, str]) -> str:
    return hashlib.blake2b(json.dumps(texts, sort_keys=True).encode(), digest_size=8).hexdigest()


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


def _jsonable_all(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _jsonable(value) for name, value in values.items()}


def _jsonable(value: Any) -> Any:
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    if type(value).__repr__ is object.__repr__ and hasattr(value, "__dict__"):  # the repr says nothing of its values
        own = {name: v for name, v in vars(value).items() if not callable(v)}
        return {"class": type(value).__qualname__, **_jsonable_all(own)}
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))  # an address would differ at the next start


# --- files


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A path beside `file` to write to, which then takes its place: a reader never sees half a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.part")
    yield temporary
    os.replace(temporary, file)


def write(file: Path, text: str) -> None:
    """Write a text by `replacing`. An unchanged file keeps its time, as Snakemake asks."""
    if file.exists() and file.read_text(encoding="utf-8") == text:
        return
    with replacing(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _remove(directory: Path) -> None:
    """Delete a run directory; killed half-way, it is gone under its own name all the same."""
    aside = directory.with_name(directory.name + ".removed")
    shutil.rmtree(aside, ignore_errors=True)
    directory.rename(aside)
    shutil.rmtree(aside)
