"""Games that ask what the others do: `mean_action` of populations, and the market (paper, appendix E.4)."""

import numpy as np
import pytest
import torch
from contracts import assert_equal_states
from helpers import gen

from mfglib import exploitability, replay, solve
from mfglib.exact import grid_equilibrium, lq_best_response, lq_equilibrium, lq_fictitious_play
from mfglib.exact.dynamic_programming import grid_best_response, grid_evaluate
from mfglib.exact.grid import Grid
from mfglib.exact.responses import still
from mfglib.exact.tables import TablePolicy
from mfglib.games import BeachBar, LinearQuadratic, Market, check_game
from mfglib.learn.agents import SimulatedAgents
from mfglib.learn.corrective import RestrictedGame
from mfglib.learn.flow import FlowConfig, FlowPopulation
from mfglib.policies import AffinePolicy, EpisodeMixture
from mfglib.populations import CellPopulation, GaussianPath, MeanPath, Particles, Repeated
from mfglib.rollout import redrawn, rollout
from mfglib.seeds import Random
from mfglib.trial import separable

FREE = dict(x_bound=None, a_bound=None)


def market(**others):
    return Market(**dict(c_x=0.5, c_a=2.0, h=1.0) | others)


MARKET = market(horizon=3)
TRADE = AffinePolicy(torch.full((3, 1, 1), -0.4), torch.tensor([[0.1], [0.9], [-0.5]]))  # some trades are clipped


class Ring(BeachBar):
    """Agents who are paid for moving as the others do, and are carried by them, in a game of one's own."""

    uses_actions = True

    def reward(self, t, x, a, population):
        return super().reward(t, x, a, population) + 2 * a[:, 0] * population.mean_action(t).to(a)[0]

    def displacement(self, t, x, a, population):
        return super().displacement(t, x, a, population) + 0.1 * population.mean_action(t).to(a)


# --- closed form


@pytest.mark.parametrize("h", [-3.0, 0.0, 1.0, 20.0])
def test_two_trades_by_hand(h):
    """With r = c_x / c_a and η = h / (2 c_a): m_1 (1 + r + (1 + η) r / (1 + r)) = m_0 and m_2 (1 + r) = m_1, as each of
    the two decisions balances its cost against what it does to the holdings and prices after it."""
    game, r, eta = market(h=h, horizon=2, **FREE), 0.25, h / 4
    eq = lq_equilibrium(game)
    m_1 = 2.5 / (1 + r + (1 + eta) * r / (1 + r))
    np.testing.assert_allclose(eq.mean[:, 0], [2.5, m_1, m_1 / (1 + r)], rtol=1e-12)
    np.testing.assert_allclose(eq.actions[:, 0], [m_1 - 2.5, m_1 / (1 + r) - m_1], rtol=1e-12)
    assert exploitability(game, eq.policy).value < 1e-12


def test_no_equilibrium_is_made_up_where_it_is_not_unique():
    r = 0.25
    h = 2 * 2.0 * (-1 - (1 + r) ** 2 / r)  # then the coefficient of m_1 above is 0
    with pytest.raises(ArithmeticError, match="no unique equilibrium.*the others' actions; change A_bar, h"):
        lq_equilibrium(market(h=h, horizon=2, **FREE))


def test_in_the_plane_a_price_that_all_move_is_that_of_each():
    """Two independent markets are one game in the plane; a coupled one has no better deviation, by simulation."""
    one, other = (market(h=h, **FREE) for h in (1.0, 3.0))
    both = dict(A_bar=0.0, c_x=0.5, c_a=2.0, c_m=0.0, x_target=0.0, horizon=10, initial_mean=[2.5, 2.5])
    plane = LinearQuadratic(**both, initial_std=5 / np.sqrt(12), noise_std=1.0, h=[[1.0, 0.0], [0.0, 3.0]])
    eq, parts = lq_equilibrium(plane), [lq_equilibrium(g) for g in (one, other)]
    torch.testing.assert_close(eq.mean, torch.cat([p.mean for p in parts], 1))
    assert eq.value == pytest.approx(sum(p.value for p in parts))
    coupled = LinearQuadratic(**both, initial_std=0.5, noise_std=0.1, h=[[1.0, 2.0], [-1.0, 0.5]])
    eq = lq_equilibrium(coupled)
    assert eq.population.mean_action(0).abs().min() > 0.1 and exploitability(coupled, eq.policy).value < 1e-12

    def earned(policy):
        return rollout(coupled, policy, eq.population, n=4000, generator=gen()).value

    best = earned(eq.policy)
    for t in (0, 4, 9):  # a first-order gain would show in one of the two directions
        for step in torch.eye(2, dtype=torch.float64):
            gains = []
            for sign in (1, -1):
                k = eq.k.clone()
                k[t] += 0.05 * sign * step
                gains.append(earned(AffinePolicy(eq.K, k)) - best)
            assert max(gains) < 0 and abs(gains[0] - gains[1]) < 0.1 * abs(sum(gains))


def test_fictitious_play_with_exact_learners_finds_it():
    game = market(**FREE)
    play, eq = lq_fictitious_play(game, 40), lq_equilibrium(game)
    assert play.exploitability[-1] < 1e-4 * play.exploitability[0] and (play.exploitability >= 0).all()
    np.testing.assert_allclose(play.mean[-1], eq.mean, atol=0.02)


def test_the_grid_agrees_where_bounds_are_far():
    wide = market(horizon=4, x_bound=10.0, a_bound=3.0, noise_std=0.5)
    closed = lq_equilibrium(market(horizon=4, noise_std=0.5, **FREE))
    found = grid_equilibrium(wide, 200, 1e-3, progress=False)
    assert found.value == pytest.approx(closed.value, rel=2e-3)
    means = [float(found.population.mean(t)) for t in range(5)]
    np.testing.assert_allclose(means, closed.mean[:, 0], atol=0.02)
    np.testing.assert_allclose(found.population.actions, closed.actions, atol=0.02)


# --- what populations answer


def test_agents_among_themselves_see_what_they_do():
    play = rollout(MARKET, TRADE, n=500, generator=gen())
    acted = play.a.clamp(-1, 1).mean(1)
    assert (play.a.abs() > 1).any()
    for t in range(4):
        a = play.a[t].clamp(-1, 1) if t < 3 else torch.zeros(500, 1)
        impact = play.x[t, :, 0] * acted[t, 0] if t < 3 else 0.0
        reward = -0.5 * play.x[t, :, 0].square() - 2 * a[:, 0].square() + impact
        torch.testing.assert_close(play.reward[t], reward, atol=1e-4, rtol=1e-4)


def test_agents_are_carried_by_what_they_do():
    game, policy = Ring(horizon=3, noise_bound=0.0), AffinePolicy(torch.zeros(3, 1, 1), torch.full((3, 1), 0.05))
    play = rollout(game, policy, n=100, generator=gen())
    torch.testing.assert_close(play.x[1], game.domain.fold(play.x[0] + 0.055))
    torch.testing.assert_close(redrawn(game, play, None, 2, gen())[1:, :100], play.x[1:])


def test_every_population_answers():
    acted = torch.tensor([[0.1], [0.2], [0.3]])
    x, cov = torch.rand(4, 20, 1), torch.eye(1).expand(4, 1, 1)
    grid = Grid(MARKET, 20)
    cells = CellPopulation(grid, torch.full((4, 20), 1 / 20), actions=acted)
    for population in (Particles(x, actions=acted), GaussianPath(x[:, 0], cov, acted), MeanPath(x[:, 0], acted), cells):
        asked = Repeated(population, x[0], lambda t: x[0, :, 0])
        for one in (population, asked, CellPopulation.of(grid, population, 3)):
            torch.testing.assert_close(one.mean_action(1).float(), acted[1])
            assert one.mean_action(3).tolist() == [0.0]


@pytest.mark.parametrize(
    "population", [MeanPath(torch.zeros(4, 1)), Particles(torch.rand(4, 5, 1)), FlowPopulation(BeachBar(horizon=3))]
)
def test_a_population_that_does_not_know_says_so(population):
    x = torch.rand(5, 1)
    with pytest.raises(ValueError, match=f"population: .*mean action of its crowd, got a {type(population).__name__}"):
        MARKET.reward(0, x, x, population)


def test_a_game_must_say_that_it_asks():
    class Forgot(Ring):
        uses_actions = False

    with pytest.raises(ValueError, match="a game that asks for it says so by `uses_actions = True`"):
        check_game(Forgot(horizon=3))
    check_game(Ring(horizon=3))
    check_game(MARKET)


def test_learned_populations_know_their_agents_actions():
    agents = SimulatedAgents(MARKET)
    flow = FlowPopulation(MARKET, FlowConfig(agents=20_000, steps=3, first_steps=3, hidden=(8, 8)))
    exact = grid_evaluate(Grid(MARKET, 200), TRADE).population
    for population in (agents, flow):
        population.fit(TRADE, 1, Random(0, 1))
        for t in range(3):
            torch.testing.assert_close(population.mean_action(t).double(), exact.mean_action(t), atol=0.015, rtol=0)
        again = type(population)(MARKET, population.config)
        again.load(population.state())
        assert_equal_states(again.state(), population.state())


# --- exact


def test_a_grid_knows_what_a_policy_does_there():
    grid = Grid(MARKET, 40)
    shares = torch.rand(3, 40, len(grid.actions), generator=gen(), dtype=torch.float64)
    table = TablePolicy.on_lattice(grid, shares / shares.sum(2, keepdim=True))
    own = grid_evaluate(grid, table).population
    means = torch.einsum("tm,tma,ak->tk", own.mass[:-1], table.shares, grid.actions)
    torch.testing.assert_close(own.actions, means)
    both = grid_evaluate(grid, EpisodeMixture([table, still(grid)], [0.25, 0.75])).population
    torch.testing.assert_close(both.actions[0], 0.25 * means[0])
    assert grid_best_response(grid, own).value > grid_evaluate(grid, table).value


def test_rewards_split_but_not_where_the_crowd_carries_agents():
    assert separable(MARKET) and not separable(Ring(horizon=3))


def test_the_restricted_game_sees_the_trades_of_the_mixture():
    found, policies = RestrictedGame(MARKET), [TRADE, AffinePolicy(torch.zeros(3, 1, 1), torch.zeros(3, 1))]
    plays = [rollout(MARKET, p, None, n=20_000, generator=gen(i), rewards=False) for i, p in enumerate(policies)]
    for i, play in enumerate(plays):
        found.add(play.x, play.a, gen(i))
    w = torch.tensor([0.3, 0.7], dtype=torch.float64)
    acted = 0.3 * plays[0].a.clamp(-1, 1).mean(1)
    for i, play in enumerate(plays):
        costs = 0.5 * play.x[..., 0].square().sum(0) + 2 * play.a.clamp(-1, 1)[..., 0].square().sum(0)
        earned = (play.x[:-1, :, 0] * acted).sum(0) - costs
        assert float(found.payoffs(w)[i]) == pytest.approx(float(earned.mean()), rel=0.02)


# --- learned


@pytest.mark.parametrize("options", [{}, {"averaging": "mirror"}, {"averaging": "corrective"}], ids=str)
@pytest.mark.parametrize("algorithm", ["deda-fp", "algo-2", "algo-1"])
def test_runs_resume_bit_for_bit_and_can_be_replayed(algorithm, options, tmp_path):
    run = dict(preset="smoke", progress=False, certify=False) | options
    solve(MARKET, algorithm, iterations=1, directory=tmp_path / "two", **run)
    resumed = solve(MARKET, algorithm, iterations=2, directory=tmp_path / "two", **run)
    whole = solve(MARKET, algorithm, iterations=2, directory=tmp_path / "one", **run)
    *_, last = replay(MARKET, tmp_path / "one")
    for t in range(4):
        means = [s.population.mean_action(t) for s in (whole, resumed, last)]
        assert torch.equal(means[0], means[1]) and torch.equal(means[0], means[2])


def test_ppo_learns_the_unbounded_market():
    game = market(horizon=3, **FREE)
    sizes = dict(ppo=dict(agents=500, first_updates=20, updates=10), cloned=dict(agents=500, steps=100))
    first, *_, last = solve(game, iterations=4, preset="smoke", sizes=sizes, progress=False).history["exploitability"]
    assert last < 0.1 * first
    path, acted = np.zeros((4, 1)), np.ones((3, 1))
    with pytest.raises(ValueError, match=r"actions: expected mean actions of shape \(3, 1\), got None"):
        lq_best_response(game, path)
    assert lq_best_response(game, path, acted).value > lq_best_response(game, path, 0 * acted).value
