"""The stored runs, `runs/`: what `make figures` and notebooks open instead of training.

Of each training run of the lecture preset there are its history and, of seed 0, its last learners; beside them error
terms and the table of the speed of sampling. A stored run counts as long as it belongs to the code, settings and
versions of today (`mfglib.runs.identity`); one that does not is trained.
"""

import hashlib
import json
import platform
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from deda_fp.batch import (
    INFERENCE,
    RUNS,
    SEEDS,
    SWEEP,
    SWEEP_TABLE,
    SWEPT,
    THEORY,
    learned_by,
    modules_of_learners,
    modules_of_run,
)
from deda_fp.catalogue import GAMES, iterations
from mfglib import runs, solve
from mfglib.presets import ALGORITHMS, resolve_preset, sizes
from mfglib.runs.directory import newest
from mfglib.solver import Solution
from mfglib.sources import ROOT, fingerprint, libraries, sources

STORE, RESULTS, PRESET = ROOT / "runs", ROOT / "results", "lecture"
VARIANTS = [(game, variant) for game, variants in RUNS.items() for variant in variants]
ERRORS = ("deda_fp.theory.errors", "mfglib.judge")  # the code that measures error terms
SAMPLING = ("mfglib.populations", "deda_fp.distances")  # and that of the speed of sampling, beside its scripts
SAMPLED = ("four-rooms", "beach-bar")  # the games whose learners are sampled from
TABLES = dict.fromkeys(INFERENCE, "sampling") | {SWEEP_TABLE: "sweep"}  # beside the runs, and of what


def stored_run(game: str, variant: str, *, preset: str = PRESET, seed: int = 0, results: str = "results") -> Solution:
    """The finished run of a game of the catalogue and a variant, an algorithm or a schedule of averaging: from the
    folder `results`, where a batch keeps its runs, or from the store; only if neither has it, it is trained now, which
    is said and shown by a bar."""
    preset = resolve_preset(preset)
    directory = ROOT / results / preset / game / variant / f"seed-{seed}"
    directory.parent.mkdir(parents=True, exist_ok=True)
    stored = STORE / game / variant / f"seed-{seed}"
    with FileLock(directory.parent / f".seed-{seed}.lock"):  # two notebooks may want the same run
        if not _begun(directory) and preset == PRESET and any(stored.glob("learners-*")):
            _copy(stored, directory)
        try:
            if _begun(directory):
                return _solve(game, variant, preset, seed, directory, progress=False)
        except ValueError as reason:
            if newest(directory) is not None and preset == "paper":  # hours of work
                raise
            print(f"{game}, {variant}, seed {seed}: {reason}")
        print(f"{game}, {variant}, seed {seed}: no finished run belongs to this code, so it is trained now")
        return _solve(game, variant, preset, seed, directory, overwrite=True)


def grid_bias(game: str, cells: int) -> dict[int, float]:
    """t -> how far, in total variation, the exact equilibrium on a grid of so many cells is from agents of the
    continuous game who follow its policy, as benchmarks/grid.py has measured it; KeyError if it has not."""
    rows = json.loads((ROOT / "figures/data/grid_benchmark.json").read_text(encoding="utf-8"))
    head, tail = f"{game}, equilibrium, {cells} cells, t = ", ": total variation"
    found = {r["measure"]: r["value"] for r in rows if r["measure"].startswith(head) and r["measure"].endswith(tail)}
    if not found:
        raise KeyError(f"figures/data/grid_benchmark.json has no rows of {head[:-6]}: run benchmarks/grid.py")
    return {int(name.removeprefix(head).removesuffix(tail)): value for name, value in found.items()}


def take(results: Path = RESULTS) -> list[str]:
    """Place the stored runs that belong to the code of today in `results`, where the batch looks for them; why others
    are not, a line each. Runs that were trained there stay as they are."""
    said, made = [], made_by()
    for game, variant in VARIANTS:
        folder = results / PRESET / game / variant
        directories = [folder / f"seed-{seed}" for seed in SEEDS[PRESET]]
        if any(newest(directory) is not None for directory in directories):
            continue
        try:
            if THEORY.get(game) == variant and made.get("errors") != fingerprint(ERRORS):
                raise ValueError("the code that measures its error terms has changed")
            _take(game, variant, directories)
        except (ValueError, FileNotFoundError) as reason:
            for directory in directories:
                shutil.rmtree(directory, ignore_errors=True)
            said.append(f"{game}, {variant}: trained anew, as its stored runs do not belong to this code ({reason})")
    wanted = _followed()
    for name, kind in TABLES.items():
        target = results / PRESET / name
        if made.get(kind) != wanted[kind]:
            said.append(f"{name}: measured anew, as its code or its runs have changed")
        elif not target.exists():
            shutil.copyfile(STORE / name, target)
    return said


def _take(game: str, variant: str, directories: list[Path]) -> None:
    """All seeds of one variant; raises ValueError if they are not of the code of today. After a change of the judge
    alone the last learners of seed 0 are measured again, and what cannot be is marked stale."""
    for directory in directories:
        if not (directory / "history.csv").exists():
            _copy(STORE / game / variant / directory.name, directory)
    newest_source = max(file.stat().st_mtime for file in sources(modules_of_run(game, variant), ROOT))
    stored = runs.read_settings(directories[0])
    _solve(game, variant, PRESET, 0, directories[0], progress=False)
    certificate = runs.read_settings(directories[0])["certificate"]
    for seed, directory in enumerate(directories):
        settings = runs.read_settings(directory)
        if seed and settings | dict(seed=0, kept=stored["kept"]) != stored:
            raise ValueError(f"the settings of seed {seed} differ from those of seed 0")
        if settings["certificate"] != certificate:
            history = runs.read_table(directory / "history.csv").assign(stale=True)
            runs.write_table(directory / "history.csv", history)
            runs.write(directory / "settings.json", json.dumps(settings | dict(certificate=certificate), indent=1))
        for name in ("history.csv", "errors.csv"):  # sources that only say it better are no reason to train
            if (directory / name).exists() and (directory / name).stat().st_mtime < newest_source:
                (directory / name).touch()


def keep(results: Path = RESULTS, only: Sequence[str] = ()) -> None:
    """Renew the store from runs that were trained in `results`, and from the speed of sampling that was measured there:
    from all, or from those named, as "beach-bar/deda-fp" or "sampling". Raises ValueError for an unknown name."""
    names = [f"{game}/{variant}" for game, variant in VARIANTS] + sorted(set(TABLES.values()))
    if unknown := sorted(set(only) - set(names)):
        raise ValueError(f"only: expected names among {', '.join(names)}, got {', '.join(unknown)}")
    made = made_by()
    makers = made.get("runs", {}) | {name: here() for name in only or names if "/" in name}
    for game, variant in VARIANTS:
        if only and f"{game}/{variant}" not in only:
            continue
        for seed in SEEDS[PRESET]:
            source, target = results / PRESET / game / variant / f"seed-{seed}", STORE / game / variant / f"seed-{seed}"
            shutil.rmtree(target, ignore_errors=True)
            runs.pack(source, target, learners=seed == 0)
            if THEORY.get(game) == variant:
                runs.write_table(target / "errors.csv", runs.read_table(source / "errors.csv"))
    if not only or set(only) & {f"{game}/{variant}" for game, variant in THEORY.items()}:
        made["errors"] = fingerprint(ERRORS)
    for name, kind in TABLES.items():
        if not only or kind in only:
            runs.write(STORE / name, (results / PRESET / name).read_text(encoding="utf-8"))
            made[kind] = _followed()[kind]
    made = {"runs": makers} | {name: made[name] for name in ("errors", "sampling", "sweep") if name in made}
    runs.write(STORE / "made_by.json", json.dumps(made, indent=1) + "\n")


def here() -> str:
    """What bit-for-bit equality needs: the processor, and the versions of Python and of the libraries."""
    files = sources(["mfglib.solver", *modules_of_learners(""), *ERRORS, *SAMPLING], ROOT)
    versions = ", ".join(f"{name} {version}" for name, version in libraries(files).items())
    return f"{processor()}, Python {platform.python_version()}, {versions}"


IDENTITY = ("model name", "cpu family", "model", "stepping", "flags")  # processors of one name may differ in the rest


def processor() -> str:
    """The name of this machine's processor and, on Linux, a digest of what else tells it from others."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # no Linux
        return platform.processor() or platform.machine()
    fields = dict(re.findall(r"^([\w ]+?)\s*: (.*)$", text.partition("\n\n")[0], re.M))
    known = [fields.get(name, "") for name in IDENTITY]
    return f"{known[0] or platform.machine()} ({hashlib.sha256(repr(known).encode()).hexdigest()[:8]})"


def _solve(game: str, variant: str, preset: str, seed: int, directory: Path, **options: Any) -> Solution:
    algorithm, averaging = learned_by(variant)
    options |= dict(averaging=averaging, preset=preset, seed=seed, directory=directory)
    return solve(GAMES[game], algorithm, iterations=iterations(game, preset, averaging), **options)


def _begun(directory: Path) -> bool:
    return (directory / "settings.json").exists()


def _copy(source: Path, directory: Path) -> None:
    """A stored run; the error terms last, so that they are newer than the history that they belong to."""
    directory.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.iterdir(), key=lambda file: (file.name.startswith("errors"), file.name)):
        shutil.copyfile(file, directory / file.name)


def made_by() -> dict[str, Any]:
    """What made the stored runs and tables, by name."""
    file = STORE / "made_by.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def _followed() -> dict[str, str]:
    """What the tables of each kind follow from: of the speed of sampling code, and the learners that are sampled from;
    of the sweep the code and the sizes of its runs."""
    table = [SWEEP, sizes(PRESET, GAMES[SWEPT[0]])]
    return {"sampling": _sampling(STORE), "sweep": fingerprint(modules_of_run(*SWEPT), texts=[repr(table)])}


def _sampling(folder: Path) -> str:
    scripts = sorted((ROOT / "benchmarks").glob("*inference*.py"))
    sampled = [(game, variant) for game, variant in VARIANTS if game in SAMPLED and variant in ALGORITHMS]
    seeds = [folder / game / variant / "seed-0" for game, variant in sampled]
    learners = [file.read_bytes() for seed in seeds for file in sorted(seed.glob("learners-*"))]
    runs_sampled = [hashlib.sha256(content).hexdigest()[:8] for content in learners]
    return "-".join([fingerprint(SAMPLING, texts=[f.read_text(encoding="utf-8") for f in scripts]), *runs_sampled])
