"""Ground truth on grids: best responses by dynamic programming, populations by push-forward, equilibria.

Both sides use the table of `mfglib.exact.grid`: a best response is optimal for the same moves by which the population
is pushed forward, so that the gap between them is never negative but for the refinement of the maximum (1e-6).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mfglib.exact.grid import Grid, GridPolicy, GridPopulation
from mfglib.games.base import Population
from mfglib.policy import Policy, sampler
from mfglib.seeds import generator

SAMPLES = {1: 128, 2: 16}  # actions drawn to integrate a policy at each time, times the number of cells
MOST = 1_000_000  # rows (cells times draws in the fullest cell) in memory at a time


@dataclass(frozen=True)
class GridBestResponse:
    """max_π J_μ(π) on the grid: `value`, V (T+1, m) at the centres, and the optimal actions (T, m, k)."""

    value: float
    V: Tensor
    actions: Tensor
    Q: list[Tensor] | None = None


@dataclass(frozen=True)
class Play:
    """What a policy does: the population μ^π that it makes, and J(π, μ) against the population it was judged by."""

    population: GridPopulation
    value: float
    rewards: np.ndarray  # (T+1,): the terms of J


class _AtCells:
    """A grid population asked at states x whose cells are known: no search."""

    def __init__(self, population: GridPopulation, x: Tensor, cell: Tensor) -> None:
        self.population, self.x, self.cell = population, x, cell

    def log_prob(self, t: int, x: Tensor) -> Tensor:
        if x is not self.x:
            return self.population.log_prob(t, x)
        density = self.population.mass[t] / self.population.grid.volume
        return density.log().index_select(0, self.cell)

    def mean(self, t: int) -> Tensor:
        return self.population.mean(t)

    def sample(self, t: int, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.population.sample(t, n, generator)


def _reward_and_move(grid: Grid, t: int, a: Tensor, population: GridPopulation) -> tuple[Tensor, Tensor]:
    """Rewards (m, S) and displacements (m, S, d) of S actions a: (m, S, k) in each cell.

    Raises ValueError for NaN rewards, as of a game that asks for the density of a population that only knows its mean.
    """
    m, S, k = a.shape
    cell = torch.arange(m).repeat_interleave(S)
    x = grid.x.index_select(0, cell)
    asked = _AtCells(population, x, cell)
    reward = grid.game.reward(t, x, a.reshape(-1, k), asked).view(m, S)
    if reward.isnan().any():
        raise ValueError(f"population: expected one with a density at t = {t}, as the rewards need, got NaN rewards")
    if t == grid.game.horizon:
        return reward, reward.new_zeros(m, S, grid.state_dim)
    return reward, grid.game.displacement(t, x, a.reshape(-1, k), asked).view(m, S, -1)


def _last_reward(grid: Grid, population: GridPopulation) -> Tensor:
    none = torch.zeros(len(grid.x), 1, grid.game.action_dim, dtype=torch.float64)
    return _reward_and_move(grid, grid.game.horizon, none, population)[0][:, 0]


def grid_best_response(grid: Grid, population: Population, *, keep_Q: bool = False) -> GridBestResponse:
    """The exact best response to `population` by backward dynamic programming.

    Each cell's best action is found on the lattice of actions, then on two lattices around it, 4 and 16 times finer.
    `keep_Q`: also the values Q (T × (m, A)) of the lattice's actions."""
    population = GridPopulation.of(grid, population)
    T, m, k = grid.game.horizon, len(grid.x), grid.game.action_dim
    bound = grid.actions.amax(0)
    spacing = 2 * bound / (round(len(grid.actions) ** (1 / k)) - 1)
    around = torch.cartesian_prod(*[torch.arange(-3, 4, dtype=torch.float64)] * k).view(-1, k)
    V = torch.empty(T + 1, m, dtype=torch.float64)
    best = torch.empty(T, m, k, dtype=torch.float64)
    V[T], kept = _last_reward(grid, population), []
    for t in reversed(range(T)):
        ahead = grid.expected(V[t + 1])  # (m, L)

        def q(a: Tensor, t: int = t, ahead: Tensor = ahead) -> Tensor:
            reward, move = _reward_and_move(grid, t, a, population)
            return reward + grid.gather(ahead, move)

        value = q(grid.actions.expand(m, -1, -1))  # (m, A)
        kept.append(value if keep_Q else None)
        V[t], index = value.max(1)
        best[t] = grid.actions[index]
        for finer in (4, 16):
            a = (best[t][:, None] + around * (spacing / finer)).clamp(-bound, bound)
            value, index = q(a).max(1)
            better = value > V[t]
            best[t][better] = a[torch.arange(m), index][better]
            V[t] = torch.maximum(V[t], value)
    return GridBestResponse(float(grid.initial @ V[0]), V, best, kept[::-1] if keep_Q else None)


# t, the mass (m,) of those who act -> actions (m, S, k) in each cell and their shares (m, S)
Actions = Callable[[int, Tensor], tuple[Tensor, Tensor]]


def actions_of(grid: Grid, policy: Policy | GridBestResponse, samples: int | None = None, seed: int = 0) -> Actions:
    """A policy as weighted actions in each cell: exact for policies of this grid, else drawn.

    `samples` times m draws at each time, shared out by mass, at least one a cell: while the population is in a few
    cells, the same number in each would leave most of it to a few draws."""
    m = len(grid.x)
    if isinstance(policy, GridBestResponse):
        if policy.actions.shape[1] != m:
            raise ValueError(f"policy: expected a best response on {m} cells, got one on {policy.actions.shape[1]}")
        return lambda t, mass: (policy.actions[t][:, None], torch.ones(m, 1, dtype=torch.float64))
    if isinstance(policy, GridPolicy) and policy.grid is grid:
        return lambda t, mass: (grid.actions.expand(m, -1, -1), policy.probabilities[t].double())
    S = samples or SAMPLES[grid.state_dim]
    act = sampler(policy, generator(seed, "actions on a grid"))
    x = grid.x.float()

    def draw(t: int, mass: Tensor) -> tuple[Tensor, Tensor]:
        counts = (S * m * mass / mass.sum().clamp_min(1e-300)).round().clamp(1, max(S, MOST // m)).long()
        cell = torch.arange(m).repeat_interleave(counts)
        a = act(t, x[cell]).double().cpu()
        if a.shape != (len(cell), grid.game.action_dim):
            expected = (len(cell), grid.game.action_dim)
            raise ValueError(f"policy: expected actions of shape {expected}, got {tuple(a.shape)}")
        drawn = torch.arange(counts.max()) < counts[:, None]  # (m, S)
        actions = torch.zeros(*drawn.shape, grid.game.action_dim, dtype=torch.float64)
        actions[drawn] = a
        return actions, drawn / counts[:, None].double()

    return draw


def grid_play(grid: Grid, policy: Any, population: Population | None = None, **options: Any) -> Play:
    """Push μ_0 forward under `policy` and add up J(π, μ), with μ the given population, or μ^π itself if None.

    A policy with `policies` and `weights` is a mixture drawn once an episode: each part's mass moves on its own.
    """
    T, m = grid.game.horizon, len(grid.x)
    policies, weights = getattr(policy, "policies", [policy]), getattr(policy, "weights", [1.0])
    parts = [actions_of(grid, p, **options) for p in policies]
    own = GridPopulation(grid, torch.zeros(T + 1, m, dtype=torch.float64))
    judge = own if population is None else GridPopulation.of(grid, population)
    mass = [float(w) * grid.initial for w in weights]
    rewards = np.zeros(T + 1)
    for t in range(T):
        own.mass[t] = sum(mass)
        for i, part in enumerate(parts):
            a, shares = part(t, mass[i])
            reward, move = _reward_and_move(grid, t, a, judge)
            flow = mass[i][:, None] * shares  # (m, S)
            rewards[t] += _earned(flow, reward)
            mass[i] = grid.push(grid.scatter(flow, move))
    own.mass[T] = sum(mass)
    rewards[T] = _earned(own.mass[T], _last_reward(grid, judge))
    return Play(own, float(rewards.sum()), rewards)


def _earned(mass: Tensor, reward: Tensor) -> float:
    """What mass earns; a reward that nobody gets may be infinite."""
    return torch.where(mass > 0, mass * reward, 0.0).sum().item()
