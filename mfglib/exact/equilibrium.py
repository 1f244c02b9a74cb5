"""Equilibria on grids: fictitious play with exact best responses, exact averages and exact populations."""

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from mfglib.arguments import checked
from mfglib.checks import integer, number
from mfglib.exact.dynamic_programming import Evaluation, grid_best_response, grid_evaluate
from mfglib.exact.grid import Grid
from mfglib.exact.grid_learners import (
    GridResponse,
    LastResponse,
    MirrorResponse,
    OccupancyAverage,
    OwnCrowd,
    backward,
    still,
)
from mfglib.exact.tables import TablePolicy
from mfglib.fictitious_play import fictitious_play
from mfglib.files import replacing
from mfglib.populations import CellPopulation
from mfglib.schedules import AVERAGING, Steps
from mfglib.seeds import Random

METHODS = ("uniform", "linear", "search", "smoothed", "mirror descent", "momentum")
CELLS = {1: 400, 2: 40}  # along the longest side
COARSEST = {1: 100, 2: 20}
CHECK_EVERY = 5  # iterations from one look at the exploitability to the next
CERTIFY_EVERY = 25  # and at least from one certificate to the next, which looks between the lattice's actions too
STALLED = 4  # certificates without progress after which a coarser grid is left
INHERITED = 20  # iterations that the start from a coarser grid counts for: more would keep its errors for longer
# Temperatures in units of the first exploitability, for rewards of any scale: in between those that are slow and those
# that do not converge (decision X1).
TEMPERATURE = {"smoothed": 0.01, "mirror descent": 0.04, "momentum": 0.083}


@dataclass(frozen=True)
class GridEquilibrium:
    """An approximate equilibrium on a grid: a policy, the population μ^π that it makes, and `value` = J(π, μ^π).

    `exploitability` is certified on the same grid, by the exact best response to `population`; `first` is that of the
    policy that never acts. `history`: columns cells, iteration, exploitability and value.
    """

    policy: TablePolicy
    population: CellPopulation
    value: float
    exploitability: float
    first: float
    history: pd.DataFrame

    def save(self, file: str | Path) -> None:
        """Write it to a .npz of plain arrays, for any software: cells (m, d), centres of the free cells; mass
        (T+1, m) in them; actions (A, k), the lattice of actions, and shares (T, m, A) of each in each cell; value,
        exploitability, first; and the columns of `history`."""
        policy, numbers = self.policy, ("value", "exploitability", "first")
        history = {f"history_{name}": column.to_numpy() for name, column in self.history.items()}
        arrays = dict(cells=policy.grid.x, mass=self.population.mass, actions=policy.grid.actions, shares=policy.shares)
        with replacing(Path(file).expanduser()) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, **arrays, **{name: getattr(self, name) for name in numbers}, **history)

    @classmethod
    @checked
    def load(cls, game: Any, file: str | Path) -> "GridEquilibrium":
        """The equilibrium of `game` that `save` wrote; ValueError if the file holds another game's cells or times."""
        with np.load(Path(file).expanduser()) as stored:
            arrays = {name: stored[name] for name in stored.files}
        widest = max(len(np.unique(column)) for column in arrays["cells"].T)
        grid = Grid(game, widest)
        expected = len(grid.x), game.horizon, len(grid.actions)
        T, m, A = arrays["shares"].shape
        if (m, T, A) != expected or not np.array_equal(arrays["cells"], grid.x):
            raise ValueError(
                f"file: expected an equilibrium of {game!r} with {expected[0]} cells, {expected[1]} decisions and "
                f"{expected[2]} actions, got one with {m}, {T} and {A}, or other cells"
            )
        policy = TablePolicy.on_lattice(grid, torch.from_numpy(arrays["shares"]))
        play = grid_evaluate(grid, policy)
        names = [name for name in arrays if name.startswith("history_")]
        history = pd.DataFrame({name.removeprefix("history_"): arrays[name] for name in names})
        numbers = (float(arrays[name]) for name in ("value", "exploitability", "first"))
        return cls(policy, play.population, *numbers, history)


@checked
def grid_equilibrium(
    game: Any,
    cells: int | None = None,
    tolerance: float = 0.001,
    *,
    iterations: int = 400,
    progress: bool = True,
) -> GridEquilibrium:
    """The equilibrium of a bounded game on a grid, up to exploitability <= tolerance · that of never acting.

    By mirror descent with momentum or by fictitious play with searched steps, whichever is further after some
    iterations on a coarse grid: the one where agents avoid each other, the other where they follow each other. Searched
    steps go from coarse to fine, each grid's policy starting the next, with twice the cells, up to `cells` along the
    longest side (400 if d = 1, 40 if d = 2). At most `iterations` on each grid.

    Below 0.1% certificates see that actions are on a lattice: in 4-rooms on 40 cells that costs 0.05%.

    Raises as `mfglib.exact.grid.Grid`, ValueError for bad arguments, and ArithmeticError with the exploitability that
    was reached if that is above the tolerance.
    """
    if not 0 < number("tolerance", tolerance) < 1:
        raise ValueError(f"tolerance: expected a share of the first exploitability in (0, 1), got {tolerance!r}")
    integer("iterations", iterations, at_least=1)
    hidden = {} if progress else {"disable": True}  # so that the environment variable TQDM_DISABLE counts too
    with tqdm(desc="equilibrium on a grid", unit="iteration", **hidden) as bar:
        grids, found, rows = _levels(game, cells), None, []
        method, share = _best_method(grids[0])
        for grid in grids if method == "search" else grids[-1:]:
            found = _settled(grid, method, share, found, tolerance, iterations, grid is grids[-1], bar)
            rows += found.history.to_dict("records")
    if found.exploitability > tolerance * found.first:
        raise ArithmeticError(
            f"no equilibrium within {iterations} iterations: exploitability {found.exploitability:.4g}, "
            f"{found.exploitability / found.first:.2%} of the first, tolerance {tolerance:.2%}; raise iterations or "
            f"tolerance"
        )
    return dataclasses.replace(found, history=pd.DataFrame(rows))


# Tried on the coarsest grid: a method, and its temperature in units of the first exploitability.
CANDIDATES = (("search", 0.0), ("momentum", TEMPERATURE["momentum"]), ("momentum", 4 * TEMPERATURE["momentum"]))
TRIED = 10  # iterations


def _best_method(grid: Grid) -> tuple[str, float]:
    """The candidate that is least exploitable after some iterations."""
    first = _judge(grid, grid_evaluate(grid, still(grid)))
    gaps = []
    for method, share in CANDIDATES:
        *_, (_, _, play) = itertools.islice(_fictitious_play(grid, method, share * first), TRIED + 1)
        gaps.append(_lattice_gap(grid, play))
    return CANDIDATES[gaps.index(min(gaps))]


def _settled(
    grid: Grid, method: str, share: float, start: GridEquilibrium | None, tolerance: float, iterations: int,
    last: bool, bar: Any,
) -> GridEquilibrium:  # fmt: skip
    """The first iterate on one grid that is certified to the tolerance, or the one at which there is no more to gain,
    or no iteration left."""
    first, begin = _judge(grid, grid_evaluate(grid, still(grid))), 0 if start is None else INHERITED
    policies, rows, gaps = _fictitious_play(grid, method, share * first, start and start.policy), [], []
    for k, policy, play in itertools.islice(policies, iterations + 1):  # noqa: B007 (the last is kept)
        bar.update()
        if k < begin + iterations and (
            k % CHECK_EVERY or ((k - begin) % CERTIFY_EVERY and _lattice_gap(grid, play) > tolerance * first)
        ):
            continue
        gap = _judge(grid, play)
        rows.append(_row(grid, k, gap, play))
        bar.set_postfix(cells=max(grid.shape), exploitability=f"{gap:.3g}", first=f"{first:.3g}")
        gaps.append(gap)
        stalled = len(gaps) > STALLED and min(gaps[-STALLED:]) > 0.9 * min(gaps[:-STALLED])
        if gap <= tolerance * first or (stalled and not last):  # the lattice of actions is coarse
            break
    return GridEquilibrium(policy, play.population, play.value, gap, first, pd.DataFrame(rows))


@checked
def grid_fictitious_play(
    game: Any,
    iterations: int,
    *,
    method: str = "uniform",
    temperature: float | None = None,
    cells: int | None = None,
    every: int = 1,
) -> GridEquilibrium:
    """Exact fictitious play from the policy that never acts, on a grid of `cells` along the longest side.

    Averages are taken in occupancy: in each cell, the average policy weighs best responses by the mass that they bring
    there. Its population is always its own, pushed forward, also where the population moves its agents.

    Args:
        method: how iterate k comes from the one before and its exact best response. "uniform": steps 1/k. "linear":
            2/(k+1). "search": until the best response gains nothing any more. "smoothed": 1/k, with best responses to
            rewards −(τ/k) log(π(a|x) · number of actions) on top of the game's. "mirror descent": no average,
            π ∝ exp Σ_k Q_k / (τ √k), with Q_k of the policy before (Perolat et al., arXiv 2103.00623). "momentum": the
            same with Nesterov's momentum (`mfglib.exact.grid_learners.MirrorResponse`), which is the fastest where
            agents avoid each other.
        temperature: τ > 0 of the last three, in units of reward; None: 0.01, 0.04 or 0.083 of the first exploitability.
        every: iterations from one row of `history` to the next; the first and the last are always there.

    Raises as `mfglib.exact.grid.Grid`, and ValueError for bad arguments.
    """
    integer("iterations", iterations, at_least=0)
    integer("every", every, at_least=1)
    if method not in METHODS:
        raise ValueError(f"method: expected one of {METHODS}, got {method!r}")
    if temperature is not None:
        number("temperature", temperature, positive=True)
        if method not in TEMPERATURE:
            raise ValueError(f"temperature: expected None for method {method!r}, got {temperature!r}")
    grid = _grid(game, cells)
    first = _judge(grid, grid_evaluate(grid, still(grid)))
    if temperature is None:
        temperature = TEMPERATURE.get(method, 0.0) * first
    rows = []
    policies = _fictitious_play(grid, method, temperature)
    for k, policy, play in itertools.islice(policies, iterations + 1):  # noqa: B007 (the last is kept)
        if k % every == 0 or k == iterations:
            gap = _judge(grid, play)
            rows.append(_row(grid, k, gap, play))
    return GridEquilibrium(policy, play.population, play.value, gap, first, pd.DataFrame(rows))


def _fictitious_play(
    grid: Grid, method: str, temperature: float, start: TablePolicy | None = None
) -> Iterator[tuple[int, TablePolicy, Evaluation]]:
    """k, the k-th average policy and its evaluation, for k = 0, 1, ...; `start` counts for the first INHERITED."""
    policy, begin = (still(grid), 0) if start is None else (_prolonged(start, grid), INHERITED)
    crowd = OwnCrowd(grid)
    crowd.fit(policy, begin, Random(0, begin))
    yield begin, policy, crowd.evaluation
    schedule = None if method == "search" else Steps(method if method in AVERAGING else "uniform")
    response, average = GridResponse(grid, temperature), OccupancyAverage(policy, schedule)
    if method in ("mirror descent", "momentum"):
        response, average = MirrorResponse(grid, temperature, method == "momentum"), LastResponse(policy)
    for step in fictitious_play(response, average, crowd, start=begin + 1):
        yield step.k, step.policy, step.population.evaluation


def _prolonged(policy: TablePolicy, grid: Grid) -> TablePolicy:
    """A coarser grid's policy on `grid`: in each cell, that of the cell around it, with the nearest actions."""
    coarse = policy.grid
    nearest = torch.cdist(coarse.actions, grid.actions).argmin(1)
    probabilities = torch.zeros(len(policy.shares), len(grid.x), len(grid.actions), dtype=torch.float64)
    probabilities.index_add_(2, nearest, policy.shares[:, coarse.cell(grid.x)])
    return TablePolicy.on_lattice(grid, probabilities)


def _judge(grid: Grid, play: Evaluation) -> float:
    return max(grid_best_response(grid, play.population).value - play.value, 0.0)  # 0 but for rounding


def _lattice_gap(grid: Grid, play: Evaluation) -> float:
    """`_judge` with best responses on the lattice of actions, which is lower and much faster."""
    return backward(grid, play.population, lambda t, q: q.amax(1)) - play.value


def _row(grid: Grid, k: int, gap: float, play: Evaluation) -> dict[str, Any]:
    return {"cells": int(max(grid.shape)), "iteration": k, "exploitability": gap, "value": play.value}


def _grid(game: Any, cells: int | None) -> Grid:
    return Grid(game, CELLS.get(getattr(game, "state_dim", 0)) if cells is None else cells)


def _levels(game: Any, cells: int | None) -> list[Grid]:
    """Grids from coarse to fine, each with half the cells of the next, as far as its lines run along the walls."""
    grids = [_grid(game, cells)]
    while True:
        half, odd = divmod(int(max(grids[0].shape)), 2)
        if odd or half < COARSEST[game.state_dim]:
            return grids
        try:
            grids.insert(0, Grid(game, half))
        except ValueError:  # too coarse for the walls
            return grids
