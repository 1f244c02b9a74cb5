"""A game on a grid: cells, the moves between them, and populations and policies that live there.

Mass sits in the centres of cells. Displacements are rounded to the lattice of the cells' spacing h, at random so that
their mean is kept; reflections at faces on the grid's lines take the lattice to itself, so no other rounding is needed:
one table says where each displacement from each cell ends, the post-decision state, another where each lattice point of
the noise takes it from there. Value function and population use the same tables, so that J = ⟨mass, reward⟩ holds to
rounding whichever way it is computed. The error is O(h²): the rounding adds a variance of at most h²/4 a step and
coordinate.
"""

import functools
import itertools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mfglib.checks import integer, require_time
from mfglib.games.domain import BOUNCES, Domain
from mfglib.populations import MeanPath
from mfglib.protocols import Population

CELLS = {1: 400, 2: 80}  # default cells along the longest side
ALL = slice(None)


class Grid:
    """Cells of a bounded game (see `BoundedGame`) of state dimension 1 or 2; cached by `grid_of`.

    x: (m, d) centres of the free cells, `volume` of a cell, `initial`: (m,) mass of μ_0, `actions`: (A, k) lattice
    of actions, `target`: (m, L) the cell where each lattice displacement ends; `noise_target`: (m, W) the same of the
    lattice of the noise, `weights`: (W,) its law.

    Raises TypeError if the game lacks a member, ValueError if it is unbounded, if agents start in walls or if the
    grid's lines miss the walls.
    """

    def __init__(self, game: Any, cells: int | None = None) -> None:
        require_grid_game(game)
        domain: Domain = game.domain
        self.game, self.state_dim = game, domain.state_dim
        cells = CELLS[self.state_dim] if cells is None else integer("cells", cells, at_least=4)
        width = domain.upper - domain.lower
        self.shape = np.maximum(np.round(width / width.max() * cells), 1).astype(int)  # (d,) cells a side
        self.h = width / self.shape
        lines = (domain.walls - domain.lower) / self.h
        if np.abs(lines - lines.round()).max(initial=0) > 1e-6:
            raise ValueError(
                f"cells: expected a grid whose lines run along every wall, got {cells} cells of {self.h.tolist()}, "
                f"too coarse for the doors or out of step with them; try a multiple of it"
            )
        units = Domain(np.zeros(self.state_dim), self.shape, lines.round())  # exact arithmetic: ties stay ties
        coordinates = np.indices(self.shape).reshape(self.state_dim, -1).T
        free = units.contains(torch.from_numpy(coordinates + 0.5)).numpy()
        self.coordinates = coordinates[free]  # (m, d)
        self.index = np.full(self.shape, -1)
        self.index[tuple(self.coordinates.T)] = np.arange(len(self.coordinates))
        self.x = torch.from_numpy(domain.lower + (self.coordinates + 0.5) * self.h)
        self.volume = float(self.h.prod())
        self.actions = self._action_lattice()
        self.reach = self._reach()
        self.initial = self._initial()
        self.target = self._ends(units, self.reach)
        quantiles = game.noise.quantiles(4096).T
        noise = [on_lattice(q, std, h) for q, std, h in zip(quantiles, game.noise.std, self.h, strict=True)]
        self.noise_target = self._ends(units, np.array([len(w) // 2 for w in noise]))
        self.weights = torch.from_numpy(functools.reduce(np.multiply.outer, noise).ravel())

    def cell(self, x: Tensor) -> Tensor:
        """Index of the cell that x: (n, d) lies in: (n,). Points on a wall's face count to a free cell beside it."""
        scaled = (x.double().cpu().numpy() - self.game.domain.lower) / self.h
        found = np.full(len(x), -1)
        for nudge in itertools.product((0.0, -1e-3, 1e-3), repeat=self.state_dim):  # beyond float32's rounding
            missing = found < 0
            if not missing.any():
                break
            corner = np.floor(scaled[missing] + nudge).astype(int).clip(0, self.shape - 1)
            found[missing] = self.index[tuple(corner.T)]
        if (found < 0).any():
            raise ValueError(f"x: expected states outside the walls, got {x[torch.from_numpy(found < 0)][0].tolist()}")
        return torch.from_numpy(found)

    def corners(self, move: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The lattice displacements around `move`: (r, S, d), 2^d pairs of index and share; the shares keep the mean.

        Both are (r, S), or (1, S) if the moves are the same from each cell. Pairs without any share are left out.
        """
        if torch.equal(move, move[:1].expand_as(move)):
            move = move[:1]
        pairs = [(torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1, dtype=torch.float64))]
        for i, reach in enumerate(self.reach.tolist()):
            scaled = move[..., i] / self.h[i] + reach
            nearest = scaled.round()
            scaled = torch.where((scaled - nearest).abs() < 1e-9, nearest, scaled)
            low = scaled.floor().clamp(0, 2 * reach)
            part = scaled - low
            if not ((part >= 0) & (part < 1) & ((part == 0) | (low < 2 * reach))).all():
                limit, worst = reach * self.h[i], move[..., i].abs().max().item()
                raise ValueError(f"displacement: expected at most {limit:g} in coordinate {i}, got {worst:g}")
            index = low.long()
            both = [(index, 1 - part), ((index + 1).clamp(max=2 * reach), part)]
            pairs = [(j * (2 * reach + 1) + k, p * q) for j, p in pairs for k, q in both if q.any()]
        return [(index, share) for index, share in pairs if share.any()]

    def expected(self, value: Tensor) -> Tensor:
        """E value(x') at each post-decision state, over the noise: (m,) -> (m,)."""
        return value[self.noise_target] @ self.weights

    def push(self, mass: Tensor) -> Tensor:
        """The adjoint of `expected`: mass (m,) before the noise -> (m,) after it."""
        spread = torch.outer(mass, self.weights)
        return torch.zeros_like(mass).index_add_(0, self.noise_target.flatten(), spread.flatten())

    def gather(self, value: Tensor, move: Tensor, rows: slice = ALL) -> Tensor:
        """`value`: (m,) where the moves (r, S, d) of the cells in `rows` end, by interpolation: (r, S)."""
        ends = ((self._ends_of(index, rows), share) for index, share in self.corners(move))
        return sum(value.index_select(0, end.flatten()).view(end.shape) * share for end, share in ends)

    def scatter(self, flow: Tensor, move: Tensor, rows: slice = ALL) -> Tensor:
        """The adjoint of `gather`: mass `flow`: (r, S) that makes `move` -> mass (m,) before the noise."""
        total = flow.new_zeros(len(self.x))
        for index, share in self.corners(move):
            total.index_add_(0, self._ends_of(index, rows).flatten(), (flow * share).flatten())
        return total

    def _ends_of(self, index: Tensor, rows: slice) -> Tensor:
        """The cells where lattice displacements number (r, S), or (1, S), of the cells in `rows` end: (r, S)."""
        target = self.target[rows]
        return target.index_select(1, index[0]) if len(index) == 1 else target.gather(1, index)

    def _action_lattice(self) -> Tensor:
        bound = np.broadcast_to(np.asarray(self.game.a_bound, dtype=float), (self.game.action_dim,))
        steps = math.ceil(bound.max() / self.h.min() - 1e-9)  # as fine as the cells, where an action is a velocity
        sides = [torch.linspace(-b, b, 2 * max(steps, 4) + 1, dtype=torch.float64) for b in bound]
        return torch.cartesian_prod(*sides).view(-1, len(bound))

    def _reach(self) -> np.ndarray:
        """Lattice steps (d,) that no displacement exceeds, taken at the extreme actions and means of populations."""
        domain, largest = self.game.domain, np.zeros(self.state_dim)
        ends = self.actions[self.actions.abs().eq(self.actions.abs().amax(0)).all(1)]  # the corners
        means = itertools.product(*zip(domain.lower, domain.upper, strict=True))
        for t, mean, a in itertools.product(range(self.game.horizon), means, ends):
            population = MeanPath(torch.tensor([mean], dtype=torch.float64).expand(self.game.horizon + 1, -1))
            move = self.game.displacement(t, self.x, a.expand(len(self.x), -1), population)
            largest = np.maximum(largest, move.abs().amax(0).numpy())
        return np.ceil(largest / self.h - 1e-9).astype(int)

    def _initial(self) -> Tensor:
        """Each axis's quantiles, reflected at the outer edge, counted in cells."""
        domain, mass = self.game.domain, np.ones(())
        x = domain.fold(torch.from_numpy(self.game.start.quantiles(1 << 18))).numpy()
        for q, low, high, n in zip(x.T, domain.lower, domain.upper, self.shape, strict=True):
            mass = np.multiply.outer(mass, np.histogram(q, n, (low, high))[0] / len(q))
        mass = mass[tuple(self.coordinates.T)]
        if mass.sum() < 1 - 1e-9:
            raise ValueError(f"game.start: expected a law outside the walls, got {1 - mass.sum():.2g} of it inside")
        return torch.from_numpy(mass)

    def _ends(self, units: Domain, half: np.ndarray) -> Tensor:
        """The cells where moves by −half..half: (d,) lattice steps end, in units of the spacing: (m, Π(2 half + 1))."""
        offsets = torch.from_numpy(np.indices(2 * half + 1).reshape(self.state_dim, -1).T - half).double()
        centres = torch.from_numpy(self.coordinates + 0.5)
        target = torch.empty(len(centres), len(offsets), dtype=torch.int32)
        size = max(1, (1 << 14) // len(offsets))
        for first in range(0, len(centres), size):  # in chunks, for memory and speed
            start = centres[first : first + size].repeat_interleave(len(offsets), 0)
            ends = units.move(start, offsets.repeat(len(start) // len(offsets), 1)).numpy()
            if (np.abs(ends % 1 - 0.5) > 1e-6).any():  # not a centre: `Domain.move` gave up
                raise ValueError(f"game: expected moves that a grid can follow, got more than {BOUNCES} reflections")
            target[first : first + size].view(-1).copy_(torch.from_numpy(self.index[tuple(ends.astype(int).T)]))
        return target


class CellPopulation:
    """Mass (T+1, m) in the cells of a grid: a density that is constant in each cell.

    `means`: (T+1, d) if they are known better than by the mass, else None.
    """

    def __init__(self, grid: Grid, mass: Tensor, means: Tensor | None = None) -> None:
        self.grid, self.mass, self.means = grid, mass, means

    @classmethod
    def of(cls, grid: Grid, population: Population) -> "CellPopulation":
        """Any population, by its log-density at the cells' centres and its own mean.

        The mass of one that only knows its mean, as `MeanPath`, is NaN: it serves games that ask for no density.
        """
        if isinstance(population, CellPopulation) and population.grid is grid:
            return population
        times, mass = range(grid.game.horizon + 1), torch.full((), torch.nan, dtype=torch.float64)
        with torch.no_grad():
            if hasattr(population, "log_prob"):
                x = grid.x.float()
                mass = torch.stack([population.log_prob(t, x).double().cpu().exp() * grid.volume for t in times])
            means = torch.stack([population.mean(t).double().cpu() for t in times])
        return cls(grid, mass.expand(len(times), len(grid.x)), means)

    def sample(self, t: int, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n states, uniform within their cells: (n, d)."""
        mass = self.mass[require_time(t, len(self.mass) - 1)]
        cell = torch.multinomial(mass.clamp_min(0), n, replacement=True, generator=generator)
        within = torch.rand(n, self.grid.state_dim, dtype=torch.float64, generator=generator) - 0.5
        return (self.grid.x[cell] + within * torch.from_numpy(self.grid.h)).float()

    def log_prob(self, t: int, x: Tensor) -> Tensor:
        """Log of the density in the cell of x: (n, d) -> (n,)."""
        mass = self.mass[require_time(t, len(self.mass) - 1)]
        return (mass[self.grid.cell(x)] / self.grid.volume).log().to(x)

    def mean(self, t: int) -> Tensor:
        require_time(t, len(self.mass) - 1)
        return self.mass[t] @ self.grid.x if self.means is None else self.means[t]

    def density(self, t: int) -> np.ndarray:
        """The density on the whole grid, NaN in walls: (n_1,) or (n_1, n_2)."""
        values = np.append((self.mass[t] / self.grid.volume).numpy(), np.nan)  # index −1: a wall
        return values[self.grid.index]


class TablePolicy:
    """Probabilities (T, m, A) of the grid's lattice of actions in each cell; an agent acts by the cell it is in."""

    def __init__(self, grid: Grid, probabilities: Tensor) -> None:
        self.grid, self.probabilities = grid, probabilities

    def sample(self, t: int, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        if require_time(t, len(self.probabilities)) == len(self.probabilities):
            return x.new_zeros(len(x), self.grid.game.action_dim)
        # One search in all cells' distribution functions, end to end: (n, A) would be large.
        ends = self.probabilities[t].double().cumsum(1)
        ends = ends / ends[:, -1:] + torch.arange(len(ends))[:, None]
        cell = self.grid.cell(x)
        u = torch.rand(len(x), generator=generator, dtype=torch.float64)
        index = torch.searchsorted(ends.flatten(), cell + u, right=True) - cell * ends.shape[1]
        return self.grid.actions[index.clamp(max=ends.shape[1] - 1)].to(x)

    def mean(self, t: int, x: Tensor) -> Tensor:
        if require_time(t, len(self.probabilities)) == len(self.probabilities):
            return x.new_zeros(len(x), self.grid.game.action_dim)
        return (self.probabilities[t, self.grid.cell(x)].double() @ self.grid.actions).to(x)

    def log_prob(self, t: int, x: Tensor, a: Tensor) -> Tensor:
        """Log-probability of the nearest action of the lattice: a policy on a lattice has no density."""
        nearest = torch.cdist(a.double(), self.grid.actions).argmin(1)
        return self.probabilities[t, self.grid.cell(x), nearest].log().to(x)


def on_lattice(quantiles: np.ndarray, std: float, h: float) -> np.ndarray:
    """A centred law given by its quantiles (n,), as weights of the lattice ..., −h, 0, h, ... with its variance.

    Rounding at random to the lattice keeps the mean and adds variance; the quantiles are drawn in to make up for it.
    """
    weights = np.ones(1)
    if std <= 1e-6 * h:
        return weights
    quantiles = quantiles * (std / math.sqrt(np.square(quantiles).mean()) / h)  # a Gaussian's tails are cut
    low, high = 0.0, 1.0
    for _ in range(40):
        factor = (low + high) / 2
        floor = np.floor(factor * quantiles).astype(int)
        part = factor * quantiles - floor
        reach = int(max(-floor.min(), floor.max() + 1))
        weights = np.bincount(floor + reach, 1 - part, 2 * reach + 1)
        weights += np.bincount(floor + reach + 1, part, 2 * reach + 1)
        weights /= len(quantiles)
        if np.square(np.arange(-reach, reach + 1)) @ weights * h**2 > std**2:
            high = factor
        else:
            low = factor
    return (weights + weights[::-1]) / 2


_GRIDS: dict[tuple[type, str, int | None], Grid] = {}


def grid_of(game: Any, cells: int | None = None) -> Grid:
    """The grid of a game, built once for all games of the same class and repr; the last four are kept."""
    key = (type(game), repr(game), cells)
    if key not in _GRIDS:
        grid = Grid(game, cells)
        while len(_GRIDS) >= 4:
            _GRIDS.pop(next(iter(_GRIDS)))
        _GRIDS[key] = grid
    return _GRIDS[key]


def require_grid_game(game: Any) -> None:
    """Raise unless a grid can solve `game`: the members of `BoundedGame`, state dimension 1 or 2, bounded actions."""
    for member in ("domain", "start", "noise", "a_bound", "displacement"):
        if not hasattr(game, member):
            raise TypeError(f"game: expected a bounded game with the member `{member}`, got {type(game).__name__}")
    if game.domain is None or game.a_bound is None:
        raise ValueError("game: expected bounded states and actions, got a game with an unbounded domain or a_bound")
    if game.noise.mean.any():
        raise ValueError(f"game.noise: expected a law of mean 0, got {game.noise!r}")
    if game.state_dim > 2 or game.action_dim > 2:
        raise ValueError(f"game: expected dimensions of at most 2, got {game.state_dim} and {game.action_dim}")
