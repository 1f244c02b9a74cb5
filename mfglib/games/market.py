"""Trading with price impact (paper, appendix E.4): what a holding earns depends on what all others trade."""

import math
from typing import Any

from mfglib.checks import number, vector
from mfglib.games.linear_quadratic import LinearQuadratic


class Market(LinearQuadratic):
    """x_{t+1} = x_t + a_t + ε_t, with reward −c_x x² − c_a a² + h x ā_t: x is what an agent holds, a what it buys, and
    ā_t the mean of what all buy, which moves the price. The interaction is through the law of actions, an extended mean
    field game; the last reward has a = 0 and ā = 0.

    Source: paper, appendix E.4; its constants and T are not stated, and ours are decision G4. Without bounds, x_bound =
    a_bound = None, there is a closed form (`mfglib.exact.lq_equilibrium`).

    Args:
        c_x, c_a: weights of the holding and of the trade. h: of the price impact.
        horizon: number T >= 1 of decisions.
        start: ends of the interval that μ_0 is uniform on. noise_std: of ε, which is Gaussian.
        x_bound, a_bound: largest |x| and |a|, or None.
    """

    def __init__(
        self,
        c_x: float = 10.0,
        c_a: float = 5.0,
        h: float = 20.0,
        horizon: int = 10,
        start: tuple[float, float] = (0.0, 5.0),
        noise_std: float = 1.0,
        x_bound: Any = 5.0,
        a_bound: Any = 1.0,
    ) -> None:
        low, high = vector("start", start, 2).tolist()
        if not low < high:
            raise ValueError(f"start: expected (low, high), low < high, got {start!r}")
        super().__init__(
            A=1.0,
            B=1.0,
            A_bar=0.0,
            c_x=number("c_x", c_x),
            c_a=number("c_a", c_a, positive=True),
            c_m=0.0,
            x_target=0.0,
            horizon=horizon,
            initial_mean=(low + high) / 2,
            initial_std=(high - low) / math.sqrt(12),
            noise_std=number("noise_std", noise_std),
            x_bound=x_bound,
            a_bound=a_bound,
            h=float(vector("h", h, 1)[0]),
            initial_law="uniform",
        )
