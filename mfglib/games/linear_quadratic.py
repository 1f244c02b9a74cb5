"""The linear-quadratic mean field game (paper, Section 5.2), in any dimension."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mfglib.checks import array, cost_matrix, integer, matrix, std_factor, vector
from mfglib.games.base import clip, constant, game_repr
from mfglib.games.bounded import Law
from mfglib.games.domain import Domain
from mfglib.protocols import Population

# Coefficients that may change over time, and how many dimensions their arrays have if they do.
OVER_TIME = {"A": 3, "B": 3, "A_bar": 3, "c_x": 3, "c_a": 3, "c_m": 3, "h": 3, "x_target": 2}


class LinearQuadratic:
    """x_{t+1} = A x_t + B a_t + Ā m_t + ε_t, with m_t the mean of the population at time t, and reward
    −|x − x_target|²_{c_x} − |a|²_{c_a} − |x − m_t|²_{c_m} + xᵀ h ā_t, where |v|²_c = vᵀ c v and ā_t is the mean of what
    the others do (`mean_action`); the last reward has a = 0 and ā = 0.

    Source: paper, Section 5.2. Its closed form is `mfglib.exact.lq_equilibrium`.

    Args (d = state dimension, k = action dimension; a scalar stands for itself times the identity):
        A, A_bar: scalar, (d,) diagonal or (d, d).
        B: scalar or (d,) diagonal (then k = d), or (d, k).
        c_x, c_m: scalar >= 0, (d,) diagonal, or (d, d) symmetric positive semi-definite.
        c_a: scalar > 0, (k,) diagonal, or (k, k) symmetric positive definite.
        x_target, initial_mean: scalar or (d,).
        horizon: number T >= 1 of decisions; there are T + 1 states and rewards.
        c_T: the weight of |x − x_target|² at t = T in place of c_x, as c_x; None for c_x.
        initial_std, noise_std: scalar or (d,) standard deviations >= 0, or (d, d) factors L with covariance L Lᵀ.
        x_bound, a_bound: None (unbounded), or positive scalar or (d,), (k,). Actions are clipped coordinate-wise to
            [−a_bound, a_bound] before they act and are paid for; states are reflected at ±x_bound (`Domain.move`),
            once before the noise and once after (the rule of `BoundedGame`; in a box one reflection has the same law).
        h: scalar (then k = d) or (d, k): what a state earns by the others' actions, as a holding does by their trades.
        initial_law, noise_law: "gaussian", or "uniform" on the box with the same standard deviations.

    A, B, A_bar, c_a and h may change over time, as arrays of T full matrices, (T, d, d), (T, d, k) or (T, k, k); c_x,
    c_m and x_target as arrays (T+1, d, d) and (T+1, d). `coefficient` and `coefficients` say what holds at t.

    Raises ValueError naming the parameter, what was expected and what was given.
    """

    uses_density = False  # rewards and moves ask for the mean alone

    def __init__(
        self,
        A: Any = 1.0,
        B: Any = 1.0,
        A_bar: Any = 0.06,
        c_x: Any = 5.0,
        c_a: Any = 0.1,
        c_m: Any = 1.0,
        x_target: Any = 0.6,
        horizon: int = 20,
        initial_mean: Any = 0.0,
        initial_std: Any = 0.58,
        noise_std: Any = 0.058,
        x_bound: Any = None,
        a_bound: Any = None,
        *,
        h: Any = 0.0,
        c_T: Any = None,
        initial_law: str = "gaussian",
        noise_law: str = "gaussian",
    ) -> None:
        given = {"A": A, "A_bar": A_bar, "c_x": c_x, "c_m": c_m, "x_target": x_target, "B": B, "c_a": c_a, "h": h}
        others = {"initial_mean": initial_mean, "initial_std": initial_std, "noise_std": noise_std}
        # The first array decides d; every other parameter is then checked against it under its own name.
        shapes = {name: array(name, v).shape for name, v in (given | others).items()}
        for name, shape in shapes.items():
            if 0 in shape:
                raise ValueError(f"{name}: expected a number or an array of some, got shape {shape}")
        at_once = {n: shape[1:] if len(shape) == OVER_TIME.get(n) else shape for n, shape in shapes.items()}
        d = next((shape[0] for name, shape in at_once.items() if shape and name not in ("c_a", "h")), 1)
        k = at_once["B"][1] if len(at_once["B"]) == 2 else d
        self.state_dim, self.action_dim = integer("state dimension", d, at_least=1), integer("k", k, at_least=1)
        self.horizon = integer("horizon", horizon, at_least=1, at_most=10**6)
        checks = {
            **{name: partial(matrix, rows=d, columns=d) for name in ("A", "A_bar")},
            **{name: partial(cost_matrix, size=d) for name in ("c_x", "c_m")},
            "B": partial(matrix, rows=d, columns=k),
            "c_a": partial(cost_matrix, size=k, positive=True),
            "h": partial(matrix, rows=d, columns=k),
            "x_target": partial(vector, size=d),
        }
        if d != k and not np.ndim(h) and h == 0:
            given["h"] = np.zeros((d, k))
        for name, check in checks.items():
            setattr(self, name, self._checked(name, given[name], check))
        if c_T is not None:
            self.c_x = np.stack([*self.coefficients("c_x")[:-1], cost_matrix("c_T", c_T, d)])
        self.initial_mean = vector("initial_mean", initial_mean, d)
        self.initial_std, self.noise_std = (
            std_factor("initial_std", initial_std, d),
            std_factor("noise_std", noise_std, d),
        )
        self.x_bound, self.a_bound = _bound("x_bound", x_bound, d), _bound("a_bound", a_bound, k)
        self.initial_law, self.noise_law = _law("initial_law", initial_law), _law("noise_law", noise_law)

    @classmethod
    def paper(cls) -> "LinearQuadratic":
        """The paper's experiment: x in [−1, 1], a in [−0.1, 0.1], noise U[−0.1, 0.1], N_T = 20 (Section 5.2).

        μ_0 is not stated in the paper; U[−1, 1] is read off its figures.
        """
        return cls(
            initial_std=1 / math.sqrt(3),
            noise_std=0.1 / math.sqrt(3),
            x_bound=1.0,
            a_bound=0.1,
            initial_law="uniform",
            noise_law="uniform",
        )

    def _checked(self, name: str, value: Any, check: Callable[[str, Any], np.ndarray]) -> np.ndarray:
        """A coefficient, as it is at all times or over time."""
        length = self._length(name)
        if np.ndim(value) != OVER_TIME[name]:
            return check(name, value)
        if len(value) != length:
            raise ValueError(f"{name}: expected its values at {length} times, got shape {np.shape(value)}")
        return np.stack([check(f"{name}[{t}]", v) for t, v in enumerate(array(name, value))])

    def _length(self, name: str) -> int:
        return self.horizon + (name in ("c_x", "c_m", "x_target"))

    def coefficient(self, name: str, t: int) -> np.ndarray:
        """A, B, A_bar, c_x, c_a, c_m, x_target or h at time t: its matrix, or (d,). At t = T, where nobody acts, those
        of actions are as they were before."""
        value = getattr(self, name)
        return value[min(t, len(value) - 1)] if value.ndim == OVER_TIME[name] else value

    def coefficients(self, name: str) -> np.ndarray:
        """The same at all times: T, or T + 1 of c_x, c_m and x_target."""
        value, length = getattr(self, name), self._length(name)
        return value if value.ndim == OVER_TIME[name] else np.broadcast_to(value, (length, *value.shape))

    @property
    def uses_actions(self) -> bool:
        """Whether rewards ask for the mean action of the crowd."""
        return bool(self.h.any())

    @property
    def bounded(self) -> bool:
        """Whether states or actions are bounded, in which case there is no closed form."""
        return self.x_bound is not None or self.a_bound is not None

    @property
    def domain(self) -> Domain | None:
        """The box that states live in; None if they are unbounded."""
        return None if self.x_bound is None else Domain(-self.x_bound, self.x_bound)

    @property
    def start(self) -> Law:
        """μ_0 before reflection; ValueError if its coordinates are correlated."""
        return Law(self.initial_law, self.initial_mean, _diagonal("initial_std", self.initial_std), self.state_dim)

    @property
    def noise(self) -> Law:
        """The law of ε; ValueError if its coordinates are correlated."""
        return Law(self.noise_law, 0.0, _diagonal("noise_std", self.noise_std), self.state_dim)

    def initial(self, n: int, generator: torch.Generator) -> Tensor:
        """n independent states from μ_0: (n, d)."""
        x = _draw(self.initial_law, n, self.state_dim, generator)
        x = x @ constant(self.initial_std, x).T + constant(self.initial_mean, x)
        return x if self.domain is None else self.domain.fold(x)

    def step(self, t: int, x: Tensor, a: Tensor, population: Population | None, generator: torch.Generator) -> Tensor:
        """Next states of x: (n, d) under actions a: (n, k). `population` may be None if A_bar = 0."""
        noise = _draw(self.noise_law, len(x), self.state_dim, generator, x.dtype) @ constant(self.noise_std, x).T
        z = self.moved(t, x, a, population)
        return z + noise if self.domain is None else self.domain.move(z, noise)

    step.noise_after_move = True  # as in `BoundedGame`

    def displacement(self, t: int, x: Tensor, a: Tensor, population: Population | None) -> Tensor:
        """The move (n, d) before reflection and noise."""
        return self._next(t, x, a, population) - x

    def moved(self, t: int, x: Tensor, a: Tensor, population: Population | None) -> Tensor:
        """Post-decision states z: (n, d) of x: (n, d) under actions a: (n, k): after the move, before the noise."""
        z = self._next(t, x, a, population)
        return z if self.domain is None else self.domain.move(x, z - x)

    def _next(self, t: int, x: Tensor, a: Tensor, population: Population | None) -> Tensor:
        A, B = (constant(self.coefficient(name, t), x) for name in ("A", "B"))
        x_next = x @ A.T + clip(a, self.a_bound) @ B.T
        if self.A_bar.any():
            x_next = x_next + population.mean(t).to(x) @ constant(self.coefficient("A_bar", t), x).T
        return x_next

    def reward(self, t: int, x: Tensor, a: Tensor, population: Population | None) -> Tensor:
        """Rewards (n,) of x: (n, d), a: (n, k). `population` may be None if c_m = h = 0."""
        c_x, c_a, target = (self.coefficient(name, t) for name in ("c_x", "c_a", "x_target"))
        total = _quadratic(c_x, x - constant(target, x)) + _quadratic(c_a, clip(a, self.a_bound))
        if self.c_m.any():
            total = total + _quadratic(self.coefficient("c_m", t), x - population.mean(t).to(x))
        if self.h.any():
            total = total - x @ constant(self.coefficient("h", t), x) @ population.mean_action(t).to(x)
        return -total

    __repr__ = game_repr


def _law(name: str, value: str) -> str:
    if not isinstance(value, str) or value not in ("gaussian", "uniform"):
        raise ValueError(f'{name}: expected "gaussian" or "uniform", got {value!r}')
    return value


def _bound(name: str, value: Any, size: int) -> np.ndarray | None:
    if value is None:
        return None
    v = vector(name, value, size)
    if (v <= 0).any():
        raise ValueError(f"{name}: expected None or > 0, got {value!r}")
    return v


def _diagonal(name: str, factor: np.ndarray) -> np.ndarray:
    if np.count_nonzero(factor - np.diag(np.diag(factor))):
        raise ValueError(f"{name}: expected independent coordinates, got the factor {factor.tolist()}")
    return np.diag(factor)


def _draw(law: str, n: int, d: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    """Centred samples (n, d) with unit variance in every coordinate."""
    if law == "gaussian":
        return torch.randn(n, d, generator=generator, device=generator.device, dtype=dtype)
    unit = torch.rand(n, d, generator=generator, device=generator.device, dtype=dtype)
    return (2 * unit - 1) * math.sqrt(3)


def _quadratic(weight: np.ndarray, v: Tensor) -> Tensor:
    return sum(((v @ constant(weight, v)) * v).unbind(-1))  # (n, d) -> (n,)
