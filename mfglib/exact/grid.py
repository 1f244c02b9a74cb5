"""A game on a grid: cells, the moves between them, and populations and policies that live there.

Mass sits in the centres of cells. Displacements are rounded to the lattice of the cells' spacing h, at random so that
their mean is kept; reflections at faces on the grid's lines take the lattice to itself, so no other rounding is needed:
one table says where each displacement from each cell ends, the post-decision state, another where each lattice point of
the noise takes it from there. Value function and population use the same tables, so that J = ⟨mass, reward⟩ holds to
rounding whichever way it is computed. The rounding adds a variance of at most h²/4 a step and coordinate. The observed
order, in total variation between simulated agents and the grid's population in 4-rooms (benchmarks/grid.py), is below
that: from 20 to 40 and from 40 to 80 cells 1.0 and 0.6 for equilibrium policies, which are sharp from cell to cell, and
1.8 and 1.1 for a random walk.
"""

import functools
import itertools
import math
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from mfglib.checks import integer
from mfglib.games.bounded import require_density
from mfglib.games.cells import Cells
from mfglib.games.domain import MAX_REFLECTIONS
from mfglib.populations import MeanPath

CELLS = {1: 400, 2: 80}  # default cells along the longest side
ALL = slice(None)


class Grid(Cells):
    """Cells of a bounded game (see `BoundedGame`) of state dimension 1 or 2. The tables of where moves end are
    built once for all games with the same cells.

    Beside what `Cells` has: `initial`: (m,) mass of μ_0, `actions`: (A, k) lattice of actions, `target`: (m, L) the
    cell where each lattice displacement ends; `noise`: sparse (m, m), the probabilities of where the noise takes an
    agent from each cell, `weights`: (W,) its law on the lattice; `tables`: see `mfglib.exact.lattice.tables_of`.

    Raises TypeError if the game lacks a member, ValueError if it is unbounded, if agents start in walls or if the
    grid's lines miss the walls.
    """

    def __init__(self, game: Any, cells: int | None = None) -> None:
        require_grid_game(game)
        cells = CELLS[game.state_dim] if cells is None else integer("cells", cells, at_least=4)
        super().__init__(game.domain, cells)
        self.game = game
        self.actions = self._action_lattice()
        self.max_steps = self._max_steps()
        self.initial = self._initial()
        self.target = self._ends(self.max_steps)
        weights = self._noise_weights()
        self.weights = torch.from_numpy(weights.ravel())
        ends = self._ends(np.array(weights.shape) // 2)
        self.noise = self._sparse(ends, self.weights.expand(ends.shape))
        self.tables: Any = None

    def corners(self, move: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The lattice displacements around `move`: (r, S, d), 2^d pairs of index and share; the shares keep the mean.

        Both are (r, S), or (1, S) if the moves are the same from each cell. Pairs without any share are left out.
        """
        if torch.equal(move, move[:1].expand_as(move)):
            move = move[:1]
        pairs = [(torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1, dtype=torch.float64))]
        for i, reach in enumerate(self.max_steps.tolist()):
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
        return torch.from_numpy(self.noise @ value.numpy())

    def push(self, mass: Tensor) -> Tensor:
        """The adjoint of `expected`: mass (m,) before the noise -> (m,) after it."""
        return torch.from_numpy(self.noise.T @ mass.numpy())

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

    def matrix(self, move: Tensor) -> csr_array:
        """`gather` of the moves (m, S, d) as a sparse matrix: (m·S, m), rows by cell, then move."""
        pairs = [(self._ends_of(index, ALL), share) for index, share in self.corners(move)]
        ends, shares = (torch.stack([p.expand(move.shape[:2]) for p in part], -1) for part in zip(*pairs, strict=True))
        return self._sparse(ends.flatten(0, 1), shares.flatten(0, 1))

    def _sparse(self, ends: Tensor, shares: Tensor) -> csr_array:
        """Of n cells where each of r rows ends, and with which share: (r, n) each; (r, m)."""
        rows = np.arange(len(ends) + 1) * ends.shape[1]
        matrix = csr_array((shares.numpy().ravel(), ends.numpy().ravel(), rows), shape=(len(ends), len(self.x)))
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        return matrix

    def _ends_of(self, index: Tensor, rows: slice) -> Tensor:
        """The cells where lattice displacements number (r, S), or (1, S), of the cells in `rows` end: (r, S)."""
        target = self.target[rows]
        return target.index_select(1, index[0]) if len(index) == 1 else target.gather(1, index)

    def _action_lattice(self) -> Tensor:
        bound = np.broadcast_to(np.asarray(self.game.a_bound, dtype=float), (self.game.action_dim,))
        steps = math.ceil(bound.max() / self.h.min() - 1e-9)  # as fine as the cells, where an action is a velocity
        sides = [torch.linspace(-b, b, 2 * max(steps, 4) + 1, dtype=torch.float64) for b in bound]
        return torch.cartesian_prod(*sides).view(-1, len(bound))

    def _max_steps(self) -> np.ndarray:
        """Lattice steps (d,) that no displacement exceeds, taken at the extreme actions and means of populations."""
        domain, largest = self.game.domain, np.zeros(self.state_dim)
        ends = self.actions[self.actions.abs().eq(self.actions.abs().amax(0)).all(1)]  # the corners
        means = itertools.product(*zip(domain.lower, domain.upper, strict=True))
        for t, mean, a in itertools.product(range(self.game.horizon), means, ends):
            population = MeanPath(torch.tensor([mean], dtype=torch.float64).expand(self.game.horizon + 1, -1))
            move = self.game.displacement(t, self.x, a.expand(len(self.x), -1), population)
            largest = np.maximum(largest, move.abs().amax(0).numpy())
        return np.ceil(largest / self.h - 1e-9).astype(int)

    def _noise_weights(self) -> np.ndarray:
        """The law of the noise on the lattice, (2 r_1 + 1, …) probabilities of −r_i..r_i steps."""
        noise = self.game.noise
        if getattr(noise, "name", None) == "points":
            return points_on_lattice(noise.values, noise.weights, self.h)
        quantiles = noise.quantiles(4096).T
        sides = [on_lattice(q, std, h) for q, std, h in zip(quantiles, noise.std, self.h, strict=True)]
        return functools.reduce(np.multiply.outer, sides)

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

    def _ends(self, half: np.ndarray) -> Tensor:
        """The cells where moves by −half..half: (d,) lattice steps end, in units of the spacing: (m, Π(2 half + 1))."""
        key = (self.key, *half.tolist())
        if key not in _ENDS:
            while len(_ENDS) >= 8:
                _ENDS.pop(next(iter(_ENDS)))
            _ENDS[key] = _ends(self, half)
        return _ENDS[key]


_ENDS: dict[tuple, Tensor] = {}  # they follow from the cells alone, and take most of the time


def _ends(cells: Cells, half: np.ndarray) -> Tensor:
    offsets = torch.from_numpy(np.indices(2 * half + 1).reshape(cells.state_dim, -1).T - half).double()
    centres = torch.from_numpy(cells.coordinates + 0.5)
    target = torch.empty(len(centres), len(offsets), dtype=torch.int32)
    size = max(1, (1 << 14) // len(offsets))
    for first in range(0, len(centres), size):  # in chunks, for memory and speed
        start = centres[first : first + size].repeat_interleave(len(offsets), 0)
        ends = cells.units.move(start, offsets.repeat(len(start) // len(offsets), 1)).numpy()
        if (np.abs(ends % 1 - 0.5) > 1e-6).any():  # not a centre: `Domain.move` gave up
            raise ValueError(f"game: expected at most {MAX_REFLECTIONS} reflections a move, for a grid, got more")
        target[first : first + size].view(-1).copy_(torch.from_numpy(cells.index[tuple(ends.astype(int).T)]))
    return target


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


def points_on_lattice(points: np.ndarray, weights: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Probabilities `weights`: (m,) of points (m, d) as an array over −r_i..r_i lattice steps of widths h: (d,).

    Exact for multiples of h; another point is shared by the 2^d lattice points around it, which keeps its mean and adds
    a variance of at most h²/4.
    """
    place = points / h
    place = np.where(np.abs(place - place.round()) < 1e-6, place.round(), place)
    reach = np.ceil(np.abs(place).max(0)).astype(int)
    low, law = np.floor(place).astype(int), np.zeros(2 * reach + 3)  # a margin for shares of 0
    for corner in itertools.product((0, 1), repeat=len(h)):
        share = np.where(corner, place - low, 1 - (place - low)).prod(1)
        np.add.at(law, tuple((low + corner + reach + 1).T), weights * share)
    return law[(slice(1, -1),) * len(h)]


def require_grid_game(game: Any) -> None:
    """Raise unless a grid can solve `game`: the members of `BoundedGame`, state dimension 1 or 2, bounded actions."""
    for member in ("domain", "start", "noise", "a_bound", "displacement"):
        if not hasattr(game, member):
            raise TypeError(f"game: expected a bounded game with the member `{member}`, got {type(game).__name__}")
    if game.domain is None or game.a_bound is None:
        raise ValueError("game: expected bounded states and actions, got a game with an unbounded domain or a_bound")
    if game.noise.mean.any():
        raise ValueError(f"game.noise: expected a law of mean 0, got {game.noise!r}")
    require_density(game.start)
    if game.state_dim > 2 or game.action_dim > 2:
        raise ValueError(f"game: expected dimensions of at most 2, got {game.state_dim} and {game.action_dim}")
