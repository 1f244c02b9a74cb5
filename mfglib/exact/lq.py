"""Exact solutions of the unbounded linear-quadratic game, in float64.

Notation, with primes at t + 1 and coefficients at t: a state is worth V_t(x) = −(xᵀ P_t x + 2 p_tᵀ x + ρ_t), and
D_t = c_a + Bᵀ P' B,  G_t = B D_t⁻¹ Bᵀ. At equilibrium the linear term follows the mean, p_t = S_t m_t + s_t.
Notebook 01 derives every formula. Where states earn by what the others do, xᵀ h ā_t, best responses are to a mean path
and to mean actions.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from scipy.linalg import block_diag
from torch import Tensor

from mfglib.arguments import checked
from mfglib.checks import require_shape, vector
from mfglib.exact.regulator import Regulator, prices, regulator
from mfglib.games import LinearQuadratic
from mfglib.policies import AffinePolicy
from mfglib.populations import GaussianPath
from mfglib.protocols import Population

Result = TypeVar("Result")


@dataclass(frozen=True)
class LQEquilibrium:
    """The equilibrium a_t = K_t x + k_t and its Gaussian population.

    K (T, k, d), k (T, k), mean (T+1, d), cov (T+1, d, d), all float64; value = J_{μ*}(π*).
    The population's law is Gaussian if the game's laws are; mean, cov and value hold in any case.
    """

    K: Tensor
    k: Tensor
    mean: Tensor
    cov: Tensor
    value: float

    @property
    def policy(self) -> AffinePolicy:
        return AffinePolicy(self.K, self.k)

    @property
    def actions(self) -> Tensor:
        """Mean actions (T, k)."""
        return torch.einsum("tkd,td->tk", self.K, self.mean[:-1]) + self.k

    @property
    def population(self) -> GaussianPath:
        return GaussianPath(self.mean, self.cov, self.actions)


@dataclass(frozen=True)
class LQBestResponse:
    """The best response a_t = K_t x + k_t to a mean path, its value, and D (T, k, k), which prices other actions:
    J(π*) − J(π) = E_π Σ_t (a_t − K_t x_t − k_t)ᵀ D_t (a_t − K_t x_t − k_t)."""

    K: np.ndarray
    k: np.ndarray
    D: np.ndarray
    value: float

    @property
    def policy(self) -> AffinePolicy:
        return AffinePolicy(torch.as_tensor(self.K), torch.as_tensor(self.k))


def require_unbounded(game: LinearQuadratic) -> None:
    """Raise TypeError if `game` is not LQ, or changes what LQ means, and ValueError if it is bounded."""
    if not isinstance(game, LinearQuadratic):
        raise TypeError(f"game: expected a LinearQuadratic, got {type(game).__name__}: no exact solver knows it")
    for member in ("initial", "step", "reward"):
        if getattr(type(game), member) is not getattr(LinearQuadratic, member):
            raise TypeError(f"game: {type(game).__name__} has its own `{member}`, so the closed form is not its own")
    if game.bounded:
        raise ValueError(
            "game: expected an unbounded LinearQuadratic, got x_bound or a_bound. Clipping makes the best response "
            "non-linear, so no closed form exists: pass x_bound=None, a_bound=None for the game that has one"
        )


def _in_range(solve: Callable[..., Result]) -> Callable[..., Result]:
    """Numbers beyond float64 are an ArithmeticError that says so, not infinities."""

    @functools.wraps(solve)
    def certain(*args: Any, **options: Any) -> Result:
        try:
            with np.errstate(over="raise", invalid="raise", divide="raise"):
                return solve(*args, **options)
        except (FloatingPointError, np.linalg.LinAlgError) as error:
            names = ", ".join(inspect.signature(solve).parameters)
            raise ArithmeticError(f"{solve.__name__}: numbers out of float64's range ({names}): {error}") from None

    return certain


@_in_range
def lq_equilibrium(game: LinearQuadratic) -> LQEquilibrium:
    """The equilibrium of an unbounded LQ game, by one backward recursion that carries the mean-field coupling.

    Raises TypeError for other games, ValueError for bounded ones, and ArithmeticError when no unique equilibrium
    exists, as the linear equations of the mean path have no, or many, solutions; when rounding dominates, so that
    agents who follow the policy make another population, in which it is not optimal; and when numbers overflow.
    """
    require_unbounded(game)
    mean, actions = None, np.zeros((game.horizon, game.action_dim))
    if not game.uses_actions:
        P = _respond(game, np.zeros((game.horizon + 1, game.state_dim)), actions).P  # no population changes it
        mean = _mean_by_recursion(game, P)
    if mean is None:  # some game that starts at t > 0 has no unique equilibrium; this one may
        mean, actions = _by_linear_system(game)
    response = lq_best_response(game, mean, actions)
    cov = lq_moments(game, response.K, response.k, mean)[1]
    own_mean, own_cov = lq_moments(game, response.K, response.k)
    best = lq_best_response(game, own_mean, lq_actions(response.K, response.k, own_mean))
    gap = lq_gap(best, response.K, response.k, own_mean, own_cov)
    if not gap <= UNCERTAIN * max(abs(best.value), abs(response.value)):
        raise ArithmeticError(
            f"no certain equilibrium: rounding dominates, and agents who follow the solution could gain {gap:.2g} of "
            f"{response.value:.2g}. The coupling is too strong for this horizon; change A_bar or h"
        )
    tensors = (torch.from_numpy(v) for v in (response.K, response.k, mean, cov))
    return LQEquilibrium(*tensors, value=response.value)


UNCERTAIN = 1e-7  # share of the value that an equilibrium may leave to gain, by rounding
SINGULAR = 1e12  # condition number beyond which nothing of a solution would be certain in float64
SMALL = 1e-6  # a pivot this far below its terms has lost six digits: leave the recursion for the linear system


def _mean_by_recursion(game: LinearQuadratic, P: np.ndarray) -> np.ndarray | None:
    """Mean path (T+1, d) by p_t = S_t m_t + s_t, m_{t+1} = α_t m_t + β_t; None if some I + G_t S_{t+1} is singular."""
    identity = np.eye(game.state_dim)
    A, B, A_bar, c_a, c_x, c_m, target = map(game.coefficients, ("A", "B", "A_bar", "c_a", "c_x", "c_m", "x_target"))
    S, s = -c_m[-1], -c_x[-1] @ target[-1]
    steps = []
    for t in reversed(range(game.horizon)):
        _, G = prices(B[t], c_a[t], P[t + 1])
        pivot = identity + G @ S
        if np.linalg.norm(pivot, -2) < SMALL * (1 + np.linalg.norm(G, 2) * np.linalg.norm(S, 2)):
            return None
        alpha = np.linalg.solve(pivot, (identity - G @ P[t + 1]) @ (A[t] + A_bar[t]))
        beta = -np.linalg.solve(pivot, G @ s)
        steps.append((alpha, beta))
        closed = A[t].T @ (identity - P[t + 1] @ G)
        s = -c_x[t] @ target[t] + closed @ (S @ beta + s)
        S = -c_m[t] + closed @ (P[t + 1] @ A_bar[t] + S @ alpha)
    mean = [game.initial_mean]
    for alpha, beta in reversed(steps):
        mean.append(alpha @ mean[-1] + beta)
    return np.stack(mean)


def _by_linear_system(game: LinearQuadratic) -> tuple[np.ndarray, np.ndarray]:
    """Mean path (T+1, d) and mean actions (T, k) from all equations at once, in m_1..m_T and the slopes λ_1..λ_T of
    −V/2 at the mean: ā = −c_a⁻¹ Bᵀ λ',  m' = (A + Ā) m + B ā  and  λ = c_x (m − x_target) − h ā / 2 + Aᵀ λ', with
    λ_{T+1} = 0 (notebook 01; c_m drops out).
    """
    T, d = game.horizon, game.state_dim
    A, B, A_bar, c_a, c_x, target, h = map(game.coefficients, ("A", "B", "A_bar", "c_a", "c_x", "x_target", "h"))
    # Costs in any unit of money give the same system: λ is counted in units of sqrt(c_x c_a) / |B|.
    c_x_norm, B_norm = (np.linalg.norm(v, 2, (1, 2)).max() for v in (c_x, B))
    unit = np.sqrt(c_x_norm * np.linalg.norm(c_a, -2, (1, 2)).min()) / (B_norm or 1.0) or 1.0
    act = -np.linalg.solve(c_a, B.transpose(0, 2, 1))  # ā_t = act_t λ_{t+1}
    R, C, back = -unit * B @ act, c_x[1:] / unit, A.transpose(0, 2, 1) - h @ act / 2
    system = np.block(
        [
            [np.eye(T * d) - _below(A + A_bar), block_diag(*R)],
            [-block_diag(*C), np.eye(T * d) - _below(back.transpose(0, 2, 1)).T],
        ]
    )
    right = np.concatenate([np.zeros(T * d), -np.einsum("tij,tj->ti", C, target[1:]).ravel()])
    right[:d] = (A[0] + A_bar[0]) @ game.initial_mean
    if np.linalg.cond(system) > SINGULAR:
        raise ArithmeticError(
            "no unique equilibrium: the linear equations of the mean path are singular. This needs a strong coupling "
            "through the dynamics or the others' actions; change A_bar, h, c_a or c_x"
        )
    path, slopes = np.linalg.solve(system, right).reshape(2, T, d)
    return np.vstack([game.initial_mean, path]), np.einsum("tkd,td->tk", act, unit * slopes)


def _below(blocks: np.ndarray) -> np.ndarray:
    """(T·d, T·d) with the blocks 1..T−1 of (T, d, d) below the diagonal: that of t in row t, column t − 1."""
    T, d, _ = blocks.shape
    return np.pad(block_diag(np.empty((0, 0)), *blocks[1:]), ((d, 0), (0, d)))


def _respond(game: LinearQuadratic, mean: np.ndarray, actions: np.ndarray) -> Regulator:
    """The best response to a mean path (T+1, d) and mean actions (T, k), with costs |x − x_target|² + |x − m|² in their
    weights, − xᵀ h ā."""
    T = game.horizon
    A, B, A_bar, c_a, c_x, c_m, target = map(game.coefficients, ("A", "B", "A_bar", "c_a", "c_x", "c_m", "x_target"))
    h = game.coefficients("h")
    q = np.stack([-(c_x[t] @ target[t] + c_m[t] @ m) for t, m in enumerate(mean)])
    q[:T] -= np.stack([h_t @ a / 2 for h_t, a in zip(h, actions, strict=True)])
    r = np.array([target[t] @ c_x[t] @ target[t] + m @ c_m[t] @ m for t, m in enumerate(mean)])
    f = np.stack([A_bar[t] @ m for t, m in enumerate(mean[:T])])
    return regulator(A, B, f, c_a, c_x + c_m, q, r, game.noise_std @ game.noise_std.T)


@_in_range
@checked
def lq_best_response(game: LinearQuadratic, mean: np.ndarray, actions: np.ndarray | None = None) -> LQBestResponse:
    """The best response to the mean path `mean`: (T+1, d) and, in a game with h, to the mean actions `actions`: (T, k),
    by the Riccati recursion and one linear term."""
    require_shape("mean", mean, game.horizon + 1, game.state_dim)
    if actions is None and game.uses_actions:
        raise ValueError(f"actions: expected mean actions of shape ({game.horizon}, {game.action_dim}), got None")
    actions = np.zeros((game.horizon, game.action_dim)) if actions is None else actions
    require_shape("actions", actions, game.horizon, game.action_dim)
    best, m_0 = _respond(game, mean, actions), game.initial_mean
    second_moment = game.initial_std @ game.initial_std.T + np.outer(m_0, m_0)
    value = -float(np.trace(best.P[0] @ second_moment) + 2 * best.p @ m_0 + best.rho)
    return LQBestResponse(best.K, best.k, best.D, value)


@_in_range
@checked
def lq_moments(
    game: LinearQuadratic, K: np.ndarray, k: np.ndarray, mean: np.ndarray | None = None, std: np.ndarray | float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Mean (T+1, d) and covariance (T+1, d, d) of agents who play a ~ N(K_t x + k_t, diag std²) against the mean
    path `mean`, or, if None, as the whole population."""
    T, d, std = game.horizon, game.state_dim, vector("std", std, game.action_dim)
    require_shape("K", K, T, game.action_dim, d)
    require_shape("k", k, T, game.action_dim)
    if mean is not None:
        require_shape("mean", mean, T + 1, d)
    own, cov = np.empty((game.horizon + 1, d)), np.empty((game.horizon + 1, d, d))
    own[0], cov[0] = game.initial_mean, game.initial_std @ game.initial_std.T
    noise_cov, action_noise = game.noise_std @ game.noise_std.T, game.coefficients("B") * std
    for t in range(game.horizon):
        A, B, A_bar = (game.coefficient(name, t) for name in ("A", "B", "A_bar"))
        closed = A + B @ K[t]
        population_mean = own[t] if mean is None else mean[t]
        own[t + 1] = closed @ own[t] + B @ k[t] + A_bar @ population_mean
        cov[t + 1] = closed @ cov[t] @ closed.T + (noise_cov + action_noise[t] @ action_noise[t].T)
    return own, cov


def lq_answers(game: LinearQuadratic, population: Population) -> tuple[np.ndarray, np.ndarray | None]:
    """What the game asks of a population: its mean path (T+1, d) and, in a game with h, its mean actions (T, k)."""
    path = torch.stack([population.mean(t) for t in range(game.horizon + 1)])
    if not game.uses_actions:
        return path.double().cpu().numpy(), None
    actions = torch.stack([population.mean_action(t) for t in range(game.horizon)])
    return path.double().cpu().numpy(), actions.double().cpu().numpy()


def lq_actions(K: np.ndarray, k: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Mean actions (T, k) of agents with the mean path (T+1, d) who play a = K_t x + k_t."""
    return np.einsum("tkd,td->tk", K, mean[:-1]) + k


@_in_range
@checked
def lq_gap(
    response: LQBestResponse,
    K: np.ndarray,
    k: np.ndarray,
    own: np.ndarray,
    cov: np.ndarray,
    std: np.ndarray | float = 0.0,
) -> float:
    """J(π*) − J(π) of a ~ N(K_t x + k_t, diag std²), whose own moments are own (T+1, d) and cov (T+1, d, d).

    The performance-difference lemma with the exact advantage: a sum of squares, so never negative.
    """
    T, actions, d = response.K.shape
    require_shape("K", K, T, actions, d)
    require_shape("k", k, T, actions)
    require_shape("own", own, T + 1, d)
    require_shape("cov", cov, T + 1, d, d)
    total, std = 0.0, vector("std", std, actions)
    for t, D in enumerate(response.D):
        dK, dk = K[t] - response.K[t], k[t] - response.k[t]
        shift = dK @ own[t] + dk
        variance = dK @ cov[t] @ dK.T + np.diag(np.square(std))
        total += shift @ D @ shift + np.trace(D @ variance)
    return float(total)
