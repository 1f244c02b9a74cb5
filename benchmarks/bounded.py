"""Bounded games with local interaction: DEDA-FP, Algo 1 and Algo 2, certified on grids, `lecture` preset.

Default: seed 0 (about 15 minutes on 2 cores where no run is there yet). `--full`: four seeds. `--gaussian N`: in
4-rooms N seeds of DEDA-FP with the Gaussian average of the paper too; `--long N`: N seeds of it with 100 iterations.
Runs are kept in results/lecture, where `make figures` keeps its own, and in results/long, and are not run again while
the code is the same.
"""

import argparse
import itertools
import multiprocessing
import time
from typing import Any

import numpy as np
import torch
from _table import report, row

from deda_fp.catalogue import GAMES, LONG, iterations
from deda_fp.distances import leak, total_variation
from mfglib import exploitability, solve
from mfglib.exact import grid_equilibrium
from mfglib.exact.dynamic_programming import grid_evaluate
from mfglib.exact.equilibrium import CELLS
from mfglib.exact.grid import Grid
from mfglib.learn.cloning import CloningConfig
from mfglib.policies import NoisePolicy
from mfglib.populations import CellPopulation
from mfglib.presets import ALGORITHMS
from mfglib.rollout import rollout
from mfglib.seeds import generator
from mfglib.solver import Solution
from mfglib.sources import ROOT

RATIO = {"beach-bar": "<= 2", "lq-bounded": "<= 1", "four-rooms": "<= 3"}  # last / first exploitability, %
DISTANCE = {"beach-bar": "<= 0.05", "four-rooms": "<= 0.1"}  # total variation, flow to equilibrium, t = T
SECONDS = {"beach-bar": "<= 90", "lq-bounded": "<= 90", "four-rooms": "<= 360"}
SHOWN = (0, 3, 6, 9, 12, 15, 18, 20)  # times of the paper's comparison at a fixed budget
BUDGET = 10.0  # its seconds


def train(name: str, algorithm: str, seed: int, variant: str = "mixture") -> Solution:
    """The run of `make figures`; or that with one Gaussian as average policy, or a long one."""
    changes = {"cloned": dict(components=1, min_std=1e-3)} if variant == "gaussian" else {}
    folder = "results/long" if variant == "long" else "results/lecture"
    kind = f"{algorithm}-gaussian" if variant == "gaussian" else algorithm
    K = LONG[name] if variant == "long" else iterations(name, "lecture")
    directory = ROOT / folder / name / kind / f"seed-{seed}"
    options = dict(
        iterations=K, seed=seed, preset="lecture", sizes=changes, directory=directory, overwrite=True, progress=False
    )
    return solve(GAMES[name], algorithm, **options)


def measure(job: tuple[str, str, int, str]) -> dict[str, Any]:
    """One run on one core: its exploitability by iteration and wall time, and distances to the truth."""
    name, algorithm, seed, variant = job
    torch.set_num_threads(1)
    game, solution = GAMES[name], train(name, algorithm, seed, variant)
    truth = equilibrium(name)
    T, grid = game.horizon, truth.grid
    own: CellPopulation = grid_evaluate(grid, solution.policy).population
    judged, std = exploitability(game, solution.policy), CloningConfig().initial_std
    first = NoisePolicy(torch.full((game.action_dim,), std * float(np.max(game.a_bound))))
    clock = solution.history.filter(regex="seconds_(best_response|cloning|population)").sum(axis=1).cumsum()
    print(f"  done: {', '.join(map(str, job))}", flush=True)
    return {
        "job": job,
        "curve": solution.history["exploitability"].to_numpy(),
        "clock": clock.to_numpy(),
        "seconds": float(solution.history.filter(like="seconds_").to_numpy().sum()),
        "first": exploitability(game, first, error=False).value,  # on the same grid as the last
        "last": judged.value,
        "error": judged.error,
        "gap": float(solution.history["best_response_gap"].iloc[-1]),
        "cloning": float(solution.history["cloning_loss"].iloc[-1]),
        "to own": total_variation(solution.population, own, T),
        "to equilibrium": total_variation(solution.population, truth, T),
        "own to equilibrium": 0.5 * float((own.mass[T] - truth.mass[T]).abs().sum()),
        "leak": max(leak(solution.population, grid, t) for t in range(1, T + 1)),
    }


def equilibrium(name: str) -> CellPopulation:
    """The exact equilibrium's population; computed once, and kept where every process finds it."""
    file = ROOT / "results/bench" / f"equilibrium-{name}.npy"
    game = GAMES[name]
    if not file.exists():
        found = grid_equilibrium(game, progress=False)
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, found.population.mass.numpy())
        np.save(file.with_suffix(".exploitability.npy"), [found.exploitability / found.first])
    return CellPopulation(Grid(game, CELLS[game.state_dim]), torch.from_numpy(np.load(file)))


def within_budget(name: str, seed: int, seconds: float) -> dict[str, list[float]]:
    """Total variation to the equilibrium at the times shown, of a histogram of all agents that can be drawn in
    `seconds` for all these times together: Algo 2 simulates its policy, vectorised; DEDA-FP samples its flow."""
    truth, game = equilibrium(name), GAMES[name]
    times = [t for t in SHOWN if t <= game.horizon]
    distances, agents = {}, {}
    for algorithm in ("algo-2", "deda-fp"):
        solution = train(name, algorithm, seed)
        counts, n, start, chunk = torch.zeros(len(times), len(truth.grid.x)), 0, time.perf_counter(), 5000
        while time.perf_counter() - start < seconds:
            random = generator(seed, "budget", n)
            if algorithm == "algo-2":
                play = rollout(game, solution.policy, n=chunk, generator=random, rewards=False)
                drawn = [play.x[t] for t in times]
            else:
                drawn = [solution.population.sample(t, chunk, random) for t in times]
            for i, x in enumerate(drawn):
                counts[i] += torch.bincount(truth.grid.cell(x), minlength=counts.shape[1])
            n += chunk
        share = (counts / n).double()
        distances[algorithm] = [0.5 * float((share[i] - truth.mass[t]).abs().sum()) for i, t in enumerate(times)]
        agents[algorithm] = [n]
    return distances | {f"agents {name}": count for name, count in agents.items()}


def at_time(result: dict[str, Any], seconds: float) -> float:
    """Exploitability of the last judged iteration that was done by then."""
    judged = np.isfinite(result["curve"])
    return float(result["curve"][judged & (result["clock"] <= seconds)][-1])


def rows(name: str, results: list[dict[str, Any]]) -> list[dict]:
    """The table of one game."""
    groups = {k: list(v) for k, v in itertools.groupby(results, key=lambda r: (r["job"][1], r["job"][3]))}
    table = []
    notes = {"mixture": "", "gaussian": " with gaussian average", "long": f", {LONG.get(name)} iterations"}
    for (algorithm, variant), group in groups.items():
        label = f"{name}, {algorithm}{notes[variant]}"
        ours = algorithm == "deda-fp" and variant == "mixture"
        ratios = [100 * r["last"] / r["first"] for r in group]
        table += [
            row(f"{label}: first exploitability", np.mean([r["first"] for r in group])),
            row(f"{label}: last exploitability, mean", np.mean([r["last"] for r in group])),
            row(f"{label}: its std over seeds", np.std([r["last"] for r in group])),
            row(f"{label}: its error bar, largest", max(r["error"] for r in group)),
            row(
                f"{label}: last / first, mean", np.mean(ratios), "%", RATIO[name] if ours or variant == "long" else None
            ),
            row(f"{label}: last / first, std over seeds", np.std(ratios), "%"),
            row(f"{label}: gap of the last best response, mean", np.mean([r["gap"] for r in group])),
            row(f"{label}: last cloning loss, mean", np.mean([r["cloning"] for r in group]), "nats"),
            row(f"{label}: TV(population, own), t = T, mean", np.mean([r["to own"] for r in group])),
            row(
                f"{label}: TV(population, equilibrium), t = T, mean",
                np.mean([r["to equilibrium"] for r in group]),
                "",
                DISTANCE.get(name) if ours else None,
            ),
            row(f"{label}: TV(own, equilibrium), t = T, mean", np.mean([r["own to equilibrium"] for r in group])),
            row(f"{label}: mass in walls or outside, largest", max(r["leak"] for r in group)),
            row(
                f"{label}: wall time of a run on one core, slowest",
                max(r["seconds"] for r in group),
                "s",
                SECONDS[name] if ours else None,
            ),
        ]
    plain = {algorithm: group for (algorithm, variant), group in groups.items() if variant == "mixture"}
    common = min(r["clock"][-1] for group in plain.values() for r in group)
    means = {algorithm: np.mean([at_time(r, common) for r in group]) for algorithm, group in plain.items()}
    for algorithm, mean in means.items():
        table.append(row(f"{name}, {algorithm}: exploitability after {common:.0f} s of training, mean", mean))
    others = min(mean for algorithm, mean in means.items() if algorithm != "deda-fp")
    target = "<= 1" if name in DISTANCE else None
    table.append(
        row(
            f"{name}: exploitability after equal seconds of training, DEDA-FP / the better baseline",
            means["deda-fp"] / others,
            "",
            target,
        )
    )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="four seeds")
    parser.add_argument("--gaussian", type=int, default=0, metavar="N", help="seeds of 4-rooms with one Gaussian")
    parser.add_argument("--long", type=int, default=0, metavar="N", help="seeds of 4-rooms with 100 iterations")
    parser.add_argument("--games", nargs="+", choices=RATIO, default=list(RATIO))
    parser.add_argument("--json", help="write the table's rows to this file")
    arguments = parser.parse_args()
    seeds, table = range(4 if arguments.full else 1), []
    for name in arguments.games:
        equilibrium(name)
        certified = np.load(ROOT / "results/bench" / f"equilibrium-{name}.exploitability.npy")[0]
        table.append(row(f"{name}: exact equilibrium, exploitability / first", 100 * certified, "%", "<= 0.5"))
        jobs = [(name, algorithm, seed, "mixture") for algorithm in ALGORITHMS for seed in seeds]
        if name == "four-rooms":
            jobs += [(name, "deda-fp", seed, "gaussian") for seed in range(arguments.gaussian)]
            jobs += [(name, "deda-fp", seed, "long") for seed in range(arguments.long)]
        with multiprocessing.get_context("spawn").Pool(2) as pool:  # two runs side by side, a core each
            table += rows(name, pool.map(measure, jobs, chunksize=1))
    if "four-rooms" in arguments.games:
        found = [within_budget("four-rooms", seed, BUDGET) for seed in seeds]
        both = np.mean([[f["deda-fp"], f["algo-2"]] for f in found], axis=0)
        ahead = int((both[0] < both[1]).sum())
        label, shown = f"four-rooms, {BUDGET:.0f} s", both.shape[1]
        table.append(
            row(
                f"{label} of drawing: times (of {shown}) at which DEDA-FP is nearer to the equilibrium than simulation",
                ahead,
                "",
                f">= {shown}",
            )
        )
        for algorithm, distance in zip(("deda-fp", "algo-2"), both, strict=True):
            n = np.mean([f[f"agents {algorithm}"][0] for f in found])
            table.append(row(f"{label}, {algorithm}: agents drawn at each time shown", n))
            table.append(row(f"{label}, {algorithm}: TV to equilibrium, mean over t", distance.mean()))
    report(table, arguments.json)


if __name__ == "__main__":
    main()
