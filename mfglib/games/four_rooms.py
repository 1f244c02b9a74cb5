"""Exploration of four rooms (paper, Section 5.3): a crowd that spreads as evenly as walls, doors and time allow."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from mfglib.checks import array, integer, number
from mfglib.games.base import clip, squared_norm
from mfglib.games.bounded import BoundedGame, Law
from mfglib.games.domain import Domain
from mfglib.protocols import Population

# Read off the paper's figures: walls 0.05 thick on both axes, doors 0.05 wide at 0.15 and 0.35, a plus in the middle.
LOW, HIGH = 0.225, 0.275
WALLS = (
    *(((LOW, a), (HIGH, b)) for a, b in ((0.0, 0.125), (0.175, 0.325), (0.375, 0.5))),
    *(((a, LOW), (b, HIGH)) for a, b in ((0.0, 0.125), (0.175, LOW), (HIGH, 0.325), (0.375, 0.5))),
)


class FourRooms(BoundedGame):
    """x_{t+1} = x_t + a_t + ε_t in [0, 0.5]² without walls: first the segment a_t, then ε_t, both reflected on contact
    (`BoundedGame`), with reward −c_a |a|² − c_m log(μ_t(x) + epsilon); the last reward has a = 0. A room's free area
    is 0.05, all of it 0.2125.

    Source: paper, Section 5.3; constants, noise and the bound on speed are not stated there, and ours are decision G3.

    Args:
        c_a: weight > 0 of the speed. c_m: weight >= 0 of the crowd. epsilon > 0: in units of density; it bounds the
            reward of an empty place by −c_m log(epsilon).
        horizon: number T >= 1 of decisions.
        a_bound: largest speed > 0 in each coordinate: at 0.05 a room takes four steps to cross.
        noise_bound: each coordinate of ε is uniform on [−noise_bound, noise_bound].
        walls: boxes (m, 2, 2), lower and upper corners. start: lower and upper corner of the square that μ_0 is
            uniform on, outside walls.
    """

    def __init__(
        self,
        c_a: float = 50.0,
        c_m: float = 1.0,
        epsilon: float = 5.0,
        horizon: int = 20,
        a_bound: float = 0.05,
        noise_bound: float = 0.04,
        walls: Sequence[Any] = WALLS,
        start: Any = ((0.0, 0.475), (0.025, 0.5)),
    ) -> None:
        self.c_a, self.c_m = number("c_a", c_a, positive=True), number("c_m", c_m)
        self.epsilon = number("epsilon", epsilon, positive=True)
        self.horizon = integer("horizon", horizon, at_least=1, at_most=10**6)
        self.noise_bound = number("noise_bound", noise_bound)
        self.a_bound = number("a_bound", a_bound, positive=True)
        self.domain = Domain([0.0, 0.0], [0.5, 0.5], walls)
        box = array("start", start)
        if box.shape != (2, 2) or (box[0] >= box[1]).any():
            raise ValueError(f"start: expected corners ((x, y), (x, y)), lower < upper, got {start!r}")
        low, high = box
        if (low < 0).any() or (high > 0.5).any() or self.domain.blocks(low, high):
            raise ValueError(f"start: expected a box inside [0, 0.5]² and outside the walls, got {start!r}")
        self.start = Law.box(low, high)
        self.noise = Law.box([-self.noise_bound] * 2, [self.noise_bound] * 2)
        self.action_dim = 2

    @property
    def walls(self) -> Any:
        return self.domain.walls

    @classmethod
    def fast(cls, **options: Any) -> "FourRooms":
        """Speeds up to 0.55 a coordinate, as the arrows in the paper's figures reach: a step crosses all rooms."""
        return cls(**{"a_bound": 0.55, **options})

    def reward(self, t: int, x: Tensor, a: Tensor, population: Population | None) -> Tensor:
        """Rewards (n,) of x: (n, 2), a: (n, 2). `population` may be None if c_m = 0."""
        total = self.c_a * squared_norm(clip(a, self.a_bound))
        if self.c_m:
            total = total + self.c_m * (population.log_prob(t, x).to(x).exp() + self.epsilon).log()
        return -total
