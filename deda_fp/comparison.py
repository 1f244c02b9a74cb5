"""Stored runs beside those of other code or of another machine: the same to the bit, or as statistics."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from deda_fp import store
from deda_fp.batch import SWEEP, SWEPT, THEORY, learned_by, modules_of_run
from deda_fp.catalogue import GAMES
from mfglib import runs
from mfglib.files import Parts
from mfglib.presets import sizes
from mfglib.runs.directory import iteration_of, read_learners
from mfglib.sources import ROOT, fingerprint


def confirm(old: Path, iterations: int = 6, only: Sequence[str] = ()) -> None:
    """Let stored runs belong to the code of today where it does what the code in the folder `old`, which they belong
    to, does: of each run both train the first iterations of seed 0, and histories, learners and error terms must be
    equal to the bit. So a change that changes no number asks for minutes, not for all runs again.

    Raises ValueError, naming the run, where the stored ones are not of `old` and where something differs.
    """
    made, folders = store.made_by(), [store.RESULTS / "confirm" / name for name in ("old", "new")]
    for game, variant in store.VARIANTS:
        if (only and f"{game}/{variant}" not in only) or not (store.STORE / game / variant).exists():
            continue
        for folder in folders:  # of an earlier comparison
            shutil.rmtree(folder / game / variant, ignore_errors=True)
        commands = [_train(root, game, variant, iterations, at) for root, at in zip((old, ROOT), folders, strict=True)]
        if any(command.wait() for command in commands):
            raise ValueError(f"{game}/{variant}: expected two runs, got an error; see above")
        then, now = pair = [folder / game / variant for folder in folders]
        before, after = (runs.read_settings(run) for run in pair)
        stored = [store.STORE / game / variant / f"seed-{seed}" for seed in store.SEEDS[store.PRESET]]
        if runs.read_settings(stored[0])["code"] != before["code"]:
            raise ValueError(f"{game}/{variant}: expected stored runs of the code in {old}, got ones of other code")
        same = _measured(then).equals(_measured(now)) and all(_same(then, now, k) for k in range(iterations + 1))
        if THEORY.get(game) == variant:
            same = same and (then / "errors.csv").read_bytes() == (now / "errors.csv").read_bytes()
        if not same:
            raise ValueError(
                f"{game}/{variant}: expected what the code in {old} trains, got something else; train anew"
            )
        for run in stored:
            settings = runs.read_settings(run)
            known = {name: value for name, value in after.items() if name != "seed"}
            if settings["certificate"] != before["certificate"]:  # it was stale before
                known.pop("certificate")
            runs.write(run / "settings.json", json.dumps(settings | known, indent=1))
        print(f"{game}/{variant}: equal")
    if not only or {f"{game}/{variant}" for game, variant in THEORY.items()} <= set(only):
        made["errors"] = fingerprint(store.ERRORS)
    if (not only or "/".join(SWEPT) in only) and made.get("sweep") == _swept(old):  # it differs by a setting alone
        made["sweep"] = _swept(ROOT)
    runs.write(store.STORE / "made_by.json", json.dumps(made, indent=1) + "\n")


def _swept(root: Path) -> str:
    """What the table of the sweep follows from, if the code is that in `root` (`deda_fp.store`)."""
    table = [SWEEP, sizes(store.PRESET, GAMES[SWEPT[0]])]
    return fingerprint(modules_of_run(*SWEPT), root, texts=[repr(table)])


def _train(root: Path, game: str, variant: str, iterations: int, folder: Path) -> subprocess.Popen:
    """A process that trains seed 0 with the code in `root`, and measures its error terms."""
    algorithm, averaging = learned_by(variant)
    train = f"train {game} --algorithm {algorithm} --averaging {averaging} --iterations {iterations} --overwrite"
    errors = [f"errors {game}"] if THEORY.get(game) == variant else []
    mine = [sys.executable, "-m", "mfglib"]
    script = " && ".join(shlex.join([*mine, *c.split(), "--directory", f"{folder / game / variant}"])
                         for c in (train + f" --preset {store.PRESET}", *errors))  # fmt: skip
    environment = os.environ | dict(PYTHONPATH=str(root), OMP_NUM_THREADS="1", TQDM_DISABLE="1")
    return subprocess.Popen(script, shell=True, cwd=root, env=environment)


def compare(results: Path = store.RESULTS) -> pd.DataFrame:
    """Stored runs beside those that were trained in `results`. Where a machine like this one made the stored ones, a
    row a run: are histories, but for wall times, and last learners equal to the bit? Else a row for the game and
    variant: last exploitability, mean and standard deviation over the seeds, and their difference in standard errors.
    """
    made, rows = store.made_by().get("runs", {}), []
    for game, variant in store.VARIANTS:
        pairs = [
            [folder / game / variant / f"seed-{seed}" for folder in (store.STORE, results / store.PRESET)]
            for seed in store.SEEDS[store.PRESET]
        ]
        last = np.array([[_measured(run)["exploitability"].iloc[-1] for run in pair] for pair in pairs])
        if made.get(f"{game}/{variant}") == store.here():
            for seed, pair in enumerate(pairs):
                row = dict(game=game, variant=variant, seed=seed, stored=last[seed, 0], new=last[seed, 1])
                rows.append(row | dict(equal=_equal(*pair)))
        else:
            (stored, new), (a, b) = last.mean(0), last.std(0, ddof=1)
            row = dict(game=game, variant=variant, stored=stored, stored_std=a, new=new, new_std=b)
            rows.append(row | dict(standard_errors=(new - stored) / np.sqrt((a**2 + b**2) / len(last))))
    return pd.DataFrame(rows)


def _measured(directory: Path) -> pd.DataFrame:
    history = runs.read_table(directory / "history.csv")
    return history[[name for name in history if not name.startswith("seconds_")]]


def _equal(stored: Path, new: Path) -> bool:
    """Histories, but for wall times, and the last learners where they are stored."""
    if not _measured(stored).equals(_measured(new)):
        return False
    file = max(stored.glob("learners-*"), default=None)
    return file is None or _same(stored, new, iteration_of(file))


def _same(stored: Path, new: Path, k: int) -> bool:
    """The learners of iteration k."""
    one, other = (_named(read_learners(run, k)) for run in (stored, new))
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _named(parts: Parts) -> dict[str, torch.Tensor]:
    return {f"{part}.{name}": value for part, tensors in parts.items() for name, value in tensors.items()}
