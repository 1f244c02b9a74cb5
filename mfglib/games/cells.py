"""Cells of a bounded domain, whose lines run along its walls."""

import itertools

import numpy as np
import torch
from torch import Tensor

from mfglib.checks import integer
from mfglib.games.base import constant
from mfglib.games.domain import Domain

FACE_TOLERANCE = 1e-3  # of a cell: what float32 may round a state across a line


class Cells:
    """A lattice of `cells` along the longest side of a domain, without those in walls.

    shape: (d,) cells a side, h: (d,) their widths, `volume` of one, x: (m, d) centres of the free cells, coordinates:
    (m, d) their places in the lattice, index: `shape` integers, the number of each cell, −1 in walls. Lattices with the
    same `key` have the same cells.

    Raises ValueError if the lines miss a wall.
    """

    def __init__(self, domain: Domain, cells: int) -> None:
        self.domain, self.state_dim = domain, domain.state_dim
        width = domain.upper - domain.lower
        self.shape = np.maximum(np.round(width / width.max() * integer("cells", cells, at_least=2)), 1).astype(int)
        self.h = width / self.shape
        lines = (domain.walls - domain.lower) / self.h
        if np.abs(lines - lines.round()).max(initial=0) > 1e-6:
            raise ValueError(
                f"cells: expected a number whose lines run along every wall, got {cells}, cells of {self.h.tolist()}, "
                f"too coarse for the doors or out of step with them; try a multiple of it"
            )
        around = domain.periodic
        self.units = Domain(np.zeros(self.state_dim), self.shape, lines.round(), periodic=around)  # ties stay ties
        coordinates = np.indices(self.shape).reshape(self.state_dim, -1).T
        self.coordinates = coordinates[self.units.contains(torch.from_numpy(coordinates + 0.5)).numpy()]
        self.index = np.full(self.shape, -1)
        self.index[tuple(self.coordinates.T)] = np.arange(len(self.coordinates))
        self.x = torch.from_numpy(domain.lower + (self.coordinates + 0.5) * self.h)
        self.volume = float(self.h.prod())
        corners = (domain.lower, domain.upper, domain.walls)
        self.key = (*self.shape.tolist(), *(v.tobytes() for v in corners), around)
        self._indices: dict[torch.device, Tensor] = {}

    def __deepcopy__(self, memo: dict) -> "Cells":
        return self  # nothing changes it

    def lower_corners(self) -> np.ndarray:
        """Lower corners (m, d) of the free cells."""
        return self.domain.lower + self.coordinates * self.h

    def find(self, x: Tensor) -> Tensor:
        """The number (n,) of the cell of x: (n, d), on a face of a wall of a free one beside it; −1 in walls and
        outside."""
        scaled = (x - constant(self.domain.lower, x)) / constant(self.h, x)
        found = self._number(scaled)
        nudges = itertools.product((0.0, -FACE_TOLERANCE, FACE_TOLERANCE), repeat=self.state_dim)
        for nudge in itertools.islice(nudges, 1, None):
            missing = found < 0
            if not missing.any():
                break
            found[missing] = self._number(scaled[missing] + constant(nudge, x))
        return found

    def cell(self, x: Tensor) -> Tensor:
        """The number (n,) of the cell of x: (n, d), on the CPU; ValueError for states in walls and outside."""
        found = self.find(x.double().cpu())
        if (found < 0).any():
            raise ValueError(f"x: expected states outside the walls, got {x[found < 0][0].tolist()}")
        return found

    def _number(self, scaled: Tensor) -> Tensor:
        """Of the cell that contains each point (n, d), in units of cells from the lower corner."""
        if scaled.device not in self._indices:
            self._indices[scaled.device] = torch.from_numpy(self.index).to(scaled.device)
        size = constant(self.shape, scaled)
        inside = ((scaled >= 0) & (scaled <= size)).all(1)
        place = scaled.nan_to_num(0.0).clamp_min(0).minimum(size - 1).long()
        return torch.where(inside, self._indices[scaled.device][tuple(place.T)], -1)
