"""Laws of starts and of noise, and what every game on a bounded domain shares."""

import math
from typing import Any

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from mfglib.arguments import checked
from mfglib.checks import array, integer, vector
from mfglib.games.base import clip, constant, game_repr
from mfglib.games.domain import Domain
from mfglib.protocols import Population


class Law:
    """A product law with independent coordinates: "gaussian", or "uniform" on a box; mean and std (d,). `Law.points` is
    any other, on finitely many points."""

    symmetric = True  # about its mean: if that is 0, opposite draws have the same law

    @checked
    def __init__(self, name: str, mean: Any, std: Any, size: int) -> None:
        if name not in ("gaussian", "uniform"):
            raise ValueError(f'law: expected "gaussian" or "uniform" (or use `Law.points`), got {name!r}')
        integer("size", size, at_least=1)
        self.name, self.mean, self.std = name, vector("mean", mean, size), vector("std", std, size)
        if (self.std < 0).any():
            raise ValueError(f"std: expected >= 0, got {std!r}")
        self.ends = self.mean - math.sqrt(3) * self.std, self.mean + math.sqrt(3) * self.std  # of the uniform box

    @classmethod
    def box(cls, lower: Any, upper: Any) -> "Law":
        """The uniform law on the box with corners lower, upper: (d,)."""
        lower, upper = np.atleast_1d(array("lower", lower)), np.atleast_1d(array("upper", upper))
        if lower.ndim != 1 or not lower.size or lower.shape != upper.shape or (lower > upper).any():
            raise ValueError(f"lower, upper: expected corners (d,), lower <= upper, got {lower} and {upper}")
        law = cls("uniform", (lower + upper) / 2, (upper - lower) / 2 / math.sqrt(3), len(lower))
        law.ends = lower, upper  # exactly: no start is beyond a wall by rounding
        return law

    @classmethod
    def points(cls, points: Any, weights: Any = None) -> "Law":
        """The law on finitely many points: (m, d), or (m,) if d = 1, with probabilities in proportion to `weights`:
        (m,), > 0; None for equal ones. Coordinates may depend on each other. It has no density: it can be noise, not a
        start.

        Raises ValueError for other shapes, no points, and weights that are not > 0.
        """
        return _Points(points, weights)

    @checked
    def draw(self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
        """n independent samples (n, d)."""
        integer("n", n, at_least=0)
        options = dict(device=generator.device, dtype=dtype)
        if self.name == "gaussian":
            unit = torch.randn(n, len(self.mean), generator=generator, **options)
            return constant(self.mean, unit) + constant(self.std, unit) * unit
        unit = torch.rand(n, len(self.mean), generator=generator, **options)
        lower, upper = (constant(v, unit) for v in self.ends)
        return (lower + (upper - lower) * unit).clamp(lower, upper)

    @checked
    def quantiles(self, n: int) -> np.ndarray:
        """Each coordinate's quantiles at the n midpoints of [0, 1]: (n, d)."""
        u = (np.arange(integer("n", n, at_least=1)) + 0.5)[:, None] / n
        lower, upper = self.ends
        return self.mean + self.std * ndtri(u) if self.name == "gaussian" else lower + (upper - lower) * u

    def __repr__(self) -> str:
        return f"Law({self.name!r}, mean={self.mean.tolist()}, std={self.std.tolist()})"


class _Points(Law):
    """See `Law.points`. `values`: (m, d), `unit`: the largest size of a coordinate, `weights`: (m,), their sum is 1;
    `symmetric` about 0."""

    def __init__(self, points: Any, weights: Any) -> None:
        values = array("points", points)
        values = values[:, None] if values.ndim == 1 else values
        if values.ndim != 2 or not values.size:
            raise ValueError(f"points: expected shape (m, d), or (m,), with m > 0, got {values.shape}")
        m, largest = len(values), np.abs(values).max()
        weights = np.ones(m) if weights is None else array("weights", weights)
        if weights.shape != (m,) or (weights <= 0).any():
            raise ValueError(f"points, weights: expected {m} numbers > 0, one a point, got {weights}")
        weights = weights / weights.max()
        self.name, self.values, self.weights = "points", values, weights / weights.sum()
        self.unit = float(largest) or 1.0
        mean = self.weights @ (values / self.unit)
        mean = np.where(np.abs(mean) <= 1e-12, 0.0, mean)  # but for rounding
        self.std = self.unit * np.sqrt(self.weights @ np.square(values / self.unit - mean))
        self.mean = self.unit * mean
        self.ends = values.min(0), values.max(0)
        self.symmetric = self._is_symmetric()

    def _is_symmetric(self) -> bool:
        """Whether each point has the weight of the one opposite about 0, to rounding."""
        m, places = len(self.values), np.rint(self.values / self.unit * 1e9)
        _, which = np.unique(np.concatenate([places, 0.0 - places]), axis=0, return_inverse=True)
        own, opposite = (np.bincount(part, self.weights, 2 * m) for part in np.split(which.ravel(), 2))
        return bool(np.allclose(own, opposite, rtol=1e-9, atol=0))

    @checked
    def draw(self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
        u = torch.rand(integer("n", n, at_least=0), generator=generator, device=generator.device, dtype=torch.float64)
        which = torch.searchsorted(constant(self.weights.cumsum()[:-1], u), u, right=True)
        return constant(self.values, u)[which].to(dtype)

    @checked
    def quantiles(self, n: int) -> np.ndarray:
        u = (np.arange(integer("n", n, at_least=1)) + 0.5) / n
        order = self.values.argsort(0, kind="stable")
        shares = self.weights[order].cumsum(0)[:-1].T  # (d, m − 1)
        which = [np.searchsorted(share, u, side="right") for share in shares]
        return np.take_along_axis(self.values, order, 0)[np.stack(which, 1), np.arange(len(which))]

    def __repr__(self) -> str:
        return f"Law.points({self.values.tolist()}, {self.weights.tolist()})"


def require_density(start: Law) -> None:
    """Raise ValueError for a start on points: populations are asked for densities from t = 0 on."""
    if getattr(start, "name", None) == "points":
        raise ValueError(
            f"game.start: expected a law with a density, got {start!r}; spread the points, as by boxes around them"
        )


class BoundedGame:
    """Two reflected segments a step: the agent's own move, to z_t, the post-decision state (Powell 2011), then noise:

        z_t = domain.move(x_t, displacement_t(x_t, a_t, μ_t)),   x_{t+1} = domain.move(z_t, ε_t).

    So E V(x_{t+1}) is a function of z_t alone, whatever the walls: W(z) = E V(domain.move(z, ε)). Exact solver and
    learners use that. At flat faces the law is that of one segment, if ε is symmetric; at corners of walls it is not.

    A subclass sets `domain`, `start` and `noise` (laws of x_0 and ε), `a_bound` and the members of `Game` that
    are missing here. That is also all that the exact solver on a grid asks for. `start` must have a density and keep
    off the walls, and `noise` have mean 0. Noise on points (`Law.points`) leaves a population its density if moves do.
    """

    domain: Domain
    start: Law
    noise: Law
    a_bound: Any  # a number, or (k,)
    action_dim: int

    @property
    def state_dim(self) -> int:
        return self.domain.state_dim

    def initial(self, n: int, generator: torch.Generator) -> Tensor:
        """n independent states from μ_0, which is `start`, reflected at the outer edge: (n, d). Raises ValueError for a
        start on points."""
        require_density(self.start)
        return self.domain.fold(self.start.draw(n, generator))

    def displacement(self, t: int, x: Tensor, a: Tensor, population: Population | None) -> Tensor:
        """The agent's own move (n, d), before walls. Actions are velocities, clipped to [−a_bound, a_bound]."""
        return clip(a, self.a_bound)

    def moved(self, t: int, x: Tensor, a: Tensor, population: Population | None) -> Tensor:
        """Post-decision states z: (n, d) of x: (n, d) under actions a: (n, k): after the move, before the noise."""
        return self.domain.move(x, self.displacement(t, x, a, population))

    def step(self, t: int, x: Tensor, a: Tensor, population: Population | None, generator: torch.Generator) -> Tensor:
        """Next states of x: (n, d) under actions a: (n, k)."""
        noise = self.noise.draw(len(x), generator, x.dtype)
        return self.domain.move(self.moved(t, x, a, population), noise)

    step.noise_after_move = True  # a `step` of one's own has no such mark, and is not looked ahead through

    __repr__ = game_repr
