"""Exact learners of the unbounded LQ game, for `mfglib.fictitious_play`: DEDA-FP with perfect learners."""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mfglib.arguments import checked
from mfglib.checks import integer
from mfglib.exact.lq import (
    LQBestResponse,
    lq_actions,
    lq_answers,
    lq_best_response,
    lq_gap,
    lq_moments,
    require_unbounded,
)
from mfglib.fictitious_play import fictitious_play
from mfglib.games.linear_quadratic import LinearQuadratic
from mfglib.policies import AffinePolicy, EpisodeMixture
from mfglib.populations import GaussianPath
from mfglib.protocols import KnowsActions, Population, TensorState
from mfglib.schedules import Averaging, averaging_of
from mfglib.seeds import Random


class LQResponse(TensorState):
    """Best responses by Riccati to the mean path of any population. Raises TypeError or ValueError for other games."""

    def __init__(self, game: LinearQuadratic) -> None:
        require_unbounded(game)
        self.game = game
        self.K = torch.zeros(game.horizon, game.action_dim, game.state_dim, dtype=torch.float64)
        self.k = torch.zeros(game.horizon, game.action_dim, dtype=torch.float64)

    @property
    def policy(self) -> AffinePolicy:
        return AffinePolicy(self.K, self.k)

    def fit(self, population: Population, k: int, random: Random) -> dict[str, float]:
        self.best = lq_best_response(self.game, *lq_answers(self.game, population))
        self.K, self.k = torch.from_numpy(self.best.K), torch.from_numpy(self.best.k)
        return {}

    def kept(self) -> None:
        return None  # for Algo. 1 it is cloned


class LQAverage(TensorState):
    """The mixture of all best responses, drawn once per episode; each is affine. The first policy is a = 0."""

    def __init__(self, game: LinearQuadratic, averaging: str | Averaging = "uniform") -> None:
        self.averaging = averaging_of(averaging)
        self.K = torch.zeros(1, game.horizon, game.action_dim, game.state_dim, dtype=torch.float64)
        self.k = torch.zeros(1, game.horizon, game.action_dim, dtype=torch.float64)

    @property
    def policy(self) -> EpisodeMixture:
        parts = [AffinePolicy(K, k) for K, k in zip(self.K, self.k, strict=True)]
        return EpisodeMixture(parts, self.averaging.weights(len(parts)))

    def update(self, response: LQResponse, population: Population, k: int, random: Random) -> dict[str, float]:
        new, first = response.policy, k == 1  # the first policy is no best response
        self.K = torch.cat([self.K[len(self.K) * first :], new.K[None]])
        self.k = torch.cat([self.k[len(self.k) * first :], new.k[None]])
        return {}


class LQPopulation(KnowsActions, TensorState):
    """The population of a mixture of affine policies drawn once per episode, a mixture of Gaussians, by its moments:
    own (G, T+1, d) and cov (G, T+1, d, d) of each of G groups, weights (G,), and the mean path (T+1, d) and mean
    actions (T, k) of all."""

    def __init__(self, game: LinearQuadratic) -> None:
        self.game = game

    def fit(self, policy: EpisodeMixture, k: int, random: Random) -> dict[str, float]:
        self.gains = [(p.K.numpy(), p.k.numpy()) for p in policy.policies]
        self.weights = torch.as_tensor(policy.weights)
        path = _mixture_mean(self.game, self.gains, policy.weights)
        own, cov = zip(*(lq_moments(self.game, *gains, path) for gains in self.gains), strict=True)
        acted = [lq_actions(*gains, mean) for gains, mean in zip(self.gains, own, strict=True)]
        self.actions = torch.from_numpy(np.einsum("g,gtk->tk", policy.weights, np.stack(acted)))
        self.path, self.own, self.cov = (torch.from_numpy(np.stack(v)) for v in (path, own, cov))
        return {}

    def mean(self, t: int) -> Tensor:
        return self.path[t]

    def covariance(self) -> np.ndarray:
        """Of all agents: (T+1, d, d)."""
        apart, weights = (self.own - self.path).numpy(), self.weights.tolist()
        groups = zip(weights, apart, self.cov.numpy(), strict=True)
        return sum(w * (cov + np.einsum("ti,tj->tij", x, x)) for w, x, cov in groups)

    def sample(self, t: int, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n states: (n, d)."""
        group = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        parts = [p.sample(t, n, generator) for p in self._parts()]
        return torch.stack(parts)[group, torch.arange(n)].float()

    def log_prob(self, t: int, x: Tensor) -> Tensor:
        """(n, d) -> (n,)."""
        parts = torch.stack([p.log_prob(t, x) for p in self._parts()])
        return torch.logsumexp(parts + self.weights.log()[:, None], 0).to(x)

    def _parts(self) -> list[GaussianPath]:
        return [GaussianPath(own, cov) for own, cov in zip(self.own, self.cov, strict=True)]


@dataclass(frozen=True)
class LQFictitiousPlay:
    """Row k of each array is iteration k = 0..iterations; row 0 is the first policy, a = 0.

    exploitability (K+1,) of the average, value (K+1,) = J of the average in its own population,
    mean (K+1, T+1, d) and cov (K+1, T+1, d, d) of its population, a mixture of Gaussians.
    """

    exploitability: np.ndarray
    value: np.ndarray
    mean: np.ndarray
    cov: np.ndarray
    best_responses: list[LQBestResponse]


@checked
def lq_fictitious_play(
    game: LinearQuadratic, iterations: int = 20, averaging: str | Averaging = "uniform"
) -> LQFictitiousPlay:
    """Fictitious play with exact best responses, an exact average and an exact population, from a = 0.

    The average is a mixture: each agent draws one past best response at the start and keeps it. Every best
    response is affine, so the mixture's moments are closed forms (paper, Algo. 3 with zero errors).
    """
    integer("iterations", iterations, at_least=1)
    response, average, crowd = LQResponse(game), LQAverage(game, averaging), LQPopulation(game)
    responses, rows = [], []
    for step in itertools.islice(fictitious_play(response, average, crowd), iterations + 1):
        responses += [response.best] if step.k else []
        best = lq_best_response(game, crowd.path.numpy(), crowd.actions.numpy())
        groups = zip(crowd.weights.tolist(), crowd.gains, crowd.own.numpy(), crowd.cov.numpy(), strict=True)
        gap = sum(w * lq_gap(best, *gains, own, cov) for w, gains, own, cov in groups)
        rows.append((gap, best.value - gap, crowd.path.numpy(), crowd.covariance()))
    gap, value, mean, cov = (np.array(column) for column in zip(*rows, strict=True))
    return LQFictitiousPlay(gap, value, mean, cov, responses)


def _mixture_mean(
    game: LinearQuadratic, policies: list[tuple[np.ndarray, np.ndarray]], weights: np.ndarray
) -> np.ndarray:
    """Mean path (T+1, d) of a population whose groups, of sizes `weights`, each follow one affine policy."""
    K, k = (np.stack(part) for part in zip(*policies, strict=True))  # (groups, T, k, d), (groups, T, k)
    group = np.tile(game.initial_mean, (len(weights), 1))  # (groups, d)
    path = [weights @ group]
    for t in range(game.horizon):
        action = np.einsum("gij,gj->gi", K[:, t], group) + k[:, t]
        A, B, A_bar = (game.coefficient(name, t) for name in ("A", "B", "A_bar"))
        group = group @ A.T + action @ B.T + A_bar @ path[-1]
        path.append(weights @ group)
    return np.stack(path)
