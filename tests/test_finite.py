"""N agents instead of a continuum (`deda_fp.finite`)."""

import itertools

import numpy as np
import pytest
import torch
from helpers import LQ_GAMES, gen
from scipy.stats import norm

from deda_fp.distances import wasserstein
from deda_fp.finite import (
    crowd_distance,
    fit_affine,
    grid_gain,
    lq_gain,
    regret_of_model,
    regret_of_model_on_grid,
    windows,
)
from mfglib.exact import grid_fictitious_play, lq_best_response, lq_equilibrium
from mfglib.exact.dynamic_programming import grid_best_response, grid_evaluate
from mfglib.exact.grid import Grid
from mfglib.games import BeachBar, FourRooms, LinearQuadratic
from mfglib.judge import best_response_gap, exploitability
from mfglib.policies import AffinePolicy, NoisePolicy
from mfglib.populations import CellPopulation, GaussianPath, MeanPath
from mfglib.rollout import rollout

GAMES = {name: game for name, game in LQ_GAMES.items() if game.state_dim < 3}
BAR, ROOMS = BeachBar(horizon=2), FourRooms(horizon=2)


def off_equilibrium(game, seed=0):
    """A policy near the equilibrium's, with noise."""
    eq, rng = lq_equilibrium(game), np.random.default_rng(seed)
    return AffinePolicy(eq.K * 0.9, eq.k + torch.from_numpy(0.1 * rng.normal(size=eq.k.shape)), 0.1)


# --- linear-quadratic


@pytest.mark.parametrize("name", GAMES)
def test_many_agents_gain_what_the_limit_says(name):
    game = GAMES[name]
    for policy in (lq_equilibrium(game).policy, off_equilibrium(game)):
        limit, gain = exploitability(game, policy), lq_gain(game, policy, 10**8)
        assert gain.value == pytest.approx(limit.value, rel=1e-4, abs=1e-5 * abs(limit.policy_value))
        assert gain.follower == pytest.approx(limit.policy_value, rel=1e-5)


def play(game, policies, n, repeats, seed=0):
    """The total reward (repeats,) of agent 0, who follows the first of two policies of (t, x, others' mean); simulated
    with nothing but the game's own members."""
    random, earned = gen(seed), 0.0
    x = game.initial(repeats * n, random).double().view(repeats, n, -1)

    class Crowd:
        def mean(self, t):
            return self.at

    for t in range(game.horizon + 1):
        y, crowd = x[:, 1:].mean(1), x.mean(1)
        a = torch.zeros(repeats, n, game.action_dim, dtype=torch.float64)
        if t < game.horizon:
            a[:, 0] = policies[0](t, x[:, 0], y, random)
            a[:, 1:] = policies[1](t, x[:, 1:].flatten(0, 1), None, random).view(repeats, n - 1, -1)
        model = Crowd()
        model.at = crowd
        earned = earned + game.reward(t, x[:, 0], a[:, 0], model)
        if t < game.horizon:
            model.at = crowd.repeat_interleave(n, 0)
            x = game.step(t, x.flatten(0, 1), a.flatten(0, 1), model, random).view(repeats, n, -1)
    return earned


@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize("name", ["paper's constants", "strong cohesion", "d = 2, k = 1"])
def test_values_of_a_follower_are_those_of_a_simulation(name, n):
    game = GAMES[name]
    policy = off_equilibrium(game)

    def follow(t, x, y, random):
        return policy.sample(t, x, random)

    earned = play(game, (follow, follow), n, 20_000)
    gain = lq_gain(game, policy, n)
    assert gain.follower == pytest.approx(earned.mean().item(), abs=4 * earned.std().item() / np.sqrt(20_000))
    assert gain.value > 0 and gain.deviator == pytest.approx(gain.follower + gain.value)


@pytest.mark.parametrize("name", ["paper's constants", "strong cohesion"])
def test_nobody_earns_more_than_the_deviator(name):
    """A black-box search: the gains of an agent who reacts to its state and the others' mean, by random improvement
    with common random numbers. It comes close to the exact optimum from below."""
    game, n = GAMES[name], 3
    game = LinearQuadratic(
        **{k: v for k, v in vars(game).items() if k in ("A", "B", "A_bar", "c_x", "c_a", "c_m")}, horizon=2
    )
    policy, rng = off_equilibrium(game), np.random.default_rng(0)
    table = np.stack([policy.K[:, 0, 0], 0 * policy.K[:, 0, 0], policy.k[:, 0]], 1)  # (T, 3): of x, of y, constant

    def value(table):
        def deviate(t, x, y, random):
            torch.randn(x.shape, generator=random)  # what a follower would draw: the same numbers for all
            return table[t, 0] * x + table[t, 1] * y + table[t, 2]

        return play(game, (deviate, lambda t, x, y, random: policy.sample(t, x, random)), n, 4000)

    best = value(table)
    for i in range(300):
        trial = table + rng.normal(size=table.shape) * 0.3 * 0.985**i
        earned = value(trial)
        if earned.mean() > best.mean():
            table, best = trial, earned
    again, gain = value(table), lq_gain(game, policy, n)
    error = 4 * again.std().item() / np.sqrt(4000)
    assert gain.follower < best.mean().item() < gain.deviator + error
    assert best.mean().item() > gain.deviator - 0.1 * gain.value - error


def test_the_gain_at_equilibrium_falls_like_one_over_n():
    game = LinearQuadratic()
    policy = lq_equilibrium(game).policy
    gains = np.array([lq_gain(game, policy, n).value for n in (10, 100, 1000, 10_000)])
    assert (gains > 0).all()
    np.testing.assert_allclose(np.diff(np.log10(gains)), -1, atol=0.02)
    values = [lq_gain(game, policy, n).follower for n in (10, 10_000)]
    assert abs(values[1] - lq_equilibrium(game).value) < 0.01 * abs(values[0] - lq_equilibrium(game).value)


def test_an_affine_policy_is_found_again_from_its_crowd():
    game = LinearQuadratic()
    policy = off_equilibrium(game)
    found = fit_affine(game, policy, 20_000, gen())
    torch.testing.assert_close(found.K, policy.K, atol=0.05, rtol=0)
    torch.testing.assert_close(found.k, policy.k, atol=0.05, rtol=0)
    torch.testing.assert_close(found.std, policy.std, atol=1e-3, rtol=0)
    value, exact = (exploitability(game, p).value for p in (found, policy))
    assert value == pytest.approx(exact, rel=0.02)


# --- counted neighbours


def test_windows_count_neighbours_and_free_area():
    grid = Grid(BAR, 20)
    mass = torch.arange(20.0).numpy()
    near, area = windows(grid, mass / mass.sum(), 0.15)  # three cells
    brute = [mass[max(0, i - 1) : i + 2].sum() / mass.sum() for i in range(20)]
    np.testing.assert_allclose(near, brute)
    np.testing.assert_allclose(area, [0.1, *[0.15] * 18, 0.1])
    rooms = Grid(ROOMS, 20)
    near, area = windows(rooms, np.full((2, len(rooms.x)), 1 / len(rooms.x)), 0.075)
    np.testing.assert_allclose(near[1], area / ROOMS.domain.volume, rtol=1e-9)  # an even crowd
    apart = (rooms.x[:, None] - rooms.x[None]).abs().amax(2) < 0.0376
    np.testing.assert_allclose(area, apart.sum(1) * rooms.volume)


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("game,cells,width", [(BAR, 10, 0.3), (ROOMS, 20, 0.075)], ids=["beach", "rooms"])
def test_what_a_follower_earns_by_enumeration(game, cells, width, n):
    """Over all places of the others, in the last reward and the first."""
    grid, policy = Grid(game, cells), NoisePolicy(torch.zeros(game.action_dim))
    population = grid_evaluate(grid, policy).population
    total, m = 0.0, len(grid.x)
    half = width / 2 + 1e-9
    near = ((grid.x[:, None] - grid.x[None]).abs().amax(2) < half).double()
    area = near.sum(1) * grid.volume
    none = torch.zeros(m, game.action_dim, dtype=torch.float64)

    class Known:
        def log_prob(self, t, x):
            return self.density.log()

    for t in range(game.horizon + 1):
        p = (near * population.mass[t]).sum(1)  # (m,)
        for seen in itertools.product((0, 1), repeat=n - 1):
            probability = torch.stack([p if s else 1 - p for s in seen]).prod(0)
            known = Known()
            known.density = (1 + sum(seen)) / (n * area)
            total += float((population.mass[t] * probability * game.reward(t, grid.x, none, known)).sum())
    assert grid_gain(grid, grid_evaluate(grid, policy), n, width).follower == pytest.approx(total, rel=1e-9)


def test_many_counting_agents_are_the_limit():
    """With a window of one cell the count is the grid's own density; what is left is the noise of the count."""
    for game in (BAR, FourRooms(horizon=1)):
        grid, policy = Grid(game, 20), NoisePolicy(torch.full((game.action_dim,), 0.02))
        played = grid_evaluate(grid, policy)
        limit = grid_best_response(grid, played.population).value - played.value
        gains = [grid_gain(grid, played, n, grid.h[0]) for n in (100, 10_000, 1_000_000)]
        off = np.abs([gain.value - limit for gain in gains])
        assert off[2] < 2e-3 * limit and off[2] < off[1] < off[0]
        assert abs(gains[2].follower - played.value) < 0.01 * abs(gains[0].follower - played.value)


def test_nobody_earns_more_than_the_deviator_who_counts():
    """Others in the same crowd, paid by hand: never more, and as much if they play its best response."""
    grid, n, width = Grid(BAR, 20), 4, 0.15
    play = grid_evaluate(grid, grid_fictitious_play(BAR, 3, cells=20).policy)
    gain = grid_gain(grid, play, n, width)
    p, area = windows(grid, play.population.mass.numpy(), width)
    expected = torch.from_numpy((1 + (n - 1) * p) / (n * area) * grid.volume)  # rewards are linear in the density here
    crowd = CellPopulation(grid, expected)
    best = grid_best_response(grid, crowd)
    assert best.value == pytest.approx(gain.deviator, rel=1e-9) and gain.value > 0
    for other in (best.policy, *(NoisePolicy(torch.full((1,), speed)) for speed in (0.1, 0.0, 0.2))):
        assert grid_evaluate(grid, other, crowd).value <= gain.deviator + 1e-9
    assert grid_evaluate(grid, best.policy, crowd).value == pytest.approx(gain.deviator, rel=1e-6)


# --- distances


def test_distance_to_a_gaussian_crowd():
    """Known: E W1(μ^N, N(0, 1)) falls like 1/√N, and W1 between N(0, 1) and N(1/2, 1) is 1/2."""
    game = LinearQuadratic(A_bar=0.0, horizon=1, initial_std=1.0)
    start = GaussianPath(torch.zeros(2, 1), torch.ones(2, 1, 1))
    shifted = GaussianPath(torch.full((2, 1), 0.5), torch.ones(2, 1, 1))
    still = NoisePolicy(torch.zeros(1))
    assert crowd_distance(game, still, shifted, 100_000, gen(), 0) == pytest.approx(0.5, abs=0.015)
    means = [np.mean([crowd_distance(game, still, start, n, gen(i), 0) for i in range(200)]) for n in (25, 400)]
    assert means[0] / means[1] == pytest.approx(4, rel=0.15)
    x = np.linspace(-8, 8, 4001)
    spread = np.sqrt(norm.cdf(x) * norm.sf(x)).sum() * (x[1] - x[0])
    assert means[1] == pytest.approx(np.sqrt(2 / np.pi / 400) * spread, rel=0.1)  # E ∫ |F^N − F| for large N


@pytest.mark.parametrize("game", [BAR, ROOMS], ids=["beach", "rooms"])
def test_distances_of_crowds_on_domains_fall(game):
    policy = NoisePolicy(torch.full((game.action_dim,), 0.03))
    population = grid_evaluate(Grid(game, 40), policy).population
    means = [np.mean([crowd_distance(game, policy, population, n, gen(i), 2) for i in range(10)]) for n in (10, 1000)]
    assert means[1] < 0.35 * means[0]
    assert crowd_distance(game, policy, population, 1, gen(), 2) > 0


def test_one_dimension_agrees_with_samples():
    policy = NoisePolicy(torch.zeros(1))
    population = grid_evaluate(Grid(BAR, 100), policy).population
    x = rollout(BAR, policy, n=50, generator=gen(3), rewards=False).x[1]
    by_samples = wasserstein(x, population.sample(1, 200_000, gen(4)))
    assert crowd_distance(BAR, policy, population, 50, gen(3), 1) == pytest.approx(by_samples, abs=2e-3)


# --- who plans with a wrong crowd


@pytest.mark.parametrize("name", GAMES)
def test_what_a_wrong_mean_path_costs(name):
    """Nothing if it is right; else the gap of the policy that is best against it, a square of its error."""
    game = GAMES[name]
    truth = lq_equilibrium(game).mean.numpy()
    error = np.random.default_rng(0).normal(size=truth.shape)
    assert regret_of_model(game, truth, truth) == pytest.approx(0, abs=1e-9)
    planned = lq_best_response(game, truth + error)
    gap = best_response_gap(game, planned.policy, MeanPath(torch.as_tensor(truth)), gen())
    assert regret_of_model(game, truth + error, truth) == pytest.approx(gap, rel=1e-4, abs=1e-9)
    assert regret_of_model(game, truth + 2 * error, truth) == pytest.approx(4 * gap, rel=1e-4, abs=1e-9)
    assert gap > 0 or name == "c_m = 0"


@pytest.mark.parametrize("game", [BeachBar(c_m=20.0), ROOMS], ids=["beach", "rooms"])
def test_what_a_wrong_density_costs(game):
    grid = Grid(game, 20)
    truth = grid_evaluate(grid, NoisePolicy(torch.zeros(game.action_dim))).population
    tilted = truth.mass * torch.linspace(0, 2, len(grid.x))
    model = CellPopulation(grid, tilted / tilted.sum(1, keepdim=True))
    earned = grid_evaluate(grid, grid_best_response(grid, model).policy, truth).value
    assert regret_of_model_on_grid(truth, truth) == pytest.approx(0, abs=1e-9)
    lost = grid_best_response(grid, truth).value - earned
    assert lost > 1e-4 and regret_of_model_on_grid(model, truth) == pytest.approx(lost)


def test_bad_arguments():
    policy = lq_equilibrium(LinearQuadratic()).policy
    with pytest.raises(ValueError, match="n: expected an integer >= 2, got 1"):
        lq_gain(LinearQuadratic(), policy, 1)
    with pytest.raises(ValueError, match="unbounded"):
        lq_gain(LinearQuadratic.paper(), policy, 5)
    with pytest.raises(ValueError, match=r"policy.K: expected shape \(5, 1, 1\), got \(20, 1, 1\)"):
        lq_gain(LinearQuadratic(horizon=5), policy, 5)
    with pytest.raises(ValueError, match="width: expected at least a cell, 0.05, got 0.01"):
        grid_gain(Grid(BAR, 20), grid_evaluate(Grid(BAR, 20), NoisePolicy(torch.zeros(1))), 5, 0.01)
