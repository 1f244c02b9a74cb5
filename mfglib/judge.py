"""The judge: how much one agent could gain by leaving the crowd, certified by exact solvers."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mfglib.checks import integer
from mfglib.exact.tables import TablePolicy
from mfglib.exact.dynamic_programming import GridBestResponse, grid_best_response, grid_evaluate
from mfglib.exact.grid import Grid, grid_of, require_grid_game
from mfglib.exact.tables import TablePolicy
from mfglib.populations import CellPopulation
from mfglib.exact.lq import LQBestResponse, lq_best_response, lq_gap, lq_moments, require_unbounded
from mfglib.games import LinearQuadratic
from mfglib.games.bounded import BoundedGame
from mfglib.policies import AffinePolicy, sampler
from mfglib.protocols import Exploitability, Game, Policy, Population
from mfglib.rollout import rollout
from mfglib.seeds import generator

GROUPS = 10  # independent populations for the jackknife; 10 gives the error bar itself to about a quarter
DRAWS = 4  # of a policy's actions on a grid: one draw is off by about 1% of an untrained network's exploitability
CELLS = {1: 200, 2: 40}  # along the longest side


def require_certifiable(game: Game) -> None:
    """Raise TypeError or ValueError, saying what is missing, unless an exact solver knows `game`: unbounded LQ games,
    and those that a grid can solve (`mfglib.exact.grid.require_grid_game`)."""
    if _unbounded(game):
        require_unbounded(game)
        return
    require_grid_game(game)
    for known in (LinearQuadratic, BoundedGame):
        for member in ("initial", "moved", "step"):
            if isinstance(game, known) and getattr(type(game), member) is not getattr(known, member):
                raise TypeError(
                    f"game: {type(game).__name__} has its own `{member}`, and a grid moves by `start`, `displacement` "
                    f"and `noise`: change those"
                )


def certifiable(game: Game) -> bool:
    """Whether an exact solver knows this game."""
    try:
        require_certifiable(game)
    except (TypeError, ValueError):
        return False
    return True


def exploitability(
    game: Game,
    policy: Policy,
    *,
    n: int = 20_000,
    cells: int | None = None,
    error: bool = True,
    seed: int = 0,
    device: str = "cpu",
) -> Exploitability:
    """Exploitability of `policy` as it acts: its actions are sampled, in the population that it generates itself.

    Unbounded LQ games: the best response to the policy's mean path is exact (Riccati). For an AffinePolicy so is
    everything else. Any other policy is simulated by n agents in independent groups, and the gap is measured by the
    exact advantage, E_π Σ_t |a_t − a*_t(x_t)|²_{D_t}: unbiased for a given mean path, never negative, and without noise
    where the policy is optimal. The standard error is a jackknife over the groups, mean path included.

    Bounded games: population, value and best response are exact for the game on a grid with `cells` along its longest
    side (200 if d = 1, 40 if d = 2), for actions drawn in each cell, so that the gap is never negative. Its error is
    estimated from half the cells and from repeated draws; `error=False` draws once and leaves it out, which is some
    five times faster. A `EpisodeMixture` is judged as the mixture that it is.

    Raises TypeError or ValueError if no exact solver knows the game, ArithmeticError for actions that are not finite.
    """
    require_certifiable(game)
    if not _unbounded(game):
        return _on_grid(game, policy, CELLS[game.state_dim] if cells is None else cells, error, seed, device)
    integer("n", n, at_least=10 * GROUPS)
    if isinstance(policy, AffinePolicy):
        return _of_affine(game, policy)
    size = n // GROUPS
    runs = [
        rollout(game, policy, n=size, generator=generator(seed, "exploitability", group, device=device), rewards=False)
        for group in range(GROUPS)
    ]
    x, a = (torch.stack([getattr(r, name) for r in runs]).double().cpu() for name in ("x", "a"))  # (G, T+1 or T, n, ·)
    paths = x.mean(2).numpy()  # (G, T+1, d)
    response = lq_best_response(game, paths.mean(0))
    value = float(np.mean(_gaps(response, x, a)))
    if not np.isfinite(value):
        raise ArithmeticError("exploitability: the policy's simulated states or actions are not finite")
    without = np.ones((GROUPS, GROUPS), bool) ^ np.eye(GROUPS, dtype=bool)  # row g: all groups but g
    left_out = [np.mean(_gaps(lq_best_response(game, paths[rest].mean(0)), x, a)[rest]) for rest in without]
    error = float(np.sqrt((GROUPS - 1) / GROUPS * np.square(left_out - np.mean(left_out)).sum()))
    method = f"Riccati best response; {GROUPS} x {size} simulated agents, exact advantage, jackknife error"
    return Exploitability(value, response.value, response.value - value, error, method, paths.mean(0))


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
    mean, cov = lq_moments(game, K, k, std=std)
    response = lq_best_response(game, mean)
    gap = lq_gap(response, K, k, mean, cov, std)
    if not np.isfinite(gap):
        raise ArithmeticError("exploitability: the policy's gains or moments are not finite")
    return Exploitability(gap, response.value, response.value - gap, 0.0, "exact moments of an affine policy", mean)


def _unbounded(game: Game) -> bool:
    return isinstance(game, LinearQuadratic) and not game.bounded


def _grid(game: Any, cells: int, *owners: Any) -> Grid:
    """The game's grid: that of a policy or population which lives on it, and is exact there, or else a new one."""
    for owner in owners:
        grid = getattr(owner, "grid", None)
        if grid is not None and max(grid.shape) == cells and repr(grid.game) == repr(game):
            return grid
    return grid_of(game, cells)


def _on_grid(game: Any, policy: Policy, cells: int, error: bool, seed: int, device: str) -> Exploitability:
    integer("cells", cells, at_least=4)
    grid = _grid(game, cells, policy)
    method = f"exact best response on a grid of {cells} cells a side"
    if not error:
        gap, best, value, mean = _judge(grid, policy, seed, 0, device)
        return Exploitability(gap, best, value, float("nan"), method, mean)
    try:
        if cells % 2:
            raise ValueError(f"got {cells}, an odd number")
        coarse = grid_of(game, cells // 2)
    except ValueError as reason:
        raise ValueError(
            f"cells: expected a number with a grid of half of it, for the error; pass another or error=False: {reason}"
        ) from reason
    draws = _judge_often(grid, policy, seed, device)
    gap, best, value, mean = (np.mean(part, axis=0) for part in zip(*draws, strict=True))
    noise = np.std([d[0] for d in draws], ddof=1) / np.sqrt(len(draws))
    refined = gap - np.mean([d[0] for d in _judge_often(coarse, policy, seed + 1, device)])
    bar = float(np.hypot(noise, refined / 3))  # second order: halving the cells quarters the error
    return Exploitability(
        float(gap), float(best), float(value), bar, f"{method}; error from half of them and repeated draws", mean
    )


Judged = tuple[float, float, float, np.ndarray]  # gap, best response's value, policy's value, mean path (T+1, d)


def _judge_often(grid: Grid, policy: Policy, seed: int, device: str) -> list[Judged]:
    """With actions drawn DRAWS times, or twice where that changes nothing: the policy is exact on this grid."""
    judged = [_judge(grid, policy, seed, i, device) for i in range(2)]
    if judged[0][0] != judged[1][0]:
        judged += [_judge(grid, policy, seed, i, device) for i in range(2, DRAWS)]
    return judged


def _judge(grid: Grid, policy: Policy, seed: int, draw: int, device: str) -> Judged:
    play = grid_evaluate(grid, _actors(policy, generator(seed, "exploitability", draw, device=device)))
    best = max(grid_best_response(grid, play.population).value, play.value)  # it is, but for rounding
    return best - play.value, best, play.value, (play.population.mass @ grid.x).numpy()


class _Actor:
    """A policy that answers where it lives, draws by one generator, and is asked for finite actions."""

    def __init__(self, policy: Policy, random: torch.Generator) -> None:
        self.act, self.device = sampler(policy, random), random.device

    def sample(self, t: int, x: Tensor) -> Tensor:
        a = self.act(t, x.to(self.device))
        if not a.isfinite().all():
            raise ArithmeticError(f"exploitability: the policy's actions at t = {t} are not finite")
        return a.cpu()


def _actors(policy: Policy, random: torch.Generator) -> Any:
    """What `grid_evaluate` plays: a flat mixture of what acts on one grid or is exact there."""
    parts = _parts(policy)
    exact = TablePolicy, TablePolicy, GridBestResponse
    policies = [p if isinstance(p, exact) else _Actor(p, random) for p, _ in parts]
    return SimpleNamespace(policies=policies, weights=[w for _, w in parts])


def _parts(policy: Policy, weight: float = 1.0) -> list[tuple[Policy, float]]:
    """A mixture's policies and weights, those of mixtures within it too."""
    if not hasattr(policy, "policies"):
        return [(policy, weight)]
    return [p for q, w in zip(policy.policies, policy.weights, strict=True) for p in _parts(q, weight * float(w))]


def best_response_gap(
    game: Game,
    policy: Policy,
    population: Population,
    random: torch.Generator,
    n: int = 2000,
    cells: int | None = None,
    samples: int | None = None,
) -> float:
    """J(BR(μ), μ) − J(π, μ) >= 0 for a policy against a given population: the theorem's ε_br (paper, Section 4).

    Exact best response, and the exact advantage over n simulated agents; on a grid of `cells` for bounded games, with
    `samples` draws of the policy times the number of cells at each time.
    Raises as `exploitability`.
    """
    require_certifiable(game)
    if not _unbounded(game):
        grid = _grid(game, CELLS[game.state_dim] if cells is None else cells, population, policy)
        crowd = CellPopulation.of(grid, population)
        value = grid_evaluate(grid, _actors(policy, random), crowd, samples=samples).value
        return max(grid_best_response(grid, crowd).value - value, 0.0)
    path = torch.stack([population.mean(t) for t in range(game.horizon + 1)])
    play = rollout(game, policy, population, n=n, generator=random, rewards=False)
    x, a = (v[None].double().cpu() for v in (play.x, play.a))
    return float(_gaps(lq_best_response(game, path.double().cpu().numpy()), x, a).item())
