"""Bounded state spaces: a box with walls, and the one rule for what happens on contact."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mfglib.games.base import array

BOUNCES = 64  # most contacts in one step; an agent that has more stays where the last one was


class Domain:
    """The box [lower, upper] without `walls`, axis-aligned boxes that agents cannot enter.

    One rule for every bounded game: a step is a straight segment, reflected specularly wherever it meets the outer
    edge or a wall (the component across the face changes sign; at an exact corner, all components that meet one).
    Reflection keeps Lebesgue measure: the uniform law stays uniform under symmetric noise, and no mass gathers on the
    boundary, so that a population that has a density keeps one. Clipping would put atoms there.

    Args:
        lower, upper: (d,) corners.
        walls: m pairs ((d,), (d,)) of lower and upper corners. They may touch each other and the edge, not overlap.

    Raises ValueError for corners in the wrong order, and for walls that overlap or leave the box.
    """

    def __init__(self, lower: Any, upper: Any, walls: Sequence[Any] = ()) -> None:
        self.lower, self.upper = np.atleast_1d(array("lower", lower)), np.atleast_1d(array("upper", upper))
        if self.lower.ndim != 1 or self.lower.shape != self.upper.shape or (self.lower >= self.upper).any():
            raise ValueError(f"lower, upper: expected two corners (d,), lower < upper, got {lower!r} and {upper!r}")
        self.state_dim = d = len(self.lower)
        walls = array("walls", walls).reshape(0, 2, d) if len(walls) == 0 else array("walls", walls)
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
        self.volume = float(np.prod(self.upper - self.lower) - np.prod(walls[:, 1] - walls[:, 0], axis=1).sum())

    def blocks(self, low: np.ndarray, high: np.ndarray) -> bool:
        """Whether the box from low: (d,) to high: (d,) overlaps a wall."""
        overlap = np.minimum(high, self.walls[:, 1]) > np.maximum(low, self.walls[:, 0])
        return bool(overlap.all(1).any())

    def contains(self, x: Tensor) -> Tensor:
        """Whether x: (n, d) is in the box and not strictly inside a wall: (n,)."""
        lower, upper, low, high = self._as(x)
        inside = ((x >= lower) & (x <= upper)).all(-1)
        return inside & ~((x[:, None] > low) & (x[:, None] < high)).all(-1).any(-1)

    def move(self, x: Tensor, displacement: Tensor) -> Tensor:
        """Where straight segments from x: (n, d) along `displacement`: (n, d) end, after reflections: (n, d).

        No end is strictly inside a wall or outside the box, for any displacement, if no start is.
        """
        lower, upper, low, high = self._as(x)
        if not len(low):  # without walls each coordinate is folded on its own, any number of times
            width = upper - lower
            return lower + (width - ((x + displacement - lower).remainder(2 * width) - width).abs()).clamp(0, None)
        x, displacement = x.clone(), displacement + torch.zeros_like(x)
        going = torch.arange(len(x), device=x.device)  # agents with a part of the step left
        for _ in range(BOUNCES):
            start, v = x[going], displacement[going]
            edge = torch.where(v > 0, upper, lower)
            to_edge = torch.where(v == 0, torch.inf, (edge - start) / v)  # (g, d) share of the segment
            s, u = start[:, None], v[:, None]  # (g, 1, d)
            near, far = torch.where(u > 0, low, high), torch.where(u > 0, high, low)  # (g, m, d) faces
            beside = (s < low) | (s > high)
            enter = torch.where(u == 0, torch.where(beside, torch.inf, -torch.inf), (near - s) / u)
            leave = torch.where(u == 0, torch.inf, (far - s) / u).amin(-1)
            to_wall = enter.amax(-1)  # (g, m)
            to_wall = torch.where((to_wall >= 0) & (to_wall < leave), to_wall, torch.inf)
            wall_share, wall = to_wall.min(-1)
            share = torch.minimum(to_edge.amin(-1), wall_share)[:, None]  # (g, 1), of the first contact
            contact = share[:, 0] < 1
            end = start + share.clamp(max=1) * v
            # A coordinate that has not met a face yet stays before it, whatever the rounding.
            ahead = torch.where(enter >= share[:, None].clamp(max=1), near, u.sign() * torch.inf)
            ahead = torch.cat([ahead, edge[:, None]], dim=1)
            end = torch.where(v > 0, torch.minimum(end, ahead.amin(1)), torch.maximum(end, ahead.amax(1)))
            end = torch.where(v == 0, start, end)
            faces = to_edge == share
            first = enter[torch.arange(len(wall), device=x.device), wall] == share
            faces = faces | (first & (wall_share[:, None] == share))
            end = torch.where(faces & contact[:, None], self._face(near, wall, edge, to_edge, share), end)
            x[going] = end
            left = (1 - share) * torch.where(faces, -v, v)
            displacement[going] = left
            going = going[contact]
            if not len(going):
                break
        return x

    @staticmethod
    def _face(near: Tensor, wall: Tensor, edge: Tensor, to_edge: Tensor, share: Tensor) -> Tensor:
        """The coordinates of the faces that are met: of the edge, or else of the first wall; (g, d)."""
        return torch.where(to_edge == share, edge, near[torch.arange(len(wall), device=wall.device), wall])

    def _as(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        corners = (self.lower, self.upper, self.walls[:, 0], self.walls[:, 1])
        lower, upper, low, high = (torch.as_tensor(c, dtype=x.dtype, device=x.device) for c in corners)
        return lower, upper, low, high

    def __repr__(self) -> str:
        return f"Domain({self.lower.tolist()}, {self.upper.tolist()}, walls={self.walls.tolist()})"
