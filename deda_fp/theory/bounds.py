"""Constants of the theorem's assumptions, derived, and the bounds that they give (paper, Section 4; notebook 03).

On a class of policies and the populations that they make, with d = max_t W1 and d_Π = max_t ∫ W1(π(·|x), π'(·|x)) dx:

    |J(π, μ) − J(π, ν)|   <= L d(μ, ν)           d(μ^π, μ^π') <= L_MF d_Π(π, π')
    |J(π, μ) − J(π', μ)|  <= L_pi d_Π(π, π')     d(P_{k+1}, P_k) <= C_FP / (k + 1)
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from deda_fp.theory.errors import policy_distance
from mfglib.checks import number
from mfglib.exact.grid import Grid
from mfglib.exact.grid_judge import GridJudge
from mfglib.exact.tables import TablePolicy
from mfglib.games import BeachBar, LinearQuadratic
from mfglib.populations import CellPopulation


@dataclass(frozen=True)
class Constants:
    """`diameter`: the largest distance d between two populations. C1 and C2 read the printed bracket literally: both ε
    enter d(Ḡ_{k+1}, Ḡ_k) twice, and 2 L times that enters the bracket."""

    L: float
    L_MF: float
    L_pi: float
    C_FP: float
    diameter: float

    @property
    def C1(self) -> float:
        return 4 * self.L * max(1.0, self.L_MF)

    @property
    def C2(self) -> float:
        return 2 * self.L * self.C_FP


def beach_constants(grid: Grid) -> Constants:
    """Of the beach bar on a grid, for all policies; L for all pairs of populations, L_pi for those that policies make.

    Noise with weights w_j on cells of width h bounds a density by M = 2 max w / h (twice: reflection), its steps from
    cell to cell by 2 max|w_{j+1} − w_j| / h, and turns a distance W1 after the move into a total variation of at most
    S = Σ|w_{j+1} − w_j| / (2h) times that. Agents in other places may be a whole beach apart.
    Raises ValueError for other games, and for noise that is reflected more than once.
    """
    game, h = grid.game, float(grid.h[0])
    if not isinstance(game, BeachBar) or game.noise_bound > 1:
        raise ValueError(f"grid: expected one of a BeachBar with noise_bound <= 1, got one of {game!r}")
    w = np.concatenate([[0.0], grid.weights.numpy(), [0.0]])
    density, jump, smooth = 2 * w.max() / h, 2 * np.abs(np.diff(w)).max() / h, np.abs(np.diff(w)).sum() / (2 * h)
    T, far = game.horizon, 1 - h
    apart = np.zeros(T + 1)  # total variation at t, and W1 after the move, of two policies at distance 1
    after = np.zeros(T)
    for t in range(T):
        after[t] = (1.0 if t == 0 else density) + far * apart[t]
        apart[t + 1] = smooth * after[t]
    densities = np.array([1.0] + [density] * T)
    swing = game.c_x * max(game.bar, 1 - game.bar) ** 2 + game.c_m * densities + game.c_a * game.a_bound**2
    paid = 2 * game.c_a * game.a_bound * densities[:T].sum()
    # At t = 0 everybody's density is constant: a population's error there changes nothing.
    return Constants(
        L=game.c_m * T * jump / h, L_MF=after.max(), L_pi=float(swing @ apart + paid), C_FP=far, diameter=far
    )


def lq_constants(grid: Grid, responses: float, clones: float) -> Constants:
    """Of an LQ game in the box of a grid, for policies under which agents who meet the same noise keep together: W1
    between A x + B a and A y + B a' is at most κ |x − y|, κ = `responses` for best responses and trained ones, and
    κ = `clones` for one of the two policies that L_MF and L_pi compare. Reflection at the ends doubles a density.
    """
    game = grid.game
    if not isinstance(game, LinearQuadratic) or game.state_dim != 1:
        raise ValueError(f"grid: expected one of a LinearQuadratic in one dimension, got one of {game!r}")
    responses, clones, T = number("responses", responses), number("clones", clones), game.horizon
    A, B, A_bar, c_x, c_a, c_m, target = (
        abs(float(np.ravel(getattr(game, n))[0])) for n in ("A", "B", "A_bar", "c_x", "c_a", "c_m", "x_target")
    )
    b, a_max, h = float(game.domain.upper[0]), float(grid.actions.max()), float(grid.h[0])
    place, crowd, act = 2 * c_x * (b + target), 4 * b * c_m, 2 * c_a * a_max
    densities = np.array([grid.initial.max() / h] + [2 * grid.weights.max() / h] * T)
    drift = _recursion(responses, np.full(T, A_bar))  # of one agent, when the crowd's mean is off by 1 at all times
    together = _recursion(clones + A_bar, B * densities[:T])  # of two crowds whose policies are at distance 1
    alone = _recursion(clones, B * densities[:T])  # of two agents in one crowd
    pushed = 1 + _recursion(responses + A_bar, np.full(T, A_bar))  # of a mixture, when a share 1 of it is replaced
    paid = act * ((clones + A) / B * alone[:T] + densities[:T]).sum()
    return Constants(
        L=float(((place + crowd) * drift + crowd).sum() + (act * (responses + A) / B * drift[:T]).sum()),
        L_MF=float(together.max()),
        L_pi=float(((place + crowd) * alone).sum() + paid),
        C_FP=2 * b * float(pushed.max()),
        diameter=2 * b,
    )


def _recursion(factor: float, added: np.ndarray) -> np.ndarray:
    """w_0 = 0, w_{t+1} = factor · w_t + added_t: (T,) -> (T+1,)."""
    w = np.zeros(len(added) + 1)
    for t, step in enumerate(added):
        w[t + 1] = factor * w[t] + step
    return w


def bounds(table: pd.DataFrame, c: Constants, c_m: float | None = None) -> pd.DataFrame:
    """Bounds on e_true for each row k >= 1 of one run's error terms (`deda_fp.theory.errors`), numbered as in
    notebook 03. Columns:

    iteration, e_true; printed: the theorem's, with e_1/k + 4 L ε_cnf^k for its C0 e_cnf^0, as its two lemmas give;
    measured: (A), `bound`; constants: (A'), errors of crowds as 2 L times their distances. With c_m, for rewards
    r(x, a) − c_m μ(x) and moves that do not depend on the population: policies: (A''), with L_MF and L_pi times ε_sl;
    span: errors of crowds by `GridJudge.span`, fictitious play's own steps by (B); potential: (C), above the least
    e_average of iterations k/2 to k − 1 (NaN for k = 1).
    """
    rows = table[table["iteration"] >= 1].reset_index(drop=True)
    k = rows["iteration"].to_numpy(dtype=float)

    def mean(terms: np.ndarray) -> np.ndarray:
        return np.cumsum(terms) / k

    def before(column: str) -> np.ndarray:  # of iteration k − 1; nothing is cloned in iteration 0
        return np.concatenate([[0.0], rows[column].to_numpy()[:-1]])

    br, cnf = rows["epsilon_br"], table["epsilon_cnf"].to_numpy()  # cnf of iterations 0..K
    bracket = k * br + c.C1 * (rows["epsilon_sl_uniform"] + cnf[1:])  # of i = k − 1
    bracket += np.where(k > 1, c.C2 / np.maximum(k - 1, 1), 0.0)
    bracket[0] = 0.0
    play = 2 * c.L * (c.diameter + (k - 1) * c.C_FP) / k
    out = dict(iteration=rows["iteration"], e_true=rows["e_true"], measured=rows["bound"])
    out["printed"] = rows["e"].iloc[0] / k + mean(bracket) + 4 * c.L * cnf[1:]
    out["constants"] = mean(br + 2 * c.L * (cnf[:-1] + before("w1_cloning"))) + play
    out["constants"] += 2 * c.L * rows["w1_cloning"] + rows["worse"]
    if c_m is not None:
        past = mean(br + 2 * c.L * (cnf[:-1] + c.L_MF * before("epsilon_sl")))
        out["policies"] = past + (2 * c.L * c.L_MF + c.L_pi) * rows["epsilon_sl"] + play
        step = np.where(k > 1, k / np.maximum(k - 1, 1) * c_m / 4 * rows["settling"], rows["span_averaging"])
        crowds = table["span_flow"].to_numpy()[:-1] + before("span_cloning")
        out["span"] = mean(br + crowds + step) + rows["worse"] + rows["span_cloning"]
        out["potential"] = _of_potential(rows, k, c_m)
    return pd.DataFrame(out)


def _of_potential(rows: pd.DataFrame, k: np.ndarray, c_m: float) -> np.ndarray:
    """(C): Frank-Wolfe with an inexact oracle, h_i = h_{i−1} − (g_{i−1} − δ_i)/i + c_m reach_i / (2 i²), and h <= g."""
    delta, curvature = rows["in_mixture"].to_numpy(), c_m * rows["reach"].to_numpy() / 2
    h, best = np.full(len(k), rows["e_average"].iloc[0]), np.full(len(k), np.nan)
    for i in range(1, len(k)):
        h[i] = (1 - 1 / k[i]) * h[i - 1] + delta[i] / k[i] + curvature[i] / k[i] ** 2
        n = (i + 1) // 2  # iterations n..k − 1, steps n + 1..k; the index of iteration n is n − 1
        steps = slice(n, i + 1)
        left = h[n - 1] + (delta[steps] / k[steps] + curvature[steps] / k[steps] ** 2).sum()
        best[i] = left / (1 / k[steps]).sum()
    return best


def random_policies(judge: GridJudge, n: int, seed: int, contraction: float | None = None) -> list[TablePolicy]:
    """n tables of two equally likely actions in each cell, of the class that the constants speak of: moves to random
    places, smooth ones, bang-bang and wild ones; with `contraction`, moves that are so Lipschitz, of an LQ game."""
    random, grid = np.random.default_rng(seed), judge.grid
    T, x, bound = judge.game.horizon, grid.x[:, 0].numpy(), float(grid.actions.max())
    middle, half = (x[0] + x[-1]) / 2, (x[-1] - x[0]) / 2
    tables = []
    for i in range(n):
        places = middle + (0.6 if contraction is None else 0.3) * half * random.uniform(-1, 1, (T, 1))
        slope = np.array([0.0, 1.0, 0.5, -0.5])[i % 4] if contraction is None else contraction * random.uniform(-1, 1)
        a = places + slope * (x - middle) - x
        if contraction is not None:
            A, B = (judge.game.coefficients(name)[:, 0] for name in ("A", "B"))  # (T, 1)
            a = (places + slope * (x - middle) - A * x) / B
        elif i % 4 == 1:
            a = bound * np.sign(random.uniform(-1, 1, (T, len(x))))
        elif i % 4 == 2:
            a = bound * random.uniform(-1, 1, (T, len(x)))
        spread = bound * random.uniform(0, 0.05) * (i % 2)
        both = torch.from_numpy(np.stack([a - spread, a + spread], -1))[..., None]
        tables.append(TablePolicy(grid, both, torch.full(both.shape[:3], 0.5)))
    return tables


def check(
    judge: GridJudge,
    c: Constants,
    policies: list[TablePolicy],
    flows: list[CellPopulation],
    clones: list[TablePolicy] | None = None,
) -> pd.DataFrame:
    """The largest ratio of each inequality's left side to its right side without the constant, over all pairs of
    neighbours in the lists: columns constant, derived, largest (seen) and share = largest / derived, which must be at
    most 1. `flows` are further populations beside those of the policies, `clones` the policies for L_MF and L_pi."""
    clones = policies if clones is None else clones
    crowds, made = [judge.crowd([p]) for p in policies], [judge.crowd([p]) for p in clones]
    worst = dict.fromkeys(("L", "L_MF", "L_pi", "C_FP"), 0.0)

    def note(name: str, left: float, right: float) -> None:
        if right > 1e-9:
            worst[name] = max(worst[name], left / right)

    seen = flows + crowds
    for p in policies:
        values = [judge.value(p, mu) for mu in seen]
        for i in range(1, len(seen)):
            note("L", abs(values[i] - values[i - 1]), judge.wasserstein(seen[i], seen[i - 1]))
    for i in range(1, len(clones)):
        apart = policy_distance(clones[i], clones[i - 1])
        note("L_MF", judge.wasserstein(made[i], made[i - 1]), apart)
        for mu in (made[i], made[i - 1]):
            note("L_pi", abs(judge.value(clones[i], mu) - judge.value(clones[i - 1], mu)), apart)
    for i in range(1, len(policies)):
        step = judge.wasserstein(judge.crowd(policies[: i + 1]), judge.crowd(policies[:i]))
        note("C_FP", step * (i + 1), 1.0)
    rows = [dict(constant=n, derived=getattr(c, n), largest=v, share=v / getattr(c, n)) for n, v in worst.items()]
    return pd.DataFrame(rows)


def point_flows(judge: GridJudge, n: int, seed: int) -> list[CellPopulation]:
    """n pairs of populations that stand on one cell, and on the next one, at all times: the worst for local rewards."""
    random, grid, flows = np.random.default_rng(seed), judge.grid, []
    for _ in range(n):
        cell = int(random.integers(len(grid.x) - 1))
        for at in (cell, cell + 1):
            mass = torch.zeros(judge.game.horizon + 1, len(grid.x), dtype=torch.float64)
            mass[:, at] = 1.0
            flows.append(CellPopulation(grid, mass))
    return flows
