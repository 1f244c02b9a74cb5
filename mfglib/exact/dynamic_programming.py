"""Ground truth on grids: best responses by dynamic programming, populations by push-forward, equilibria.

Both sides use the tables of `mfglib.exact.grid`: a best response is optimal for the same moves by which the population
is pushed forward, so that the gap between them is never negative but for the refinement of the maximum (1e-6).
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mfglib.exact.grid import Grid
from mfglib.exact.lattice import action_values, by_rows, last_reward, lattice_values, tables_of
from mfglib.exact.tables import TablePolicy
from mfglib.games.base import clip, uses_actions
from mfglib.policies import sampler
from mfglib.populations import CellPopulation
from mfglib.protocols import Policy, Population
from mfglib.seeds import generator

SAMPLES = {1: 128, 2: 16}  # actions drawn to integrate a policy at each time, times the number of cells
MAX_ROWS = 1_000_000  # rows (cells times draws in the fullest cell) in memory at a time


@dataclass(frozen=True)
class GridBestResponse:
    """max_π J_μ(π) on the grid: `value`, V (T+1, m) at the centres, and the optimal policy."""

    value: float
    V: Tensor
    policy: TablePolicy

    @property
    def actions(self) -> Tensor:
        """The optimal actions (T, m, k)."""
        return self.policy.actions[:, :, 0]


@dataclass(frozen=True)
class Evaluation:
    """What a policy does: the population μ^π that it makes, and J(π, μ) against the population it was judged by."""

    population: CellPopulation
    value: float


def grid_best_response(grid: Grid, population: Population) -> GridBestResponse:
    """The exact best response to `population` by backward dynamic programming.

    Each cell's best action is found on the lattice of actions, then on two lattices around it, 4 and 16 times finer.
    """
    population = CellPopulation.of(grid, population, grid.game.horizon)
    T, m, k = grid.game.horizon, len(grid.x), grid.game.action_dim
    bound = grid.actions.amax(0)
    spacing = 2 * bound / (round(len(grid.actions) ** (1 / k)) - 1)
    around = torch.cartesian_prod(*[torch.arange(-3, 4, dtype=torch.float64)] * k).view(-1, k)
    V = torch.empty(T + 1, m, dtype=torch.float64)
    best = torch.empty(T, m, k, dtype=torch.float64)
    V[T] = last_reward(grid, population)
    for t in reversed(range(T)):
        ahead = grid.expected(V[t + 1])  # after the move, (m,)
        V[t], index = lattice_values(grid, t, population, ahead).max(1)
        best[t] = grid.actions[index]
        for finer in (4, 16):
            a = (best[t][:, None] + around * (spacing / finer)).clamp(-bound, bound)
            value, index = action_values(grid, t, a, population, ahead).max(1)
            better = value > V[t]
            best[t][better] = a[torch.arange(m), index][better]
            V[t] = torch.maximum(V[t], value)
    policy = TablePolicy(grid, best[:, :, None], torch.ones(T, m, 1))
    return GridBestResponse(float(grid.initial @ V[0]), V, policy)


# t, the mass (m,) of those who act -> actions (m, S, k) in each cell and their shares (m, S)
Actions = Callable[[int, Tensor], tuple[Tensor, Tensor]]


def actions_of(grid: Grid, policy: Policy, samples: float | None = None, seed: int = 0) -> Actions:
    """A policy as weighted actions in each cell: exact for tables of this grid, else drawn.

    `samples` times m draws at each time, shared out by mass, at least one a cell: while the population is in a few
    cells, the same number in each would leave most of it to a few draws."""
    m = len(grid.x)
    if isinstance(policy, TablePolicy) and policy.grid.key == grid.key:
        return lambda t, mass: policy.at(t)
    S = samples or SAMPLES[grid.state_dim]
    act = sampler(policy, generator(seed, "actions on a grid"))
    x = grid.x.float()

    def draw(t: int, mass: Tensor) -> tuple[Tensor, Tensor]:
        counts = (S * m * mass / mass.sum().clamp_min(1e-300)).round().clamp(1, max(math.ceil(S), MAX_ROWS // m)).long()
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


def grid_evaluate(
    grid: Grid, policy: Any, population: Population | None = None, *, samples: float | None = None, seed: int = 0
) -> Evaluation:
    """Push μ_0 forward under `policy` and add up J(π, μ), with μ the given population, or μ^π itself if None.

    A policy with `policies` and `weights` is a mixture drawn once per episode; the mass of each component is pushed
    forward separately.
    """
    T, m = grid.game.horizon, len(grid.x)
    policies, weights = getattr(policy, "policies", [policy]), getattr(policy, "weights", [1.0])
    # What each part draws at random averages out over the parts: together they draw as often as one policy would.
    samples = (samples or SAMPLES[grid.state_dim]) / len(policies)
    parts = [_part(grid, p, samples, seed + i) for i, p in enumerate(policies)]
    acted = torch.zeros(T, grid.game.action_dim, dtype=torch.float64) if uses_actions(grid.game) else None
    own = CellPopulation(grid, torch.zeros(T + 1, m, dtype=torch.float64), actions=acted)
    judge = own if population is None else CellPopulation.of(grid, population, grid.game.horizon)
    mass = [float(w) * grid.initial for w in weights]
    value = 0.0
    for t in range(T):
        own.mass[t] = sum(mass)
        played = _played(grid, t, parts, mass, judge, acted)
        value += sum(earned for earned, _ in played)
        mass = [grid.push(moved) for _, moved in played]
    own.mass[T] = sum(mass)
    return Evaluation(own, value + _earned(own.mass[T], last_reward(grid, judge)))


def expected_rewards(
    grid: Grid, policies: list[TablePolicy], masses: list[Tensor], population: CellPopulation
) -> list[float]:
    """Σ_t of what agents with masses (T+1, m) who follow each of the policies earn in another population."""
    parts, last = [_part(grid, p) for p in policies], last_reward(grid, population)
    totals = [_earned(mass[-1], last) for mass in masses]
    for t in range(grid.game.horizon):
        played = _played(grid, t, parts, [mass[t] for mass in masses], population)
        totals = [total + earned for total, (earned, _) in zip(totals, played, strict=True)]
    return totals


# t, the mass (m,) of those who act, what draws their actions (m, S, k) and shares (m, S), the population by which
# rewards are judged, and what `LatticeTables.crowd` says of it, once it is asked -> what they earn, and the mass (m,)
# that they make before the noise
Play = Callable[[int, Tensor, Callable, CellPopulation, Callable[[], Tensor | None]], tuple[float, Tensor]]


@dataclass(frozen=True)
class Part:
    """Those who follow one policy."""

    act: Actions
    play: Play


def _played(
    grid: Grid, t: int, parts: list[Part], mass: list[Tensor], judge: CellPopulation, acted: Tensor | None = None
) -> Any:
    """What each part returns of its own mass (m,) at t. Their mean action, which they may be asked for, goes into row t
    of `acted`."""
    crowd = functools.cache(lambda: tables_of(grid).crowd(t, judge))
    drawn = [functools.cache(functools.partial(part.act, t, mu)) for part, mu in zip(parts, mass, strict=True)]
    if acted is not None:
        for mu, actions in zip(mass, drawn, strict=True):
            a, shares = actions()
            acted[t] += torch.einsum("m,ms,msk->k", mu, shares, clip(a, grid.game.a_bound).expand(*shares.shape, -1))
    return [part.play(t, mu, actions, judge, crowd) for part, mu, actions in zip(parts, mass, drawn, strict=True)]


def _part(grid: Grid, policy: Policy, samples: float | None = None, seed: int = 0) -> Part:
    """What those who follow a policy do and earn, and where they go."""
    act = actions_of(grid, policy, samples, seed)
    on_lattice = isinstance(policy, TablePolicy) and policy.on_lattice_of(grid)
    tables = tables_of(grid) if on_lattice else None

    def play(t: int, mass: Tensor, drawn: Callable, judge: CellPopulation, asked: Callable) -> tuple[float, Tensor]:
        if tables is not None and (crowd := asked()) is not None:
            flow = mass[:, None] * policy.shares[t]
            return _earned(mass, crowd) + torch.dot(flow.view(-1), tables.c[t].view(-1)).item(), tables.moved(t, flow)
        a, shares = drawn()
        flow, earned, moved = mass[:, None] * shares, 0.0, torch.zeros_like(mass)  # (m, S)
        for rows, reward, move in by_rows(grid, t, a, judge):
            earned += _earned(flow[rows], reward)
            moved += grid.scatter(flow[rows], move, rows)
        return earned, moved

    return Part(act, play)


def _earned(mass: Tensor, reward: Tensor) -> float:
    """What mass earns; a reward that nobody gets may be infinite."""
    return torch.where(mass > 0, mass * reward, 0.0).sum().item()
