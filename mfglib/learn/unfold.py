"""A bounded state space with walls, unfolded into the unit cube."""

import math
from collections.abc import Iterator
from itertools import product

import numpy as np
import torch
from torch import Tensor

from mfglib.games.base import constant
from mfglib.games.domain import Domain

GAP = 0.1  # of a ring: a population with a larger gap is fitted on an arc, another on the whole ring (decision F5)
WAVES = 2  # of a periodic coordinate, for the networks that read it


class Unfold:
    """The map x -> u of the free area of a box with walls onto the unit cube, with Jacobian 1 / volume everywhere.

    u_i = P(X_i <= x_i | X_1 = x_1, …, X_{i−1} = x_{i−1}) for X uniform on the free area: the Rosenblatt transform
    (Ann. Math. Stat. 23, 1952) of the uniform law. A density p on the cube stands for p(u(x)) / volume on the free
    area, so that no density on the cube can put mass into a wall. The faces of the walls cut the box into cells, each
    free or not; within a cell the map is affine.

    In a periodic coordinate 0 and 1 are one place of the cube too, the seam.
    """

    def __init__(self, domain: Domain) -> None:
        self.domain, walls, d = domain, domain.walls, domain.state_dim
        self.periodic = domain.periodic
        self._edges = domain.edges
        self.shape = tuple(len(edges) - 1 for edges in self._edges)  # cells along each axis
        centre = np.stack(np.meshgrid(*[(e[1:] + e[:-1]) / 2 for e in self._edges], indexing="ij"), -1)[..., None, :]
        self._free = ~((centre > walls[:, 0]) & (centre < walls[:, 1])).all(-1).any(-1)
        mass = self._free.astype(float)
        for i, edges in enumerate(self._edges):
            mass = mass * np.diff(edges).reshape(-1, *[1] * (d - 1 - i))
        self._cdf = []  # one (row, n_i + 1) each: P(X_i <= edge | the cells of x_1..x_{i−1}, numbered by row)
        for i, n in enumerate(self.shape):
            cumulative = mass.reshape(-1, n, mass[(0,) * (i + 1)].size).sum(-1).cumsum(1)
            total = cumulative[:, -1:]
            self._cdf.append(np.pad(cumulative / np.where(total > 0, total, 1), ((0, 0), (1, 0))))
        self._moved: dict[tuple[torch.dtype, torch.device], tuple[list[Tensor], list[Tensor], Tensor]] = {}

    def to_unit(self, x: Tensor) -> Tensor:
        """x: (..., d) in the free area -> u: (..., d) in [0, 1]."""
        u = []
        for i, (low, high, start, end) in enumerate(self._slices(x, self.cells(x))):
            u_i = low + (x[..., i] - start) / (end - start) * (high - low)
            below = torch.nextafter(high, low)  # `high` itself belongs to the next cell, unless it is the end
            u.append(torch.minimum(torch.maximum(u_i, low), torch.where(high < 1, below, high)))
        return torch.stack(u, -1)

    def from_unit(self, u: Tensor) -> Tensor:
        """u: (..., d) in [0, 1] -> x: (..., d), never outside the box nor strictly inside a wall."""
        x = []
        for i, (low, high, start, end) in enumerate(self._slices(u, self.unit_cells(u))):
            x_i = start + (u[..., i] - low) / (high - low) * (end - start)
            x.append(torch.minimum(torch.maximum(x_i, start), end))
        return torch.stack(x, -1)

    def contains(self, x: Tensor) -> Tensor:
        """Whether x: (..., d) is in the closed free area: (...,)."""
        edges, _, free = self._tables(x)
        inside = torch.stack([(x[..., i] >= e[0]) & (x[..., i] <= e[-1]) for i, e in enumerate(edges)]).all(0)
        return inside & free[self._row(self.cells(x))]

    def cells(self, x: Tensor) -> Tensor:
        """Numbers (..., d) of the cell of x: (..., d) along each axis; on a face, of a free one beside it."""
        edges, _, free = self._tables(x)
        sides = [
            [torch.searchsorted(e[1:-1], x[..., i].detach().contiguous(), right=right) for right in (True, False)]
            for i, e in enumerate(edges)
        ]
        cells = torch.stack([right for right, _ in sides], -1)
        walled = ~free[self._row(cells)]
        if walled.any():
            found = cells[walled]
            for choice in product(*sides):
                choice = torch.stack([c[walled] for c in choice], -1)
                found = torch.where(free[self._row(found)][..., None], found, choice)
            cells[walled] = found
        return cells

    def unit_cells(self, u: Tensor) -> Tensor:
        """Numbers (..., k) of the cell along each of the first k axes, for the first k coordinates u: (..., k)."""
        _, cdfs, _ = self._tables(u)
        cells = torch.empty(u.shape, dtype=torch.long, device=u.device)
        for i in range(u.shape[-1]):
            upper = cdfs[i][self._row(cells[..., :i]), 1:]
            upper = torch.where(upper < 1, upper, torch.inf)  # what follows the last free cell is walls
            cells[..., i] = (upper <= u[..., i, None].clamp_min(0)).sum(-1)
        return cells

    def width(self, k: int) -> int:
        """Number of `features` of the first k coordinates, and of `places` beyond k."""
        return sum(self.periodic[:k]) * (2 * WAVES - 1) + 2 * sum(n for n in self.shape[:k] if n > 1)

    def turned(self, u: Tensor, by: Tensor) -> Tensor:
        """The periodic ones of the first k coordinates u: (..., k) of the cube, moved on by `by`: (..., k)."""
        around = constant(self.periodic[: u.shape[-1]], u) > 0
        return torch.where(around, (u + by).remainder(1), u)

    def turn(self, u: Tensor) -> Tensor:
        """By how much to turn populations u: (T, n, d) for the middle of the largest gap between their agents to be at
        the seam: (T, d). 0 in coordinates that are not periodic, and where no gap is larger than `GAP`."""
        places = u.sort(1).values
        gaps = torch.cat([places[:, 1:], 1 + places[:, :1]], 1) - places
        gap, which = gaps.max(1, keepdim=True)  # (T, 1, d)
        middle = places.gather(1, which) + gap / 2
        around = (constant(self.periodic, u) > 0) & (gap > GAP)
        return torch.where(around, -middle, 0.0)[:, 0]

    def box(self, u: Tensor) -> dict[str, Tensor]:
        """The smallest box around populations u: (T, n, d) in the cube: its corner `loc` and size `scale`, (T, d) each;
        where any coordinate is periodic after a `turn`, where one is without a large gap the whole of it."""
        if not any(self.periodic):
            loc = u.amin(1).clamp_max(1 - 1e-6)
            return {"loc": loc, "scale": (u.amax(1) - loc).clamp_min(1e-6)}
        turn = self.turn(u)
        u = self.turned(u, turn[:, None])
        loc = u.amin(1).clamp_max(1 - 1e-6)
        scale = (u.amax(1) - loc).clamp_min(1e-6)
        whole = (turn == 0) & (constant(self.periodic, u) > 0)
        return {"loc": torch.where(whole, 0.0, loc), "scale": torch.where(whole, 1.0, scale), "turn": turn}

    def places(self, v: Tensor) -> Tensor:
        """What a network reads of the first k coordinates v: (..., k) in [0, 1]: from −1 to 1, or waves if periodic."""
        if not any(self.periodic[: v.shape[-1]]):
            return 2 * v - 1
        read = []
        for v_i, around in zip(v.unbind(-1), self.periodic, strict=False):
            angles = [2 * math.pi * j * v_i for j in range(1, WAVES + 1)]
            read += [w for a in angles for w in (a.sin(), a.cos())] if around else [2 * v_i - 1]
        return torch.stack(read, -1)

    def features(self, u: Tensor) -> Tensor:
        """Of the first k coordinates u: (..., k): which cell along each axis that has several, one-hot, and the same
        times the place in it from −1 to 1; (..., width(k)). A density on the cube jumps from cell to cell."""
        cells, features = self.unit_cells(u), [u[..., :0]]
        for i, (low, high, _, _) in enumerate(self._slices(u, cells)):
            if self.shape[i] > 1:
                one_hot = torch.nn.functional.one_hot(cells[..., i], self.shape[i]).to(u)
                place = (u[..., i] - low) / (high - low) * 2 - 1
                features += [one_hot, one_hot * place[..., None]]
        return torch.cat(features, -1)

    def _slices(self, like: Tensor, cells: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Of each of the first k axes: the CDF at the lower and at the upper edge of the cell, and these edges."""
        edges, cdfs, _ = self._tables(like)
        for i in range(cells.shape[-1]):
            e, cdf = edges[i], cdfs[i]
            row, cell = self._row(cells[..., :i]), cells[..., i]
            yield cdf[row, cell], cdf[row, cell + 1], e[cell], e[cell + 1]

    def _row(self, cells: Tensor) -> Tensor:
        """One number for the cells (..., k) along the first k axes: (...,)."""
        row = torch.zeros(cells.shape[:-1], dtype=torch.long, device=cells.device)
        for i in range(cells.shape[-1]):
            row = row * self.shape[i] + cells[..., i]
        return row

    def _tables(self, like: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        key = (like.dtype, like.device)
        if key not in self._moved:
            edges, cdfs = (
                [torch.as_tensor(a, dtype=like.dtype, device=like.device) for a in arrays]
                for arrays in (self._edges, self._cdf)
            )
            self._moved[key] = edges, cdfs, torch.as_tensor(self._free.ravel(), device=like.device)
        return self._moved[key]
