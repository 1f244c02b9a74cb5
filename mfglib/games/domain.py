"""Bounded state spaces: a box with walls, perhaps closed to a ring or a torus, and the one rule for what happens on
contact."""

import functools
import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mfglib.arguments import checked
from mfglib.checks import array, integer, require_shape, require_states
from mfglib.games.base import constant

MAX_REFLECTIONS = 64  # at most this many reflections per move; after that the agent stays at its last contact


class Domain:
    """The box [lower, upper] without `walls`, axis-aligned boxes that agents cannot enter.

    One rule for every bounded game: a move is a straight segment, reflected specularly wherever it meets the outer
    edge or a wall (the component across the face changes sign; at an exact corner, all components that meet one).
    A step of a game is two moves, the agent's own and then the noise (`BoundedGame`).
    Reflection keeps Lebesgue measure: the uniform law stays uniform under symmetric noise, and no mass gathers on the
    boundary, so that a population that has a density keeps one. Clipping would put atoms there.

    A periodic coordinate has no edge: who leaves at one end comes in at the other, and the two ends are one place, the
    seam. States stay in [lower, upper]; both ends count as inside.

    Args:
        lower, upper: (d,) corners.
        walls: m pairs ((d,), (d,)) of lower and upper corners. They may touch each other and the edge, not overlap.
            One across the seam is given as two.
        periodic: which coordinates are: a boolean for all, or d of them. (True, False) is a cylinder.
            The mean of a population depends on where the seam is, so that games there should not ask for it.

    `edges`: for each coordinate, where faces of walls cut it into cells, its ends included.

    Raises ValueError for corners in the wrong order, and for walls that overlap, leave the box or fill it, and for
    a `periodic` that is not such booleans.
    """

    def __init__(
        self, lower: Any, upper: Any, walls: Sequence[Any] = (), *, periodic: bool | Sequence[bool] = False
    ) -> None:
        self.lower, self.upper = np.atleast_1d(array("lower", lower)), np.atleast_1d(array("upper", upper))
        if self.lower.ndim != 1 or self.lower.shape != self.upper.shape or (self.lower >= self.upper).any():
            raise ValueError(f"lower, upper: expected two corners (d,), lower < upper, got {lower!r} and {upper!r}")
        self.state_dim = d = len(self.lower)
        self.periodic = _periodic(periodic, d)
        walls = array("walls", walls)
        walls = walls if walls.size else np.empty((0, 2, d))
        if walls.ndim != 3 or walls.shape[1:] != (2, d):
            raise ValueError(f"walls: expected shape (m, 2, {d}), got {walls.shape}")
        for i, (low, high) in enumerate(walls):
            if (low >= high).any():
                raise ValueError(f"walls[{i}]: expected lower < upper, got {low.tolist()} and {high.tolist()}")
            if (low < self.lower).any() or (high > self.upper).any():
                box = f"[{self.lower.tolist()}, {self.upper.tolist()}]"
                raise ValueError(f"walls[{i}]: expected inside {box}, got {low.tolist()} to {high.tolist()}")
            self.walls = walls[:i]
            if self.blocks(low, high):
                raise ValueError(f"walls[{i}]: expected no overlap with an earlier wall, got {walls[i].tolist()}")
        self.walls = walls
        box, filled = np.prod(self.upper - self.lower), np.prod(walls[:, 1] - walls[:, 0], axis=1).sum()
        if filled > (1 - 1e-9) * box:
            raise ValueError("walls: expected some free space between them, got walls that fill the box")
        self.volume = float(box - filled)
        faces = zip(self.lower, walls.reshape(-1, d).T, self.upper, strict=True)
        self.edges = [np.unique([low, *at, high]) for low, at, high in faces]

    def blocks(self, low: np.ndarray, high: np.ndarray) -> bool:
        """Whether the box from low: (d,) to high: (d,) overlaps a wall."""
        overlap = np.minimum(high, self.walls[:, 1]) > np.maximum(low, self.walls[:, 0])
        return bool(overlap.all(1).any())

    @checked
    def contains(self, x: Tensor) -> Tensor:
        """Whether x: (n, d) is in the box and not strictly inside a wall: (n,)."""
        require_states("x", x, self.state_dim)
        lower, upper, low, high = self._as(x)
        inside = ((x >= lower) & (x <= upper)).all(-1)
        return inside & ~((x[:, None] > low) & (x[:, None] < high)).all(-1).any(-1)

    @checked
    def uniform(self, n: int, generator: torch.Generator) -> Tensor:
        """n independent points of the free area: (n, d)."""
        x = torch.empty(integer("n", n, at_least=0), self.state_dim, device=generator.device)
        missing = torch.ones(n, dtype=torch.bool, device=generator.device)
        lower, upper, *_ = self._as(x)
        while missing.any():
            x[missing] = lower + (upper - lower) * torch.rand(x[missing].shape, generator=generator, device=x.device)
            missing = ~self.contains(x)
        return x

    @checked
    def fold(self, x: Tensor) -> Tensor:
        """x: (n, d) reflected at the outer edge alone, any number of times; as it is inside. Periodic coordinates are
        taken around."""
        require_states("x", x, self.state_dim)
        lower, upper, *_ = self._as(x)
        width = upper - lower
        folded = lower + (width - ((x - lower).remainder(2 * width) - width).abs())
        if any(self.periodic):
            folded = torch.where(self._around(x), lower + (x - lower).remainder(width), folded)
        return torch.where((x < lower) | (x > upper), folded.clamp(lower, upper), x)

    @checked
    def shortest(self, displacement: Tensor) -> Tensor:
        """`displacement`: (n, d) between two states, the shortest way around in the periodic coordinates: within half
        the width there. The distance of x from y on a ring is `domain.shortest(x - y).abs()`; walls do not count."""
        require_states("displacement", displacement, self.state_dim)
        lower, upper, *_ = self._as(displacement)
        width = upper - lower
        short = (displacement + width / 2).remainder(width) - width / 2
        return torch.where(self._around(displacement), short, displacement)

    @checked
    def centre(self, x: Tensor) -> Tensor:
        """The mean of agents x: (n, d) -> (d,); in a periodic coordinate the circular one, that of their directions on
        the ring, which does not depend on where the seam is. Raises ValueError for no agents."""
        require_states("x", x, self.state_dim)
        require_shape("x", x, None, self.state_dim)
        lower, upper, *_ = self._as(x)
        unit = (upper - lower) / (2 * math.pi)
        angle = (x - lower) / unit
        turned = torch.atan2(angle.sin().mean(0), angle.cos().mean(0)).remainder(2 * math.pi)
        return torch.where(self._around(x), lower + unit * turned, x.mean(0))

    def images(self) -> np.ndarray:
        """Shifts (3^p, d) by −1, 0 and 1 width in each of p periodic coordinates, to where a state is seen again."""
        shifts = [(-1, 0, 1) if around else (0,) for around in self.periodic]
        return np.array(list(itertools.product(*shifts))) * (self.upper - self.lower)

    @checked
    def move(self, x: Tensor, displacement: Tensor) -> Tensor:
        """Where straight segments from x: (n, d) along `displacement`: (n, d) end, after reflections: (n, d).

        No end is strictly inside a wall or outside the box, for any displacement, if no start is.
        """
        require_states("x", x, self.state_dim)
        if displacement.shape != x.shape:
            shapes = f"{tuple(x.shape)} and {tuple(displacement.shape)}"
            raise ValueError(f"x, displacement: expected the same shape, got {shapes}")
        if not len(self.walls):
            return self.fold(x + displacement)
        lower, upper, low, high = self._as(x)
        lower, upper, low, high = lower[:, None], upper[:, None], low.T[..., None], high.T[..., None]
        around = self._around(x)[:, None] if any(self.periodic) else None
        start, v = x.T.clone(), (displacement + torch.zeros_like(x)).T.clone()  # (d, g): long rows are fast
        at, going = torch.empty_like(start), torch.arange(len(x), device=x.device)  # who has a part of the move left
        for _ in range(MAX_REFLECTIONS):
            end = start + v
            near = (torch.maximum(start, end)[:, None] > low) & (torch.minimum(start, end)[:, None] < high)
            still = v == 0
            along = _any(still) & ~_all(still)  # an axis, and so perhaps a face
            check = along | _any(_all(near)) | _any((end < lower) | (end > upper))  # (g,)
            at[:, going] = torch.where(check, start, end)
            rest = check.nonzero()[:, 0]
            if not len(rest):
                break
            going = going[rest]
            start, v = _first_contact(start[:, rest], v[:, rest], lower, upper, low, high, around)
        else:
            at[:, going] = start
        return at.T.contiguous()

    def _as(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        corners = (self.lower, self.upper, self.walls[:, 0], self.walls[:, 1])
        lower, upper, low, high = (constant(c, x) for c in corners)
        return lower, upper, low, high

    def _around(self, x: Tensor) -> Tensor:
        return constant(self.periodic, x) > 0  # (d,)

    def __repr__(self) -> str:
        around = f", periodic={self.periodic}" if any(self.periodic) else ""
        return f"Domain({self.lower.tolist()}, {self.upper.tolist()}, walls={self.walls.tolist()}{around})"


def _periodic(value: Any, d: int) -> tuple[bool, ...]:
    values = [value] * d if isinstance(value, (bool, np.bool_)) else value
    known = isinstance(values, (list, tuple, np.ndarray)) and np.shape(values) == (d,)
    if not known or not all(isinstance(v, (bool, np.bool_)) for v in values):
        raise ValueError(f"periodic: expected a boolean, or {d} of them, got {value!r}")
    return tuple(bool(v) for v in values)


# Over the first dimension, which is short: one operation a row is faster than a reduction.
_all, _any = partial(functools.reduce, torch.logical_and), partial(functools.reduce, torch.logical_or)
_largest, _least = partial(functools.reduce, torch.maximum), partial(functools.reduce, torch.minimum)


def _first_contact(
    start: Tensor, v: Tensor, lower: Tensor, upper: Tensor, low: Tensor, high: Tensor, around: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Where segments from start: (d, g) along v: (d, g) first meet the edge (d, 1) or a wall (d, m, 1), and what is
    left of them, reflected: both (d, g). Segments that meet nothing are at their ends, with nothing left. Those that
    meet the edge in a coordinate that is `around`: (d, 1), go on from the other one."""
    s, u, up = start[:, None], v[:, None], v > 0
    edge = torch.where(up, upper, lower)
    to_edge = torch.where(v == 0, torch.inf, (edge - start) / v)  # share of the segment, (d, g)
    near, far = torch.where(up[:, None], low, high), torch.where(up[:, None], high, low)  # (d, m, g) faces
    beside = torch.where((s < low) | (s > high), torch.inf, -torch.inf)
    enter = torch.where(u == 0, beside, (near - s) / u)
    leave = torch.where(u == 0, torch.inf, (far - s) / u)
    to_wall = _largest(enter)  # (m, g)
    to_wall, wall = torch.where((to_wall >= 0) & (to_wall < _least(leave)), to_wall, torch.inf).min(0)
    share = torch.minimum(_least(to_edge), to_wall).clamp(max=1)  # (g,), of the first contact
    # A coordinate that has not met a face yet stays before it, whatever the rounding.
    sign = v.sign()
    ahead = torch.where(enter >= share, near * sign[:, None], torch.inf).amin(1)
    end = sign * torch.minimum(torch.minimum(sign * (start + share * v), ahead), sign * edge)
    end = torch.where(v == 0, start, end)
    first = wall.expand(len(v), 1, -1)
    at_wall = (enter.gather(1, first)[:, 0] == share) & (to_wall == share)
    at_edge = to_edge == share
    end = torch.where(at_edge, edge, torch.where(at_wall, near.gather(1, first)[:, 0], end))
    met = at_edge | at_wall
    if around is not None:
        end = torch.where(at_edge & around, torch.where(up, lower, upper), end)
        met = met & ~(at_edge & around)
    inside = _any(_all((end[:, None] > low) & (end[:, None] < high)))  # by rounding, at a corner
    return torch.where(inside, start, end), (1 - share) * torch.where(met, -v, v)
