"""Congestion: a crowd walks to a place on a line, and speed costs more where the crowd is dense.

What one learns: the reward does not split into a part of the action and a part of the crowd, since the price of speed
is itself a function of the density; with power = 0 the crowd does not matter, and the game is plain optimal control.
"""

from torch import Tensor

from mfglib.checks import integer, number
from mfglib.games.base import clip, squared_norm
from mfglib.games.bounded import BoundedGame, Law
from mfglib.games.domain import Domain
from mfglib.protocols import Population


class Congestion(BoundedGame):
    """x_{t+1} = x_t + a_t + ε_t on [0, 1], reflected at the ends (`BoundedGame`), with reward
    −c_x |x − goal|² − c_a |a|² μ_t(x)^power; the last reward has a = 0. μ_0 is uniform on [0, 0.3].

    Args:
        c_x, c_a: weights of the distance, >= 0, and of the speed, > 0.
        power: >= 0; 0 is the game without interaction.
        goal: in [0, 1]. horizon: number T >= 1 of decisions.
        a_bound: largest speed > 0. noise_bound: ε is uniform on [−noise_bound, noise_bound].
    """

    def __init__(
        self,
        c_x: float = 1.0,
        c_a: float = 10.0,
        power: float = 1.0,
        goal: float = 0.8,
        horizon: int = 10,
        a_bound: float = 0.2,
        noise_bound: float = 0.1,
    ) -> None:
        self.c_x, self.c_a, self.power = number("c_x", c_x), number("c_a", c_a, positive=True), number("power", power)
        self.goal = number("goal", goal, at_most=1.0)
        self.horizon = integer("horizon", horizon, at_least=1, at_most=10**6)
        self.a_bound = number("a_bound", a_bound, positive=True)
        self.noise_bound = number("noise_bound", noise_bound)
        self.domain, self.start = Domain(0.0, 1.0), Law.box(0.0, 0.3)
        self.noise = Law.box(-self.noise_bound, self.noise_bound)
        self.action_dim = 1

    def reward(self, t: int, x: Tensor, a: Tensor, population: Population | None) -> Tensor:
        """Rewards (n,) of x: (n, 1), a: (n, 1). `population` may be None if power = 0."""
        effort = self.c_a * squared_norm(clip(a, self.a_bound))
        if self.power:
            effort = effort * (self.power * population.log_prob(t, x).to(x)).exp()
        return -(self.c_x * squared_norm(x - self.goal) + effort)
