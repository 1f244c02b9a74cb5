"""Exploitability certified on grids (`mfglib.exact.grid_judge`)."""

from functools import cache

import numpy as np
import pytest
import torch
from grids import each_game, random_policy
from helpers import Congestion, gen

from mfglib import exploitability
from mfglib.exact import grid_equilibrium, grid_fictitious_play, lq_equilibrium
from mfglib.exact.dynamic_programming import grid_best_response, grid_evaluate
from mfglib.exact.grid import Grid
from mfglib.exact.tables import TablePolicy
from mfglib.games import BeachBar, FourRooms, LinearQuadratic
from mfglib.judge import best_response_gap, certifiable, require_certifiable
from mfglib.learn.densities import GaussianPolicy
from mfglib.learn.networks import Networks
from mfglib.policies import AffinePolicy, EpisodeMixture
from mfglib.populations import CellPopulation

BAR = BeachBar(horizon=4)


def network(game, seed=0, components=1):
    """An untrained policy whose means and deviations vary."""
    lower, upper = (torch.as_tensor(v, dtype=torch.float32) for v in (game.domain.lower, game.domain.upper))
    unit = torch.as_tensor(game.a_bound, dtype=torch.float32).expand(game.action_dim)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        networks = Networks(game.horizon, (lower + upper) / 2, (upper - lower) / 4, unit, (16,))
        policy = GaussianPolicy(networks, components=components)
        with torch.no_grad():
            for p in policy.parameters():
                p.add_(0.3 * torch.randn_like(p))
    return policy


def drift(game, speed, std=0.0):
    T, d, k = game.horizon, game.state_dim, game.action_dim
    return AffinePolicy(torch.zeros(T, k, d), torch.full((T, k), speed), std)


@cache
def bar_equilibrium():
    return grid_equilibrium(BAR, 200)


@each_game
def test_no_policy_is_below_zero(game, cells):
    policies = [random_policy(Grid(game, cells), seed, spread) for seed, spread in ((0, 0.1), (1, 3.0), (2, 30.0))]
    for policy in (*policies, network(game), network(game, 1, 5), drift(game, 0.05)):
        e = exploitability(game, policy, cells=cells, error=False)
        assert e.value > 0 and np.isnan(e.error) and str(cells) in e.method
        assert e.value == e.best_response_value - e.policy_value
        assert e.mean.shape == (game.horizon + 1, game.state_dim)


def test_of_the_equilibrium_and_of_never_acting():
    eq = bar_equilibrium()
    own = exploitability(BAR, eq.policy, cells=200)
    assert own.value == pytest.approx(eq.exploitability, rel=1e-12) and own.value < 0.005 * eq.first
    assert own.policy_value == pytest.approx(eq.value, rel=1e-12)
    np.testing.assert_allclose(own.mean, torch.stack([eq.population.mean(t) for t in range(5)]), atol=1e-12)
    still = exploitability(BAR, drift(BAR, 0.0), cells=200)
    assert still.value == pytest.approx(eq.first, rel=1e-9)


def test_a_copy_of_the_equilibrium_is_almost_as_good():
    """A function of (t, x) that knows nothing of grids, judged by the grid's draws from it."""
    policy = bar_equilibrium().policy

    class Copy:
        def sample(self, t, x, generator=None):
            return policy.sample(t, x, generator)

    e = exploitability(BAR, Copy(), cells=200)
    assert e.value < 0.01 * bar_equilibrium().first
    assert abs(e.value - bar_equilibrium().exploitability) < 4 * e.error + 1e-3


@pytest.mark.parametrize("policy", ["drift", "noisy drift", "network"])
def test_error_covers_a_finer_grid(policy):
    policy = {"drift": drift(BAR, 0.05), "noisy drift": drift(BAR, 0.05, 0.1), "network": network(BAR)}[policy]
    coarse, fine = (exploitability(BAR, policy, cells=cells, seed=i) for i, cells in enumerate((60, 240)))
    assert abs(coarse.value - fine.value) < 3 * np.hypot(coarse.error, fine.error)
    assert 0 < coarse.error < 0.05 * coarse.value


def test_error_of_a_drawn_policy_holds_its_noise():
    policy = network(BAR, 2, 5)
    judged = [exploitability(BAR, policy, cells=60, seed=seed) for seed in range(8)]
    spread = np.std([e.value for e in judged], ddof=1)
    assert 0.4 < np.sqrt(np.mean([e.error**2 for e in judged])) / spread < 3
    assert exploitability(BAR, policy, cells=60, seed=3).value == judged[3].value


def test_draws_go_where_the_agents_are():
    """All start in one cell of these rooms: with the same 16 draws in each cell, this came out at 2 to 8 times
    the truth."""
    game = FourRooms(horizon=6)
    policy = grid_fictitious_play(game, 12, cells=20, every=12)

    class Copy:
        def sample(self, t, x, generator=None):
            return policy.policy.sample(t, x, generator)

    judged = [exploitability(game, Copy(), cells=20, error=False, seed=seed).value for seed in range(3)]
    assert np.mean(judged) == pytest.approx(policy.exploitability, rel=0.15)


def test_far_from_the_bounds_both_judges_agree():
    constants = dict(A_bar=0.1, c_x=1.0, c_a=1.0, c_m=1.0, horizon=5, initial_mean=-0.4, initial_std=0.2)
    free, bounded = LinearQuadratic(**constants), LinearQuadratic(**constants, x_bound=3.0, a_bound=2.0)
    eq = lq_equilibrium(free)
    affine = AffinePolicy(0.7 * eq.K, eq.k + 0.1, 0.15)
    exact, e = exploitability(free, affine), exploitability(bounded, affine, cells=240)
    assert abs(e.value - exact.value) < 3 * e.error + 1e-3 and e.error < 0.02 * e.value
    assert e.policy_value == pytest.approx(exact.policy_value, rel=0.005)
    np.testing.assert_allclose(e.mean, exact.mean, atol=0.005)
    neural = GaussianPolicy(Networks(5, *torch.tensor([[0.0], [1.0], [1.0]]), (8,)), initial_std=0.2)
    exact, e = exploitability(free, neural), exploitability(bounded, neural, cells=240)
    assert abs(e.value - exact.value) < 3 * np.hypot(e.error, exact.error)


def test_a_network_in_four_rooms():
    game = FourRooms(horizon=2)
    e = exploitability(game, network(game, components=12))
    assert 0 < e.error < 0.1 * e.value
    quick = exploitability(game, network(game, components=12), cells=20, error=False)
    assert quick.value == pytest.approx(e.value, rel=0.1)


def test_mixture_is_judged_as_drawn_once_an_episode():
    """Half go left and half go right for good: masses add up, and what would mix actions each step differs."""
    left, right = drift(BAR, -0.05), drift(BAR, 0.05)
    mixture = EpisodeMixture([left, EpisodeMixture([right, right])], [0.25, 0.75])
    e = exploitability(BAR, mixture, cells=100, error=False)
    parts = [exploitability(BAR, p, cells=100, error=False) for p in (left, right)]
    np.testing.assert_allclose(e.mean, 0.25 * parts[0].mean + 0.75 * parts[1].mean, atol=1e-12)
    flat = exploitability(BAR, EpisodeMixture([left, right], [1, 3]), cells=100, error=False)
    assert flat.value == pytest.approx(e.value, rel=1e-12)
    grid = Grid(BAR, 100)
    masses = [grid_evaluate(grid, p).population.mass for p in (left, right)]
    crowd = CellPopulation(grid, 0.25 * masses[0] + 0.75 * masses[1])
    gaps = [best_response_gap(BAR, p, crowd, gen(), cells=100) for p in (left, right)]
    assert e.value == pytest.approx(0.25 * gaps[0] + 0.75 * gaps[1], rel=1e-9)


def test_best_response_gap_against_a_given_population():
    crowd = bar_equilibrium().population
    response = grid_best_response(crowd.grid, crowd)
    assert best_response_gap(BAR, response.policy, crowd, gen(), cells=200) < 1e-9
    assert best_response_gap(BAR, bar_equilibrium().policy, crowd, gen(), cells=200) == pytest.approx(
        bar_equilibrium().exploitability
    )
    worse = TablePolicy(response.policy.grid, torch.zeros_like(response.policy.actions), response.policy.shares)
    assert best_response_gap(BAR, worse, crowd, gen(), cells=200) > 0.1


@pytest.mark.parametrize("game", [BAR, FourRooms(), LinearQuadratic.paper(), LinearQuadratic()], ids=str)
def test_games_with_an_exact_solver_are_certifiable(game):
    assert certifiable(game)
    require_certifiable(game)


class OwnMove(BeachBar):
    def moved(self, t, x, a, population):
        return x


class OwnStep(BeachBar):
    def step(self, t, x, a, population, generator):
        return x


@pytest.mark.parametrize(
    ("game", "message"),
    [
        (LinearQuadratic(x_bound=1.0), "bounded states and actions"),
        (LinearQuadratic(x_bound=[1.0] * 3, a_bound=1.0, A=np.eye(3)), "dimensions of at most 2"),
        (LinearQuadratic(x_bound=[1, 1], a_bound=1.0, noise_std=[[1, 0], [1, 1]]), "noise_std: expected independent"),
        (Congestion(), "with the member `domain`"),
        (OwnStep(), "OwnStep has its own `step`"),
        (OwnMove(), "OwnMove has its own `moved`"),
    ],
)
def test_games_without_an_exact_solver_are_refused(game, message):
    assert not certifiable(game)
    for ask in (
        require_certifiable,
        lambda g: exploitability(g, drift(BAR, 0.0)),
        lambda g: best_response_gap(g, drift(BAR, 0.0), bar_equilibrium().population, gen()),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            ask(game)


def test_bad_arguments_are_named():
    with pytest.raises(ArithmeticError, match="the policy's actions at t = 0 are not finite"):
        exploitability(BAR, drift(BAR, np.nan))
    with pytest.raises(ArithmeticError, match="not finite"):
        exploitability(BAR, EpisodeMixture([drift(BAR, 0.0), drift(BAR, np.nan)]))
    with pytest.raises(ValueError, match="cells: expected a number with a grid of half of it.*error=False"):
        exploitability(FourRooms(horizon=1), drift(FourRooms(horizon=1), 0.0), cells=20)
    with pytest.raises(ValueError, match="got 51, an odd number"):
        exploitability(BAR, drift(BAR, 0.0), cells=51)
    with pytest.raises(ValueError, match="cells: expected an integer >= 4, got 0"):
        exploitability(BAR, drift(BAR, 0.0), cells=0)
