"""DEDA-FP on the unbounded LQ games against exact fictitious play and the exact equilibrium, `lecture` preset.

Default: seed 0, uniform and geometric averaging, four games (about 4 minutes on 2 cores). `--full`: four seeds and
linear averaging too (about 25 minutes). Runs are kept under results/benchmarks/lq and reused while the code is the same.
"""

import argparse
import itertools
import multiprocessing

import numpy as np
import torch
from common import report, row

from mfglib import runs, solve
from mfglib.__main__ import GAMES
from mfglib.exact import lq_equilibrium, lq_fictitious_play
from mfglib.metrics import flow_wasserstein, flow_wasserstein_gaussian, policy_error
from mfglib.rollout import rollout
from mfglib.seeds import generator

ITERATIONS = 20


def measure(job: tuple[str, str, int]) -> dict:
    """Train one (game, averaging, seed) on one core, and compare it with the truth."""
    name, averaging, seed = job
    torch.set_num_threads(1)
    game = GAMES[name]
    directory = runs.ROOT / "results/benchmarks/lq" / name / averaging / f"seed-{seed}"
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
    table = []
    for (game, averaging), group in itertools.groupby(results, key=lambda r: (r["game"], r["averaging"])):
        group = list(group)
        label = f"{game}, {averaging}"
        limit = 1.1 * group[0]["exact"] + 0.5
        gaps = [r["exploitability"] for r in group]
        table.append(row(f"{label}: exploitability / |value|, worst seed", max(gaps), "%", f"<= {limit:.3g}"))
        table.append(row(f"{label}: exploitability / |value|, mean", np.mean(gaps), "%"))
        table.append(row(f"{label}: exploitability / |value|, std over seeds", np.std(gaps), "%"))
        table.append(row(f"{label}: exact fictitious play", group[0]["exact"], "%"))
        table.append(row(f"{label}: W1(flow, own population) / std, worst t and seed", max(r["own"] for r in group), "", "<= 0.05"))
        exact_targets = game == "lq" and averaging == "geometric"
        table.append(row(f"{label}: W1(flow, equilibrium) / std, worst t and seed", max(r["truth"] for r in group), "",
                         "<= 0.1" if exact_targets else None))  # fmt: skip
        table.append(row(f"{label}: mean action error / action range, worst x, t, seed", max(r["policy"] for r in group), "%",
                         "<= 5" if exact_targets else None))  # fmt: skip
        table.append(row(f"{label}: wall time of a run on one core, slowest", max(r["seconds"] for r in group), "s", "<= 60"))
    for game, group in itertools.groupby(results, key=lambda r: r["game"]):
        by_schedule = {}
        for r in group:
            by_schedule.setdefault(r["averaging"], []).append(r["exploitability"])
        best, gaps = min(by_schedule.items(), key=lambda item: np.mean(item[1]))
        table.append(row(f"{game}: best schedule ({best}), worst seed", max(gaps), "%", "<= 1"))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="four seeds and linear averaging too")
    parser.add_argument("--json", help="write the table's rows to this file")
    arguments = parser.parse_args()
    schedules = ("uniform", "linear", "geometric") if arguments.full else ("uniform", "geometric")
    jobs = list(itertools.product(GAMES, schedules, range(4 if arguments.full else 1)))
    with multiprocessing.get_context("spawn").Pool(2) as pool:  # two runs side by side, a core each
        results = pool.map(measure, jobs, chunksize=1)
    report(rows(results), arguments.json)


if __name__ == "__main__":
    main()
