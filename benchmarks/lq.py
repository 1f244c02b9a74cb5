"""DEDA-FP on the unbounded LQ games against exact fictitious play and the exact equilibrium, `lecture` preset.

Default: seed 0, uniform and geometric averaging, four games (about 4 minutes on 2 cores). `--full`: four seeds and
linear averaging too (about 20 minutes). Runs are kept in results/lecture, where `make figures` keeps its own, and are
not run again while the code is the same.
"""

import argparse
import itertools
import multiprocessing

import numpy as np
import torch
from _table import report, row

from deda_fp.catalogue import GAMES
from deda_fp.distances import flow_wasserstein, flow_wasserstein_gaussian, policy_error
from mfglib import solve
from mfglib.exact import lq_equilibrium, lq_fictitious_play
from mfglib.exact.lq_judge import LQJudge
from mfglib.rollout import rollout
from mfglib.seeds import generator
from mfglib.sources import ROOT

ITERATIONS = 20
UNBOUNDED = [name for name, game in GAMES.items() if LQJudge.meant_for(game)]


def measure(job: tuple[str, str, int]) -> dict:
    """Train one (game, averaging, seed) on one core, and compare it with the truth."""
    name, averaging, seed = job
    torch.set_num_threads(1)
    game = GAMES[name]
    directory = ROOT / "results/lecture" / name / averaging / f"seed-{seed}"
    solution = solve(
        game, iterations=ITERATIONS, averaging=averaging, seed=seed, directory=directory, overwrite=True, progress=False
    )
    truth = lq_equilibrium(game)
    value, last = abs(truth.value), solution.history.iloc[-1]
    own = rollout(game, solution.policy, None, n=200_000, generator=generator(seed, "benchmark")).x
    seconds = solution.history.filter(like="seconds_")
    print(f"  done: {name}, {averaging}, seed {seed}", flush=True)
    return {
        "game": name,
        "averaging": averaging,
        "seed": seed,
        "exploitability": 100 * last["exploitability"] / value,
        "exact": 100 * lq_fictitious_play(game, ITERATIONS, averaging).exploitability[-1] / value,
        "own": (flow_wasserstein(solution.population, own) / own.std(1)[:, 0].numpy()).max(),
        "truth": (flow_wasserstein_gaussian(solution.population, truth.mean, truth.cov)
                  / truth.cov[:, 0, 0].sqrt().numpy()).max(),
        "policy": 100 * policy_error(solution.policy, truth).max(),
        "seconds": seconds.to_numpy().sum(),
    }  # fmt: skip


def rows(results: list[dict]) -> list[dict]:
    """The table: every (game, averaging) over its seeds, then each game's best schedule."""
    table = []
    for game, runs_of_game in itertools.groupby(results, key=lambda r: r["game"]):
        groups = {k: list(v) for k, v in itertools.groupby(runs_of_game, key=lambda r: r["averaging"])}
        gaps = {averaging: [r["exploitability"] for r in group] for averaging, group in groups.items()}
        best = min(gaps, key=lambda averaging: np.mean(gaps[averaging]))
        for averaging, group in groups.items():
            table += rows_of(f"{game}, {averaging}", group, at_equilibrium=game == "lq")
        table.append(row(f"{game}: best schedule ({best}), worst seed", max(gaps[best]), "%", "<= 1"))
    return table


def rows_of(label: str, group: list[dict], *, at_equilibrium: bool) -> list[dict]:
    """Rows of one game and schedule; `at_equilibrium`: the distances to the equilibrium have targets."""
    worst = {name: max(r[name] for r in group) for name in ("exploitability", "own", "truth", "policy", "seconds")}
    gaps, exact = [r["exploitability"] for r in group], group[0]["exact"]
    w1, action = ("<= 0.1", "<= 5") if at_equilibrium else (None, None)
    return [
        row(
            f"{label}: exploitability / |value|, worst seed",
            worst["exploitability"],
            "%",
            f"<= {1.1 * exact + 0.5:.3g}",
        ),
        row(f"{label}: exploitability / |value|, mean", np.mean(gaps), "%"),
        row(f"{label}: exploitability / |value|, std over seeds", np.std(gaps), "%"),
        row(f"{label}: exact fictitious play", exact, "%"),
        row(f"{label}: W1(flow, own population) / std, worst t and seed", worst["own"], "", "<= 0.05"),
        row(f"{label}: W1(flow, equilibrium) / std, worst t and seed", worst["truth"], "", w1),
        row(f"{label}: mean action error / action range, worst x, t, seed", worst["policy"], "%", action),
        row(f"{label}: wall time of a run on one core, slowest", worst["seconds"], "s", "<= 60"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="four seeds and linear averaging too")
    parser.add_argument("--json", help="write the table's rows to this file")
    arguments = parser.parse_args()
    schedules = ("uniform", "linear", "geometric") if arguments.full else ("uniform", "geometric")
    jobs = list(itertools.product(UNBOUNDED, schedules, range(4 if arguments.full else 1)))
    with multiprocessing.get_context("spawn").Pool(2) as pool:  # two runs side by side, a core each
        results = pool.map(measure, jobs, chunksize=1)
    report(rows(results), arguments.json)


if __name__ == "__main__":
    main()
