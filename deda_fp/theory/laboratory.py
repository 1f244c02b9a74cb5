"""The error laboratory: fictitious play with exact learners, each made worse by a chosen amount.

Whatever a dial does to exploitability is done by that error alone. Two games, in which everything exact is cheap: the
unbounded LQ game, where policies are paths of offsets, and a beach bar of few cells, where they are tables.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from mfglib.checks import integer, number
from mfglib.exact.grid import Grid
from mfglib.exact.lq import lq_best_response, require_unbounded
from mfglib.games import BeachBar, LinearQuadratic
from mfglib.protocols import Game


@dataclass(frozen=True)
class Dials:
    """Sizes of the three errors in iteration i: (dial) · i^(−decay)."""

    br: float = 0.0
    """ε_br: what each best response leaves unearned, in units of reward"""
    sl: float = 0.0
    """error of the cloned average: its actions are off by so much in every state, in units of action; the theorem's
    ε_sl is this times the length of the state space"""
    cnf: float = 0.0
    """ε_cnf: how far the model of the population is shifted, W1 at each time"""
    decay: float = 0.0
    """p >= 0"""
    random: bool = False
    """errors change their sign at random from one iteration to the next, instead of pointing the same way always"""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("br", "sl", "cnf", "decay"):
            number(f"Dials.{name}", getattr(self, name))

    def signs(self, iterations: int) -> np.ndarray:
        """±1 of each error in each iteration: (iterations + 1, 3)."""
        if not self.random:
            return np.ones((iterations + 1, 3))
        return np.random.default_rng(self.seed).choice([-1.0, 1.0], (iterations + 1, 3))


class Engine(Protocol):
    """A game in which a fictitious play with errors can be computed exactly; `errors` are signed sizes."""

    def reply(self, k: int, br: float, cnf: float) -> None: ...  # π*_k against the model of the population before
    def judge(self, sl: float) -> tuple[float, float]: ...  # clone and model it; e_true of the clone, e of Π_k


def experiment(game: Game, iterations: int = 200, dials: Dials | None = None) -> pd.DataFrame:
    """Fictitious play with steps 1/k from "nobody acts": a row an iteration k = 0..iterations, with columns iteration,
    e_true (of the perturbed average policy) and e_average (of the exact average of the perturbed replies).

    `game`: an unbounded one-dimensional LinearQuadratic, or a BeachBar; TypeError or ValueError for others, and
    ValueError for a `Dials.br` above what the worst reply leaves unearned (beach bar). The replies of an LQ game share
    the best response's gain: an error is an offset of the action, the same in every state.
    """
    dials = dials or Dials()
    integer("iterations", iterations, at_least=1)
    engine, rows = engine_of(game), []
    sign = dict(zip(("br", "sl", "cnf"), dials.signs(iterations).T, strict=True))

    def error(name: str, i: int) -> float:  # iteration 0 has the errors of iteration 1
        return sign[name][i] * getattr(dials, name) * max(i, 1) ** -dials.decay

    for k in range(iterations + 1):
        if k:
            engine.reply(k, error("br", k), error("cnf", k - 1))
        rows.append((k, *engine.judge(error("sl", k))))
    return pd.DataFrame(rows, columns=["iteration", "e_true", "e_average"])


def engine_of(game: Game) -> Engine:
    """The engine that knows the game."""
    if isinstance(game, LinearQuadratic):
        return _Offsets(game)
    if isinstance(game, BeachBar):
        return _Tables(game)
    raise TypeError(f"game: expected a LinearQuadratic or a BeachBar, got {type(game).__name__}")


class _Offsets:
    """LQ: all replies act by a_t = K_t x + u_t. The gap to the best response to a mean path m, offsets k_t(m), is
    Σ_t D_t (u_t − k_t(m))², whatever the states; a mixture's is the mean of its parts'."""

    def __init__(self, game: LinearQuadratic) -> None:
        require_unbounded(game)
        if game.state_dim != 1 or game.action_dim != 1:
            raise ValueError(f"game: expected one dimension, got {game!r}")
        self.A, self.B, self.A_bar, self.m_0 = (
            float(np.ravel(v)[0]) for v in (game.A, game.B, game.A_bar, game.initial_mean)
        )
        T = game.horizon
        zero, unit = np.zeros((T + 1, 1)), np.eye(T + 1)[:, :, None]
        base = lq_best_response(game, zero)
        self.K, self.D, self.free = base.K[:, 0, 0], base.D[:, 0, 0], base.k[:, 0]
        self.slopes = np.stack([lq_best_response(game, e).k[:, 0] - self.free for e in unit], 1)  # (T, T+1)
        self.sum = -self.K * self.m_0  # offsets that keep the mean where it is, but for A and Ā
        self.squares, self.k = self.sum**2, 0

    def reply(self, k: int, br: float, cnf: float) -> None:
        # spread evenly over time: Σ D_t c² = |br|
        u = self._offsets(self.seen + cnf) + np.sign(br) * np.sqrt(abs(br) / self.D.sum())
        if k == 1:
            self.sum, self.squares = np.zeros_like(u), np.zeros_like(u)
        self.sum, self.squares, self.k = self.sum + u, self.squares + u**2, k

    def judge(self, sl: float) -> tuple[float, float]:
        self.seen = self._path(self._mean() + sl)
        return self._gap(sl, self.seen), self._gap(0.0, self._path(self._mean()))

    def _gap(self, shift: float, path: np.ndarray) -> float:
        """(1/k) Σ_i Σ_t D_t (u^i_t + shift − k_t(path))²."""
        mean, target = self._mean(), self._offsets(path) - shift
        return float(self.D @ (self.squares / max(self.k, 1) - 2 * mean * target + target**2))

    def _mean(self) -> np.ndarray:
        return self.sum / max(self.k, 1)

    def _offsets(self, path: np.ndarray) -> np.ndarray:
        return self.free + self.slopes @ path

    def _path(self, offsets: np.ndarray) -> np.ndarray:
        m = np.empty(len(offsets) + 1)
        m[0] = self.m_0
        for t, u in enumerate(offsets):
            m[t + 1] = (self.A + self.B * self.K[t] + self.A_bar) * m[t] + self.B * u
        return m


class _Tables:
    """Beach bar: everything is linear in the occupancy ρ_t(x, a), and J(ρ, μ) = ⟨ρ, r⟩ − (c_m/h) Σ_t ⟨ρ_t, μ_t⟩."""

    CELLS = 40

    def __init__(self, game: BeachBar) -> None:
        grid = Grid(game, self.CELLS)
        self.T, self.h, self.c_m, self.initial = game.horizon, grid.volume, game.c_m, grid.initial
        self.P = transitions(grid)
        place, speed = game.c_x * (grid.x[:, :1] - game.bar).square(), game.c_a * grid.actions.T.square()
        self.r, self.last = -(place + speed), -place[:, 0]  # (m, A), (m,)
        self.actions, self.still = grid.actions[:, 0], int(grid.actions.abs().argmin())
        self.average = self._play(torch.full((self.T, len(self.r)), self.still))

    def reply(self, k: int, br: float, cnf: float) -> None:
        model = self._shifted(cnf)
        V, best = self._best(model)
        reply = self._play(best)
        if br:
            # The worst that agents can do, by as many of them as it takes; never acting, where the sign is −.
            other = self._play(self._best(model, worst=True)[1] if br > 0 else torch.full_like(best, self.still))
            largest = V - self._value(other, model)
            if abs(br) > largest:
                raise ValueError(f"Dials.br: expected at most {largest:.4g} in iteration {k}, got {abs(br):.4g}")
            reply = reply + abs(br) / largest * (other - reply)
        self.average = reply if k == 1 else self.average + (reply - self.average) / k

    def judge(self, sl: float) -> tuple[float, float]:
        own = self._states(self.average)
        clone = self.average if sl == 0 else self._cloned(sl)
        self.seen = self._states(clone)
        exact = self._best(own)[0] - self._value(self.average, own)
        return (exact if sl == 0 else self._best(self.seen)[0] - self._value(clone, self.seen)), exact

    def _states(self, rho: Tensor) -> Tensor:
        """μ_0..μ_T of an occupancy ρ_0..ρ_{T−1}: (T, m, A) -> (T+1, m)."""
        end = torch.einsum("xa,xay->y", rho[-1], self.P)
        return torch.cat([rho.sum(2), end[None]])

    def _value(self, rho: Tensor, crowd: Tensor) -> float:
        own = self._states(rho)
        return float((rho * self.r).sum() + own[-1] @ self.last - self.c_m / self.h * (own * crowd).sum())

    def _best(self, crowd: Tensor, worst: bool = False) -> tuple[float, Tensor]:
        """max (or min) over policies of J against `crowd`: (T+1, m), and its actions (T, m)."""
        sign = -1 if worst else 1
        V, actions = self.last - self.c_m / self.h * crowd[-1], torch.empty(self.T, len(self.r), dtype=torch.long)
        for t in reversed(range(self.T)):
            Q = self.r - self.c_m / self.h * crowd[t][:, None] + self.P @ V
            best, actions[t] = (sign * Q).max(1)
            V = sign * best
        return float(self.initial @ V), actions

    def _play(self, actions: Tensor) -> Tensor:
        """Occupancy (T, m, A) of a deterministic policy (T, m)."""
        choice = torch.nn.functional.one_hot(actions, self.r.shape[1]).double()
        return self._forward(choice)

    def _forward(self, probabilities: Tensor) -> Tensor:
        mass, rho = self.initial, torch.empty_like(probabilities)
        for t in range(self.T):
            rho[t] = mass[:, None] * probabilities[t]
            mass = torch.einsum("xa,xay->y", rho[t], self.P)
        return rho

    def _cloned(self, sl: float) -> Tensor:
        """Occupancy of the average policy, all of its actions off by `sl`, between the bounds."""
        mass = self.average.sum(2, keepdim=True)
        probabilities = torch.where(mass > 0, self.average / mass, 1 / self.r.shape[1])
        return self._forward(probabilities @ self._shift_matrix(self.actions, sl))

    def _shifted(self, cnf: float) -> Tensor:
        """The clone's population, all of it off by `cnf`, on the beach."""
        places = (torch.arange(len(self.initial), dtype=torch.float64) + 0.5) * self.h
        return self.seen @ self._shift_matrix(places, cnf) if cnf else self.seen

    @staticmethod
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
    m = len(grid.x)
    after = torch.zeros(m, m, dtype=torch.float64)  # from the post-decision state, over the noise
    after.scatter_add_(1, grid.noise_target.long(), grid.weights.expand(m, -1).contiguous())
    a = grid.actions.repeat(m, 1)
    move = grid.game.displacement(0, grid.x.repeat_interleave(len(grid.actions), 0), a, None)
    result = torch.zeros(m, len(grid.actions), m, dtype=torch.float64)
    for index, share in grid.corners(move.view(m, len(grid.actions), -1)):
        end = grid.target.gather(1, index.expand(m, -1)).long()
        result += share[..., None] * after[end]
    return result


def floors(
    game: Game, iterations: int, dial: str, sizes: Sequence[float], *, random: bool = False, seeds: int = 1
) -> pd.DataFrame:
    """What constant errors leave: exploitability over the last quarter of the iterations, above that without errors.

    `dial`: "br", "sl" or "cnf". Columns size, seed and floor; `seeds` only differ with random signs."""
    late = slice(-max(iterations // 4, 1), None)
    exact = experiment(game, iterations)["e_true"].iloc[late].mean()
    rows = []
    for size in sizes:
        for seed in range(seeds if random else 1):
            table = experiment(game, iterations, Dials(**{dial: size}, random=random, seed=seed))
            rows.append((size, seed, table["e_true"].iloc[late].mean() - exact))
    return pd.DataFrame(rows, columns=["size", "seed", "floor"])


def fall(table: pd.DataFrame) -> tuple[float, float]:
    """Exponent of k in the exploitability of an `experiment`, over its last 95%, and half its confidence interval."""
    last = int(table["iteration"].iloc[-1])
    at = np.unique(np.geomspace(max(last // 20, 2), last, 40).astype(int))
    return slope(at, table.set_index("iteration")["e_true"].loc[at].to_numpy())


def slope(x: np.ndarray, y: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Exponent b of y ∝ x^b by least squares on logarithms, and half the width of its confidence interval."""
    fit = stats.linregress(np.log(x), np.log(y))
    return float(fit.slope), float(stats.t.ppf((1 + confidence) / 2, len(x) - 2) * fit.stderr)
