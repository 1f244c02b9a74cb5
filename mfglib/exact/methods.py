"""Exact methods on a grid: how iterate k comes from the one before and what it makes of the crowd.

A method is a small frozen object with `init` and `step`; the loop (`mfglib.exact.equilibrium`) names none. One's own
is any object with these two (`Method`). Which converges where: docs/howto/exact.md.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from mfglib.checks import number
from mfglib.exact.corrective import Corrective
from mfglib.exact.dynamic_programming import Evaluation, expected_rewards, grid_evaluate
from mfglib.exact.grid import Grid
from mfglib.exact.responses import backward, best_response, mixed
from mfglib.exact.tables import TablePolicy
from mfglib.populations import CellPopulation
from mfglib.schedules import Averaging, Steps


@runtime_checkable
class Method(Protocol):
    """What `grid_fictitious_play` and `grid_equilibrium` run."""

    def init(self, grid: Grid, start: TablePolicy | None, first: float) -> Any:
        """What the first step is given as `memory`. `start`: the policy of iteration 0 if one was given, else None, and
        nobody acts; `first`: the exploitability of never acting, the scale of temperatures."""

    def step(self, grid: Grid, memory: Any, k: int, policy: TablePolicy, play: Evaluation) -> tuple[TablePolicy, Any]:
        """Policy k >= 1 and the next memory, from `policy`, that of iteration k − 1, and `play`, what it does: its
        population and its value."""


@dataclass(frozen=True)
class FictitiousPlay:
    """A step η_k from the average policy towards the best response to its population.

    Raises ValueError for bad arguments.
    """

    averaging: str | Averaging = "uniform"
    """η_k = 1/k; "linear": 2/(k+1), "geometric": 1/2 but for η_1 = 1; or an object with `weights(k)`"""
    temperature: float | None = 0.0
    """τ >= 0, in units of reward: best responses to rewards −(τ/k) log(π(a|x) · number of actions) on top of the
    game's; None for 0.01 of the first exploitability (decision X1)"""

    def __post_init__(self) -> None:
        if not hasattr(self.averaging, "weights"):
            Steps(self.averaging)
        if self.temperature is not None:
            number("temperature", self.temperature)

    def init(self, grid: Grid, start: TablePolicy | None, first: float) -> float:
        """The temperature."""
        return 0.01 * first if self.temperature is None else float(self.temperature)

    def step(
        self, grid: Grid, memory: float, k: int, policy: TablePolicy, play: Evaluation
    ) -> tuple[TablePolicy, float]:
        new = best_response(grid, play.population, memory / k)
        there = grid_evaluate(grid, new, play.population).population.mass
        averaging = Steps(self.averaging) if isinstance(self.averaging, str) else self.averaging
        eta = float(averaging.weights(k)[-1])
        return mixed(policy, play.population.mass, new, there, eta), memory


@dataclass(frozen=True)
class Search:
    """Fictitious play with a step after which the best response would gain nothing any more, by a secant, between
    1/(2k) and 1: about 1/k where agents avoid each other, near 1 where they follow each other."""

    refines = True
    """`grid_equilibrium` goes from coarse grids to fine ones"""

    def init(self, grid: Grid, start: TablePolicy | None, first: float) -> None: ...

    def step(self, grid: Grid, memory: None, k: int, policy: TablePolicy, play: Evaluation) -> tuple[TablePolicy, None]:
        new = best_response(grid, play.population)
        played = grid_evaluate(grid, new, play.population)
        eta = self._searched(grid, policy, play, new, played, k) if k > 1 else 1.0
        return mixed(policy, play.population.mass, new, played.population.mass, eta), None

    def _searched(
        self, grid: Grid, policy: TablePolicy, old: Evaluation, new: TablePolicy, played: Evaluation, k: int
    ) -> float:
        """Only rewards are asked again, not moves."""
        before, after = old.population.mass, played.population.mass
        gain, trial = played.value - old.value, 2 / k
        acted = old.population.actions
        if acted is not None:
            acted = torch.lerp(acted, played.population.actions, trial)
        crowd = CellPopulation(grid, before + trial * (after - before), actions=acted)
        its, own = expected_rewards(grid, [new, policy], [after, before], crowd)
        left = its - own
        return min(max(trial * gain / (gain - left), 1 / (2 * k)), 1.0) if left < gain else 1.0


@dataclass(frozen=True)
class FixedPoint:
    """The damped fixed point: the same step 1 − `damping` towards the best response at every iteration; without
    damping, the best response itself."""

    damping: float = 0.5
    """in [0, 1)"""

    def __post_init__(self) -> None:
        if number("damping", self.damping) >= 1:
            raise ValueError(f"damping: expected a number in [0, 1), got {self.damping!r}")

    def init(self, grid: Grid, start: TablePolicy | None, first: float) -> None: ...

    def step(self, grid: Grid, memory: None, k: int, policy: TablePolicy, play: Evaluation) -> tuple[TablePolicy, None]:
        new = best_response(grid, play.population)
        there = grid_evaluate(grid, new, play.population).population.mass
        return mixed(policy, play.population.mass, new, there, 1 - self.damping), None


@dataclass(frozen=True)
class MirrorDescent:
    """π_k ∝ exp L_k, L_k = L_{k−1} + Q_k / τ_k, with Q_k of policy k − 1 against its population (Perolat et al., arXiv
    2103.00623), and τ_k such that L_k = Σ_i Q_i / (τ √i).

    With `momentum`, Nesterov's (1983): L_k = L_{k−1} + β_k (L_{k−1} − L_{k−2}) + Q_k / τ_t, β_k = (k − 1)/(k + 2), and
    τ_t = τ (T − t)/T, since less is at stake the later it is. Without a policy to start from, Q_1 is that of uniform
    actions against those who never act; from one, L_0 = log of it, with `mixing` of uniform actions.

    Raises ValueError for bad arguments.
    """

    momentum: bool = False
    temperature: float | None = None
    """τ > 0, in units of reward; None for `share` of the first exploitability"""
    share: float | None = None
    """None for 0.04, with momentum 0.083 (decision X1)"""
    mixing: float = 0.01
    """so that a policy to start from excludes no action for good; in (0, 1] (decision X4)"""

    def __post_init__(self) -> None:
        for name in ("temperature", "share"):
            if getattr(self, name) is not None:
                number(name, getattr(self, name), positive=True)
        number("mixing", self.mixing, positive=True, at_most=1)

    def init(self, grid: Grid, start: TablePolicy | None, first: float) -> tuple[Tensor, Tensor, Tensor, float]:
        """L_0, L_{−1}, the probabilities of which Q_1 is, and τ."""
        share = self.share or (0.083 if self.momentum else 0.04)
        tau = share * first if self.temperature is None else float(self.temperature)
        if start is None:
            total = torch.zeros(grid.game.horizon, len(grid.x), len(grid.actions), dtype=torch.float64)
            return total, total, total.softmax(2), max(tau, 1e-12)
        total = torch.lerp(start.shares, torch.full_like(start.shares, 1 / len(grid.actions)), self.mixing).log()
        return total, total, start.shares, max(tau, 1e-12)

    def step(
        self, grid: Grid, memory: tuple[Tensor, Tensor, Tensor, float], k: int, policy: TablePolicy, play: Evaluation
    ) -> tuple[TablePolicy, tuple[Tensor, Tensor, Tensor, float]]:
        total, before, shares, temperature = memory
        T = grid.game.horizon
        beta = (k - 1) / (k + 2) if self.momentum else 0.0
        new = torch.lerp(before, total, 1 + beta)

        def evaluate(t: int, q: Tensor) -> Tensor:
            tau = temperature * ((T - t) / T if self.momentum else math.sqrt(k))
            new[t] += (q - q.amax(1, keepdim=True)) / tau
            return (shares[t] * q).sum(1)

        backward(grid, play.population, evaluate)
        following = TablePolicy.on_lattice(grid, new.softmax(2))
        return following, (new, total, following.shares, temperature)


METHODS = {
    "uniform": FictitiousPlay(),
    "linear": FictitiousPlay("linear"),
    "search": Search(),
    "corrective": Corrective(),
    "smoothed": FictitiousPlay(temperature=None),
    "mirror descent": MirrorDescent(),
    "momentum": MirrorDescent(momentum=True),
    "damped fixed point": FixedPoint(),
}


def method_of(method: str | Method, temperature: float | None = None) -> Method:
    """A method by its name, with a temperature where it has one, or an object as it is; ValueError for anything
    else."""
    if not isinstance(method, str):
        if not isinstance(method, Method) or isinstance(method, type):
            raise ValueError(
                f"method: expected one of {tuple(METHODS)} or an object with init and step, got {method!r}"
            )
        if temperature is not None:
            raise ValueError(f"temperature: expected None for a method that is an object, got {temperature!r}")
        return method
    if method not in METHODS:
        raise ValueError(f"method: expected one of {tuple(METHODS)}, got {method!r}")
    found = METHODS[method]
    if temperature is None:
        return found
    number("temperature", temperature, positive=True)
    if getattr(found, "temperature", 0.0) is not None:
        raise ValueError(f"temperature: expected None for method {method!r}, got {temperature!r}")
    return replace(found, temperature=temperature)
