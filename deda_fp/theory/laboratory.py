"""The error laboratory: fictitious play with exact learners, each made worse by a chosen amount.

Whatever a dial does to exploitability is done by that error alone.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from deda_fp.theory.learners import learners_of
from mfglib.checks import integer, number
from mfglib.fictitious_play import fictitious_play
from mfglib.protocols import Game


@dataclass(frozen=True)
class Dials:
    """Sizes of the three errors in iteration i: (dial) · i^(−decay)."""

    br: float = 0.0
    """ε_br: what each best response leaves unearned, in units of reward"""
    sl: float = 0.0
    """error of the cloned average: its actions are off by so much in every state, in units of action; the theorem's
    ε_sl is this times the length of the state space"""
    cnf: float = 0.0
    """ε_cnf: how far the model of the population is shifted, W1 at each time"""
    decay: float = 0.0
    """p >= 0"""
    random: bool = False
    """errors change their sign at random from one iteration to the next, instead of pointing the same way always"""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("br", "sl", "cnf", "decay"):
            number(f"Dials.{name}", getattr(self, name))

    def signs(self, iterations: int) -> np.ndarray:
        """±1 of each error in each iteration: (iterations + 1, 3)."""
        if not self.random:
            return np.ones((iterations + 1, 3))
        return np.random.default_rng(self.seed).choice([-1.0, 1.0], (iterations + 1, 3))


def experiment(game: Game, iterations: int = 200, dials: Dials | None = None) -> pd.DataFrame:
    """Fictitious play with steps 1/k from "nobody acts": a row an iteration k = 0..iterations, with columns iteration,
    e_true (of the perturbed average policy) and e_average (of the exact average of the perturbed best responses).

    `game`: an unbounded one-dimensional LinearQuadratic, or a BeachBar; TypeError or ValueError for others, and
    ValueError for a `Dials.br` above what the worst best response loses (beach bar). The best responses of an LQ game
    share a gain: an error is an offset of the action, the same in every state.
    """
    dials = dials or Dials()
    integer("iterations", iterations, at_least=1)
    sign = dict(zip(("br", "sl", "cnf"), dials.signs(iterations).T, strict=True))

    def error(name: str, i: int) -> float:  # iteration 0 has the errors of iteration 1
        return sign[name][i] * getattr(dials, name) * max(i, 1) ** -dials.decay

    response, average, crowd = learners_of(game, error)
    steps = itertools.islice(fictitious_play(response, average, crowd), iterations + 1)
    rows = [(step.k, *crowd.exploitability(average)) for step in steps]
    return pd.DataFrame(rows, columns=["iteration", "e_true", "e_average"])


def error_floors(
    game: Game, iterations: int, dial: str, sizes: Sequence[float], *, random: bool = False, seeds: int = 1
) -> pd.DataFrame:
    """What constant errors leave: exploitability over the last quarter of the iterations, above that without errors.

    `dial`: "br", "sl" or "cnf". Columns size, seed and floor; `seeds` only differ with random signs."""
    late = slice(-max(iterations // 4, 1), None)
    exact = experiment(game, iterations)["e_true"].iloc[late].mean()
    rows = []
    for size in sizes:
        for seed in range(seeds if random else 1):
            table = experiment(game, iterations, Dials(**{dial: size}, random=random, seed=seed))
            rows.append((size, seed, table["e_true"].iloc[late].mean() - exact))
    return pd.DataFrame(rows, columns=["size", "seed", "floor"])


def decay_exponent(table: pd.DataFrame) -> tuple[float, float]:
    """Exponent of k in the exploitability of an `experiment`, over its last 95%, and half its confidence interval."""
    last = int(table["iteration"].iloc[-1])
    at = np.unique(np.geomspace(max(last // 20, 2), last, 40).astype(int))
    return log_log_slope(at, table.set_index("iteration")["e_true"].loc[at].to_numpy())


def log_log_slope(x: np.ndarray, y: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Exponent b of y ∝ x^b by least squares on logarithms, and half the width of its confidence interval."""
    fit = stats.linregress(np.log(x), np.log(y))
    return float(fit.slope), float(stats.t.ppf((1 + confidence) / 2, len(x) - 2) * fit.stderr)
