"""What each action earns and where it leads, cell by cell: a game asked row by row or, where it allows that, by tables.

Where no population changes moves, and rewards split as r_t(x, a, μ) = c_t(x, a) + f_t(x, μ), everything about the
lattice of actions but f follows from the game alone. A sweep of dynamic programming, or a push-forward, is then a
product with two sparse matrices, moves × actions and noise, some ten times faster and the same to rounding.
"""

import functools
from collections.abc import Iterator

import torch
from torch import Tensor

from mfglib.exact.grid import Grid
from mfglib.populations import CellPopulation, Repeated

ROWS = 1 << 16  # rows (cells times actions) that a game is asked for at a time: more would leave the CPU's cache
LARGEST = 1 << 22  # cells times actions of a table: more is left to sweeps, for memory
SAME = 1e-9  # of the largest reward: rewards that differ by less are rounded differently


def by_rows(grid: Grid, t: int, a: Tensor, population: CellPopulation) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """For S actions a: (m, S, k) in each cell, in chunks of r cells: which, rewards (r, S) and displacements (r, S, d).

    Raises ValueError for NaN rewards, as of a game that asks for the density of a population that only knows its mean,
    and for rewards of +∞, as −log μ is where nobody is.
    """
    m, S, k = a.shape
    size = max(1, ROWS // S)
    for first in range(0, m, size):
        rows = slice(first, first + size)
        x, actions = grid.x[rows].repeat_interleave(S, 0), a[rows].reshape(-1, k)
        asked = Repeated(population, x, functools.partial(_at_rows, population, rows, S))
        reward = grid.game.reward(t, x, actions, asked).view(-1, S)
        if reward.isnan().any():
            raise ValueError(f"population: expected one with a density at t = {t}, as rewards need, got NaN rewards")
        _require_bounded(t, reward)
        move = torch.zeros_like(x) if t == grid.game.horizon else grid.game.displacement(t, x, actions, asked)
        yield rows, reward, move.view(-1, S, grid.state_dim)


def _require_bounded(t: int, reward: Tensor) -> None:
    if (reward == torch.inf).any():
        raise ValueError(
            f"game.reward at t = {t}: expected a reward that is bounded from above, got +inf; where nobody is, "
            f"log_prob is −inf: bound it, as in −log(μ + ε)"
        )


def _at_rows(population: CellPopulation, rows: slice, S: int, t: int) -> Tensor:
    """The log-density of the cells in `rows`, each S times."""
    return (population.mass[t][rows] / population.grid.volume).log().repeat_interleave(S)


def last_reward(grid: Grid, population: CellPopulation) -> Tensor:
    """Rewards (m,) at the horizon, where nobody acts."""
    none = torch.zeros(len(grid.x), 1, grid.game.action_dim, dtype=torch.float64)
    return torch.cat([reward[:, 0] for _, reward, _ in by_rows(grid, grid.game.horizon, none, population)])


def action_values(grid: Grid, t: int, a: Tensor, population: CellPopulation, ahead: Tensor) -> Tensor:
    """Q_t (m, S) of S actions a: (m, S, k) in each cell, where `ahead` = `grid.expected(V_{t+1})`: (m,)."""
    parts = by_rows(grid, t, a, population)
    return torch.cat([reward + grid.gather(ahead, move, rows) for rows, reward, move in parts])


def lattice_values(grid: Grid, t: int, population: CellPopulation, ahead: Tensor) -> Tensor:
    """`action_values` (m, A) of the lattice of actions, by its tables where the game has any."""
    tables = tables_of(grid)
    if tables is None or (crowd := tables.crowd(t, population)) is None:
        return action_values(grid, t, grid.actions.expand(len(grid.x), -1, -1), population, ahead)
    return tables.ahead(t, ahead).add_(tables.c[t]).add_(crowd[:, None])


def still_action(grid: Grid) -> int:
    """The number of the lattice's least action."""
    return int(grid.actions.square().sum(1).argmin())


def tables_of(grid: Grid) -> "LatticeTables | None":
    """The tables of a grid's lattice of actions, made when they are first asked for; None where its game has none."""
    if grid.tables is None or grid.tables[0] is not grid.game:  # a copy of a grid may be given another game
        grid.tables = grid.game, LatticeTables.of(grid)
    return grid.tables[1]


class LatticeTables:
    """c: T tables (m, A) of what actions earn beside the one that is least; moves: T sparse matrices (m·A, m), from
    cell and action to the cells around where the move ends. Those that are equal are one object.

    That the game is such a one is not believed but seen, at each t and for each population: two actions of each cell,
    other ones at each t, are asked again (`crowd`).
    """

    def __init__(self, grid: Grid) -> None:
        m, A, T = len(grid.x), len(grid.actions), grid.game.horizon
        self.game, self.c, self.moves = grid.game, [], []
        self.twice, cells, last = grid.x.repeat_interleave(2, 0), torch.arange(m), None
        still = torch.zeros(T, grid.game.action_dim, dtype=torch.float64)
        everywhere = CellPopulation(grid, torch.full((T + 1, m), 1 / m, dtype=torch.float64), actions=still)
        self.asked: list[tuple[Tensor, Tensor, Tensor]] = []  # at each t: two actions (2m, k), their c (m, 2) and moves
        for t in range(T):
            parts = by_rows(grid, t, grid.actions.expand(m, -1, -1), everywhere)
            reward, move = (torch.cat(part) for part in list(zip(*parts, strict=True))[1:])
            c = reward - reward[:, still_action(grid), None]
            self.c.append(self.c[-1] if self.c and torch.equal(c, self.c[-1]) else c)
            self.moves.append(self.moves[-1] if last is not None and torch.equal(move, last) else grid.matrix(move))
            last, pair = move, torch.stack([(cells + t) % A, (7 * cells + 13 * t + 1) % A], 1)
            self.asked.append(
                (grid.actions[pair.flatten()], c.gather(1, pair), move[cells[:, None], pair].flatten(0, 1))
            )

    @classmethod
    def of(cls, grid: Grid) -> "LatticeTables | None":
        """None if they would be large, or are not true: they are tried with another population."""
        m, T = len(grid.x), grid.game.horizon
        if m * len(grid.actions) > LARGEST:
            return None
        tables, ramp = cls(grid), torch.linspace(0, 4, m, dtype=torch.float64).softmax(0)
        other = CellPopulation(grid, ramp.expand(T + 1, m), actions=grid.actions[-1].expand(T, -1))
        true = all(tables.c[t].isfinite().all() and tables.crowd(t, other) is not None for t in range(T))
        return tables if true else None

    def crowd(self, t: int, population: CellPopulation) -> Tensor | None:
        """f_t(x, μ) + r_t(x, a_0), a_0 the least action: (m,); None if this population changes moves, or what
        one action earns more than another."""
        (a, c, known), x = self.asked[t], self.twice
        asked = Repeated(population, x, functools.partial(_at_rows, population, slice(None), 2))
        reward = self.game.reward(t, x, a, asked).view(-1, 2)
        _require_bounded(t, reward)
        one, other = (reward - c).unbind(1)
        size = one.nan_to_num(0.0, 0.0, 0.0).abs().max()
        split = (one == other) | ((one - other).abs() <= SAME * size)  # equal where nobody is, and −∞
        moved = self.game.displacement(t, x, a, asked)
        return one if split.all() and torch.equal(moved, known) else None

    def ahead(self, t: int, ahead: Tensor) -> Tensor:
        """`ahead`: (m,) where each action ends, by interpolation: (m, A)."""
        return torch.from_numpy(self.moves[t] @ ahead.numpy()).view(len(ahead), -1)

    def moved(self, t: int, flow: Tensor) -> Tensor:
        """The adjoint: mass `flow`: (m, A) that acts so -> mass (m,) before the noise."""
        return torch.from_numpy(self.moves[t].T @ flow.numpy().ravel())
