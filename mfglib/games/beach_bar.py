"""The beach bar game (paper, Section 5.1): near the bar, away from the crowd."""

from torch import Tensor

from mfglib.checks import integer, number
from mfglib.games.base import clip, squared_norm
from mfglib.games.bounded import BoundedGame, Law
from mfglib.games.domain import Domain
from mfglib.protocols import Population


class BeachBar(BoundedGame):
    """x_{t+1} = x_t + a_t + ε_t on [0, 1], reflected at the ends after a_t and after ε_t (`BoundedGame`), with reward
    −c_x |x − bar|² − c_m μ_t(x) − c_a |a|²; the last reward has a = 0.

    Source: paper, Section 5.1. Its C1, C2, C3 (here c_x, c_m, c_a) are not stated; ours are decision G2.

    Args:
        c_x, c_m: weights >= 0 of the distance and of the crowd's density μ_t(x). c_a: weight > 0 of the speed.
        bar: in [0, 1].
        horizon: number T >= 1 of decisions.
        a_bound: largest speed > 0. noise_bound: ε is uniform on [−noise_bound, noise_bound]. μ_0 is uniform.
    """

    def __init__(
        self,
        c_x: float = 25.0,
        c_m: float = 1.0,
        c_a: float = 10.0,
        bar: float = 0.5,
        horizon: int = 10,
        a_bound: float = 0.3,
        noise_bound: float = 0.1,
    ) -> None:
        self.c_x, self.c_m, self.c_a = number("c_x", c_x), number("c_m", c_m), number("c_a", c_a, positive=True)
        self.bar = number("bar", bar, at_most=1.0)
        self.horizon = integer("horizon", horizon, at_least=1, at_most=10**6)
        self.noise_bound = number("noise_bound", noise_bound)
        self.a_bound = number("a_bound", a_bound, positive=True)
        self.domain, self.start = Domain(0.0, 1.0), Law.box(0.0, 1.0)
        self.noise = Law.box(-self.noise_bound, self.noise_bound)
        self.action_dim = 1

    def reward(self, t: int, x: Tensor, a: Tensor, population: Population | None) -> Tensor:
        """Rewards (n,) of x: (n, 1), a: (n, 1). `population` may be None if c_m = 0."""
        total = self.c_x * squared_norm(x - self.bar) + self.c_a * squared_norm(clip(a, self.a_bound))
        if self.c_m:
            total = total + self.c_m * population.log_prob(t, x).to(x).exp()
        return -total
