"""A game on a grid: cells, the moves between them, and populations and policies that live there.

Mass sits in the centres of cells. Displacements are rounded to the lattice of the cells' spacing h, at random so that
their mean is kept; reflections at faces on the grid's lines take the lattice to itself, so no other rounding is needed:
a table says where each displacement from each cell ends. Value function and population use the same table, so that
J = ⟨mass, reward⟩ holds to rounding whichever way it is computed. The error is O(h²): the rounding adds a variance of
at most h²/4 a step and coordinate.
"""

import itertools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mfglib.checks import require_time
from mfglib.games.base import Population, integer
from mfglib.games.domain import Domain
from mfglib.population import MeanPath

CELLS = {1: 400, 2: 80}  # default cells along the longest side


class Grid:
    """Cells of a bounded game (see `BoundedGame`) of state dimension 1 or 2; cached by `grid_of`.

    x: (m, d) centres of the free cells, `volume` of a cell, `initial`: (m,) mass of μ_0, `actions`: (A, k) lattice
    of actions, `target`: (m, D) the cell where each lattice displacement ends.

    Raises TypeError if the game lacks a member, ValueError if it is unbounded or the grid's lines miss its walls.
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
        coordinates = np.stack(np.meshgrid(*map(np.arange, self.shape), indexing="ij"), -1).reshape(-1, self.state_dim)
        free = units.contains(torch.from_numpy(coordinates + 0.5)).numpy()
        self.coordinates = coordinates[free]  # (m, d)
        self.index = np.full(self.shape, -1)
        self.index[tuple(self.coordinates.T)] = np.arange(len(self.coordinates))
        self.x = torch.from_numpy(domain.lower + (self.coordinates + 0.5) * self.h)
        self.volume = float(self.h.prod())
        self.actions = self._action_lattice()
        self.noise = [
            _on_lattice(quantiles, h) for quantiles, h in zip(game.noise.quantiles(4096).T, self.h, strict=True)
        ]
        self.reach = self._reach()
        self.initial = self._initial()
        self.target = self._targets(units)

    def cell(self, x: Tensor) -> Tensor:
        """Index of the cell that x: (n, d) lies in: (n,). Points on a wall's face count to a free cell beside it."""
        scaled = (x.double().cpu().numpy() - self.game.domain.lower) / self.h
        found = np.full(len(x), -1)
        for nudge in itertools.product((0.0, -1e-5, 1e-5), repeat=self.state_dim):
            missing = found < 0
            if not missing.any():
                break
            corner = np.floor(scaled[missing] + nudge).astype(int).clip(0, self.shape - 1)
            found[missing] = self.index[tuple(corner.T)]
        if (found < 0).any():
            raise ValueError(f"x: expected states outside the walls, got {x[torch.from_numpy(found < 0)][0].tolist()}")
        return torch.from_numpy(found)

    def spread(self, displacement: Tensor) -> tuple[Tensor, Tensor]:
        """Lattice displacements around `displacement`: (..., d), and their shares, which keep the mean: (..., 2^d)."""
        scaled = displacement / torch.from_numpy(self.h) + torch.from_numpy(self.reach)
        low = scaled.floor().clamp(torch.zeros(self.state_dim), torch.from_numpy(2 * self.reach - 1).clamp_min(0))
        part = scaled - low  # in [0, 1] within reach
        if (part < -1e-6).any() or (part > 1 + 1e-6).any():
            raise ValueError(f"displacement: expected at most {(self.reach * self.h).tolist()}, as at the grid's start")
        index, share = 0, 1.0
        for i, side in enumerate(2 * self.reach + 1):
            corners = torch.stack([low[..., i], low[..., i] + 1], -1).long().clamp_max(side - 1)
            shares = torch.stack([1 - part[..., i], part[..., i]], -1)
            index = (index * side)[..., :, None] + corners[..., None, :] if i else corners
            share = share[..., :, None] * shares[..., None, :] if i else shares
        return index.flatten(-self.state_dim), share.flatten(-self.state_dim)

    def expected(self, value: Tensor) -> Tensor:
        """E value(x + displacement + ε) for each cell and lattice displacement: (m,) -> (m, L)."""
        full = value[self.target].view(len(self.x), *(2 * self.reach + [len(w) for w in self.noise]))
        for w, axis in zip(self.noise, range(1, self.state_dim + 1), strict=True):
            full = (full.movedim(axis, -1).unfold(-1, len(w), 1) @ w).movedim(-1, axis)
        return full.flatten(1)

    def push(self, flow: Tensor) -> Tensor:
        """The adjoint of `expected`: mass (m, L) that makes each lattice displacement -> mass (m,) after the noise."""
        full = flow.view(len(self.x), *(2 * self.reach + 1))
        for w, axis in zip(self.noise, range(1, self.state_dim + 1), strict=True):
            lines = full.movedim(axis, -1)
            wide = lines.new_zeros(*lines.shape[:-1], lines.shape[-1] + len(w) - 1)
            for i, share in enumerate(w):
                wide[..., i : i + lines.shape[-1]] += share * lines
            full = wide.movedim(-1, axis)
        return torch.zeros(len(self.x), dtype=flow.dtype).index_add_(0, self.target.flatten(), full.flatten())

    def _action_lattice(self) -> Tensor:
        bound = np.broadcast_to(np.asarray(self.game.a_bound, dtype=float), (self.game.action_dim,))
        steps = math.ceil(bound.max() / self.h.min() - 1e-9)  # as fine as the cells, where an action is a velocity
        sides = [torch.linspace(-b, b, 2 * max(steps, 4) + 1, dtype=torch.float64) for b in bound]
        return torch.cartesian_prod(*sides).view(-1, len(bound))

    def _reach(self) -> np.ndarray:
        """Lattice steps (d,) that no displacement exceeds, whatever the population's mean."""
        domain, largest = self.game.domain, np.zeros(self.state_dim)
        ends = self.actions[self.actions.abs().eq(self.actions.abs().amax(0)).all(1)]  # the corners
        for mean in itertools.product(*zip(domain.lower, domain.upper, strict=True)):
            population = MeanPath(torch.tensor([mean], dtype=torch.float64).expand(self.game.horizon + 1, -1))
            for a in ends:
                move = self.game.displacement(0, self.x, a.expand(len(self.x), -1), population)
                largest = np.maximum(largest, move.abs().amax(0).numpy())
        return np.ceil(largest / self.h - 1e-9).astype(int)

    def _initial(self) -> Tensor:
        """Each axis's quantiles, reflected, counted in cells."""
        domain, mass = self.game.domain, np.ones(())
        axes = self.game.start.quantiles(1 << 18).T
        for q, low, high, n in zip(axes, domain.lower, domain.upper, self.shape, strict=True):
            q = Domain(low, high).move(torch.from_numpy(q[:, None]), torch.zeros(1, 1)).numpy()
            mass = np.multiply.outer(mass, np.histogram(q, n, (low, high))[0] / len(q))
        return torch.from_numpy(mass[tuple(self.coordinates.T)])

    def _targets(self, units: Domain) -> Tensor:
        half = self.reach + [len(w) // 2 for w in self.noise]
        offsets = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in half), indexing="ij"), -1)
        offsets = torch.from_numpy(offsets.reshape(-1, self.state_dim).astype(float))
        centres = torch.from_numpy(self.coordinates + 0.5)
        target = torch.empty(len(centres), len(offsets), dtype=torch.int32)
        size = max(1, (1 << 16) // len(centres))
        for part in range(0, len(offsets), size):  # in chunks: memory
            o = offsets[part : part + size]
            ends = units.move(centres.repeat_interleave(len(o), 0), o.repeat(len(centres), 1))
            cells = self.index[tuple(ends.numpy().astype(int).clip(0, self.shape - 1).T)]
            target[:, part : part + size] = torch.from_numpy(cells).view(len(centres), -1)
        return target


class GridPopulation:
    """Mass (T+1, m) in the cells of a grid: a density that is constant in each cell."""

    def __init__(self, grid: Grid, mass: Tensor) -> None:
        self.grid, self.mass = grid, mass

    @classmethod
    def of(cls, grid: Grid, population: Population) -> "GridPopulation":
        """Any population, by its log-density at the cells' centres; its own mean is kept."""
        if isinstance(population, GridPopulation) and population.grid is grid:
            return population
        result = cls(grid, torch.empty(grid.game.horizon + 1, len(grid.x), dtype=torch.float64))
        result._means = []
        with torch.no_grad():
            for t in range(grid.game.horizon + 1):
                result.mass[t] = population.log_prob(t, grid.x.float()).double().exp() * grid.volume
                result._means.append(population.mean(t).double())
        return result

    def sample(self, t: int, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n states, uniform within their cells: (n, d)."""
        mass = self.mass[require_time(t, len(self.mass) - 1)]
        cell = torch.multinomial(mass.clamp_min(0), n, replacement=True, generator=generator)
        within = torch.rand(n, self.grid.state_dim, dtype=torch.float64, generator=generator) - 0.5
        return (self.grid.x[cell] + within * torch.from_numpy(self.grid.h)).float()

    def log_prob(self, t: int, x: Tensor) -> Tensor:
        """log of the density in the cell of x: (n, d) -> (n,)."""
        mass = self.mass[require_time(t, len(self.mass) - 1)]
        return (mass[self.grid.cell(x)] / self.grid.volume).log().to(x)

    def mean(self, t: int) -> Tensor:
        require_time(t, len(self.mass) - 1)
        return self._means[t] if hasattr(self, "_means") else self.mass[t] @ self.grid.x

    def density(self, t: int) -> np.ndarray:
        """The density on the whole grid, NaN in walls: (n_1,) or (n_1, n_2)."""
        values = np.append((self.mass[t] / self.grid.volume).numpy(), np.nan)  # index −1: a wall
        return values[self.grid.index]


class GridPolicy:
    """Probabilities (T, m, A) of the grid's lattice of actions in each cell; an agent acts by the cell that it is in."""

    def __init__(self, grid: Grid, probabilities: Tensor) -> None:
        self.grid, self.probabilities = grid, probabilities

    def sample(self, t: int, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        if require_time(t, len(self.probabilities)) == len(self.probabilities):
            return x.new_zeros(len(x), self.grid.game.action_dim)
        p = self.probabilities[t, self.grid.cell(x)]
        return self.grid.actions[torch.multinomial(p, 1, generator=generator)[:, 0]].to(x)

    def mean(self, t: int, x: Tensor) -> Tensor:
        if require_time(t, len(self.probabilities)) == len(self.probabilities):
            return x.new_zeros(len(x), self.grid.game.action_dim)
        return (self.probabilities[t, self.grid.cell(x)].double() @ self.grid.actions).to(x)

    def log_prob(self, t: int, x: Tensor, a: Tensor) -> Tensor:
        """Log-probability of the nearest action of the lattice: a policy on a lattice has no density."""
        nearest = torch.cdist(a.double(), self.grid.actions).argmin(1)
        return self.probabilities[t, self.grid.cell(x), nearest].log().to(x)


_GRIDS: dict[tuple[str, int], Grid] = {}


def grid_of(game: Any, cells: int | None = None) -> Grid:
    """The grid of a game, built once for all games of the same repr; the last four are kept."""
    key = (repr(game), cells)
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
    if game.state_dim > 2 or game.action_dim > 2:
        raise ValueError(f"game: expected dimensions of at most 2, got {game.state_dim} and {game.action_dim}")


def _on_lattice(quantiles: np.ndarray, h: float) -> Tensor:
    """A centred law given by its quantiles (n,), as weights of the lattice ..., −h, 0, h, ... with the same variance.

    Rounding at random to the lattice keeps the mean and adds variance; the quantiles are drawn in to make up for it.
    """
    weights, variance = np.ones(1), np.square(quantiles).mean()
    if variance <= 1e-12 * h**2:
        return torch.from_numpy(weights)
    low, high = 0.0, 1.0
    for _ in range(40):
        factor = (low + high) / 2 if variance > 0 else 1.0
        scaled = factor * quantiles / h
        reach = int(np.ceil(np.abs(scaled).max()))
        floor = np.floor(scaled).astype(int)
        part = scaled - floor
        weights = np.bincount(floor + reach, 1 - part, 2 * reach + 2) + np.bincount(
            floor + 1 + reach, part, 2 * reach + 2
        )
        weights = weights[: 2 * reach + 1] / len(quantiles)
        if np.square(np.arange(-reach, reach + 1)) @ weights * h**2 > variance:
            high = factor
        else:
            low = factor
    return torch.from_numpy((weights + weights[::-1]) / 2)
