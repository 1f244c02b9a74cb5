"""The judge of bounded games: exact numbers of any policies against any populations, on a grid."""

import functools
from types import SimpleNamespace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from mfglib.checks import integer
from mfglib.exact.dynamic_programming import grid_best_response, grid_evaluate
from mfglib.exact.grid import Grid, require_grid_game
from mfglib.exact.tables import TablePolicy
from mfglib.games.beach_bar import BeachBar
from mfglib.games.bounded import BoundedGame
from mfglib.games.linear_quadratic import LinearQuadratic
from mfglib.policies import EpisodeMixture, sampler
from mfglib.populations import CellPopulation
from mfglib.protocols import Exploitability, Game, Policy, Population
from mfglib.seeds import generator

REPEATS = 4  # draws of a policy's actions for a certificate with an error: one is not enough (decision X2)
CERTIFIED = {1: 200, 2: 40}  # cells along the longest side of a certificate
TABULATED = 100  # and of the tables of a policy


class GridJudge:
    """Certificates of a bounded game, and J, best responses and populations of one with one state coordinate and one
    action, as the theory needs them.

    For the latter a policy is tabulated once (`tabulate`): in each cell of `grid`, some actions and their shares. From
    then on everything about it is linear algebra, without sampling: two quantities that theory calls equal are equal to
    rounding. A list of tables is the average that draws one of them once per episode, all with the same weight.
    Populations are `CellPopulation`s of the same grid (`seen`).

    Raises TypeError or ValueError for a game that a grid cannot solve.
    """

    def __init__(self, game: Game, cells: int | None = None) -> None:
        self.require(game)
        self.game, self.cells = game, cells
        self._responses: WeakKeyDictionary = WeakKeyDictionary()  # best responses to populations are asked for often

    @staticmethod
    def meant_for(game: Game) -> bool:
        """Whether games of this kind are judged so: any that no other judge is meant for."""
        return True

    @staticmethod
    def require(game: Game) -> None:
        """Raise TypeError or ValueError, saying what is missing, unless a grid can solve the game."""
        require_grid_game(game)
        for known in (LinearQuadratic, BoundedGame):
            for member in ("initial", "moved", "step"):
                if isinstance(game, known) and getattr(type(game), member) is not getattr(known, member):
                    raise TypeError(
                        f"game: {type(game).__name__} has its own `{member}`, and a grid moves by `start`, "
                        f"`displacement` and `noise`: change those"
                    )

    # --- certificates

    def exploitability(
        self, policy: Policy, *, error: bool = True, seed: int = 0, device: str = "cpu", **_: Any
    ) -> Exploitability:
        """See `mfglib.exploitability`."""
        cells = integer("cells", self._cells(CERTIFIED[self.game.state_dim]), at_least=4)
        grid, method = Grid(self.game, cells), f"exact best response on a grid of {cells} cells a side"
        if not error:
            gap, best, value, mean = _judged(grid, policy, seed, 0, device)
            return Exploitability(gap, best, value, float("nan"), method, mean)
        try:
            if cells % 2:
                raise ValueError(f"got {cells}, an odd number")
            coarse = Grid(self.game, cells // 2)
        except ValueError as reason:
            raise ValueError(
                f"cells: expected a number with a grid of half of it, for the error; pass another or error=False: "
                f"{reason}"
            ) from reason
        draws = _judged_often(grid, policy, seed, device)
        gap, best, value, mean = (np.mean(part, axis=0) for part in zip(*draws, strict=True))
        noise = np.std([d[0] for d in draws], ddof=1) / np.sqrt(len(draws))
        refined = gap - np.mean([d[0] for d in _judged_often(coarse, policy, seed + 1, device)])
        bar = float(np.hypot(noise, refined / 3))  # second order: halving the cells quarters the error
        method += "; error from half of them and repeated draws"
        return Exploitability(float(gap), float(best), float(value), bar, method, mean)

    def best_response_gap(
        self, policy: Policy, population: Population, random: torch.Generator, samples: int | None = None, **_: Any
    ) -> float:
        """See `mfglib.best_response_gap`."""
        grid = Grid(self.game, self._cells(CERTIFIED[self.game.state_dim]))
        crowd = CellPopulation.of(grid, population, self.game.horizon)
        value = grid_evaluate(grid, _players(policy, random), crowd, samples=samples).value
        return max(grid_best_response(grid, crowd).value - value, 0.0)

    def _cells(self, default: int) -> int:
        return default if self.cells is None else self.cells

    # --- tables, for the theory

    @functools.cached_property
    def grid(self) -> Grid:
        """Of the tables; ValueError for more than one state coordinate or action."""
        if self.game.state_dim != 1 or self.game.action_dim != 1:
            raise ValueError(f"game: expected one state coordinate and one action, got {self.game!r}")
        return Grid(self.game, integer("cells", self._cells(TABULATED), at_least=10))

    def tabulate(self, policy: Policy, seed: int = 0) -> TablePolicy:
        """The policy in each cell: by quantiles where its law is explicit, else by draws."""
        return TablePolicy.of(self.grid, policy, generator(seed, "table"))

    def seen(self, population: Population) -> CellPopulation:
        """Any population, by its density in the cells and its own mean."""
        return CellPopulation.of(self.grid, population, self.game.horizon)

    def crowd(self, policies: list[TablePolicy]) -> CellPopulation:
        """The population of agents who draw one of the policies once per episode."""
        return grid_evaluate(self.grid, EpisodeMixture(policies)).population

    def mass(self, policy: TablePolicy, population: CellPopulation) -> Tensor:
        """Where one agent is who follows `policy` in `population`: (T+1, m)."""
        return grid_evaluate(self.grid, policy, population).population.mass

    def best(self, population: CellPopulation) -> TablePolicy:
        """The exact best response."""
        return self._response(population)[0]

    def best_value(self, population: CellPopulation) -> float:
        """max_π J(π, μ)."""
        return self._response(population)[1]

    def value(self, policy: TablePolicy | list[TablePolicy], population: CellPopulation) -> float:
        """J(π, μ)."""
        return grid_evaluate(self.grid, EpisodeMixture(listed(policy)), population).value

    def gap(self, policy: TablePolicy | list[TablePolicy], population: CellPopulation) -> float:
        """γ(π; μ) = max_π' J(π', μ) − J(π, μ): never negative, but for the refinement of the maximum (1e-6)."""
        return self.best_value(population) - self.value(policy, population)

    def _response(self, population: CellPopulation) -> tuple[TablePolicy, float]:
        if population not in self._responses:
            self._responses[population] = self._solve(population)
        return self._responses[population]

    def _solve(self, population: CellPopulation) -> tuple[TablePolicy, float]:
        found = grid_best_response(self.grid, population)
        return found.policy, found.value

    def wasserstein(self, one: CellPopulation, other: CellPopulation) -> float:
        """d(μ, ν) = max_t W1(μ_t, ν_t), from the distribution functions at the cells' ends. On a ring, the shortest way
        around: up to the constant that takes least (Rabin et al., J. Math. Imaging Vis. 41, 2011)."""
        cdf, other_cdf = (p.mass.cumsum(1) / p.mass.sum(1, keepdim=True) for p in (one, other))
        apart = cdf - other_cdf
        if any(self.grid.domain.periodic):
            apart = apart - apart.median(1, keepdim=True).values
        return (apart.abs().sum(1) * self.grid.h[0]).max().item()

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


def listed(policy: TablePolicy | list[TablePolicy]) -> list[TablePolicy]:
    return policy if isinstance(policy, list) else [policy]


Judged = tuple[float, float, float, np.ndarray]  # gap, value of the best response, of the policy, mean path (T+1, d)


def _judged_often(grid: Grid, policy: Policy, seed: int, device: str) -> list[Judged]:
    """With actions drawn REPEATS times, or twice where that changes nothing: the policy is exact on this grid."""
    judged = [_judged(grid, policy, seed, i, device) for i in range(2)]
    if judged[0][0] != judged[1][0]:
        judged += [_judged(grid, policy, seed, i, device) for i in range(2, REPEATS)]
    return judged


def _judged(grid: Grid, policy: Policy, seed: int, draw: int, device: str) -> Judged:
    played = grid_evaluate(grid, _players(policy, generator(seed, "exploitability", draw, device=device)))
    best = max(grid_best_response(grid, played.population).value, played.value)  # it is, but for rounding
    return best - played.value, best, played.value, (played.population.mass @ grid.x).numpy()


class _Player:
    """A policy that acts where it lives, draws by one generator, and is asked for finite actions."""

    def __init__(self, policy: Policy, random: torch.Generator) -> None:
        self.act, self.device = sampler(policy, random), random.device

    def sample(self, t: int, x: Tensor) -> Tensor:
        a = self.act(t, x.to(self.device))
        if not a.isfinite().all():
            raise ArithmeticError(f"exploitability: the policy's actions at t = {t} are not finite")
        return a.cpu()


def _players(policy: Policy, random: torch.Generator) -> Any:
    """What `grid_evaluate` plays: a flat mixture of what acts on one grid or is exact there."""
    parts = _parts(policy)
    policies = [p if isinstance(p, TablePolicy) else _Player(p, random) for p, _ in parts]
    return SimpleNamespace(policies=policies, weights=[w for _, w in parts])


def _parts(policy: Policy, weight: float = 1.0) -> list[tuple[Policy, float]]:
    """A mixture's policies and weights, those of mixtures within it too."""
    if not hasattr(policy, "policies"):
        return [(policy, weight)]
    return [p for q, w in zip(policy.policies, policy.weights, strict=True) for p in _parts(q, weight * float(w))]
