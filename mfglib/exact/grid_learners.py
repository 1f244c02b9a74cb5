"""Exact learners on a grid, for `mfglib.fictitious_play`: best responses, averages in occupancy, push-forward."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mfglib.exact.dynamic_programming import Evaluation, expected_rewards, grid_evaluate
from mfglib.exact.grid import Grid
from mfglib.exact.lattice import last_reward, lattice_values, still_action
from mfglib.exact.tables import TablePolicy
from mfglib.policies import Policy
from mfglib.populations import CellPopulation
from mfglib.protocols import TensorState
from mfglib.schedules import Averaging
from mfglib.seeds import Random


def backward(grid: Grid, population: CellPopulation, choose: Callable[[int, Tensor], Tensor]) -> float:
    """Dynamic programming: at t = T−1, ..., 0, V_t (m,) = choose(t, Q_t (m, A)). Returns E V_0(x_0)."""
    V = last_reward(grid, population)
    for t in reversed(range(grid.game.horizon)):
        V = choose(t, lattice_values(grid, t, population, grid.expected(V)))
    return float(grid.initial @ V)


def still(grid: Grid) -> TablePolicy:
    """The policy that never acts, on the lattice of actions."""
    probabilities = torch.zeros(grid.game.horizon, len(grid.x), len(grid.actions), dtype=torch.float64)
    probabilities[..., still_action(grid)] = 1
    return TablePolicy.on_lattice(grid, probabilities)


class GridResponse(TensorState):
    """Best responses on the lattice of actions; to rewards −(τ/k) log(π(a|x) · number of actions) on top of the game's
    if τ = `temperature` > 0."""

    def __init__(self, grid: Grid, temperature: float = 0.0) -> None:
        self.grid, self.temperature, self.policy = grid, temperature, still(grid)

    def fit(self, population: CellPopulation, k: int, random: Random) -> dict[str, float]:
        tau, response = self.temperature / k, torch.zeros_like(self.policy.shares)

        def choose(t: int, q: Tensor) -> Tensor:
            if tau == 0:
                V, best = q.max(1)
                response[t].scatter_(1, best[:, None], 1.0)
                return V
            response[t] = (q / tau).softmax(1)
            return tau * ((q / tau).logsumexp(1) - math.log(q.shape[1]))

        backward(self.grid, population, choose)
        self.policy = TablePolicy.on_lattice(self.grid, response)
        return {}


class MirrorResponse(TensorState):
    """Mirror descent: π_k ∝ exp Σ_k Q_k / (τ √k), with Q_k of the policy before (Perolat et al., arXiv 2103.00623).

    With `momentum`, Nesterov's (1983), π_k ∝ exp L_k, where L_k = L_{k−1} + β_k (L_{k−1} − L_{k−2}) + Q_k / τ_t,
    β_k = (k − 1)/(k + 2), and τ_t = τ (T − t)/T, since less is at stake the later it is.
    """

    def __init__(self, grid: Grid, temperature: float, momentum: bool = False) -> None:
        self.grid, self.temperature, self.momentum = grid, max(temperature, 1e-12), momentum
        self.total = self.before = torch.zeros_like(still(grid).shares)
        self.policy = TablePolicy.on_lattice(grid, self.total.softmax(2))

    def fit(self, population: CellPopulation, k: int, random: Random) -> dict[str, float]:
        T, shares = self.grid.game.horizon, self.policy.shares
        beta = (k - 1) / (k + 2) if self.momentum else 0.0
        new = torch.lerp(self.before, self.total, 1 + beta)

        def evaluate(t: int, q: Tensor) -> Tensor:
            tau = self.temperature * ((T - t) / T if self.momentum else math.sqrt(k))
            new[t] += (q - q.amax(1, keepdim=True)) / tau
            return (shares[t] * q).sum(1)

        backward(self.grid, population, evaluate)
        self.before, self.total = self.total, new
        self.policy = TablePolicy.on_lattice(self.grid, new.softmax(2))
        return {}


class LastResponse(TensorState):
    """No average: the last response, and before the first one `policy`."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def update(self, response: GridResponse, population: CellPopulation, k: int, random: Random) -> dict[str, float]:
        self.policy = response.policy
        return {}


class OccupancyAverage(TensorState):
    """The average in occupancy: in each cell, best responses weigh by the mass that they bring there.

    Args:
        schedule: steps η_k of the average towards the k-th best response; None searches each of them.
        policy: the average before the first best response.
    """

    def __init__(self, policy: TablePolicy, schedule: Averaging | None) -> None:
        self.policy, self.schedule = policy, schedule

    def update(self, response: GridResponse, population: "OwnCrowd", k: int, random: Random) -> dict[str, float]:
        grid, old, new = self.policy.grid, population.evaluation, response.policy
        played = grid_evaluate(grid, new, old.population)
        step = 1 / k if self.schedule is None else float(self.schedule.steps(k)[-1])
        if self.schedule is None and k > 1:
            step = self._searched(old, new, played, k)
        # (1 − step) of the agents follow the average, the rest the best response; where nobody is, the latter.
        here, others = (1 - step) * old.population.mass[:-1], step * played.population.mass[:-1]
        total = here + others
        share = torch.where(total > 0, others / total, 1.0)[..., None]
        self.policy = TablePolicy.on_lattice(grid, torch.lerp(self.policy.shares, new.shares, share))
        return {}

    def _searched(self, old: Evaluation, new: TablePolicy, played: Evaluation, k: int) -> float:
        """The step after which the response would gain nothing any more, by a secant; between 1/(2k) and 1.

        Where agents avoid each other this is about 1/k. Where they follow each other it is near 1, and 1/k would take
        for ever. Only rewards are asked again, not moves.
        """
        before, after, grid = old.population.mass, played.population.mass, self.policy.grid
        gain, trial = played.value - old.value, 2 / k
        acted = old.population.actions
        if acted is not None:
            acted = torch.lerp(acted, played.population.actions, trial)
        crowd = CellPopulation(grid, before + trial * (after - before), actions=acted)
        its, own = expected_rewards(grid, [new, self.policy], [after, before], crowd)
        left = its - own
        return min(max(trial * gain / (gain - left), 1 / (2 * k)), 1.0) if left < gain else 1.0


class OwnCrowd(TensorState, CellPopulation):
    """The population that a policy makes, pushed forward, also where the population moves its agents; `evaluation` is
    what grid_evaluate says of it."""

    def __init__(self, grid: Grid) -> None:
        super().__init__(grid, grid.initial[None])

    def fit(self, policy: Policy, k: int, random: Random) -> dict[str, float]:
        self.evaluation = grid_evaluate(self.grid, policy)
        own = self.evaluation.population
        super().__init__(self.grid, own.mass, actions=own.actions)
        return {}
