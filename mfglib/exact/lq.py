"""Exact solutions of the unbounded linear-quadratic game, in float64.

Notation, with primes at t + 1: the value of a state is V_t(x) = −(xᵀ P_t x + 2 p_tᵀ x + ρ_t), and
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
from torch import Tensor

from mfglib.arguments import checked
from mfglib.checks import require_shape, vector
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
    S, s = -game.c_m, -game.c_x @ game.x_target
    steps = []
    for t in reversed(range(game.horizon)):
        _, G = _prices(game.B, game.c_a, P[t + 1])
        pivot = identity + G @ S
        if np.linalg.norm(pivot, -2) < SMALL * (1 + np.linalg.norm(G, 2) * np.linalg.norm(S, 2)):
            return None
        alpha = np.linalg.solve(pivot, (identity - G @ P[t + 1]) @ (game.A + game.A_bar))
        beta = -np.linalg.solve(pivot, G @ s)
        steps.append((alpha, beta))
        closed = game.A.T @ (identity - P[t + 1] @ G)
        s = -game.c_x @ game.x_target + closed @ (S @ beta + s)
        S = -game.c_m + closed @ (P[t + 1] @ game.A_bar + S @ alpha)
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
    # Costs in any unit of money give the same system: λ is counted in units of sqrt(c_x c_a) / |B|.
    unit = (
        np.sqrt(np.linalg.norm(game.c_x, 2) * np.linalg.norm(game.c_a, -2)) / (np.linalg.norm(game.B, 2) or 1.0) or 1.0
    )
    act = -np.linalg.solve(game.c_a, game.B.T)  # ā = act λ'
    R, C, back = -unit * game.B @ act, game.c_x / unit, game.A.T - game.h @ act / 2
    later = np.eye(T, k=-1)
    system = np.block(
        [
            [np.eye(T * d) - np.kron(later, game.A + game.A_bar), np.kron(np.eye(T), R)],
            [-np.kron(np.eye(T), C), np.eye(T * d) - np.kron(later.T, back)],
        ]
    )
    right = np.concatenate([np.zeros(T * d), np.tile(-C @ game.x_target, T)])
    right[:d] = (game.A + game.A_bar) @ game.initial_mean
    if np.linalg.cond(system) > SINGULAR:
        raise ArithmeticError(
            "no unique equilibrium: the linear equations of the mean path are singular. This needs a strong coupling "
            "through the dynamics or the others' actions; change A_bar, h, c_a or c_x"
        )
    path, slopes = np.linalg.solve(system, right).reshape(2, T, d)
    return np.vstack([game.initial_mean, path]), unit * slopes @ act.T


@dataclass(frozen=True)
class Regulator:
    """The best policy a_t = K_t z + k_t of one agent: K (T, k, d), k (T, k), D (T, k, k); its value of a state at t = 0
    is −(zᵀ P_0 z + 2 pᵀ z + ρ), with P (T+1, d, d), p (d,)."""

    K: np.ndarray
    k: np.ndarray
    D: np.ndarray
    P: np.ndarray
    p: np.ndarray
    rho: float


def regulator(
    F: np.ndarray, B: np.ndarray, f: np.ndarray, c_a: np.ndarray, Q: np.ndarray, q: np.ndarray, r: np.ndarray,
    noise_cov: np.ndarray,
) -> Regulator:  # fmt: skip
    """The Riccati recursion of z_{t+1} = F_t z + B a + f_t + ε, with F: (T, d, d), f: (T, d) and costs
    zᵀ Q z + 2 q_tᵀ z + r_t + aᵀ c_a a, the last without an action, q: (T+1, d), r: (T+1,)."""
    T, d, k = len(F), len(Q), B.shape[1]
    K, offset, D, P = np.empty((T, k, d)), np.empty((T, k)), np.empty((T, k, k)), np.empty((T + 1, d, d))
    P[T], p, rho = Q, q[T], r[T]
    for t in reversed(range(T)):
        D[t], G = _prices(B, c_a, P[t + 1])
        h = P[t + 1] @ f[t] + p
        K[t], offset[t] = -np.linalg.solve(D[t], B.T @ P[t + 1] @ F[t]), -np.linalg.solve(D[t], B.T @ h)
        rho = r[t] + rho + np.trace(P[t + 1] @ noise_cov) + (h + p) @ f[t] - h @ G @ h
        p = q[t] + F[t].T @ (h - P[t + 1] @ G @ h)
        update = F[t].T @ (P[t + 1] - P[t + 1] @ G @ P[t + 1]) @ F[t]
        P[t] = Q + (update + update.T) / 2  # rounding must not break the symmetry
    return Regulator(K, offset, D, P, p, float(rho))


def _prices(B: np.ndarray, c_a: np.ndarray, P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """D = c_a + Bᵀ P' B and G = B D⁻¹ Bᵀ."""
    D = c_a + B.T @ P @ B
    return D, B @ np.linalg.solve(D, B.T)


def _respond(game: LinearQuadratic, mean: np.ndarray, actions: np.ndarray) -> Regulator:
    """The best response to a mean path (T+1, d) and mean actions (T, k), with costs |x − x_target|² + |x − m|² in their
    weights, − xᵀ h ā."""
    T, target = game.horizon, game.x_target
    q = np.stack([-(game.c_x @ target + game.c_m @ m) for m in mean])
    q[:T] -= actions @ game.h.T / 2
    r = np.array([target @ game.c_x @ target + m @ game.c_m @ m for m in mean])
    f = np.stack([game.A_bar @ m for m in mean[:T]])
    F, noise_cov = np.broadcast_to(game.A, (T, *game.A.shape)), game.noise_std @ game.noise_std.T
    return regulator(F, game.B, f, game.c_a, game.c_x + game.c_m, q, r, noise_cov)


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
    action_noise = game.B * std
    added = game.noise_std @ game.noise_std.T + action_noise @ action_noise.T
    for t in range(game.horizon):
        closed = game.A + game.B @ K[t]
        population_mean = own[t] if mean is None else mean[t]
        own[t + 1] = closed @ own[t] + game.B @ k[t] + game.A_bar @ population_mean
        cov[t + 1] = closed @ cov[t] @ closed.T + added
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
