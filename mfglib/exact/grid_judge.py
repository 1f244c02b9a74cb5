"""Exact numbers of any policies against any populations, for the error terms of `deda_fp.theory.errors`.

A policy is tabulated once: in each cell of a grid, some actions and their shares. From then on everything about it is
linear algebra, without sampling: two quantities that theory calls equal are equal to rounding.
"""

import inspect
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from mfglib.checks import integer
from mfglib.exact.tables import TablePolicy
from mfglib.exact.dynamic_programming import grid_best_response, grid_evaluate
from mfglib.exact.grid import Grid, grid_of
from mfglib.populations import CellPopulation
from mfglib.exact.lq import LQBestResponse, lq_best_response, lq_equilibrium, require_unbounded
from mfglib.games import BeachBar, LinearQuadratic
from mfglib.judge import require_certifiable
from mfglib.learn.densities import GaussianPolicy, MixturePolicy
from mfglib.policies import AffinePolicy, MeanPolicy, NoisePolicy, EpisodeMixture, sampler
from mfglib.protocols import Game, Policy, Population
from mfglib.seeds import generator

QUANTILES = 32  # atoms that stand for a Gaussian or a mixture of them
DRAWS = 64  # of a policy whose law is not explicit
TAIL = 5.5  # standard deviations between a population and the box around an unbounded game


class Judge:
    """J, best responses and populations of a bounded game of one state coordinate and one action, on its grid.

    Policies are given as tables (`tabulate`) of this judge's `grid`; a list of them is the average that draws one of
    them once an episode, all with the same weight. Populations are `CellPopulation`s of the same grid (`seen`).
    """

    def __init__(self, game: Game, cells: int = 100) -> None:
        require_certifiable(game)
        if game.state_dim != 1 or game.action_dim != 1:
            raise ValueError(f"game: expected one state coordinate and one action, got {game!r}")
        self.game = game
        self.grid = self._grid(integer("cells", cells, at_least=10))
        self._replies: WeakKeyDictionary = WeakKeyDictionary()  # each population's best response is asked for often

    def _grid(self, cells: int) -> Grid:
        return grid_of(self.game, cells)

    def tabulate(self, policy: Policy, seed: int = 0) -> TablePolicy:
        """The policy in each cell: by quantiles where its law is explicit, else by draws."""
        x, random = self.grid.x.float(), generator(seed, "table")
        actions = torch.stack([_atoms(policy, t, x, random) for t in range(self.game.horizon)]).double()[..., None]
        return TablePolicy(self.grid, actions, torch.full(actions.shape[:3], 1 / actions.shape[2]))

    def seen(self, population: Population) -> CellPopulation:
        """Any population, by its density in the cells and its own mean."""
        return CellPopulation.of(self.grid, population)

    def crowd(self, policies: list[TablePolicy]) -> CellPopulation:
        """The population of agents who draw one of the policies once an episode."""
        return grid_evaluate(self.grid, EpisodeMixture(policies)).population

    def mass(self, policy: TablePolicy, population: CellPopulation) -> Tensor:
        """Where one agent is who follows `policy` in `population`: (T+1, m)."""
        return grid_evaluate(self.grid, policy, population).population.mass

    def best(self, population: CellPopulation) -> TablePolicy:
        """The exact best response."""
        return self._reply(population)[0]

    def best_value(self, population: CellPopulation) -> float:
        """max_π J(π, μ)."""
        return self._reply(population)[1]

    def value(self, policy: TablePolicy | list[TablePolicy], population: CellPopulation) -> float:
        """J(π, μ)."""
        return grid_evaluate(self.grid, EpisodeMixture(_listed(policy)), population).value

    def gap(self, policy: TablePolicy | list[TablePolicy], population: CellPopulation) -> float:
        """γ(π; μ) = max_π' J(π', μ) − J(π, μ): never negative, but for the refinement of the maximum (1e-6)."""
        return self.best_value(population) - self.value(policy, population)

    def _reply(self, population: CellPopulation) -> tuple[TablePolicy, float]:
        if population not in self._replies:
            self._replies[population] = self._solve(population)
        return self._replies[population]

    def _solve(self, population: CellPopulation) -> tuple[TablePolicy, float]:
        found = grid_best_response(self.grid, population)
        actions = found.actions[:, :, None]
        return TablePolicy(self.grid, actions, torch.ones(actions.shape[:3])), found.value

    def wasserstein(self, one: CellPopulation, other: CellPopulation) -> float:
        """d(μ, ν) = max_t W1(μ_t, ν_t), from the distribution functions at the cells' ends."""
        cdf, other_cdf = (p.mass.cumsum(1) / p.mass.sum(1, keepdim=True) for p in (one, other))
        return ((cdf - other_cdf).abs().sum(1) * self.grid.h[0]).max().item()

    def span(self, one: CellPopulation, other: CellPopulation) -> float:
        """Λ(μ, ν) = max_π ΔJ(π) − min_π ΔJ(π), ΔJ(π) = J(π, μ) − J(π, ν): what two agents can at most disagree about
        when the crowd changes from ν to μ. By dynamic programming, for the beach bar, where moves do not depend on the
        population, nor rewards' dependence on it on the action. NaN for other games.
        """
        if not isinstance(self.game, BeachBar):
            return float("nan")
        still = torch.zeros(len(self.grid.x), 1, dtype=torch.float64)
        moves, times = self.grid.actions.expand(len(self.grid.x), -1, -1), range(self.game.horizon + 1)
        x = self.grid.x
        change = [self.game.reward(t, x, still, one) - self.game.reward(t, x, still, other) for t in times]
        high = low = change[-1]
        for t in reversed(times[:-1]):
            high = change[t] + self.grid.gather(self.grid.expected(high), moves).amax(1)
            low = change[t] + self.grid.gather(self.grid.expected(low), moves).amin(1)
        return float(self.grid.initial @ (high - low))

    def contraction(self, policy: TablePolicy) -> float:
        """Of LQ games only: NaN."""
        return float("nan")


class LQJudge(Judge):
    """The same for the unbounded LQ game: best responses by Riccati, gaps by the exact advantage
    γ(π; μ) = E_{π,μ} Σ_t D_t |a_t − K_t x_t − k_t(μ)|², a sum of squares. Only the states' distribution is on a grid,
    of a box around the game so wide that nobody gets to its ends.
    """

    def __init__(self, game: LinearQuadratic, cells: int = 600) -> None:
        require_unbounded(game)
        super().__init__(game, cells)

    def _grid(self, cells: int) -> Grid:
        eq = lq_equilibrium(self.game)
        width = (eq.mean.abs() + TAIL * eq.cov.diagonal(dim1=1, dim2=2).sqrt()).max().item()
        own = {name: getattr(self.game, name) for name in inspect.signature(LinearQuadratic).parameters}
        far = 1.5 * (eq.K.abs() * width + eq.k.abs()[..., None]).max().item()
        return Grid(LinearQuadratic(**own | dict(x_bound=width, a_bound=far)), cells)

    def _solve(self, population: CellPopulation) -> tuple[TablePolicy, float]:
        reply = self.reply(population)
        return self.tabulate(reply.policy), reply.value

    def reply(self, population: CellPopulation) -> LQBestResponse:
        """The best response to the mean path of a population."""
        return lq_best_response(self.game, _path(population))

    def value(self, policy: TablePolicy | list[TablePolicy], population: CellPopulation) -> float:
        return self.best_value(population) - self.gap(policy, population)

    def gap(self, policy: TablePolicy | list[TablePolicy], population: CellPopulation) -> float:
        policies, reply, x = _listed(policy), self.reply(population), self.grid.x
        wanted = torch.from_numpy(reply.K) @ x.T + torch.from_numpy(reply.k)[..., None]  # (T, 1, m)
        price, total = torch.from_numpy(reply.D)[:, 0, 0], 0.0
        for p in policies:
            off = ((p.actions[..., 0] - wanted[:, 0, :, None]).square() * p.shares).sum(2)  # (T, m)
            total += (price @ (self.mass(p, population)[:-1] * off).sum(1)).item()
        return total / len(policies)

    def contraction(self, policy: TablePolicy) -> float:
        """κ: the largest W1 between where agents in neighbouring cells go, before the noise, over their distance."""
        A, B = float(self.game.A.item()), float(self.game.B.item())
        after = (A * self.grid.x[:, None, 0] + B * policy.actions[..., 0]).sort(2).values  # (T, m, S), equally likely
        return float((after.diff(dim=1).abs().mean(2) / self.grid.h[0]).max())


def judge_of(game: Game, cells: int | None = None) -> Judge:
    """The judge of an unbounded LQ game or of a bounded game; raises as `mfglib.judge`, and ValueError for
    more than one dimension."""
    kind = LQJudge if isinstance(game, LinearQuadratic) and not game.bounded else Judge
    return kind(game) if cells is None else kind(game, cells)


def _listed(policy: TablePolicy | list[TablePolicy]) -> list[TablePolicy]:
    return policy if isinstance(policy, list) else [policy]


def _path(population: CellPopulation) -> np.ndarray:
    return torch.stack([population.mean(t) for t in range(len(population.mass))]).double().numpy()


@torch.no_grad()
def _atoms(policy: Policy, t: int, x: Tensor, random: torch.Generator) -> Tensor:
    """Equally likely actions (m, S) in the states x: (m, 1)."""
    if isinstance(policy, MeanPolicy) or (isinstance(policy, AffinePolicy) and not policy.std.any()):
        return policy.mean(t, x)
    z = torch.special.ndtri((torch.arange(QUANTILES, dtype=torch.float64) + 0.5) / QUANTILES)
    z = (z / z.square().mean().sqrt()).float()  # midpoints alone lose 3% of the variance, and of an LQ gap
    if isinstance(policy, NoisePolicy):
        return (policy.std * z).expand(len(x), -1)
    if isinstance(policy, GaussianPolicy):
        mean, std = policy(t, x)
        return mean + std * z
    if isinstance(policy, MixturePolicy):
        return _mixture_quantiles(*policy(t, x))
    return sampler(policy, random)(t, x.repeat_interleave(DRAWS, 0)).view(len(x), DRAWS)


def _mixture_quantiles(log_weight: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Quantiles (m, S) at midpoints of mixtures of J Gaussians: (m, J), (m, J, 1), (m, J, 1), by bisection,
    with the mixtures' own mean and variance."""
    weight, mean, std = log_weight.exp()[:, None], mean.transpose(1, 2), std.transpose(1, 2)  # (m, 1, J)
    u = (torch.arange(QUANTILES) + 0.5) / QUANTILES
    low = (mean - 6 * std).amin(2).expand(-1, QUANTILES).clone()
    high = (mean + 6 * std).amax(2).expand(-1, QUANTILES).clone()
    for _ in range(30):
        middle = (low + high) / 2
        below = (weight * torch.special.ndtr((middle[..., None] - mean) / std)).sum(2) < u
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    atoms, centre = (low + high) / 2, (weight * mean).sum(2)
    spread = ((weight * (std.square() + mean.square())).sum(2) - centre.square()).clamp_min(0).sqrt()
    off = atoms - atoms.mean(1, keepdim=True)
    return centre + off * spread / off.square().mean(1, keepdim=True).sqrt().clamp_min(1e-12)
