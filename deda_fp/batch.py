"""What the pipeline of `make figures` must know of a run before anything is loaded. Needs no torch."""

import os
import threading
import time
from pathlib import Path
from typing import Any

from mfglib.presets import ALGORITHMS, AVERAGES, LEARNERS

STARTED_BY = "DEDA_FP_STARTED_BY"  # the process of the pipeline, in the environment of its jobs

GAMES = {  # name -> its module, and the learner of its best responses
    "lq": ("mfglib.games.linear_quadratic", "ppo"),
    "lq-bounded": ("mfglib.games.linear_quadratic", "look-ahead"),
    "beach-bar": ("mfglib.games.beach_bar", "look-ahead"),
    "four-rooms": ("mfglib.games.four_rooms", "look-ahead"),
    "market": ("mfglib.games.market", "look-ahead"),
}

SEEDS = {"smoke": range(2), "lecture": range(4), "paper": range(4)}
# game: variants, which are schedules of averaging (of DEDA-FP), algorithms, or both: "algo-1-corrective"
RUNS = {"lq": ["uniform", "geometric"], **{game: [*ALGORITHMS] for game in [*GAMES][1:]}}
RUNS["beach-bar"] += [f"{algorithm}-corrective" for algorithm in ALGORITHMS]
for game in ("beach-bar", "four-rooms"):  # Algo 1 and 2 differ in the average alone, and mirror descent has none
    RUNS[game] += ["deda-fp-mirror", "algo-2-mirror"]
# Runs whose error terms are measured: game and variant.
THEORY = {"lq": "uniform", "beach-bar": "deda-fp"}
INFERENCE = ("inference.csv", "inference_flows.csv")  # tables of the speed of sampling

# The sweep of learning rates (paper, Fig. 15): of each learner of one run, the others being as the preset has them.
SWEPT, SWEEP_TABLE, SWEEP_ITERATIONS = ("beach-bar", "deda-fp"), "learning_rates.csv", {"smoke": 2}  # else 10
SWEEP = {
    "look-ahead": (5e-4, 1.4e-3, 4e-3, 1.1e-2, 3.2e-2),
    "cloned": (4e-4, 1e-3, 3e-3, 8e-3, 2.4e-2),
    "flow": (6e-4, 1.7e-3, 5e-3, 1.4e-2, 4e-2),
}


def sweep(preset: str) -> list[tuple[str, str, int]]:
    """Learner, rate and seed of the runs of the sweep: two seeds of each; at `smoke` one, and two rates."""
    few = preset == "smoke"
    return [
        (learner, f"{rate:g}", seed)
        for learner, rates in SWEEP.items()
        for rate in (rates[1:3] if few else rates)
        for seed in SEEDS[preset][: 1 if few else 2]
    ]


def learned_by(variant: str) -> tuple[str, str]:
    """Algorithm and averaging of a variant."""
    if variant in ALGORITHMS:
        return variant, "uniform"
    algorithm, _, averaging = variant.rpartition("-")
    return algorithm or "deda-fp", averaging


def modules_of_run(game: str, variant: str) -> list[str]:
    """The modules that a training run of a variant follows from."""
    module, response = GAMES[game]
    algorithm, averaging = learned_by(variant)
    names = ALGORITHMS[algorithm] | dict(best_response=response)
    others = AVERAGES.get(averaging, {})
    names = {part: others.get(name, name) for part, name in names.items()}
    learners = [LEARNERS[part][name].partition(":")[0] for part, name in names.items()]
    return sorted({"mfglib.fictitious_play", "mfglib.schedules", module, *learners})


def modules_of_learners(text: str) -> list[str]:
    """The modules of the learners that a program which calls `solve` may load by name: all, but Stable-Baselines3 only
    where the program's text names it."""
    learners = [(name, path) for part in LEARNERS.values() for name, path in part.items()]
    return sorted({path.partition(":")[0] for name, path in learners if "sb3" not in name or "sb3" in text})


RUN = ("game", "algorithm", "averaging", "seed", "iteration")  # what a row of a table of runs is known by


def seconds_file(table: Path) -> Path:
    """Where the wall seconds of a table of runs are: beside it, so that results are equal wherever they are made."""
    return table.with_name(f"{table.stem.removesuffix('_runs')}_seconds.csv")


def read_runs(table: str | Path) -> Any:
    """A table of runs with their wall seconds, a `pandas.DataFrame`."""
    import pandas as pd

    return pd.read_csv(table).merge(pd.read_csv(seconds_file(Path(table))), on=RUN, validate="one_to_one")


def end_with_pipeline() -> None:
    """End this process once the pipeline that started it is gone, even killed: else a training would go on beside the
    one that the next `make figures` starts. Nothing is lost, as runs resume. Only where processes can be asked for
    (POSIX), and only in a job of the pipeline."""
    pipeline = os.environ.get(STARTED_BY, "")
    if pipeline.isdigit() and os.name == "posix":
        threading.Thread(target=_watch, args=(int(pipeline),), daemon=True).start()


def _watch(pipeline: int) -> None:
    while True:
        try:
            os.kill(pipeline, 0)  # asks whether it is there
        except ProcessLookupError:
            os._exit(1)
        except PermissionError:
            pass
        time.sleep(0.5)
