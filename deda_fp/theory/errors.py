"""Every error that the theorem speaks of, measured exactly in a run, and what they add up to (paper, Section 4).

With γ(π; μ) = max_π' J(π', μ) − J(π, μ), μ_k the population that the average policy π̄_k makes, Ḡ_k the flow, Π_k the
average that draws one of π*_1..π*_k once per episode, and P_k its population, for every game and without assumptions

    e_k^true = (1/k) Σ_i ε_br^i                                          best responses
             + (1/k) Σ_i [γ(π*_i; μ_{i−1}) − γ(π*_i; Ḡ_{i−1})]           flow
             + (1/k) Σ_i [γ(π*_i; P_{i−1}) − γ(π*_i; μ_{i−1})] + γ(π̄_k; μ_k) − γ(Π_k; P_k)       cloning
             + (1/k) Σ_i [γ(π*_i; P_k) − γ(π*_i; P_{i−1})]               fictitious play itself,

since J(Π_k, μ) is the mean of J(π*_i, μ). The bounds replace a difference of gaps by what the crowd's change is worth,
γ(π; μ) − γ(π; ν) <= γ(b; ν) + γ(π; μ) − γ(π; ν) with b the best response to μ. Notebook 03 has the proofs.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from mfglib.exact.grid_judge import GridJudge
from mfglib.exact.tables import TablePolicy
from mfglib.populations import CellPopulation

PARTS = ("best_response", "flow", "cloning", "averaging")


@dataclass
class _Past:
    """Tables of π*_1..π*_k, where each was in the population of its training, and running sums over i <= k."""

    tables: list[TablePolicy] = field(default_factory=list)
    masses: list[Tensor] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)

    def mean(self, name: str, value: float) -> float:
        """(1/k) Σ_{i <= k} of a term whose k-th value this is."""
        self.sums[name] = self.sums.get(name, 0.0) + value
        return self.sums[name] / len(self.tables)


def errors(judge: GridJudge, learners: Iterable, *, progress: bool = True, total: int | None = None) -> pd.DataFrame:
    """A row for each iteration k = 0..K of a DEDA-FP run with uniform averaging; `learners` as from
    `mfglib.solver.replay`, `total` their number if it is known. Row 0 only has e, e_true, epsilon_cnf and
    span_flow.

    Columns, in units of reward:
        epsilon_br (against Ḡ_{k−1}), e (of π̄_k against Ḡ_k), e_true, e_average (of Π_k), e_weighted (of the policy of
        (t, x) that averages the best responses by who is where, as M_SL does; that of Π_k if moves ignore the crowd);
        part_best_response, part_flow, part_cloning, part_averaging, which add up to e_true;
        bound_flow, bound_cloning, bound_averaging, never below the parts of these names, and bound, their sum with
        part_best_response;
        in_true, in_mixture, in_next: the gap of π*_k against μ_{k−1}, P_{k−1} and P_k;
        worse = J(Π_k, μ_k) − J(π̄_k, μ_k);
        span_flow = Λ(Ḡ_k, μ_k), span_cloning = Λ(μ_k, P_k), span_averaging = Λ(P_k, P_{k−1}) (`GridJudge.span`).
    Distances, in units of state: epsilon_cnf = max_t W1(Ḡ_k, μ_k), w1_cloning between μ_k and P_k, w1_averaging between
    P_k and P_{k−1}. Between densities: settling = Σ_t ∫ (μ^b − μ^π*_k)² dx with b the best response to P_k, and
    reach = Σ_t ∫ (μ^π*_k − P_{k−1})² dx.
    Between policies, max_t ∫ W1(π̄_k(·|x), ·) dx to two averages of π*_1..π*_k: epsilon_sl_uniform (each π*_i weighs the
    same in every state, as the theorem writes it) and epsilon_sl (weighted by who was there in training, as in M_SL:
    its population is P_k if moves do not depend on the population); epsilon_sl_crowd is the latter, integrated against
    μ_k instead of dx.
    contraction_reply, contraction_clone: Lipschitz constants of where agents go (`LQJudge.contraction`).
    """
    rows, past, before = [], _Past(), None
    bar = tqdm(learners, desc="error terms", total=total, **({} if progress else {"disable": True}))
    for learned in bar:
        k, policy = learned.k, judge.tabulate(learned.policy, learned.k)
        mu, model = judge.crowd([policy]), judge.seen(learned.population)
        row = dict(iteration=k, e=judge.gap(policy, model), e_true=judge.gap(policy, mu))
        row |= dict(epsilon_cnf=judge.wasserstein(model, mu))
        if before is None:
            rows.append(row | dict(span_flow=judge.span(model, mu)))
            before = _Crowds(model, mu, mu)
            continue
        response = judge.tabulate(learned.best_response, k)
        past.tables.append(response)
        past.masses.append(judge.mass(response, before.model))
        now = _Crowds(model, mu, judge.crowd(past.tables))
        row |= _gaps(judge, past, policy, before, now) | _of_averages(judge, past, policy, mu)
        row |= dict(w1_cloning=judge.wasserstein(mu, now.mixture))
        row |= dict(w1_averaging=judge.wasserstein(now.mixture, before.mixture), span_flow=judge.span(model, mu))
        row |= dict(span_cloning=judge.span(mu, now.mixture), span_averaging=judge.span(now.mixture, before.mixture))
        row |= dict(contraction_reply=judge.contraction(response), contraction_clone=judge.contraction(policy))
        rows.append(row | _add_up(past, row))
        before = now
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class _Crowds:
    """Ḡ_k, μ_k and P_k."""

    model: CellPopulation
    true: CellPopulation
    mixture: CellPopulation


def _gaps(judge: GridJudge, past: _Past, policy: TablePolicy, before: _Crowds, now: _Crowds) -> dict[str, float]:
    """The gaps of iteration k that the identity and the bounds are made of. A bound on γ(π; μ) − γ(π; ν) is that
    difference and a slack, γ(b; ν) of the best response b to μ."""
    response, gap, best = past.tables[-1], judge.gap, judge.best
    next_response = best(now.mixture)
    own = judge.mass(next_response, now.mixture) - judge.mass(response, now.mixture)
    average, average_in_true = gap(past.tables, now.mixture), gap(past.tables, now.true)
    moved = average - gap(past.tables, before.mixture)  # of what Π_k gains, when the crowd goes from P_{k−1} to P_k
    return dict(
        epsilon_br=gap(response, before.model),
        e_average=average,
        in_true=gap(response, before.true),
        in_mixture=gap(response, before.mixture),
        in_next=gap(response, now.mixture),
        worse=gap(policy, now.true) - average_in_true,
        slack_flow=gap(best(before.true), before.model),
        slack_cloning=gap(best(before.mixture), before.true),
        slack_now=gap(best(now.true), now.mixture),
        steps=len(past.tables) * (gap(next_response, before.mixture) + moved),
        settling=float(own.square().sum() / judge.grid.volume),
        reach=float((past.masses[-1] - before.mixture.mass).square().sum() / judge.grid.volume),
    )


def _add_up(past: _Past, row: dict[str, float]) -> dict[str, float]:
    """The four parts and their bounds."""
    trained = past.mean("br", row["epsilon_br"])
    flow = past.mean("flow", row["in_true"] - row["epsilon_br"])
    cloned = past.mean("cloning", row["in_mixture"] - row["in_true"])
    now = row["e_true"] - row["e_average"]
    play = row["e_average"] - trained - flow - cloned
    parts = dict(best_response=trained, flow=flow, cloning=cloned + now, averaging=play)
    bounds = dict(
        flow=flow + past.mean("slack flow", row["slack_flow"]),
        cloning=parts["cloning"] + past.mean("slack cloning", row["slack_cloning"]) + row["slack_now"],
        averaging=past.mean("steps", row["steps"]),
    )
    total = trained + sum(bounds.values())
    return {f"part_{n}": parts[n] for n in PARTS} | {f"bound_{n}": v for n, v in bounds.items()} | dict(bound=total)


def _averages(past: _Past) -> tuple[TablePolicy, TablePolicy]:
    """Two policies of (t, x) that average π*_1..π*_k: all the same in every state, and weighted by who was there."""
    k, grid = len(past.tables), past.tables[0].grid
    masses = torch.stack(past.masses)[:, :-1]  # (k, T, m)
    total = masses.sum(0)
    weights = torch.where(total > 0, masses / total, 1 / k)
    atoms = torch.cat([p.actions for p in past.tables], 2)
    even = torch.cat([p.shares / k for p in past.tables], 2)
    near = torch.cat([p.shares * w[..., None] for p, w in zip(past.tables, weights, strict=True)], 2)
    return TablePolicy(grid, atoms, even), TablePolicy(grid, atoms, near)


def _of_averages(judge: GridJudge, past: _Past, policy: TablePolicy, crowd: CellPopulation) -> dict[str, float]:
    """ε_sl in three versions, W1 between the clone and the averages, state by state; and the gap of its model."""
    uniform, weighted = _averages(past)
    among = state_distances(policy, weighted) * crowd.mass[: judge.game.horizon]
    return dict(
        epsilon_sl_uniform=policy_distance(policy, uniform),
        epsilon_sl=policy_distance(policy, weighted),
        epsilon_sl_crowd=float(among.sum(1).max()),
        e_weighted=judge.gap(weighted, judge.crowd([weighted])),
    )


def state_distances(one: TablePolicy, other: TablePolicy) -> Tensor:
    """W1(π_t(·|x), π'_t(·|x)) in each cell: (T, m)."""
    a, b = ((p.actions[..., 0].flatten(0, 1), p.shares.flatten(0, 1)) for p in (one, other))
    return atoms_wasserstein(*a, *b).view(one.shares.shape[:2])


def policy_distance(one: TablePolicy, other: TablePolicy) -> float:
    """d_Π(π, π') = max_t ∫ W1(π_t(·|x), π'_t(·|x)) dx."""
    return float((state_distances(one, other).sum(1) * one.grid.h[0]).max())


def atoms_wasserstein(x: Tensor, p: Tensor, y: Tensor, q: Tensor) -> Tensor:
    """W1 between atoms x: (m, S) with shares p and atoms y: (m, S') with shares q, row by row: (m,)."""
    points, order = torch.cat([x, y], 1).sort(1)
    difference = torch.cat([p, -q], 1).gather(1, order).cumsum(1)[:, :-1]
    return (difference.abs() * points.diff(dim=1)).sum(1)
