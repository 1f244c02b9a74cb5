"""A population on a bounded domain as a table, for sampling and densities at a speed no network reaches.

A law that is constant in each of many small cells, whose lines run along the walls: a cell is drawn by the alias method
(Walker, 1977; Vose, IEEE Trans. Softw. Eng. 17, 1991), then a uniform place in it. Samples and `log_prob` belong to the
same law, exactly; how far it is from the population that was tabulated is set by the number of cells.
"""

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mfglib.checks import integer, require_time
from mfglib.games.domain import Domain
from mfglib.protocols import Population
from mfglib.seeds import generator as generator_of

CELLS = {1: 800, 2: 160}  # along the longest side
NEAR = 1e-3  # of a cell: what float32 may round a state across a line


class CellPopulation:
    """Any population with a density on `domain`, at all times 0..horizon, in `cells` cells along the longest side
    (800 if d = 1, 160 if d = 2): the density at their centres, scaled to a total of 1. It draws on `device`.

    Raises ValueError for more than two dimensions, if the cells' lines miss a wall, and for a population that has no
    mass in the cells.
    """

    @torch.no_grad()
    def __init__(
        self, population: Population, domain: Domain, horizon: int, cells: int | None = None, device: str = "cpu"
    ) -> None:
        d = domain.state_dim
        if d not in CELLS:
            raise ValueError(f"domain: expected one or two dimensions, got {d}")
        cells = CELLS[d] if cells is None else integer("cells", cells, at_least=2)
        width = domain.upper - domain.lower
        self.shape = np.maximum(np.round(width / width.max() * cells), 1).astype(int)
        h = width / self.shape
        lines = (domain.walls - domain.lower) / h
        if np.abs(lines - lines.round()).max(initial=0) > 1e-6:
            raise ValueError(f"cells: expected a number whose lines run along every wall, got {cells}")
        coordinates = np.indices(self.shape).reshape(d, -1).T
        corners = torch.from_numpy(domain.lower + coordinates * h)
        centres = corners + torch.from_numpy(h) / 2
        free = domain.contains(centres)
        self.horizon, self.domain, self.volume = horizon, domain, float(h.prod())
        self.lower, self.h = (torch.from_numpy(v).float().to(device) for v in (domain.lower, h))
        self.corners = corners[free].float().to(device)  # (m, d)
        self.size = torch.from_numpy(self.shape).to(device)
        index = torch.full(tuple(self.shape), -1)
        index[tuple(torch.from_numpy(coordinates[free.numpy()].T))] = torch.arange(len(self.corners))
        self.index = index.to(device)
        x = centres[free].float().to(device)
        density = torch.stack([population.log_prob(t, x).exp().double().cpu() for t in range(horizon + 1)])
        total = density.sum(1, keepdim=True)
        if not (total.isfinite() & (total > 0)).all():
            raise ValueError("population: expected a finite density with some mass in the cells at every time")
        self.mass = density / total  # (T+1, m)
        tables = [alias_table(row) for row in self.mass.numpy()]
        self.share, self.other = (torch.from_numpy(np.stack(part)).to(device) for part in zip(*tables, strict=True))
        self.log_density = (self.mass / self.volume).log().float().to(device)
        self.means = (self.mass @ x.double().cpu()).float().to(device)

    def sample(self, t: int, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n independent states: (n, d)."""
        require_time(t, self.horizon)
        options = dict(generator=generator, device=self.h.device)
        cell = torch.randint(len(self.corners), (n,), dtype=torch.int32, **options)
        keep = torch.rand(n, **options) < self.share[t].index_select(0, cell)
        cell = torch.where(keep, cell, self.other[t].index_select(0, cell))
        place = torch.rand(n, len(self.h), **options)
        return self.corners.index_select(0, cell).addcmul_(place, self.h)

    def log_prob(self, t: int, x: Tensor) -> Tensor:
        """Log-density (n,) of x: (n, d); −inf in walls and outside. On a line between cells, of the one above it."""
        cell = self.cell(x)
        result = self.log_density[require_time(t, self.horizon)].index_select(0, cell.clamp_min(0))
        return torch.where(cell < 0, -torch.inf, result).to(x)

    def mean(self, t: int) -> Tensor:
        return self.means[require_time(t, self.horizon)]

    def cell(self, x: Tensor) -> Tensor:
        """The number (n,) of the cell of x: (n, d), on a face of a wall of a free one beside it; −1 in walls and
        outside."""
        scaled = (x.to(self.lower) - self.lower) / self.h
        found = self._number(scaled)
        missed = found < 0
        for nudge in itertools.product((-NEAR, NEAR), repeat=len(self.h)):
            if not missed.any():
                break
            found[missed] = self._number(scaled[missed] + torch.tensor(nudge).to(scaled))
            missed = found < 0
        return found

    def _number(self, scaled: Tensor) -> Tensor:
        """Of the cell that contains each point (n, d), in units of the cells from the lower corner."""
        inside = ((scaled >= 0) & (scaled <= self.size)).all(1)
        place = scaled.long().clamp_min(0).minimum(self.size - 1)
        return torch.where(inside, self.index[tuple(place.T)], -1)

    def stream(
        self, t: int, n: int, chunk: int = 1 << 18, *, seed: int = 0, part: int = 0, parts: int = 1
    ) -> Iterator[Tensor]:
        """n independent states in chunks (chunk, d), with memory for one of them. Each chunk has a generator of its
        own, from the seed and its number: `parts` processes that take the chunks `part`, part + parts, ... draw
        together what one process draws."""
        chunks = -(-integer("n", n, at_least=1) // integer("chunk", chunk, at_least=1))
        if not 0 <= part < integer("parts", parts, at_least=1):
            raise ValueError(f"part: expected an integer in 0..{parts - 1}, got {part!r}")
        for i in range(part, chunks, parts):
            yield self.sample(t, min(chunk, n - i * chunk), generator_of(seed, "stream", t, i, device=self.h.device))


def alias_table(mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of probabilities (m,): what share of draws of a uniform cell stay in it (m,), and where the others go (m,)."""
    m = len(mass)
    scaled = mass * m
    share, other = np.ones(m), np.arange(m)
    small, large = list(np.flatnonzero(scaled < 1)), list(np.flatnonzero(scaled >= 1))
    left = scaled.tolist()
    while small and large:
        i, j = small.pop(), large[-1]
        share[i], other[i] = left[i], j
        left[j] -= 1 - left[i]
        if left[j] < 1:
            small.append(large.pop())
    return share.astype(np.float32), other.astype(np.int32)
