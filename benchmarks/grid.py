"""How far a game on a grid is from the game: agents who follow the grid's equilibrium policy, and its population.

In 4-rooms, on 20, 40 and 80 cells: the total variation (counted on 20 cells) between 3.2 million simulated agents and
the population that the grid says they are, and the noise of that count. `--full` adds the random walk, whose policy is
smooth. Some minutes, most of them for the equilibrium on 80 cells.
"""

import argparse

import numpy as np
import torch
from _table import report, row

from deda_fp.distances import counts
from mfglib.exact import grid_equilibrium
from mfglib.exact.dynamic_programming import grid_evaluate
from mfglib.exact.grid import Grid
from mfglib.games import FourRooms
from mfglib.policies import NoisePolicy
from mfglib.rollout import rollout
from mfglib.seeds import generator

AGENTS, REPEATS, TIMES, TOLERANCE = 200_000, 16, (1, 2, 5, 10, 20), 0.03


def coarse(mass: np.ndarray, grid: Grid, judge: Grid) -> np.ndarray:
    """Masses (T+1, m) of a grid in the cells of a coarser one."""
    index = judge.find(grid.x).numpy()
    return np.stack([np.bincount(index, row, len(judge.x)) for row in mass])


def bias(policy: object, mass: torch.Tensor, grid: Grid, judge: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Total variation at each of TIMES, and its noise: half of that between two halves of the agents."""
    halves = np.zeros((2, *mass.shape[:1], len(judge.x)))
    for i in range(REPEATS):
        play = rollout(judge.game, policy, n=AGENTS, generator=generator(0, "bias", i), rewards=False)
        halves[i % 2] += counts(list(play.x), judge).numpy() / (AGENTS * REPEATS / 2)
    one, two = halves
    far = 0.5 * np.abs((one + two) / 2 - coarse(mass.numpy(), grid, judge)).sum(1)
    return far[list(TIMES)], 0.25 * np.abs(one - two).sum(1)[list(TIMES)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the random walk too")
    parser.add_argument("--json", help="write the table's rows to this file")
    options = parser.parse_args()
    game, rows, found = FourRooms(), [], {}
    judge = Grid(game, 20)
    for cells in (20, 40, 80):
        equilibrium = grid_equilibrium(game, cells, TOLERANCE, progress=False)
        cases = {"equilibrium": (equilibrium.policy, equilibrium.population.mass, equilibrium.policy.grid)}
        if options.full:
            grid, walk = Grid(game, cells), NoisePolicy(torch.full((2,), 0.02))
            cases["random walk"] = walk, grid_evaluate(grid, walk).population.mass, grid
        for name, case in cases.items():
            found[name, cells], noise = bias(*case, judge)
            for t, far, floor in zip(TIMES, found[name, cells], noise, strict=True):
                rows.append(row(f"{name}, {cells} cells, t = {t}: total variation", far, f"(noise {floor:.4f})"))
    for name in dict.fromkeys(name for name, _ in found):
        for coarser, finer in ((20, 40), (40, 80)):
            order = np.log2(found[name, coarser].mean() / found[name, finer].mean())
            rows.append(row(f"{name}: order of convergence from {coarser} to {finer} cells, mean over t", order))
    report(rows, options.json)


if __name__ == "__main__":
    main()
