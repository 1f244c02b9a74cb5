"""Functions of a state in tables, for games on a bounded domain of one or two dimensions."""

import contextlib

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from mfglib.games.cells import Cells
from mfglib.games.domain import Domain

CELLS = {1: 200, 2: 40}  # along the longest side
FINEST = 4  # times as many cells are tried where walls ask for it


class Table(nn.Module):
    """Functions of a state by their values at the centres of cells, linear between them. Cells in walls have the value
    of the nearest free one. In a periodic coordinate the first cell follows the last.

    grid: the cells, x: (m, d), the centres of the free ones.
    """

    def __init__(self, grid: Cells) -> None:
        super().__init__()
        self.grid, domain, around = grid, grid.domain, np.array(grid.domain.periodic)
        index = np.pad(grid.index, [(n, n) if p else (0, 0) for n, p in zip(grid.shape, around, strict=True)], "wrap")
        nearest = ndimage.distance_transform_edt(index < 0, return_distances=False, return_indices=True)
        kept = tuple(slice(n - 1, 2 * n + 1) if p else slice(None) for n, p in zip(grid.shape, around, strict=True))
        source = index[tuple(nearest)][kept]  # with a cell more on both sides of a periodic coordinate
        self.register_buffer("source", torch.from_numpy(np.ascontiguousarray(source)), persistent=False)
        lower, width = domain.lower - around * grid.h, domain.upper - domain.lower + 2 * around * grid.h
        for name, value in (("x", grid.x), ("lower", lower), ("width", width)):
            self.register_buffer(name, torch.as_tensor(value).float(), persistent=False)

    def forward(self, values: Tensor, z: Tensor) -> Tensor:
        """F functions, by their values (F, m), at z: (n, d) -> (F, n)."""
        place = ((z - self.lower) / self.width * 2 - 1).to(values).flip(1)
        lattices = values[:, self.source]
        if len(self.grid.shape) == 1:
            lattices, place = lattices[:, None], torch.cat([place, torch.zeros_like(place)], 1)
        options = dict(mode="bilinear", padding_mode="border", align_corners=False)
        return nn.functional.grid_sample(lattices[None], place[None, None], **options)[0, :, 0]


def cells_of(domain: Domain, number: int, across: int = 1) -> Cells:
    """The cells of `domain` with `number` of them along the longest side, or with the next number whose lines run along
    the walls and with which every wall is at least `across` cells thick; ValueError if four times as many do not."""
    for cells in range(number, FINEST * number):
        with contextlib.suppress(ValueError):  # its lines miss a wall
            found = Cells(domain, cells)
            if ((domain.walls[:, 1] - domain.walls[:, 0]) > (across - 0.5) * found.h).all():
                return found
    return Cells(domain, FINEST * number)  # which says so


def table_of(domain: Domain) -> Table:
    """The table that learners use; ValueError for more than two dimensions, and if no lines fit the walls. Cells of a
    wall belong to the side that they are nearest to, and so it is two cells thick."""
    if domain.state_dim not in CELLS:
        raise ValueError(f"domain: expected one or two dimensions, got {domain.state_dim}")
    return Table(cells_of(domain, CELLS[domain.state_dim], across=2))
