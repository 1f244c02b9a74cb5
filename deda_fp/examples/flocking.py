"""Flocking: agents in the plane steer by accelerating, and like to move as the others do, near them.

What one learns: a state may be a position *and* a velocity (d = 4), of which actions push only one half (k = 2), and a
crowd may matter by its mean alone, `population.mean(t)`, so that no density is evaluated. Alignment does not move the
crowd, it narrows it: without the wish for a certain speed the game is linear-quadratic, and its closed form has the
same mean velocity for each weight of alignment, and a smaller spread for a larger one. With that wish there is no
exact solver, and `deda_fp.deviators` bounds the exploitability from below.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mfglib.checks import integer, number
from mfglib.games.base import game_repr, squared_norm
from mfglib.games.linear_quadratic import LinearQuadratic
from mfglib.protocols import Population


class Flocking:
    """x = (p, v) in R⁴: p_{t+1} = p_t + dt v_t, v_{t+1} = v_t + a_t + ε_t, with ε ~ N(0, noise_std²), and reward
    −c_a |a|² − c_v |v − v̄_t|² − c_p |p − p̄_t|² − c_s (|v|² − 1)², bars for means of the crowd; the last has a = 0.
    Positions begin as N(0, 0.5²), velocities as N((0.5, 0), 0.5²), in each coordinate.

    Args:
        c_a: weight > 0 of acceleration.
        c_v, c_p, c_s: weights >= 0 of alignment, of cohesion, and of the wish for speed 1.
        dt: time > 0 from one decision to the next. horizon: number T >= 1 of decisions. noise_std: >= 0.
    """

    state_dim, action_dim = 4, 2
    uses_density = False  # rewards ask for the mean alone

    def __init__(
        self,
        c_a: float = 2.0,
        c_v: float = 1.0,
        c_p: float = 0.5,
        c_s: float = 0.5,
        dt: float = 0.3,
        horizon: int = 8,
        noise_std: float = 0.1,
    ) -> None:
        self.c_a, self.c_v, self.c_p, self.c_s = (
            number("c_a", c_a, positive=True),
            number("c_v", c_v),
            number("c_p", c_p),
            number("c_s", c_s),
        )
        self.dt, self.noise_std = number("dt", dt, positive=True), number("noise_std", noise_std)
        self.horizon = integer("horizon", horizon, at_least=1, at_most=10**6)

    def initial(self, n: int, generator: torch.Generator) -> Tensor:
        """n independent states: (n, 4)."""
        x = 0.5 * torch.randn(n, 4, generator=generator, device=generator.device)
        return x + x.new_tensor([0.0, 0.0, 0.5, 0.0])

    def step(self, t: int, x: Tensor, a: Tensor, population: Any, generator: torch.Generator) -> Tensor:
        """Next states of x: (n, 4) under a: (n, 2)."""
        p, v = x.split(2, dim=-1)
        noise = torch.randn(v.shape, generator=generator, device=generator.device, dtype=x.dtype)
        return torch.cat([p + self.dt * v, v + a + self.noise_std * noise], dim=-1)

    def reward(self, t: int, x: Tensor, a: Tensor, population: Population) -> Tensor:
        """Rewards (n,) of x: (n, 4), a: (n, 2)."""
        p, v = x.split(2, dim=-1)
        p_off, v_off = (x - population.mean(t).to(x)).split(2, dim=-1)
        wish = (squared_norm(v) - 1).square()
        return -(
            self.c_a * squared_norm(a)
            + self.c_v * squared_norm(v_off)
            + self.c_p * squared_norm(p_off)
            + self.c_s * wish
        )

    def linear_quadratic(self) -> LinearQuadratic:
        """The same game as one with a closed form. Raises ValueError unless c_s = 0."""
        if self.c_s:
            raise ValueError(f"c_s: expected 0 for a linear-quadratic game, got {self.c_s}")
        one, none = np.eye(2), np.zeros((2, 2))
        return LinearQuadratic(
            A=np.block([[one, self.dt * one], [none, one]]),
            B=np.vstack([none, one]),
            A_bar=0.0,
            c_x=0.0,
            c_a=self.c_a,
            c_m=[self.c_p, self.c_p, self.c_v, self.c_v],
            horizon=self.horizon,
            initial_mean=[0.0, 0.0, 0.5, 0.0],
            initial_std=0.5,
            noise_std=[0.0, 0.0, self.noise_std, self.noise_std],
        )

    __repr__ = game_repr
