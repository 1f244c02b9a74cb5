"""What changes from iteration to iteration: weights of best responses, budgets of fits, learning rates."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

AVERAGING = ("uniform", "linear", "geometric")


class Averaging(Protocol):
    """How much each best response weighs in the average policy."""

    def weights(self, k: int) -> np.ndarray: ...  # (k,) of best responses 1..k, summing to 1


@dataclass(frozen=True)
class Steps:
    """Fictitious play moves the average towards best response i by a step η_i: 1/i ("uniform", the paper's), 2/(i+1)
    ("linear": weight proportional to i), or the constant `step` after a first step of 1 ("geometric").

    Raises ValueError for another name, and for a step outside (0, 1].
    """

    name: str = "uniform"
    step: float = 0.5
    """of "geometric" only"""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or self.name not in AVERAGING:
            raise ValueError(f"averaging: expected one of {AVERAGING}, got {self.name!r}")
        if (
            isinstance(self.step, bool)
            or not isinstance(self.step, (float, np.floating, int))
            or not 0 < self.step <= 1
        ):
            raise ValueError(f"step: expected a number in (0, 1], got {self.step!r}")
        object.__setattr__(self, "step", float(self.step))  # numpy's numbers are no JSON

    def steps(self, k: int) -> np.ndarray:
        """η_1..η_k: (k,)."""
        i = np.arange(1, k + 1)
        return {"uniform": 1 / i, "linear": 2 / (i + 1), "geometric": np.where(i == 1, 1.0, self.step)}[self.name]

    def weights(self, k: int) -> np.ndarray:
        """Weights (k,) of best responses 1..k in the average policy, summing to 1."""
        eta = self.steps(k)
        left = np.append(np.cumprod((1 - eta)[:0:-1])[::-1], 1.0)  # what later steps leave of best response i
        return eta * left


def constant(step: float) -> Steps:
    """The schedule of a constant step in (0, 1]."""
    return Steps("geometric", step)


def averaging_of(averaging: str | Averaging) -> Averaging:
    """A schedule by its name, or an object with `weights(k)` as it is; ValueError for anything else."""
    if hasattr(averaging, "weights"):
        return averaging
    return Steps(averaging)


def budget(k: int, first: int, later: int) -> int:
    """Steps of a fit in iteration k: `first` for 0 and 1, then falling like 1/k, as the steps of the population do, to
    `later`. The errors of the first best responses and flows weigh on every later average."""
    return max(later, round(2 * first / (max(k, 1) + 1)))


def decayed(config: Any, k: int) -> Any:
    """A learner's configuration with the learning rate of iteration k: from iteration `decay_after` on it falls like
    1/k."""
    after = config.decay_after
    if after is None or k <= after:
        return config
    return dataclasses.replace(config, learning_rate=config.learning_rate * after / k)
