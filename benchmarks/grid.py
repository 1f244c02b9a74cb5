"""How far a game on a grid is from the game: agents who follow the grid's equilibrium policy, and its population.

In 4-rooms, on 20, 40 and 80 cells, on the beach and in the bounded LQ game, on 50, 100 and 200: the total variation
(counted on the coarsest) between 3.2 million simulated agents and the population that the grid says they are, and the
noise of that count; and how long the equilibrium took one core.
`--full` adds the random walk, whose policy is smooth. Some minutes, most of them for 4-rooms on 80 cells.
"""

import argparse
import itertools
import time

import numpy as np
import torch
from _table import report, row

from deda_fp.distances import counts
from mfglib.exact import grid_equilibrium
from mfglib.exact.dynamic_programming import grid_evaluate
from mfglib.exact.grid import Grid
from mfglib.games import BeachBar, FourRooms, LinearQuadratic
from mfglib.policies import NoisePolicy
from mfglib.rollout import rollout
from mfglib.seeds import generator

AGENTS, REPEATS = 200_000, 16
TOLERANCE = 0.001  # of the equilibria
CASES = {  # game, cells, times at which agents are counted
    "four-rooms": (FourRooms(), (20, 40, 80), (1, 2, 5, 10, 20)),
    "beach-bar": (BeachBar(), (50, 100, 200), (1, 2, 5, 10)),
    "lq-bounded": (LinearQuadratic.paper(), (50, 100, 200), (1, 5, 10, 20)),
}


def coarse(mass: np.ndarray, grid: Grid, judge: Grid) -> np.ndarray:
    """Masses (T+1, m) of a grid in the cells of a coarser one."""
    index = judge.find(grid.x).numpy()
    return np.stack([np.bincount(index, row, len(judge.x)) for row in mass])


def bias(policy: object, mass: torch.Tensor, grid: Grid, judge: Grid, times: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Total variation at each of `times`, and its noise: half of that between two halves of the agents."""
    halves = np.zeros((2, *mass.shape[:1], len(judge.x)))
    for i in range(REPEATS):
        play = rollout(judge.game, policy, n=AGENTS, generator=generator(0, "bias", i), rewards=False)
        halves[i % 2] += counts(list(play.x), judge).numpy() / (AGENTS * REPEATS / 2)
    one, two = halves
    far = 0.5 * np.abs((one + two) / 2 - coarse(mass.numpy(), grid, judge)).sum(1)
    return far[list(times)], 0.25 * np.abs(one - two).sum(1)[list(times)]


def of_game(name: str, *, walk: bool) -> list[dict]:
    """The rows of one game; `walk`: of the random walk too."""
    game, sizes, times = CASES[name]
    judge, rows, found = Grid(game, sizes[0]), [], {}
    for cells in sizes:
        began = time.process_time()
        equilibrium = grid_equilibrium(game, cells, TOLERANCE, progress=False)
        seconds = time.process_time() - began
        rows.append(row(f"{name}, {cells} cells: time to {TOLERANCE:.1%} of the first exploitability", seconds, "s"))
        cases = {"equilibrium": (equilibrium.policy, equilibrium.population.mass, equilibrium.policy.grid)}
        if walk:
            grid, still = Grid(game, cells), NoisePolicy(torch.full((game.action_dim,), 0.02))
            cases["random walk"] = still, grid_evaluate(grid, still).population.mass, grid
        for what, case in cases.items():
            label = f"{name}, {what}"
            found[label, cells], noise = bias(*case, judge, times)
            for t, far, floor in zip(times, found[label, cells], noise, strict=True):
                rows.append(row(f"{label}, {cells} cells, t = {t}: total variation", far, f"(noise {floor:.4f})"))
    for label in dict.fromkeys(label for label, _ in found):
        for coarser, finer in itertools.pairwise(sizes):
            order = np.log2(found[label, coarser].mean() / found[label, finer].mean())
            rows.append(row(f"{label}: order of convergence from {coarser} to {finer} cells, mean over t", order))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the random walk too")
    parser.add_argument("--json", help="write the table's rows to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    report([r for name in CASES for r in of_game(name, walk=options.full)], options.json)


if __name__ == "__main__":
    main()
