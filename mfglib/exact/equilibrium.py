"""Equilibria on grids: fictitious play with exact best responses, exact averages and exact populations."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from mfglib.checks import integer, number
from mfglib.exact.dynamic_programming import (
    Evaluation,
    action_values,
    expected_rewards,
    grid_best_response,
    grid_evaluate,
    last_reward,
)
from mfglib.exact.grid import Grid, grid_of
from mfglib.exact.tables import TablePolicy
from mfglib.populations import CellPopulation

METHODS = ("uniform", "linear", "search", "smoothed", "mirror descent")
CELLS = {1: 400, 2: 40}  # along the longest side
COARSEST = {1: 100, 2: 20}
EVERY = 5  # iterations from one look at the exploitability to the next, as dear as an iteration
INHERITED = 20  # iterations that the start from a coarser grid counts for: more would keep its errors for longer
# Temperatures in units of the first exploitability, for rewards of any scale. Smoothed, 4-rooms and beach bar: three
# times more or less is up to twice as slow. Mirror descent, 4-rooms: 0.1 is slow; beach bar: 0.013 does not converge.
TEMPERATURE = {"smoothed": 0.01, "mirror descent": 0.04}


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


def grid_equilibrium(
    game: Any,
    cells: int | None = None,
    tolerance: float = 0.005,
    *,
    iterations: int = 400,
    progress: bool = True,
) -> GridEquilibrium:
    """The equilibrium of a bounded game on a grid, up to exploitability <= tolerance · that of never acting.

    Fictitious play with searched steps, on a coarse grid first; each grid's policy starts the next, with twice the
    cells, up to `cells` along the longest side (400 if d = 1, 40 if d = 2). At most `iterations` on each grid.

    Raises as `mfglib.exact.grid.Grid`, ValueError for bad arguments, and RuntimeError with the exploitability that was
    reached if that is above the tolerance.
    """
    if not 0 < number("tolerance", tolerance) < 1:
        raise ValueError(f"tolerance: expected a share of the first exploitability in (0, 1), got {tolerance!r}")
    integer("iterations", iterations, at_least=1)
    rows: list[dict[str, Any]] = []
    start = None
    hidden = {} if progress else {"disable": True}  # so that the environment variable TQDM_DISABLE counts too
    with tqdm(desc="equilibrium on a grid", unit="iteration", **hidden) as bar:
        grids = _levels(game, cells)
        for grid in grids:
            gaps = []
            first, begin = _judge(grid, grid_evaluate(grid, _still(grid))), 0 if start is None else INHERITED
            policies = _fictitious_play(grid, "search", 0.0, start)
            for k, policy, play in itertools.islice(policies, iterations + 1):  # noqa: B007 (the last is kept)
                bar.update()
                if k % EVERY and k < begin + iterations:
                    continue
                gap = _judge(grid, play)
                rows.append(_row(grid, k, gap, play))
                bar.set_postfix(cells=max(grid.shape), exploitability=f"{gap:.3g}", first=f"{first:.3g}")
                gaps.append(gap)
                stalled = len(gaps) > 10 and min(gaps[-10:]) > 0.9 * min(gaps[:-10])
                if gap <= tolerance * first or (stalled and grid is not grids[-1]):  # the lattice of actions is coarse
                    break
            start = policy
    if gap > tolerance * first:
        raise RuntimeError(
            f"no equilibrium within {iterations} iterations: exploitability {gap:.4g}, {gap / first:.2%} of the first, "
            f"tolerance {tolerance:.2%}; raise iterations or tolerance"
        )
    return GridEquilibrium(policy, play.population, play.value, gap, first, pd.DataFrame(rows))


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
            π ∝ exp Σ_k Q_k / (τ √k), with Q_k of the policy before (Perolat et al., arXiv 2103.00623).
        temperature: τ > 0 of the last two, in units of reward; None: 0.01 or 0.04 of the first exploitability.
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
    first = _judge(grid, grid_evaluate(grid, _still(grid)))
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
    """k, the k-th average policy and its play, for k = 0, 1, ...; `start` counts for the first INHERITED."""
    policy, begin = (_still(grid), 0) if start is None else (_prolonged(start, grid), INHERITED)
    play = grid_evaluate(grid, policy)
    yield begin, policy, play
    if method == "mirror descent":
        yield from _mirror_descent(grid, play, temperature)
    for k in itertools.count(begin + 1):
        response = _response(grid, play.population, temperature / k)
        answer = grid_evaluate(grid, response, play.population)
        step = 2 / (k + 1) if method == "linear" else 1 / k
        if method == "search" and k > 1:
            step = _searched(grid, policy, play, response, answer, k)
        policy = _mixed(policy, play.population.mass, response, answer.population.mass, step)
        play = grid_evaluate(grid, policy)
        yield k, policy, play


def _searched(grid: Grid, policy: TablePolicy, play: Evaluation, response: TablePolicy, answer: Evaluation, k: int) -> float:
    """The step after which the response would gain nothing any more, by a secant; between 1/(2k) and 1.

    Where agents avoid each other this is about 1/k. Where they follow each other it is near 1, and 1/k would take
    for ever. Only rewards are asked again, not moves.
    """
    old, new = play.population.mass, answer.population.mass
    gain, trial = answer.value - play.value, 2 / k
    crowd = CellPopulation(grid, old + trial * (new - old))
    left = expected_rewards(grid, response, new, crowd) - expected_rewards(grid, policy, old, crowd)
    return min(max(trial * gain / (gain - left), 1 / (2 * k)), 1.0) if left < gain else 1.0


def _mirror_descent(grid: Grid, play: Evaluation, temperature: float) -> Iterator[tuple[int, TablePolicy, Evaluation]]:
    total = torch.zeros_like(_still(grid).probabilities)
    policy = TablePolicy.on_lattice(grid, total.softmax(2))
    for k in itertools.count(1):
        rate = 1 / (max(temperature, 1e-12) * math.sqrt(k))

        def evaluate(t: int, q: Tensor, rate: float = rate, policy: TablePolicy = policy) -> Tensor:
            total[t] += rate * (q - q.amax(1, keepdim=True))
            return (policy.probabilities[t] * q).sum(1)

        _backward(grid, play.population, evaluate)
        policy = TablePolicy.on_lattice(grid, total.softmax(2))
        play = grid_evaluate(grid, policy)
        yield k, policy, play


def _response(grid: Grid, population: CellPopulation, temperature: float) -> TablePolicy:
    """The best response on the lattice of actions, or the smoothed one."""
    response = torch.zeros(grid.game.horizon, len(grid.x), len(grid.actions), dtype=torch.float64)

    def choose(t: int, q: Tensor) -> Tensor:
        if temperature == 0:
            V, best = q.max(1)
            response[t].scatter_(1, best[:, None], 1.0)
            return V
        response[t] = (q / temperature).softmax(1)
        return temperature * ((q / temperature).logsumexp(1) - math.log(q.shape[1]))

    _backward(grid, population, choose)
    return TablePolicy.on_lattice(grid, response)


def _backward(grid: Grid, population: CellPopulation, choose: Callable[[int, Tensor], Tensor]) -> None:
    """Dynamic programming: at t = T−1, ..., 0, V_t (m,) = choose(t, Q_t (m, A))."""
    V, a = last_reward(grid, population), grid.actions.expand(len(grid.x), -1, -1)
    for t in reversed(range(grid.game.horizon)):
        V = choose(t, action_values(grid, t, a, population, grid.expected(V)))


def _mixed(policy: TablePolicy, mass: Tensor, other: TablePolicy, others: Tensor, step: float) -> TablePolicy:
    """(1 − step) of agents with masses `mass`: (T+1, m) follow `policy`, the rest, with masses `others`, `other`: what
    the average of them does in each cell. Where nobody is, `other`."""
    old, new = (1 - step) * mass[:-1], step * others[:-1]
    total = old + new
    share = torch.where(total > 0, new / total, 1.0)[..., None]
    return TablePolicy.on_lattice(policy.grid, torch.lerp(policy.probabilities, other.probabilities, share))


def _still(grid: Grid) -> TablePolicy:
    probabilities = torch.zeros(grid.game.horizon, len(grid.x), len(grid.actions), dtype=torch.float64)
    probabilities[..., grid.actions.square().sum(1).argmin()] = 1
    return TablePolicy.on_lattice(grid, probabilities)


def _prolonged(policy: TablePolicy, grid: Grid) -> TablePolicy:
    """A coarser grid's policy on `grid`: in each cell, that of the cell around it, with the nearest actions."""
    coarse = policy.grid
    nearest = torch.cdist(coarse.actions, grid.actions).argmin(1)
    shape = len(policy.probabilities), len(grid.x), len(grid.actions)
    probabilities = torch.zeros(shape, dtype=torch.float64)
    return TablePolicy.on_lattice(grid, probabilities.index_add_(2, nearest, policy.probabilities[:, coarse.cell(grid.x)]))


def _judge(grid: Grid, play: Evaluation) -> float:
    return max(grid_best_response(grid, play.population).value - play.value, 0.0)  # 0 but for rounding


def _row(grid: Grid, k: int, gap: float, play: Evaluation) -> dict[str, Any]:
    return {"cells": int(max(grid.shape)), "iteration": k, "exploitability": gap, "value": play.value}


def _grid(game: Any, cells: int | None) -> Grid:
    return grid_of(game, CELLS.get(getattr(game, "state_dim", 0)) if cells is None else cells)


def _levels(game: Any, cells: int | None) -> list[Grid]:
    """Grids from coarse to fine, each with half the cells of the next, as far as its lines run along the walls."""
    grids = [_grid(game, cells)]
    while True:
        half, odd = divmod(int(max(grids[0].shape)), 2)
        if odd or half < COARSEST[game.state_dim]:
            return grids
        try:
            grids.insert(0, grid_of(game, half))
        except ValueError:  # too coarse for the walls
            return grids
