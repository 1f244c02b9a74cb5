"""Exact learners made worse on purpose, for `mfglib.fictitious_play`: each errs by a chosen amount.

Two games, in which everything exact is cheap: the unbounded LQ game, where policies are paths of offsets, and a beach
bar of few cells, where they are tables.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mfglib.exact.grid import Grid
from mfglib.exact.lq import lq_best_response, require_unbounded
from mfglib.games import BeachBar, LinearQuadratic
from mfglib.protocols import Game, TensorState
from mfglib.seeds import Random

Error = Callable[[str, int], float]  # a dial's name and an iteration -> its signed size


def learners_of(game: Game, error: Error) -> tuple[Any, Any, Any]:
    """Learners that know the game exactly and are made worse on purpose, for `mfglib.fictitious_play`."""
    if isinstance(game, LinearQuadratic):
        offsets = _Offsets(game)
        return _OffsetResponse(offsets, error), _OffsetAverage(offsets), _OffsetCrowd(offsets, error)
    if isinstance(game, BeachBar):
        tables = _Tables(game)
        return _TableResponse(tables, error), _TableAverage(tables), _TableCrowd(tables, error)
    raise TypeError(f"game: expected a LinearQuadratic or a BeachBar, got {type(game).__name__}")


class _Shared:
    """What learners of a game share, and nobody changes: no iteration copies it."""

    def __deepcopy__(self, memo: dict) -> "_Shared":
        return self


class _Worse(TensorState):
    """A learner that knows a game by what is shared, and errs by error(dial, k) in iteration k."""

    policy: Any = None

    def __init__(self, shared: _Shared, error: Error) -> None:
        self.shared, self.error = shared, error


class _Offsets(_Shared):
    """LQ: all best responses act by a_t = K_t x + u_t. The gap to the best response to a mean path m, of offsets
    k_t(m), is Σ_t D_t (u_t − k_t(m))², whatever the states; a mixture's is the mean of its parts'."""

    def __init__(self, game: LinearQuadratic) -> None:
        require_unbounded(game)
        if game.state_dim != 1 or game.action_dim != 1:
            raise ValueError(f"game: expected one dimension, got {game!r}")
        self.A, self.B, self.A_bar = (game.coefficients(name)[:, 0, 0] for name in ("A", "B", "A_bar"))  # (T,)
        self.m_0 = float(game.initial_mean[0])
        T = game.horizon
        zero, unit = np.zeros((T + 1, 1)), np.eye(T + 1)[:, :, None]
        base = lq_best_response(game, zero)
        self.K, self.D, self.free = base.K[:, 0, 0], base.D[:, 0, 0], base.k[:, 0]
        self.slopes = np.stack([lq_best_response(game, e).k[:, 0] - self.free for e in unit], 1)  # (T, T+1)

    def best(self, path: np.ndarray) -> np.ndarray:
        """The offsets (T,) of the best response to a mean path (T+1,)."""
        return self.free + self.slopes @ path

    def path(self, offsets: np.ndarray) -> np.ndarray:
        """The mean path of a population with these mean offsets."""
        m = np.empty(len(offsets) + 1)
        m[0] = self.m_0
        for t, u in enumerate(offsets):
            m[t + 1] = (self.A[t] + self.B[t] * self.K[t] + self.A_bar[t]) * m[t] + self.B[t] * u
        return m


class _OffsetResponse(_Worse):
    def fit(self, population: "_OffsetCrowd", k: int, random: Random) -> dict[str, float]:
        br = self.error("br", k)  # spread evenly over time: Σ D_t c² = |br|
        self.policy = self.shared.best(population.model) + np.sign(br) * np.sqrt(abs(br) / self.shared.D.sum())
        return {}


class _OffsetAverage(TensorState):
    """Sums of the offsets of 1..k and of their squares; at first those that keep the mean where it is, but for A, Ā."""

    def __init__(self, shared: _Offsets) -> None:
        self.sum = -shared.K * shared.m_0
        self.squares, self.k = self.sum**2, 1

    @property
    def policy(self) -> np.ndarray:
        return self.sum / self.k

    def update(self, response: _OffsetResponse, population: Any, k: int, random: Random) -> dict[str, float]:
        u, old = response.policy, float(k > 1)
        self.sum, self.squares, self.k = old * self.sum + u, old * self.squares + u**2, k
        return {}


class _OffsetCrowd(_Worse):
    """The mean path of agents whose actions are off by sl, and a model of it that is off by cnf."""

    def fit(self, policy: np.ndarray, k: int, random: Random) -> dict[str, float]:
        self.shift = self.error("sl", k)
        self.seen = self.shared.path(policy + self.shift)
        self.model = self.seen + self.error("cnf", k)
        return {}

    def exploitability(self, average: _OffsetAverage) -> tuple[float, float]:
        """Of the clone, and of the exact average."""
        return self._gap(average, self.shift, self.seen), self._gap(average, 0.0, self.shared.path(average.policy))

    def _gap(self, average: _OffsetAverage, shift: float, path: np.ndarray) -> float:
        """(1/k) Σ_i Σ_t D_t (u^i_t + shift − k_t(path))²."""
        target = self.shared.best(path) - shift
        return float(self.shared.D @ (average.squares / average.k - 2 * average.policy * target + target**2))


class _Tables(_Shared):
    """Beach bar: everything is linear in the occupancy ρ_t(x, a), and J(ρ, μ) = ⟨ρ, r⟩ − (c_m/h) Σ_t ⟨ρ_t, μ_t⟩."""

    CELLS = 40

    def __init__(self, game: BeachBar) -> None:
        grid = Grid(game, self.CELLS)
        self.T, self.h, self.c_m, self.initial = game.horizon, grid.volume, game.c_m, grid.initial
        self.P = transitions(grid)
        place, speed = game.c_x * (grid.x[:, :1] - game.bar).square(), game.c_a * grid.actions.T.square()
        self.r, self.last = -(place + speed), -place[:, 0]  # (m, A), (m,)
        self.actions = grid.actions[:, 0]
        self.still = torch.full((self.T, len(self.r)), int(self.actions.abs().argmin()))

    def states(self, rho: Tensor) -> Tensor:
        """μ_0..μ_T of an occupancy ρ_0..ρ_{T−1}: (T, m, A) -> (T+1, m)."""
        end = torch.einsum("xa,xay->y", rho[-1], self.P)
        return torch.cat([rho.sum(2), end[None]])

    def value(self, rho: Tensor, crowd: Tensor) -> float:
        own = self.states(rho)
        return float((rho * self.r).sum() + own[-1] @ self.last - self.c_m / self.h * (own * crowd).sum())

    def best(self, crowd: Tensor, worst: bool = False) -> tuple[float, Tensor]:
        """max (or min) over policies of J against `crowd`: (T+1, m), and its actions (T, m)."""
        sign = -1 if worst else 1
        V, actions = self.last - self.c_m / self.h * crowd[-1], torch.empty(self.T, len(self.r), dtype=torch.long)
        for t in reversed(range(self.T)):
            Q = self.r - self.c_m / self.h * crowd[t][:, None] + self.P @ V
            best, actions[t] = (sign * Q).max(1)
            V = sign * best
        return float(self.initial @ V), actions

    def gap(self, rho: Tensor, crowd: Tensor) -> float:
        return self.best(crowd)[0] - self.value(rho, crowd)

    def occupancy(self, actions: Tensor) -> Tensor:
        """(T, m, A) of a deterministic policy (T, m)."""
        return self.forward(torch.nn.functional.one_hot(actions, self.r.shape[1]).double())

    def forward(self, probabilities: Tensor) -> Tensor:
        mass, rho = self.initial, torch.empty_like(probabilities)
        for t in range(self.T):
            rho[t] = mass[:, None] * probabilities[t]
            mass = torch.einsum("xa,xay->y", rho[t], self.P)
        return rho


class _TableResponse(_Worse):
    def fit(self, population: "_TableCrowd", k: int, random: Random) -> dict[str, float]:
        shared, br = self.shared, self.error("br", k)
        V, best = shared.best(population.model)
        self.policy = shared.occupancy(best)
        if br:
            # The worst that agents can do, by as many of them as it takes; never acting, where the sign is −.
            other = shared.occupancy(shared.best(population.model, worst=True)[1] if br > 0 else shared.still)
            largest = V - shared.value(other, population.model)
            if abs(br) > largest:
                raise ValueError(f"Dials.br: expected at most {largest:.4g} in iteration {k}, got {abs(br):.4g}")
            self.policy = self.policy + abs(br) / largest * (other - self.policy)
        return {}


class _TableAverage(TensorState):
    def __init__(self, shared: _Tables) -> None:
        self.policy = shared.occupancy(shared.still)

    def update(self, response: _TableResponse, population: Any, k: int, random: Random) -> dict[str, float]:
        new = response.policy
        self.policy = new if k == 1 else self.policy + (new - self.policy) / k
        return {}


class _TableCrowd(_Worse):
    """The population of the average policy with all actions off by sl, between the bounds; and a model of it, all of it
    off by cnf, on the beach."""

    def fit(self, policy: Tensor, k: int, random: Random) -> dict[str, float]:
        shared, sl, cnf = self.shared, self.error("sl", k), self.error("cnf", k)
        self.clone = policy
        if sl:
            mass = policy.sum(2, keepdim=True)
            probabilities = torch.where(mass > 0, policy / mass, 1 / shared.r.shape[1])
            self.clone = shared.forward(probabilities @ _shift_matrix(shared.actions, sl))
        self.seen = self.model = shared.states(self.clone)
        if cnf:
            places = (torch.arange(len(shared.initial), dtype=torch.float64) + 0.5) * shared.h
            self.model = self.seen @ _shift_matrix(places, cnf)
        return {}

    def exploitability(self, average: _TableAverage) -> tuple[float, float]:
        """Of the clone, and of the exact average."""
        exact = self.shared.gap(average.policy, self.shared.states(average.policy))
        return (exact if self.clone is average.policy else self.shared.gap(self.clone, self.seen)), exact


def _shift_matrix(points: Tensor, by: float) -> Tensor:
    """Where mass on regular `points` goes when it moves by `by`, shared out between neighbours: (n, n)."""
    step = (points[1] - points[0]).item()
    to = ((points + by - points[0]) / step).clamp(0, len(points) - 1)
    low = to.floor().long().clamp(max=len(points) - 2)
    part = to - low
    matrix, row = torch.zeros(len(points), len(points), dtype=torch.float64), torch.arange(len(points))
    matrix[row, low], matrix[row, low + 1] = 1 - part, part
    return matrix


def transitions(grid: Grid) -> Tensor:
    """P(x' | x, a) of a grid whose moves do not depend on time or population: (m, A, m)."""
    m, A = len(grid.x), len(grid.actions)
    move = grid.game.displacement(0, grid.x.repeat_interleave(A, 0), grid.actions.repeat(m, 1), None)
    return torch.from_numpy((grid.matrix(move.view(m, A, -1)) @ grid.noise).toarray()).view(m, A, m)
