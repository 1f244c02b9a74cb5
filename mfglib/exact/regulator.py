"""The linear-quadratic control of one agent."""

from dataclasses import dataclass

import numpy as np


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
    """The Riccati recursion of z_{t+1} = F_t z + B_t a + f_t + ε, with F: (T, d, d), B: (T, d, k), f: (T, d) and costs
    zᵀ Q_t z + 2 q_tᵀ z + r_t + aᵀ c_{a,t} a, the last without an action; c_a: (T, k, k), Q: (T+1, d, d), q: (T+1, d),
    r: (T+1,)."""
    T, d, k = B.shape
    K, offset, D, P = np.empty((T, k, d)), np.empty((T, k)), np.empty((T, k, k)), np.empty((T + 1, d, d))
    P[T], p, rho = Q[T], q[T], r[T]
    for t in reversed(range(T)):
        D[t], G = prices(B[t], c_a[t], P[t + 1])
        h = P[t + 1] @ f[t] + p
        K[t], offset[t] = -np.linalg.solve(D[t], B[t].T @ P[t + 1] @ F[t]), -np.linalg.solve(D[t], B[t].T @ h)
        rho = r[t] + rho + np.trace(P[t + 1] @ noise_cov) + (h + p) @ f[t] - h @ G @ h
        p = q[t] + F[t].T @ (h - P[t + 1] @ G @ h)
        update = F[t].T @ (P[t + 1] - P[t + 1] @ G @ P[t + 1]) @ F[t]
        P[t] = Q[t] + (update + update.T) / 2  # rounding must not break the symmetry
    return Regulator(K, offset, D, P, p, float(rho))


def prices(B: np.ndarray, c_a: np.ndarray, P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """D = c_a + Bᵀ P' B and G = B D⁻¹ Bᵀ."""
    D = c_a + B.T @ P @ B
    return D, B @ np.linalg.solve(D, B.T)
