"""Exact fictitious play on the unbounded LQ game: what DEDA-FP would do with perfect learners."""

from dataclasses import dataclass

import numpy as np

from mfglib.checks import integer
from mfglib.exact.lq import LQBestResponse, lq_best_response, lq_gap, lq_moments, require_unbounded
from mfglib.games import LinearQuadratic
from mfglib.schedules import averaging_weights


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


def lq_fictitious_play(
    game: LinearQuadratic, iterations: int = 20, averaging: str = "uniform", step: float = 0.5
) -> LQFictitiousPlay:
    """Fictitious play with exact best responses, an exact average and an exact population, from a = 0.

    The average is a mixture: each agent draws one past best response at the start and keeps it. Every best
    response is affine, so the mixture's moments are closed forms (paper, Algo. 3 with zero errors).
    """
    require_unbounded(game)
    integer("iterations", iterations, at_least=1)
    T, d, k = game.horizon, game.state_dim, game.action_dim
    policies: list[tuple[np.ndarray, np.ndarray]] = [(np.zeros((T, k, d)), np.zeros((T, k)))]
    weights = np.ones(1)
    responses, rows = [], []
    for i in range(iterations + 1):
        mean = _mixture_mean(game, policies, weights)
        response = lq_best_response(game, mean)
        moments = [lq_moments(game, K, k_t, mean) for K, k_t in policies]
        gap = sum(w * lq_gap(response, *p, *m) for w, p, m in zip(weights, policies, moments, strict=True))
        spread = sum(
            w * (cov + np.einsum("ti,tj->tij", own - mean, own - mean))
            for w, (own, cov) in zip(weights, moments, strict=True)
        )
        rows.append((gap, response.value - gap, mean, spread))
        if i == iterations:
            break
        responses.append(response)
        policies = [(r.K, r.k) for r in responses]
        weights = averaging_weights(i + 1, averaging, step)
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
        group = group @ game.A.T + action @ game.B.T + game.A_bar @ path[-1]
        path.append(weights @ group)
    return np.stack(path)
