"""The error terms (`deda_fp.theory.errors`) and the judge behind them (`mfglib.exact.grid_judge`)."""

from functools import cache

import numpy as np
import pytest
import torch
from helpers import gen
from scipy.stats import wasserstein_distance

from deda_fp.theory.errors import _averages, _Past, atoms_wasserstein, errors
from mfglib import exploitability
from mfglib.exact import lq_best_response, lq_equilibrium, lq_fictitious_play, lq_gap, lq_moments
from mfglib.exact.grid_judge import GridJudge
from mfglib.exact.lq_judge import LQJudge
from mfglib.exact.tables import TablePolicy
from mfglib.fictitious_play import Step
from mfglib.games import BeachBar, FourRooms, LinearQuadratic
from mfglib.judge import of as judge_of
from mfglib.learn.densities import GaussianPolicy
from mfglib.learn.networks import Networks
from mfglib.policies import AffinePolicy, EpisodeMixture, MeanPolicy, NoisePolicy
from mfglib.populations import CellPopulation, GaussianPath

BAR, LQ = BeachBar(horizon=4), LinearQuadratic(horizon=4)


@cache
def judge(game=BAR, cells=None):
    return judge_of(game, cells or (40 if game is BAR else 300))


def random_table(j, seed=0, atoms=2):
    bound = j.grid.actions.max()
    a = bound * (2 * torch.rand(j.game.horizon, len(j.grid.x), atoms, 1, generator=gen(seed)).double() - 1)
    if isinstance(j, LQJudge):  # nobody may leave the box
        a = 0.05 * a - 0.8 * j.grid.x[None, :, None]
    shares = torch.rand(a.shape[:3], generator=gen(seed + 1)).double()
    return TablePolicy(j.grid, a, shares / shares.sum(2, keepdim=True))


def learners(j, K=4):
    """Learners as bad as can be: random tables, flows of yet other policies."""
    for k in range(K + 1):
        reply, average, other = (random_table(j, 10 * k + i) for i in range(3))
        yield Step(k, reply if k else None, average, j.crowd([other]), None, {}, {})


class Tabulated:
    """A judge that takes tables as they are."""

    def tabulate(self, policy, seed=0):
        return policy if isinstance(policy, TablePolicy) else super().tabulate(policy, seed)


class TableJudge(Tabulated, GridJudge):
    pass


class TableClosedFormJudge(Tabulated, LQJudge):
    pass


JUDGES = {"beach bar": lambda: TableJudge(BAR, 40), "LQ": lambda: TableClosedFormJudge(LQ, 200)}
each_judge = pytest.mark.parametrize("name", JUDGES)


@each_judge
def test_parts_add_up_and_no_bound_is_below_its_part(name):
    """For learners that have learned nothing at all: the identity and the inequalities have no assumptions."""
    j = JUDGES[name]()
    table = errors(j, learners(j), progress=False).iloc[1:]
    parts = table[[f"part_{n}" for n in ("best_response", "flow", "cloning", "averaging")]]
    np.testing.assert_allclose(parts.sum(axis=1), table["e_true"], rtol=1e-9)
    slack = 1e-5 * table["e_true"]
    for part in ("flow", "cloning", "averaging"):
        assert (table[f"bound_{part}"] >= table[f"part_{part}"] - slack).all(), part
    assert (table["bound"] >= table["e_true"] - slack).all() and (table["e_true"] > 0).all()
    spread = table["part_flow"].abs().max(), table["part_cloning"].abs().max(), table["part_averaging"].abs().max()
    assert min(spread) > 1e-3  # none of it is trivially 0


def test_theorems_b_and_c_of_monotone_games():
    """Fictitious play's steps are bounded by how far the next best response is from the last reply (B), and the
    potential changes exactly as it should (C), for learners that have learned nothing."""
    j, K = JUDGES["beach bar"](), 5
    table = errors(j, learners(j, K), progress=False)
    step, c_m = table.iloc[2:], BAR.c_m
    limit = step["iteration"] / (step["iteration"] - 1) * c_m / 4 * step["settling"]
    assert (step["steps"] <= limit + 1e-6).all() and (step["steps"] > 0.01 * limit).any()
    tables = [random_table(j, 10 * k) for k in range(1, K + 1)]  # the replies of `learners`
    crowds = [j.crowd(tables[:k]) for k in range(1, K + 1)]
    squares = [(P.mass.square().sum() / j.grid.volume).item() for P in crowds]
    phi = [j.value(tables[: k + 1], P) + c_m / 2 * s for k, (P, s) in enumerate(zip(crowds, squares, strict=True))]
    for k in range(2, K + 1):
        row, before = table.iloc[k], table.iloc[k - 1]
        gained = (before["e_average"] - row["in_mixture"]) / k - c_m * row["reach"] / (2 * k**2)
        assert phi[k - 1] - phi[k - 2] == pytest.approx(gained, rel=1e-9)


def test_terms_of_learners_without_errors_are_those_of_exact_fictitious_play():
    game, K = LinearQuadratic(horizon=4, A_bar=0.0), 5  # moves without the mean: masses depend on no population
    exact, j = lq_fictitious_play(game, K), TableClosedFormJudge(game, 400)

    def perfect():
        tables = []
        for k in range(K + 1):
            if k:
                tables.append(j.tabulate(exact.best_responses[k - 1].policy))
            average = (
                average_table(j, tables) if k else j.tabulate(AffinePolicy(torch.zeros(4, 1, 1), torch.zeros(4, 1)))
            )
            yield Step(k, tables[-1] if k else None, average, j.crowd([average]), None, {}, {})

    table = errors(j, perfect(), progress=False)
    np.testing.assert_allclose(table["e_average"][1:], exact.exploitability[1:], rtol=5e-3)
    later = table.iloc[1:]
    assert (later["epsilon_br"].abs() < 1e-3 * later["e_true"]).all()
    assert (table["epsilon_cnf"] == 0).all() and (later["epsilon_sl"] < 1e-9).all()
    np.testing.assert_allclose(later["part_averaging"], later["e_true"], rtol=2e-2)
    np.testing.assert_allclose(later["e_weighted"], later["e_average"], rtol=1e-6)
    assert later["epsilon_sl_uniform"].iloc[-1] > 1e-3  # the state-weighted average is another policy


def average_table(j, tables):
    """The policy of (t, x) that does on average what agents do who drew one of the tables: weighted by who is there."""
    crowd = j.crowd(tables)
    return _averages(_Past(tables, [j.mass(p, crowd) for p in tables]))[1]


def test_the_state_weighted_average_has_the_population_and_the_value_of_the_mixture():
    j = TableJudge(BAR, 40)
    tables = [random_table(j, seed) for seed in range(3)]
    average, crowd = average_table(j, tables), j.crowd(tables)
    np.testing.assert_allclose(j.crowd([average]).mass, crowd.mass, atol=1e-12)
    assert j.value(average, crowd) == pytest.approx(j.value(tables, crowd), rel=1e-12)


def test_closed_form_judge_against_exact_moments():
    game, j = LinearQuadratic(), judge_of(LinearQuadratic(), 600)
    eq = lq_equilibrium(game)
    assert j.gap(j.tabulate(eq.policy), j.seen(eq.population)) < 1e-8
    K, k = 0.8 * eq.K, 0.7 * eq.k + 0.1
    table = j.tabulate(AffinePolicy(K, k))
    crowd = j.crowd([table])
    mean, cov = lq_moments(game, K.numpy(), k.numpy())
    response = lq_best_response(game, mean)
    exact = lq_gap(response, K.numpy(), k.numpy(), mean, cov)
    assert j.gap(table, crowd) == pytest.approx(exact, rel=2e-3)
    assert j.value(table, crowd) == pytest.approx(response.value - exact, rel=2e-3)
    np.testing.assert_allclose(crowd.mass @ j.grid.x, mean, atol=1e-6)
    assert j.contraction(table) == pytest.approx((1 + K).abs().max().item(), rel=1e-3)


def test_grid_judge_against_the_judge_of_exploitability():
    j, table = judge(), random_table(judge())
    e = exploitability(BAR, table, cells=40, error=False)
    assert j.gap(table, j.crowd([table])) == pytest.approx(e.value, rel=1e-6)
    best = j.best(j.crowd([table]))
    assert abs(j.gap(best, j.crowd([table]))) < 1e-5


@pytest.mark.parametrize("components", [1, 5])
def test_tables_have_the_moments_of_the_networks(components):
    j = judge()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = Networks(4, torch.tensor([0.5]), torch.tensor([0.3]), torch.tensor([0.05]), (16,))
        policy = GaussianPolicy(networks, components=components, initial_std=0.5)
        for p in policy.parameters():
            p.data.add_(0.2 * torch.randn_like(p))
    table = j.tabulate(policy)
    x = j.grid.x.float()
    drawn = policy.sample(2, x.repeat_interleave(20_000, 0), gen(1)).view(len(x), -1).clamp(-BAR.a_bound, BAR.a_bound)
    mean = (table.actions[2, ..., 0] * table.shares[2]).sum(1)
    np.testing.assert_allclose(mean, drawn.double().mean(1), atol=2e-3)
    second = (table.actions[2, ..., 0].square() * table.shares[2]).sum(1)
    np.testing.assert_allclose(second, drawn.double().square().mean(1), atol=1e-3)


def test_tables_of_policies_that_do_not_draw_have_one_action():
    j = judge()
    policy = GaussianPolicy(Networks(4, torch.tensor([0.5]), torch.tensor([0.3]), torch.tensor([0.3]), (8,)))
    assert j.tabulate(MeanPolicy(policy)).actions.shape == (4, 40, 1, 1)
    still = j.tabulate(NoisePolicy(torch.tensor([0.01])))
    assert still.actions.square().mean().sqrt() == pytest.approx(0.01, rel=1e-5)
    drawn = j.tabulate(EpisodeMixture([MeanPolicy(policy)]))  # its law is not explicit
    assert drawn.actions.shape == (4, 40, 64, 1)
    np.testing.assert_array_equal(drawn.actions, j.tabulate(EpisodeMixture([MeanPolicy(policy)])).actions)


def test_wasserstein_of_atoms_and_of_populations_against_scipy():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 7)), rng.normal(size=(5, 4))
    p, q = rng.dirichlet(np.ones(7), 5), rng.dirichlet(np.ones(4), 5)
    ours = atoms_wasserstein(*(torch.from_numpy(v) for v in (x, p, y, q)))
    theirs = [wasserstein_distance(*row) for row in zip(x, y, p, q, strict=True)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)
    j, one, other = judge(), *(judge().crowd([random_table(judge(), s)]) for s in (0, 5))
    cells = j.grid.x[:, 0].numpy()
    exact = [wasserstein_distance(cells, cells, a, b) for a, b in zip(one.mass, other.mass, strict=True)]
    assert j.wasserstein(one, other) == pytest.approx(max(exact), rel=1e-9)


def test_a_flow_is_seen_by_its_density():
    j, eq = judge_of(LinearQuadratic(), 600), lq_equilibrium(LinearQuadratic())
    shifted = GaussianPath(eq.mean + 0.03, eq.cov)
    assert j.wasserstein(j.seen(eq.population), j.seen(shifted)) == pytest.approx(0.03, rel=1e-3)
    own = j.crowd([j.tabulate(eq.policy)])
    assert j.wasserstein(j.seen(eq.population), own) < 1e-3


def test_span_is_what_two_agents_can_disagree_about():
    """Never below what any two policies do, and reached by some."""
    j = judge()
    mu, nu = (j.crowd([random_table(j, s)]) for s in (0, 7))
    changes = [j.value(p, mu) - j.value(p, nu) for p in (random_table(j, s) for s in range(20))]
    span = j.span(mu, nu)
    assert 0 < max(changes) - min(changes) <= span and span == pytest.approx(j.span(nu, mu), rel=1e-9)
    assert j.span(mu, mu) == 0
    assert np.isnan(judge(LQ).span(mu, nu))
    drifting = judge_of(LinearQuadratic(A_bar=0.5, x_bound=1.0, a_bound=0.2, horizon=2), 40)  # moves know the crowd
    assert np.isnan(drifting.span(*(drifting.crowd([random_table(drifting, s)]) for s in (0, 1))))


def test_what_theory_cannot_judge():
    with pytest.raises(ValueError, match="one state coordinate"):
        judge_of(FourRooms(), 20).grid  # noqa: B018
    with pytest.raises(TypeError, match="game"):
        judge_of(object())
    with pytest.raises(ValueError, match="cells: expected an integer >= 10, got 3"):
        judge_of(BAR, 3).grid  # noqa: B018
    with pytest.raises(ValueError, match="expected shapes"):
        TablePolicy(judge().grid, torch.zeros(2, 2, 1, 1), torch.ones(2, 2, 1))
    assert isinstance(judge_of(BAR, 40), GridJudge) and not isinstance(judge_of(BAR, 40), LQJudge)


def test_populations_of_another_grid_are_asked_for_their_density():
    fine, coarse = judge_of(BAR, 80), judge_of(BAR, 40)
    crowd = fine.crowd([random_table(fine)])
    seen = coarse.seen(crowd)
    assert isinstance(seen, CellPopulation) and seen.mass.shape == (5, 40)
    np.testing.assert_allclose(seen.mass.sum(1), 1.0, atol=0.05)
