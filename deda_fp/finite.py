"""From the mean field to N agents: how far a crowd of N is from its limit, and what one of them gains by deviating.

N agents follow the same policy π, each with its own noise. Their empirical measure μ^N, which counts every agent, takes
the place of μ. The gain of the best deviation, ε_N(π) = max_{π'} J^N(π', π, …, π) − J^N(π, …, π), is exact here: a
Riccati recursion for the joint state of an agent and the others' mean in linear-quadratic games, dynamic programming on
a grid with a binomial number of neighbours in games that ask for a density.

References: Huang, Malhamé and Caines, Commun. Inf. Syst. 6 (2006): an equilibrium of the limit is an ε_N-equilibrium of
N players; Saldi, Başar and Raginsky, SIAM J. Control Optim. 56 (2018), in discrete time.
"""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.ndimage import convolve
from scipy.stats import binom
from torch import Tensor

from deda_fp.distances import wasserstein
from mfglib.arguments import checked
from mfglib.checks import integer, number, require_shape, require_time
from mfglib.exact.dynamic_programming import Evaluation, grid_best_response, grid_evaluate
from mfglib.exact.grid import Grid
from mfglib.exact.lq import lq_best_response, lq_gap, lq_moments, regulator, require_unbounded
from mfglib.games import LinearQuadratic
from mfglib.policies import AffinePolicy
from mfglib.populations import CellPopulation
from mfglib.protocols import Game, Policy, Population
from mfglib.rollout import rollout

POINTS = 4000  # where distribution functions are compared
ROWS = 1 << 16  # rewards that a game is asked for at a time
TAIL = 8.0  # standard deviations of the number of neighbours that are summed over, to each side


@checked
def regret_of_model(game: LinearQuadratic, model: np.ndarray, truth: np.ndarray) -> float:
    """What an agent who best responds to a model of the mean path, (T+1, d), leaves unearned where the crowd's true one
    is `truth`; exact, for unbounded LQ games."""
    for name, path in (("model", model), ("truth", truth)):
        require_shape(name, path, game.horizon + 1, game.state_dim)
    planned = lq_best_response(game, model)
    own, cov = lq_moments(game, planned.K, planned.k, truth)
    return lq_gap(lq_best_response(game, truth), planned.K, planned.k, own, cov)


@checked
def regret_of_model_on_grid(model: Population, truth: CellPopulation) -> float:
    """The same for a model of the population, on the grid of the true one."""
    earned = grid_evaluate(truth.grid, grid_best_response(truth.grid, model).policy, truth).value
    return grid_best_response(truth.grid, truth).value - earned


@dataclass(frozen=True)
class Gain:
    """ε_N = `value` >= 0 of one agent among N, what it earns if it follows the policy like all, and if it deviates."""

    value: float
    follower: float
    deviator: float


@checked
def crowd_distance(
    game: Game, policy: Policy, population: Population, n: int, generator: torch.Generator, t: int
) -> float:
    """W1(μ^N_t, μ_t) between N agents who follow `policy` and a population, in units of state.

    One dimension: ∫ |F^N − F| with the population's own distribution function (it needs `log_prob`). More: exact
    transport to N independent samples of it, which has the same rate in N and at most twice the distance on average.
    """
    require_time(t, game.horizon)
    domain = getattr(game, "domain", None)
    x = rollout(game, policy, n=integer("n", n, at_least=1), generator=generator, rewards=False).x[t]
    if game.state_dim > 1:
        return wasserstein(x, population.sample(t, n, generator), domain)
    if domain is None:
        sample = torch.cat([population.sample(t, 10_000, generator).to(x), x])
        low, high = sample.min().item(), sample.max().item()
        low, high = low - 0.1 * (high - low), high + 0.1 * (high - low)
    else:
        low, high = domain.lower[0], domain.upper[0]
    h = (high - low) / POINTS
    places = low + h * (np.arange(POINTS) + 0.5)
    with torch.no_grad():
        mass = population.log_prob(t, torch.from_numpy(places).float()[:, None]).double().exp().cpu().numpy()
    model = (np.cumsum(mass) - mass / 2) / mass.sum()  # at the centres
    agents = np.searchsorted(np.sort(x[:, 0].double().cpu().numpy()), places, side="right") / n
    apart = agents - model
    if domain is not None and any(domain.periodic):
        apart = apart - np.median(apart)  # on a ring, up to the constant that takes least
    return float(np.abs(apart).sum() * h)


@checked
def fit_affine(game: LinearQuadratic, policy: Policy, n: int, generator: torch.Generator) -> AffinePolicy:
    """The affine policy nearest to `policy` where its own crowd of n is, by least squares at each t; its noise is what
    the fit leaves, averaged over t."""
    play = rollout(game, policy, n=n, generator=generator, rewards=False)
    x, a = play.x[:-1].double().cpu(), play.a.double().cpu()
    ones = torch.cat([x, torch.ones_like(x[..., :1])], -1)
    fit = torch.linalg.lstsq(ones, a).solution  # (T, d + 1, k)
    return AffinePolicy(fit[:, :-1].transpose(1, 2), fit[:, -1], (a - ones @ fit).square().mean((0, 1)).sqrt())


@checked
def lq_gain(game: LinearQuadratic, policy: AffinePolicy, n: int) -> Gain:
    """ε_N in an unbounded LQ game of n >= 2 agents, exact, for a deviator who sees its own state x and the mean y of
    the others. One who sees less, as its own state alone, gains no more.

    Its state z = (x, y) moves by z' = F_t z + G a + f_t + noise and costs |z − z*|²_Q + |a|²_{c_a}: LQ again.
    The gap is that of the performance-difference lemma (`lq_gap` of `mfglib.exact.lq`): a sum of squares, never < 0.

    Raises TypeError or ValueError for other games, for n < 2 and for a policy of another shape.
    """
    require_unbounded(game)
    T, d, share = game.horizon, game.state_dim, 1 / integer("n", n, at_least=2)
    K, k, std = (v.numpy() for v in (policy.K, policy.k, policy.std))
    if K.shape != (T, game.action_dim, d):
        raise ValueError(f"policy.K: expected shape {(T, game.action_dim, d)}, got {K.shape}")
    one, none = np.eye(d), np.zeros((d, d))
    crowd = np.hstack([share * one, (1 - share) * one])  # z -> m^N
    own, apart = np.hstack([one, none]), np.hstack([one, none]) - crowd
    A, B, A_bar, c_a, c_x, c_m = map(game.coefficients, ("A", "B", "A_bar", "c_a", "c_x", "c_m"))
    Q, target = own.T @ c_x @ own + apart.T @ c_m @ apart, np.tile(game.coefficients("x_target"), 2)
    G = np.concatenate([B, 0 * B], 1)
    F = np.kron(np.diag([1, 0]), A) + np.kron(np.diag([0, 1]), A + B @ K) + np.tile(A_bar @ crowd, (1, 2, 1))
    f = np.concatenate([np.zeros((T, d)), np.einsum("tdk,tk->td", B, k)], 1)  # (T, 2d)

    q, constants = -np.einsum("tij,tj->ti", Q, target), (np.zeros(T + 1), np.zeros_like(Q[0]))  # these change no action
    best = regulator(F, G, f, c_a, Q, q, *constants)

    # forward, as all follow the policy
    action_noise = np.diag(np.square(std))
    noise = game.noise_std @ game.noise_std.T
    others = (noise + B @ action_noise @ B.transpose(0, 2, 1)) / (n - 1)
    added = np.kron(np.diag([1, 0]), noise) + np.kron(np.diag([0, 1]), others) + G @ action_noise @ G.transpose(0, 2, 1)
    mean, cov = (
        np.tile(game.initial_mean, 2),
        np.kron(np.diag([1, share / (1 - share)]), game.initial_std @ game.initial_std.T),
    )
    value, total = 0.0, 0.0
    for t, (gain, offset, D) in enumerate(zip(best.K, best.k, best.D, strict=True)):
        follow = K[t] @ own
        a = follow @ mean + k[t]
        value -= _expected(Q[t], mean - target[t], cov) + _expected(c_a[t], a, follow @ cov @ follow.T + action_noise)
        off = follow - gain
        total += _expected(D, a - gain @ mean - offset, off @ cov @ off.T + action_noise)
        closed = F[t] + G[t] @ follow
        mean, cov = closed @ mean + f[t] + G[t] @ k[t], closed @ cov @ closed.T + added[t]
    value -= _expected(Q[T], mean - target[T], cov)
    return Gain(total, value, value + total)


def _expected(weight: np.ndarray, mean: np.ndarray, cov: np.ndarray) -> float:
    """E vᵀ W v of v with this mean and covariance."""
    return float(mean @ weight @ mean + np.trace(weight @ cov))


@checked
def grid_gain(grid: Grid, play: Evaluation, n: int, width: float) -> Gain:
    """ε_N on a grid, exact, in a game of n agents where density is counted: agents in a window of this width around
    one's own cell, oneself included, over n times the window's free area.

    For games in which the crowd is only met in rewards of the form f(x, a) + g(x, μ_t(x)), as beach bar and 4-rooms:
    the others are then independent, each with the law μ^π of the limit, and the number of them in a window is binomial.
    The deviator knows that law, not who is where.

    Args: play: of the policy, by `grid_evaluate(grid, policy)`.
        width: in units of state, at least a cell; windows have an odd number of cells.

    Raises ValueError for n < 2 or a width below a cell.
    """
    finite = copy.copy(grid)
    finite.game = _Counted(grid, play.population.mass, integer("n", n, at_least=2), width)
    population = CellPopulation(finite, play.population.mass)
    follower = play.value + float((play.population.mass * finite.game.more).sum())
    deviator = max(grid_best_response(finite, population).value, follower)  # it is, but for rounding
    return Gain(deviator - follower, follower, deviator)


class _Counted:
    """A game whose rewards in a given crowd are those expected among n agents who count each other."""

    def __init__(self, grid: Grid, mass: Tensor, n: int, width: float) -> None:
        self.grid, self.inner = grid, grid.game
        near, area = windows(grid, mass.numpy(), width)
        self.more = torch.stack([self._more(t, near[t], area, mass[t], n) for t in range(len(mass))])  # (T+1, m)

    def _more(self, t: int, p: np.ndarray, area: np.ndarray, mass: Tensor, n: int) -> Tensor:
        """What the reward of each cell gains by counting: (m,), for probabilities p: (m,) of another's being near."""
        spread = TAIL * np.sqrt((n - 1) * p * (1 - p)) + TAIL
        low = np.maximum(np.floor((n - 1) * p - spread), 0).astype(int)
        high = np.minimum(np.ceil((n - 1) * p + spread), n - 1).astype(int)
        most, m = int((high - low).max()) + 1, len(p)
        counted, total = torch.zeros(m, dtype=torch.float64), torch.zeros(m, dtype=torch.float64)
        for first in range(0, most, max(1, ROWS // m)):
            number = low + np.arange(first, min(first + max(1, ROWS // m), most))[:, None]  # (J, m)
            weight = torch.from_numpy(np.where(number <= high, binom.pmf(number, n - 1, p), 0.0))
            density = torch.from_numpy((1 + np.minimum(number, high)) / (n * area))
            counted += (weight * self._reward(t, density)).sum(0)
            total += weight.sum(0)
        own = (mass / self.grid.volume)[None]
        return counted / total - self._reward(t, own)[0]

    def _reward(self, t: int, density: Tensor) -> Tensor:
        """Rewards (J, m) of the cells at densities (J, m), without an action."""
        x = self.grid.x.repeat(len(density), 1)
        none = x.new_zeros(len(x), self.inner.action_dim)
        return self.inner.reward(t, x, none, _Known(density.flatten())).view(density.shape)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def reward(self, t: int, x: Tensor, a: Tensor, population: Population) -> Tensor:
        return self.inner.reward(t, x, a, population) + self.more[t][self.grid.cell(x)]


class _Known:
    """A population whose density at the places that will be asked is known: (m,)."""

    def __init__(self, density: Tensor) -> None:
        self.density = density

    def log_prob(self, t: int, x: Tensor) -> Tensor:
        return self.density.log()


@checked
def windows(grid: Grid, mass: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Mass (..., m) in the window of `width` around each cell, and the window's free area (m,): what a count of
    neighbours is divided by. As the crow flies: a window as wide as two walls would look through them."""
    width = min(number("width", width, positive=True), 2 * float((grid.h * grid.shape).max()))  # sees everything
    cells = np.maximum(2 * np.round((width / grid.h - 1) / 2).astype(int) + 1, 1)
    if width < grid.h.max() * (1 - 1e-9):
        raise ValueError(f"width: expected at least a cell, {grid.h.max():g}, got {width:g}")
    around = np.array(grid.domain.periodic)
    cells = np.minimum(cells, np.where(around, grid.shape, 2 * grid.shape + 1))  # a ring is seen once
    kernel, place = np.ones(cells), tuple(grid.coordinates.T)
    margin = cells * around
    inner = tuple(slice(m, m + n) for m, n in zip(margin, grid.shape, strict=True))

    def around(values: np.ndarray) -> np.ndarray:
        whole = np.zeros(grid.shape)
        whole[place] = values
        whole = np.pad(whole, [(m, m) for m in margin], "wrap")
        return convolve(whole, kernel, mode="constant")[inner][place]

    if not mass.ndim or mass.shape[-1] != len(grid.x) or not mass.size:
        raise ValueError(f"mass: expected shape (..., {len(grid.x)}), got {mass.shape}")
    near = np.stack([around(row) for row in mass.reshape(-1, len(grid.x))]).reshape(mass.shape)
    return near.clip(0, 1), around(np.ones(len(grid.x))) * grid.volume
