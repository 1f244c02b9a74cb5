"""Sampling the population of 4-rooms: the flow as a table against the flow, vectorised roll-outs and per-agent loops.

One trained game (`lecture` preset, seed 0 of DEDA-FP and Algo 1: results/lecture, made by `make figures`, else trained
here, some minutes each). Medians, methods interleaved. Roll-outs of 2 x 256 networks have untrained weights: only their
time is used. Default: about 2 minutes on 2 cores. `--full`: 10^7 agents also as a stream, and 10^8 counted.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from _table import report, row

from mfglib import runs, solve
from mfglib.__main__ import GAMES, iterations
from mfglib.exact import grid_equilibrium
from mfglib.games import FourRooms
from mfglib.games.base import Population
from mfglib.metrics import total_variation
from mfglib.mixture import UniformMixture
from mfglib.policy import GaussianPolicy, Policy
from mfglib.population import Particles
from mfglib.rollout import rollout
from mfglib.seeds import generator
from mfglib.table import TabulatedPopulation

N, REPEATS = 5000, 7


def learned(algorithm: str) -> tuple[Policy, Population]:
    directory = runs.ROOT / "results/lecture/four-rooms" / algorithm / "seed-0"
    options = dict(iterations=iterations("four-rooms", "lecture"), seed=0, preset="lecture", directory=directory)
    solution = solve(GAMES["four-rooms"], algorithm, overwrite=True, progress=False, **options)
    return solution.policy, solution.population


def medians(methods: dict[str, Callable[[], object]], repeats: int = REPEATS) -> dict[str, float]:
    """Seconds of each method, interleaved, after one call of each that does not count."""
    times: dict[str, list[float]] = {name: [] for name in methods}
    for i in range(repeats + 1):
        for name, method in methods.items():
            start = time.perf_counter()
            method()
            if i:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(t) for name, t in times.items()}


def of_shape(game: FourRooms, hidden: int) -> GaussianPolicy:
    centre = torch.full((2,), 0.25)
    return GaussianPolicy(game.horizon, centre, centre, torch.full((2,), 0.05), (hidden, hidden), bound=True)


def loop_over_agents(game: FourRooms, policy: Policy, agents: int, random: torch.Generator) -> None:
    """What the paper timed, as far as it is known: one trajectory after the other."""
    for _ in range(agents):
        rollout(game, policy, n=1, generator=random, rewards=False)


def trajectories(game: FourRooms, flow: Population, table: TabulatedPopulation, random: torch.Generator) -> list[dict]:
    """5,000 agents at all times, or at the last one."""
    mixture, _ = learned("algo-1")
    wide = of_shape(game, 256)
    many = UniformMixture([of_shape(game, 256) for _ in mixture.policies])
    play = dict(n=N, generator=random, rewards=False)
    times, T = range(game.horizon + 1), game.horizon
    seconds = medians(
        {
            "table": lambda: [table.sample(t, N, random) for t in times],
            "flow": lambda: [flow.sample(t, N, random) for t in times],
            "Algo 2, 2 x 64": lambda: rollout(game, of_shape(game, 64), **play),
            "Algo 2, 2 x 256": lambda: rollout(game, wide, **play),
            "Algo 1, 2 x 64": lambda: rollout(game, mixture, **play),
            "Algo 1, 2 x 256": lambda: rollout(game, many, **play),
            "floor, torch.randn": lambda: [torch.randn(N, 2, generator=random) for _ in times],
        }
    )
    one = medians({"table": lambda: table.sample(T, N, random), "flow": lambda: flow.sample(T, N, random)}, 51)
    few = 20
    loop = medians({"loop": lambda: loop_over_agents(game, wide, few, random)}, 3)["loop"] * N / few
    rows = [row(f"all t, {N} agents: {name}", s, "s") for name, s in seconds.items()]
    rows += [row(f"all t, {N} agents: Algo 2, 2 x 256, one agent after the other ({few} of them, scaled)", loop, "s")]
    rows += [row(f"one t, {N} agents: {name}", s, "s") for name, s in one.items()]
    rivals = min(seconds["Algo 1, 2 x 256"], seconds["Algo 2, 2 x 256"])
    return rows + [
        row("all t: vectorised Algo 1 or 2, the faster, 2 x 256 / table", rivals / seconds["table"], "x", ">= 10"),
        row("one t: the same (a roll-out has to come all the way) / table", rivals / one["table"], "x", ">= 50"),
        row("all t: one agent after the other / table", loop / seconds["table"], "x", ">= 200"),
        row("all t: vectorised Algo 2, 2 x 64 / table", seconds["Algo 2, 2 x 64"] / seconds["table"], "x"),
        row("all t: vectorised Algo 2, 2 x 256 / flow without a table", rivals / seconds["flow"], "x"),
    ]


def densities(game: FourRooms, flow: Population, table: TabulatedPopulation, random: torch.Generator) -> list[dict]:
    """The density at 10^5 points, by Gaussian kernels on 10^5 agents too (at some of the points, scaled)."""
    T, n, some = game.horizon, 100_000, 2000
    agents = Particles(torch.stack([table.sample(t, n, random) for t in range(T + 1)]))
    x = table.sample(T, n, random)
    seconds = medians(
        {
            "table": lambda: table.log_prob(T, x),
            "flow": lambda: flow.log_prob(T, x),
            "kernels": lambda: agents.log_prob(T, x[:some]),
        },
        5,
    )
    seconds["kernels"] *= n / some
    rows = [row(f"density at 10^5 points: {name}", s, "s") for name, s in seconds.items()]
    return [*rows, row("density: kernels / table", seconds["kernels"] / seconds["table"], "x", ">= 100")]


def accuracy(game: FourRooms, flow: Population, table: TabulatedPopulation) -> list[dict]:
    """Total variation to the exact equilibrium, mean over t: what the table adds to the flow's, and 5,000 agents'."""
    truth = grid_equilibrium(game, progress=False).population
    agents = Particles(torch.stack([table.sample(t, N, generator(0, "agents", t)) for t in range(game.horizon + 1)]))
    named = {"table": table, "flow": flow, f"kernels on {N} samples of the table": agents}
    for cells in (40, 80):
        named[f"table of {cells} cells a side"] = TabulatedPopulation(flow, game.domain, game.horizon, cells)
    off = {n: np.mean([total_variation(p, truth, t) for t in range(1, game.horizon + 1)]) for n, p in named.items()}
    return [row(f"TV to the equilibrium, mean over t >= 1: {name}", v) for name, v in off.items()]


def large(table: TabulatedPopulation, t: int, random: torch.Generator, full: bool) -> list[dict]:
    n, kilobytes = 10_000_000, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = medians(
        {"table": lambda: table.sample(t, n, random), "randn": lambda: torch.randn(n, 2, generator=random)}, 5
    )
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - kilobytes) / 1e6
    rows = [
        row("10^7 agents at one t: table", seconds["table"], "s"),
        row(
            "10^7 agents at one t: table / torch.randn of that size", seconds["table"] / seconds["randn"], "x", "<= 20"
        ),
        row("10^7 agents at one t: memory that this took", grown, "GB", "<= 1"),
    ]
    if full:
        start, counts = time.perf_counter(), torch.zeros(len(table.corners), dtype=torch.long)
        for x in table.stream(t, 10 * n):
            counts += torch.bincount(table.cell(x), minlength=len(counts))
        off = 0.5 * float((counts / counts.sum() - table.mass[t]).abs().sum())
        rows.append(row("10^8 agents at one t, counted in cells", time.perf_counter() - start, "s"))
        rows.append(row("10^8 agents at one t: TV of the counts to the table", off))
    return rows


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="also count 10^8 agents")
    parser.add_argument("--json", help="write the table's rows to this file")
    arguments = parser.parse_args()
    game, random = GAMES["four-rooms"], generator(0, "inference")
    _, flow = learned("deda-fp")
    start = time.perf_counter()
    table = TabulatedPopulation(flow, game.domain, game.horizon)
    rows = [row("making the table, once", time.perf_counter() - start, "s")]
    rows += large(table, game.horizon, random, arguments.full)
    rows += trajectories(game, flow, table, random) + densities(game, flow, table, random)
    rows += accuracy(game, flow, table)
    report(rows, arguments.json)


if __name__ == "__main__":
    main()
