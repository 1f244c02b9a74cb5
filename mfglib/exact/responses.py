"""What exact methods on a grid are made of: dynamic programming on its lattice of actions, best responses, averages."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mfglib.exact.grid import Grid
from mfglib.exact.lattice import last_reward, lattice_values, still_action
from mfglib.exact.tables import TablePolicy
from mfglib.populations import CellPopulation


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


def best_response(grid: Grid, population: CellPopulation, temperature: float = 0.0) -> TablePolicy:
    """The best response on the lattice of actions; to rewards −τ log(π(a|x) · number of actions) on top of the game's
    if τ = `temperature` > 0."""
    tau = temperature
    response = torch.zeros(grid.game.horizon, len(grid.x), len(grid.actions), dtype=torch.float64)

    def choose(t: int, q: Tensor) -> Tensor:
        if tau == 0:
            V, best = q.max(1)
            response[t].scatter_(1, best[:, None], 1.0)
            return V
        response[t] = (q / tau).softmax(1)
        return tau * ((q / tau).logsumexp(1) - math.log(q.shape[1]))

    backward(grid, population, choose)
    return TablePolicy.on_lattice(grid, response)


def mixed(old: TablePolicy, here: Tensor, new: TablePolicy, there: Tensor, step: float) -> TablePolicy:
    """The average in occupancy: (1 − step) of the agents follow `old`, and are `here`: (T+1, m), the others `new`, and
    are `there`. In each cell policies weigh by the mass that they bring there; where nobody is, it is the latter."""
    kept, others = (1 - step) * here[:-1], step * there[:-1]
    total = kept + others
    share = torch.where(total > 0, others / total, 1.0)[..., None]
    return TablePolicy.on_lattice(new.grid, torch.lerp(old.shares, new.shares, share))
