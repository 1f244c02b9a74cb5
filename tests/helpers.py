"""Games, policies and slow, independent references shared by the tests."""

import numpy as np
import torch

from mfglib.games import BeachBar, LinearQuadratic

ROUNDING = dict(rtol=1e-9, atol=1e-9)


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_game(d: int, k: int, horizon: int, seed: int = 0, **changes) -> LinearQuadratic:
    """An LQ game with full matrices everywhere."""
    rng = np.random.default_rng(seed)

    def definite(n, least):
        root = rng.normal(size=(n, n)) / n
        return root @ root.T + least * np.eye(n)

    values = dict(
        A=0.9 * np.eye(d) + 0.2 * rng.normal(size=(d, d)) / d,
        B=rng.normal(size=(d, k)),
        A_bar=0.2 * rng.normal(size=(d, d)) / d,
        c_x=definite(d, 0.5),
        c_a=definite(k, 0.5),
        c_m=definite(d, 0.1),
        x_target=rng.normal(size=d),
        horizon=horizon,
        initial_mean=rng.normal(size=d),
        initial_std=0.3 * rng.normal(size=(d, d)),
        noise_std=0.1 * rng.normal(size=(d, d)),
    )
    return LinearQuadratic(**(values | changes))


LQ_GAMES = {
    "paper's constants": LinearQuadratic(),
    "strong cohesion": LinearQuadratic(A=0.95, B=0.7, A_bar=0.1, c_a=1.4, c_x=5.0, c_m=10.0, horizon=15),
    "T = 1": LinearQuadratic(horizon=1, initial_mean=-0.3),
    "A_bar = 0": LinearQuadratic(A_bar=0.0),
    "c_m = 0": LinearQuadratic(c_m=0.0, initial_mean=1.0),
    "c_x = 0": LinearQuadratic(c_x=0.0, A_bar=-0.4, initial_mean=1.0),
    "d = 2": random_game(2, 2, 6),
    "d = 2, k = 1": random_game(2, 1, 6, seed=1),
    "d = 2, k = 3": random_game(2, 3, 5, seed=2),
    "d = 4, k = 2": random_game(4, 2, 7, seed=3),
    "d = 4, k = 2, T = 1": random_game(4, 2, 1, seed=4),
}


def _blocks(A: np.ndarray, M: np.ndarray, n: int) -> np.ndarray:
    """Block (i, j) = A^(i−j) M for j <= i < n: how inputs M v_0, …, M v_{n−1} add up to states x_1, …, x_n."""
    power = np.linalg.matrix_power
    return np.block([[power(A, i - j) @ M if j <= i else 0 * M for j in range(n)] for i in range(n)])


def _starts(A: np.ndarray, n: int) -> np.ndarray:
    return np.vstack([np.linalg.matrix_power(A, i + 1) for i in range(n)])


def dense_best_response(game: LinearQuadratic, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """K (T, k, d), k (T, k) of the best response to a mean path, without dynamic programming: from every t, the
    open-loop actions u_t..u_{T−1} minimise one dense quadratic; the first of them is affine in the state."""
    T, d, k = game.horizon, game.state_dim, game.action_dim
    K, k_t = np.empty((T, k, d)), np.empty((T, k))
    for t in range(T):
        n = T - t
        F, H = _starts(game.A, n), _blocks(game.A, game.B, n)
        h = _blocks(game.A, game.A_bar, n) @ mean[t:T].ravel()
        W = np.kron(np.eye(n), game.c_x + game.c_m)
        q = np.tile(game.c_x @ game.x_target, n) + (mean[t + 1 :] @ game.c_m).ravel()
        hessian = H.T @ W @ H + np.kron(np.eye(n), game.c_a)
        u = np.linalg.solve(hessian, np.column_stack([-H.T @ W @ F, H.T @ (q - W @ h)]))[:k]
        K[t], k_t[t] = u[:, :d], u[:, d]
    return K, k_t


def dense_equilibrium_mean(game: LinearQuadratic) -> np.ndarray:
    """Mean path (T+1, d): first-order conditions of the mean agent's open-loop problem, with x = m put in after
    differentiating, and the dynamics of the mean, as one dense system in (m_1..m_T, u_0..u_{T−1})."""
    T, d = game.horizon, game.state_dim
    H, E = _blocks(game.A, game.B, T), _blocks(game.A, game.A_bar, T)
    later = np.hstack([E[:, d:], np.zeros((T * d, d))])  # acts on m_1..m_T; E[:, :d] on m_0
    start = (_starts(game.A, T) + E[:, :d]) @ game.initial_mean
    C = np.kron(np.eye(T), game.c_x)
    system = np.block([[np.eye(T * d) - later, -H], [H.T @ C, np.kron(np.eye(T), game.c_a)]])
    right = np.concatenate([start, H.T @ np.tile(game.c_x @ game.x_target, T)])
    m = np.linalg.solve(system, right)[: T * d]
    return np.vstack([game.initial_mean, m.reshape(T, d)])


def moments_and_value(game, K, k, mean=None, std=0.0):
    """Own mean path, covariances and J of a ~ N(K_t x + k_t, std²) against a mean path (None: its own)."""
    x, cov = game.initial_mean, game.initial_std @ game.initial_std.T
    means, covs, total = [x], [cov], 0.0
    noise = std**2 * np.eye(game.action_dim)
    for t in range(game.horizon + 1):
        m = x if mean is None else mean[t]
        off, gap = x - game.x_target, x - m
        total -= off @ game.c_x @ off + gap @ game.c_m @ gap + np.trace((game.c_x + game.c_m) @ cov)
        if t < game.horizon:
            a, a_cov = K[t] @ x + k[t], K[t] @ cov @ K[t].T + noise
            total -= a @ game.c_a @ a + np.trace(game.c_a @ a_cov)
            closed = game.A + game.B @ K[t]
            x = game.A @ x + game.B @ a + game.A_bar @ m
            cov = closed @ cov @ closed.T + game.B @ noise @ game.B.T + game.noise_std @ game.noise_std.T
            means, covs = [*means, x], [*covs, cov]
    return np.array(means), np.array(covs), total


class BlackBox:
    """A policy of which nothing is known but its actions; `sample` takes no generator."""

    def __init__(self, policy, seed=0):
        self.policy, self.random = policy, gen(seed)

    def sample(self, t, x):
        return self.policy.sample(t, x, generator=self.random)


class Congestion:
    """A student's own game: agents on a line want to be at 1, and away from the crowd. Inherits nothing."""

    horizon, state_dim, action_dim = 3, 1, 1

    def __init__(self, aversion=0.1):
        self.aversion = aversion

    def initial(self, n, generator):
        return 0.5 * torch.randn(n, 1, generator=generator)

    def step(self, t, x, a, population, generator):
        return x + a + 0.1 * torch.randn(x.shape, generator=generator)

    def reward(self, t, x, a, population):
        return -(x - 1).square().sum(-1) - a.square().sum(-1) - self.aversion * population.log_prob(t, x)


class Jam(BeachBar):
    """Speed costs more in a crowd: rewards do not split."""

    def reward(self, t, x, a, population):
        return super().reward(t, x, a, population) - a[:, 0].square() * population.log_prob(t, x).to(x).exp()
