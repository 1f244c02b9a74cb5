"""Training runs for batches: `python -m mfglib train lq --seed 0 --directory results/lq/0`, `errors`, `summary`."""

import argparse
import json
import sys
from pathlib import Path

import pandas as pd

from deda_fp import comparison, store
from deda_fp.batch import RUN, end_with_pipeline, learned_by, seconds_file
from deda_fp.catalogue import GAMES, iterations
from deda_fp.taken import STAMP, stamp
from deda_fp.theory.errors import errors as error_terms
from mfglib import __version__, replay, runs, solve
from mfglib.exact import lq_equilibrium, lq_fictitious_play
from mfglib.judge import of as judge_of
from mfglib.presets import ALGORITHMS, AVERAGES, PRESETS
from mfglib.schedules import AVERAGING

SCHEDULES = (*AVERAGING, *AVERAGES)
VARIANTS = (*ALGORITHMS, *SCHEDULES, *(f"{algorithm}-{name}" for algorithm in ALGORITHMS for name in SCHEDULES))


def train(arguments: argparse.Namespace) -> None:
    end_with_pipeline()
    K = arguments.iterations
    if K is None:
        K = iterations(arguments.game, arguments.preset, arguments.averaging)
    options = {n: getattr(arguments, n) for n in ("averaging", "seed", "preset", "sizes", "directory", "overwrite")}
    solve(GAMES[arguments.game], arguments.algorithm, iterations=K, **options)


def errors(arguments: argparse.Namespace) -> None:
    """The theorem's error terms of a finished DEDA-FP run with uniform averaging, into its errors.csv."""
    game, directory = GAMES[arguments.game], arguments.directory
    stored, settings = replay(game, directory), runs.read_settings(directory)
    found = settings["algorithm"], settings["averaging"]["attributes"].get("name")
    if found != ("deda-fp", "uniform"):
        raise ValueError(f"{directory}: expected a deda-fp run with uniform averaging, got {found}")
    judge, learners = judge_of(game, arguments.cells), list(stored)
    judge.grid  # noqa: B018 (raises for games that theory cannot tabulate)
    runs.write_table(directory / "errors.csv", error_terms(judge, learners, total=len(learners)))


def summary(arguments: argparse.Namespace) -> None:
    """One table of the histories of many runs, results/PRESET/GAME/VARIANT/seed-S/history.csv; a variant is a schedule
    of averaging (of DEDA-FP), an algorithm, or both, as in algo-2-corrective. Beside unbounded games, the exact
    fictitious play. Wall seconds go into a table of their own (`deda_fp.batch.seconds_file`). Or one of their
    errors.csv."""
    tables = []
    for file in arguments.histories:
        if len(file.parts) < 4 or file.parts[-4] not in GAMES:
            raise ValueError(f"{file}: expected .../GAME/VARIANT/seed-S/history.csv, GAME one of {', '.join(GAMES)}")
        name, variant, seed = file.parts[-4:-1]
        if variant not in VARIANTS or not seed.removeprefix("seed-").isdigit():
            known = ", ".join(VARIANTS)
            raise ValueError(f"{file}: expected .../VARIANT/seed-S/..., VARIANT one of {known}, S a number")
        algorithm, averaging = learned_by(variant)
        labels = dict(game=name, algorithm=algorithm, averaging=averaging, seed=int(seed.removeprefix("seed-")))
        table = runs.read_table(file).assign(**labels)
        if file.name == "history.csv" and not getattr(GAMES[name], "bounded", True):
            exact = lq_fictitious_play(GAMES[name], int(table["iteration"].max()), averaging).exploitability
            table = table.assign(exact_exploitability=exact, equilibrium_value=lq_equilibrium(GAMES[name]).value)
        tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    timed = [name for name in table if name.startswith("seconds_")]
    weights = [name for name in table if name.startswith("weight_")]  # they stay with the run
    files = {arguments.output: table.drop(columns=timed + weights)}
    files |= {seconds_file(arguments.output): table[[*RUN, *timed]]} if timed else {}
    for file, columns in files.items():
        runs.write(file, columns.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def sweep(arguments: argparse.Namespace) -> None:
    """One table of the exploitability in runs that differ by a learning rate, .../LEARNER/RATE/seed-S/history.csv."""
    tables = []
    for file in arguments.histories:
        learner, rate, seed = file.parts[-4:-1]
        labels = dict(learner=learner, learning_rate=float(rate), seed=int(seed.removeprefix("seed-")))
        table = runs.read_table(file)[["iteration", "exploitability"]].dropna()
        tables.append(table.assign(**labels)[[*labels, *table]])
    table = pd.concat(tables, ignore_index=True)
    runs.write(arguments.output, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def take(arguments: argparse.Namespace) -> None:
    for line in store.take(arguments.results):
        print(line)
    runs.write(arguments.results / STAMP, stamp())


def keep(arguments: argparse.Namespace) -> None:
    store.keep(arguments.results, arguments.only)


def confirm(arguments: argparse.Namespace) -> None:
    comparison.confirm(arguments.old.resolve(), arguments.iterations, arguments.only)


def compare(arguments: argparse.Namespace) -> None:
    print(comparison.compare(arguments.results).to_string(index=False, float_format="{:.4g}".format))


def main() -> None:
    """The command line. What is wrong is said in one line, with status 1."""
    parser = argparse.ArgumentParser(prog="deda-fp", description=__doc__)
    parser.add_argument("--version", action="version", version=f"deda-fp {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from")
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("train", help="train one run; killed, the same command goes on where it was")
    one.add_argument("game", choices=GAMES)
    one.add_argument("--algorithm", choices=ALGORITHMS, default="deda-fp")
    one.add_argument("--averaging", choices=SCHEDULES, default="uniform")
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--preset", choices=PRESETS, default="lecture")
    one.add_argument("--iterations", type=int, help="K; by default the preset's")
    one.add_argument("--sizes", type=json.loads, help='changes to the preset, as {"flow": {"steps": 80}}')
    one.add_argument("--directory", type=Path, required=True)
    one.add_argument("--overwrite", action="store_true", help="start anew if settings or code have changed")
    one.set_defaults(run=train)
    terms = commands.add_parser("errors", help="measure the theorem's error terms of a finished run")
    terms.add_argument("game", choices=GAMES)
    terms.add_argument("--directory", type=Path, required=True, help="of the run; errors.csv goes there")
    terms.add_argument("--cells", type=int, help="of the grid; by default 100 on the beach, 600 for LQ")
    terms.set_defaults(run=errors)
    many = commands.add_parser("summary", help="gather the histories, or the error terms, of runs into one table")
    many.add_argument("histories", type=Path, nargs="+")
    many.add_argument("--output", type=Path, required=True)
    many.set_defaults(run=summary)
    rates = commands.add_parser("sweep", help="gather the runs of the sweep of learning rates into one table")
    rates.add_argument("histories", type=Path, nargs="+")
    rates.add_argument("--output", type=Path, required=True)
    rates.set_defaults(run=sweep)
    for name, run, what in (
        (
            "take",
            take,
            "place the stored runs that belong to this code among the results",
        ),
        ("keep", keep, "renew the stored runs from the results"),
        ("compare", compare, "stored runs beside the results"),
    ):
        stored = commands.add_parser(name, help=what)
        stored.add_argument("--results", type=Path, default=store.RESULTS)
        if name == "keep":
            stored.add_argument(
                "--only", nargs="+", default=(), metavar="RUN", help="as beach-bar/deda-fp, sampling or sweep"
            )
        stored.set_defaults(run=run)
    same = commands.add_parser("confirm", help="let stored runs belong to code that trains the same, to the bit")
    same.add_argument("old", type=Path, help="a checkout of the code that they belong to")
    same.add_argument("--iterations", type=int, default=6, help="that are trained with both")
    same.add_argument("--only", nargs="+", default=(), metavar="RUN", help="as beach-bar/deda-fp")
    same.set_defaults(run=confirm)
    arguments = parser.parse_args()
    try:
        arguments.run(arguments)
    except (ValueError, TypeError, ArithmeticError, OSError) as error:
        if arguments.traceback:
            raise
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
