"""Evacuation: a crowd leaves the four rooms for an exit in the opposite corner, and is judged at the end.

What one learns: a terminal reward is the reward at t = horizon; walls turn a distance into a way through doors, and
the dislike of crowds is paid on the way, against the distance left at the end.
"""

from torch import Tensor

from mfglib.checks import integer, number
from mfglib.games.base import clip, squared_norm
from mfglib.games.bounded import BoundedGame, Law
from mfglib.games.domain import Domain
from mfglib.games.four_rooms import WALLS
from mfglib.protocols import Population

EXIT = (0.475, 0.025)


class Evacuation(BoundedGame):
    """x_{t+1} = x_t + a_t + ε_t in the four rooms (`FourRooms`), reward −c_a |a|² − c_m μ_t(x) for t < T, and at
    t = T the terminal reward −c_exit |x − EXIT|². μ_0 is uniform on the room of the opposite corner.

    Args:
        c_a: weight > 0 of the speed. c_m, c_exit: weights >= 0 of the crowd and of the distance left.
        horizon: number T >= 1 of decisions.
        a_bound: largest speed > 0 in each coordinate. noise_bound: each coordinate of ε is uniform within it.
    """

    def __init__(
        self,
        c_a: float = 5.0,
        c_m: float = 0.01,
        c_exit: float = 20.0,
        horizon: int = 12,
        a_bound: float = 0.1,
        noise_bound: float = 0.04,
    ) -> None:
        self.c_a, self.c_m, self.c_exit = (
            number("c_a", c_a, positive=True),
            number("c_m", c_m),
            number("c_exit", c_exit),
        )
        self.horizon = integer("horizon", horizon, at_least=1, at_most=10**6)
        self.a_bound = number("a_bound", a_bound, positive=True)
        self.noise_bound = number("noise_bound", noise_bound)
        self.domain, self.start = Domain([0.0, 0.0], [0.5, 0.5], WALLS), Law.box([0.0, 0.3], [0.2, 0.5])
        self.noise = Law.box([-self.noise_bound] * 2, [self.noise_bound] * 2)
        self.action_dim = 2

    def reward(self, t: int, x: Tensor, a: Tensor, population: Population | None) -> Tensor:
        """Rewards (n,) of x: (n, 2), a: (n, 2). `population` may be None if c_m = 0 or t = T."""
        if t == self.horizon:
            return -self.c_exit * squared_norm(x - x.new_tensor(EXIT))
        total = self.c_a * squared_norm(clip(a, self.a_bound))
        if self.c_m:
            total = total + self.c_m * population.log_prob(t, x).to(x).exp()
        return -total
