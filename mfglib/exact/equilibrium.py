"""Equilibria on grids: fictitious play with exact best responses, exact averages and exact populations."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
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
from mfglib.exact.methods import Method, MirrorDescent, Search, method_of
from mfglib.exact.responses import backward, still
from mfglib.exact.restated import restated
from mfglib.exact.tables import TablePolicy
from mfglib.files import replacing
from mfglib.populations import CellPopulation
from mfglib.protocols import Policy

CELLS = {1: 400, 2: 40}  # along the longest side
COARSEST = {1: 100, 2: 20}
CHECK_EVERY = 5  # iterations from one look at the exploitability to the next
CERTIFY_EVERY = 25  # and at least from one certificate to the next, which looks between the lattice's actions too
STALLED = 4  # certificates without progress after which a coarser grid is left
INHERITED = 20  # iterations that the start from a coarser grid counts for: more would keep its errors for longer


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


@dataclass(frozen=True)
class GridStep:
    """Iterate k on a grid of `cells` along the longest side: a policy, its own population μ^π, and J(π, μ^π)."""

    cells: int
    k: int
    policy: TablePolicy
    population: CellPopulation
    value: float


@checked
def grid_equilibrium(
    game: Any,
    cells: int | None = None,
    tolerance: float = 0.001,
    *,
    iterations: int = 400,
    method: str | Method | None = None,
    initial_policy: Policy | None = None,
    callback: Callable[[GridStep], Any] | None = None,
    progress: bool = True,
) -> GridEquilibrium:
    """The equilibrium of a bounded game on a grid, up to exploitability <= tolerance · that of never acting.

    By mirror descent with momentum or by fictitious play with searched steps, whichever is further after some
    iterations on a coarse grid: the one where agents avoid each other, the other where they follow each other. Searched
    steps go from coarse to fine, each grid's policy starting the next, with twice the cells, up to `cells` along the
    longest side (400 if d = 1, 40 if d = 2). At most `iterations` on each grid.

    Below 0.1% certificates see that actions are on a lattice: in 4-rooms on 40 cells that costs 0.05%.

    Args:
        method: one of `grid_fictitious_play`, by its name or as an object, in the place of these two.
        initial_policy: iteration 0 on the finest grid, instead of never acting or of coarse grids: any policy, as
            `mfglib.exact.restated` reads it, such as that of another equilibrium, on as many cells or others. It counts
            for 20 iterations. Tolerance and `first` stay relative to never acting.
        callback: called with each iterate, a `GridStep`; `steps.append` keeps them all, each with tables of its own.

    Raises as `mfglib.exact.grid.Grid`, ValueError for bad arguments, and ArithmeticError with the exploitability that
    was reached if that is above the tolerance.
    """
    if not 0 < number("tolerance", tolerance) < 1:
        raise ValueError(f"tolerance: expected a share of the first exploitability in (0, 1), got {tolerance!r}")
    integer("iterations", iterations, at_least=1)
    _require_callable(callback)
    chosen = None if method is None else method_of(method)
    hidden = {} if progress else {"disable": True}  # so that the environment variable TQDM_DISABLE counts too
    with tqdm(desc="equilibrium on a grid", unit="iteration", **hidden) as bar:
        grids, rows, policy = _levels(game, cells), [], initial_policy
        chosen = chosen or _best_method(grids[0])
        for grid in grids if policy is None and getattr(chosen, "refines", False) else grids[-1:]:
            start = None if policy is None else restated(grid, policy)
            found = _settled(grid, chosen, start, tolerance, iterations, grid is grids[-1], bar, callback)
            policy, rows = found.policy, rows + found.history.to_dict("records")
    if found.exploitability > tolerance * found.first:
        raise ArithmeticError(
            f"no equilibrium within {iterations} iterations: exploitability {found.exploitability:.4g}, "
            f"{found.exploitability / found.first:.2%} of the first, tolerance {tolerance:.2%}; raise iterations or "
            f"tolerance"
        )
    return dataclasses.replace(found, history=pd.DataFrame(rows))


# Tried on the coarsest grid.
CANDIDATES = (Search(), MirrorDescent(momentum=True), MirrorDescent(momentum=True, share=4 * 0.083))
TRIED = 10  # iterations


def _best_method(grid: Grid) -> Method:
    """The candidate that is least exploitable after some iterations."""
    first, gaps = _judge(grid, grid_evaluate(grid, still(grid))), []
    for method in CANDIDATES:
        *_, (_, _, play) = itertools.islice(_iterates(grid, method, None, 0, first), TRIED + 1)
        gaps.append(_lattice_gap(grid, play))
    return CANDIDATES[gaps.index(min(gaps))]


def _settled(
    grid: Grid, method: Method, start: TablePolicy | None, tolerance: float, iterations: int, last: bool, bar: Any,
    callback: Callable[[GridStep], Any] | None,
) -> GridEquilibrium:  # fmt: skip
    """The first iterate on one grid that is certified to the tolerance, or the one at which there is no more to gain,
    or no iteration left."""
    first, begin = _judge(grid, grid_evaluate(grid, still(grid))), 0 if start is None else INHERITED
    rows, gaps = [], []
    policies = _iterates(grid, method, start, begin, first, callback)
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
    method: str | Method = "uniform",
    temperature: float | None = None,
    cells: int | None = None,
    every: int = 1,
    initial_policy: Policy | None = None,
    start: int = 0,
    callback: Callable[[GridStep], Any] | None = None,
) -> GridEquilibrium:
    """`iterations` of an exact method from the policy that never acts, on a grid of `cells` along the longest side.

    Averages are taken in occupancy: in each cell, the average policy weighs best responses by the mass that they bring
    there. Its population is always its own, pushed forward, also where the population moves its agents.

    Args:
        method: how iterate k comes from the one before and its exact best response, an object of
            `mfglib.exact.methods` or its name there (docs/howto/exact.md says which converges where):
            "uniform": steps 1/k. "linear": 2/(k+1). "search": until the best response gains nothing any more.
            "corrective": weights of an equilibrium between the best responses so far. "damped fixed point": 1/2.
            "smoothed": 1/k, with best responses to rewards −(τ/k) log(π(a|x) · number of actions) on top of the game's.
            "mirror descent": no average, π ∝ exp Σ_k Q_k / (τ √k), with Q_k of the policy before (Perolat et al.,
            arXiv 2103.00623). "momentum": the same with Nesterov's momentum, which is the fastest where agents avoid
            each other. One's own is any object with `init` and `step` (`mfglib.exact.methods.Method`).
        temperature: τ > 0 of the last three, in units of reward; None: 0.01, 0.04 or 0.083 of the first exploitability.
        every: iterations from one row of `history` to the next; the first and the last are always there.
        initial_policy: the policy of the first iteration instead of never acting: any policy, as
            `mfglib.exact.restated` reads it, such as that of an equilibrium on as many cells or others. `first` is that
            of never acting all the same.
        start: the number of the first iteration, k: an average counts `initial_policy` for so many. With 0, steps of
            1/1 forget it, but for the best response to it.
        callback: called with each iterate, a `GridStep`; `steps.append` keeps them all, each with tables of its own.

    Raises as `mfglib.exact.grid.Grid`, and ValueError for bad arguments.
    """
    integer("iterations", iterations, at_least=0)
    integer("every", every, at_least=1)
    integer("start", start, at_least=0)
    _require_callable(callback)
    chosen = method_of(method, temperature)
    if start and initial_policy is None:
        raise ValueError(f"start: expected 0 without an initial_policy, got {start}")
    grid, rows = _grid(game, cells), []
    first = _judge(grid, grid_evaluate(grid, still(grid)))
    begun = None if initial_policy is None else restated(grid, initial_policy)
    policies = _iterates(grid, chosen, begun, start, first, callback)
    for k, policy, play in itertools.islice(policies, iterations + 1):  # noqa: B007 (the last is kept)
        if (k - start) % every == 0 or k == start + iterations:
            gap = _judge(grid, play)
            rows.append(_row(grid, k, gap, play))
    return GridEquilibrium(policy, play.population, play.value, gap, first, pd.DataFrame(rows))


def _iterates(
    grid: Grid, method: Method, start: TablePolicy | None, begin: int, first: float,
    callback: Callable[[GridStep], Any] | None = None,
) -> Iterator[tuple[int, TablePolicy, Evaluation]]:  # fmt: skip
    """k, the k-th policy and its evaluation, for k = begin, begin + 1, ..."""
    policy, memory = still(grid) if start is None else start, method.init(grid, start, first)
    for k in itertools.count(begin):
        play = grid_evaluate(grid, policy)
        if callback:
            callback(GridStep(int(max(grid.shape)), k, policy, play.population, play.value))
        yield k, policy, play
        policy, memory = method.step(grid, memory, k + 1, policy, play)


def _judge(grid: Grid, play: Evaluation) -> float:
    return max(grid_best_response(grid, play.population).value - play.value, 0.0)  # 0 but for rounding


def _lattice_gap(grid: Grid, play: Evaluation) -> float:
    """`_judge` with best responses on the lattice of actions, which is lower and much faster."""
    return backward(grid, play.population, lambda t, q: q.amax(1)) - play.value


def _require_callable(callback: Any) -> None:
    if callback is not None and not callable(callback):
        raise TypeError(f"callback: expected None or a function, got {callback!r}")


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
