"""The judge of the unbounded LQ game: closed forms."""

import functools
import inspect
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mfglib.checks import integer
from mfglib.exact.grid import Grid
from mfglib.exact.grid_judge import GridJudge, listed
from mfglib.exact.lq import (
    LQBestResponse,
    lq_actions,
    lq_answers,
    lq_best_response,
    lq_equilibrium,
    lq_gap,
    lq_moments,
    require_unbounded,
)
from mfglib.exact.tables import TablePolicy
from mfglib.games.linear_quadratic import LinearQuadratic
from mfglib.policies import AffinePolicy
from mfglib.populations import CellPopulation
from mfglib.protocols import Exploitability, Game, Policy, Population
from mfglib.rollout import rollout
from mfglib.seeds import generator

GROUPS = 10  # independent populations for the jackknife; 10 gives the error bar itself to about a quarter
TABULATED = 600  # cells of the tables of a policy
TAIL = 5.5  # standard deviations between a population and the box around an unbounded game


class LQJudge(GridJudge):
    """Best responses by Riccati, gaps by the exact advantage γ(π; μ) = E_{π,μ} Σ_t |a_t − K_t x_t − k_t(μ)|²_{D_t}, a
    sum of squares. In tables, only the distribution of states is on a grid, of a box around the game so wide that
    nobody gets to its ends.

    Raises TypeError for other games, ValueError for bounded ones.
    """

    @staticmethod
    def meant_for(game: Game) -> bool:
        return isinstance(game, LinearQuadratic) and not game.bounded

    @staticmethod
    def require(game: Game) -> None:
        require_unbounded(game)

    # --- certificates

    def exploitability(
        self, policy: Policy, *, n: int = 20_000, seed: int = 0, device: str = "cpu", **_: Any
    ) -> Exploitability:
        """See `mfglib.exploitability`."""
        integer("n", n, at_least=10 * GROUPS)
        if isinstance(policy, AffinePolicy):
            return _of_affine(self.game, policy)
        size = n // GROUPS
        randoms = [generator(seed, "exploitability", group, device=device) for group in range(GROUPS)]
        runs = [rollout(self.game, policy, n=size, generator=random, rewards=False) for random in randoms]
        x, a = (torch.stack([getattr(r, name) for r in runs]).double().cpu() for name in ("x", "a"))  # (G, T+1, n, ·)
        paths, acted = x.mean(2).numpy(), a.mean(2).numpy()  # (G, T+1, d) and (G, T, k)
        if not (x.isfinite().all() and a.isfinite().all()):
            raise ArithmeticError("exploitability: the policy's simulated states or actions are not finite")
        response = lq_best_response(self.game, paths.mean(0), acted.mean(0))
        value = float(np.mean(_gaps(response, x, a)))
        without = np.ones((GROUPS, GROUPS), bool) ^ np.eye(GROUPS, dtype=bool)  # row g: all groups but g
        responses = [lq_best_response(self.game, paths[rest].mean(0), acted[rest].mean(0)) for rest in without]
        left_out = [np.mean(_gaps(other, x, a)[rest]) for other, rest in zip(responses, without, strict=True)]
        error = float(np.sqrt((GROUPS - 1) / GROUPS * np.square(left_out - np.mean(left_out)).sum()))
        method = f"Riccati best response; {GROUPS} x {size} simulated agents, exact advantage, jackknife error"
        return Exploitability(value, response.value, response.value - value, error, method, paths.mean(0))

    def best_response_gap(
        self, policy: Policy, population: Population, random: torch.Generator, n: int = 2000, **_: Any
    ) -> float:
        """See `mfglib.best_response_gap`."""
        played = rollout(self.game, policy, population, n=n, generator=random, rewards=False)
        x, a = (v[None].double().cpu() for v in (played.x, played.a))
        return float(_gaps(lq_best_response(self.game, *lq_answers(self.game, population)), x, a).item())

    # --- tables, for the theory

    @functools.cached_property
    def grid(self) -> Grid:
        if self.game.state_dim != 1 or self.game.action_dim != 1:
            raise ValueError(f"game: expected one state coordinate and one action, got {self.game!r}")
        eq = lq_equilibrium(self.game)
        width = (eq.mean.abs() + TAIL * eq.cov.diagonal(dim1=1, dim2=2).sqrt()).max().item()
        names = [name for name in inspect.signature(LinearQuadratic).parameters if name != "c_T"]  # it is in c_x
        own = {name: getattr(self.game, name) for name in names}
        far = 1.5 * (eq.K.abs() * width + eq.k.abs()[..., None]).max().item()
        cells = integer("cells", self._cells(TABULATED), at_least=10)
        return Grid(LinearQuadratic(**own | dict(x_bound=width, a_bound=far)), cells)

    def _solve(self, population: CellPopulation) -> tuple[TablePolicy, float]:
        response = self.response(population)
        return self.tabulate(response.policy), response.value

    def response(self, population: CellPopulation) -> LQBestResponse:
        """The best response to a population."""
        return lq_best_response(self.game, *lq_answers(self.game, population))

    def value(self, policy: TablePolicy | list[TablePolicy], population: CellPopulation) -> float:
        return self.best_value(population) - self.gap(policy, population)

    def gap(self, policy: TablePolicy | list[TablePolicy], population: CellPopulation) -> float:
        policies, response, x = listed(policy), self.response(population), self.grid.x
        wanted = torch.from_numpy(response.K) @ x.T + torch.from_numpy(response.k)[..., None]  # (T, 1, m)
        price, total = torch.from_numpy(response.D)[:, 0, 0], 0.0
        for p in policies:
            off = ((p.actions[..., 0] - wanted[:, 0, :, None]).square() * p.shares).sum(2)  # (T, m)
            total += (price @ (self.mass(p, population)[:-1] * off).sum(1)).item()
        return total / len(policies)

    def contraction(self, policy: TablePolicy) -> float:
        """κ: the largest W1 between where agents in neighbouring cells go, before the noise, over their distance."""
        A, B = (torch.from_numpy(self.game.coefficients(name).copy()) for name in ("A", "B"))  # (T, 1, 1)
        after = (A * self.grid.x[:, None, 0] + B * policy.actions[..., 0]).sort(2).values  # (T, m, S), equally likely
        return float((after.diff(dim=1).abs().mean(2) / self.grid.h[0]).max())


def _gaps(response: LQBestResponse, x: Tensor, a: Tensor) -> np.ndarray:
    """Mean of Σ_t |a_t − a*_t(x_t)|²_{D_t} in each group: (G, T+1, n, d), (G, T, n, k) -> (G,)."""
    K, k, D = (torch.from_numpy(v) for v in (response.K, response.k, response.D))
    off = a - torch.einsum("tkd,gtnd->gtnk", K, x[:, :-1]) - k[:, None]
    return torch.einsum("gtni,tij,gtnj->g", off, D, off).numpy() / x.shape[2]


def _of_affine(game: LinearQuadratic, policy: AffinePolicy) -> Exploitability:
    K, k, std = policy.K.numpy(), policy.k.numpy(), policy.std.numpy()
    expected = (game.horizon, game.action_dim, game.state_dim)
    if K.shape != expected:
        raise ValueError(f"policy.K: expected shape {expected}, got {K.shape}")
    if not np.isfinite(K).all() or not np.isfinite(k).all():
        raise ArithmeticError("exploitability: the policy's gains are not finite")
    mean, cov = lq_moments(game, K, k, std=std)  # an ArithmeticError where they overflow
    response = lq_best_response(game, mean, lq_actions(K, k, mean))
    gap = lq_gap(response, K, k, mean, cov, std)
    return Exploitability(gap, response.value, response.value - gap, 0.0, "exact moments of an affine policy", mean)
