"""Best responses and push-forward on grids."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from grids import GAMES, each_game, random_policy, soft, uniform
from helpers import ROUNDING, gen

from mfglib.exact.dynamic_programming import expected_rewards, grid_best_response, grid_evaluate
from mfglib.exact.grid import Grid
from mfglib.exact.lq import lq_equilibrium
from mfglib.exact.tables import TablePolicy
from mfglib.games import LinearQuadratic
from mfglib.games.beach_bar import BeachBar
from mfglib.games.four_rooms import FourRooms
from mfglib.policies import AffinePolicy
from mfglib.populations import MeanPath


@each_game
def test_mass_is_conserved_and_never_negative(game, cells):
    grid = Grid(game, cells)
    assert game.domain.contains(grid.x).all()  # so there is none in walls
    assert grid.initial.sum().item() == pytest.approx(1, abs=1e-10) and (grid.initial >= 0).all()
    for policy in (
        random_policy(grid),
        AffinePolicy(torch.ones(9, game.action_dim, game.state_dim), torch.zeros(9, game.action_dim)),
    ):
        mass = grid_evaluate(grid, policy).population.mass
        np.testing.assert_allclose(mass.sum(1), 1, atol=1e-10)
        assert (mass >= 0).all()


@each_game
@pytest.mark.parametrize("spread", [3.0, 3e4])  # with the second, most actions have probability 0
def test_pushing_forward_and_adding_up_backward_give_the_same_value(game, cells, spread):
    grid = Grid(game, cells)
    population = grid_evaluate(grid, random_policy(grid, seed=1)).population
    policy = random_policy(grid, spread=spread)
    assert (4 * (policy.shares > 0).sum(2).max() < len(grid.actions)) == (spread > 3)
    x, none = grid.x, torch.zeros(len(grid.x), game.action_dim).double()
    V = game.reward(game.horizon, x, none, population)
    for t in reversed(range(game.horizon)):
        ahead, value = grid.expected(V), torch.zeros_like(V)
        for i, a in enumerate(grid.actions):
            a = a.expand(len(x), -1)
            move = game.displacement(t, x, a, population)[:, None]
            Q = game.reward(t, x, a, population) + grid.gather(ahead, move)[:, 0]
            value += policy.shares[t, :, i] * Q
        V = value
    play = grid_evaluate(grid, policy, population)
    assert play.value == pytest.approx((grid.initial @ V).item(), rel=1e-12)
    (earned,) = expected_rewards(grid, [policy], [play.population.mass], population)
    assert earned == pytest.approx(play.value, rel=1e-12)


@each_game
def test_results_do_not_depend_on_how_many_rows_are_asked_for_at_a_time(game, cells, monkeypatch):
    grid, found = Grid(game, cells), []
    for rows in (1 << 30, 3 * len(grid.actions) + 1):
        monkeypatch.setattr("mfglib.exact.lattice.ROWS", rows)
        play = grid_evaluate(grid, random_policy(grid))
        found.append((play.population.mass, grid_best_response(grid, play.population).V, torch.tensor(play.value)))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-15)


@each_game
def test_nothing_beats_the_best_response(game, cells):
    grid = Grid(game, cells)
    population = grid_evaluate(grid, random_policy(grid)).population
    response = grid_best_response(grid, population)
    played = grid_evaluate(grid, response.policy, population).value
    assert played == pytest.approx(response.value, rel=1e-12)
    values = [grid_evaluate(grid, random_policy(grid, seed, 1.0 + seed), population).value for seed in range(20)]
    sharp = [grid_evaluate(grid, soft(grid, population, tau), population).value for tau in (1.0, 0.1, 1e-3)]
    assert sharp == sorted(sharp)
    values += sharp
    assert max(values) < played + 1e-9
    for seed, size in enumerate((1e-3, 0.01, 0.1)):  # beside the lattice: up to the refinement of the maximum
        actions, shares = response.policy.actions, response.policy.shares
        moved = TablePolicy(grid, actions + size * torch.randn(actions.shape, generator=gen(seed)), shares)
        assert grid_evaluate(grid, moved, population).value < played + 1e-6


@pytest.mark.parametrize(
    ("game", "cells", "blocks", "n"),
    [(BeachBar(horizon=4), 400, 20, 1_000_000), (FourRooms(horizon=3), 40, 10, 200_000)],
    ids=["bar", "rooms"],
)
def test_population_and_value_are_those_of_simulated_agents(game, cells, blocks, n):
    grid = Grid(game, cells)
    policy = soft(grid, uniform(grid), 1.0)
    play = grid_evaluate(grid, policy)
    block = torch.from_numpy(grid.coordinates // (grid.shape // blocks)) @ torch.tensor([1, blocks])[: grid.state_dim]
    random = gen(1)
    x, earned = game.initial(n, random), 0.0
    for t in range(game.horizon + 1):
        p, seen = torch.zeros(2, blocks**grid.state_dim).double()
        p.index_add_(0, block, play.population.mass[t])
        seen += torch.bincount(block[grid.cell(x)], minlength=len(seen)) / n
        # The mean of Σ|seen − p| is below √(#/n) from chance alone; the grid's own error is smaller than that again.
        assert (seen - p).abs().sum() < 2 * ((p > 0).sum() / n).sqrt()
        a = policy.sample(t, x, random)
        earned = earned + game.reward(t, x, a, play.population).double()
        x = game.step(t, x, a, play.population, random) if t < game.horizon else x
    error = 1e-3 * abs(play.value) if game.state_dim == 2 else 0.0  # the grid's: h is as large as the start's square
    assert abs(earned.mean() - play.value) < 4 * earned.std() / n**0.5 + error


def test_four_rooms_are_as_symmetric_on_the_grid_as_the_game():
    game = FourRooms(horizon=4)
    grid = Grid(game, 40)
    mirrored = grid.cell(0.5 - grid.x.flip(1))  # the start's square is its own mirror image
    torch.testing.assert_close(grid.initial[mirrored], grid.initial, **ROUNDING)
    population = grid_evaluate(grid, AffinePolicy(torch.zeros(4, 2, 2), torch.zeros(4, 2))).population
    response = grid_best_response(grid, population)
    torch.testing.assert_close(population.mass[:, mirrored], population.mass, **ROUNDING)
    torch.testing.assert_close(response.V[:, mirrored], response.V, **ROUNDING)
    mass = grid_evaluate(grid, soft(grid, population, 0.01)).population.mass
    torch.testing.assert_close(mass[:, mirrored], mass, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("law", ["gaussian", "uniform"])
def test_far_from_its_bounds_the_lq_game_approaches_the_closed_form(law):
    options = dict(horizon=5, initial_mean=-0.2, initial_std=0.3, noise_std=0.1, initial_law=law, noise_law=law)
    exact = lq_equilibrium(LinearQuadratic(**options))
    game, values, spreads = LinearQuadratic(x_bound=3.0, a_bound=2.0, **options), [], []
    for cells in (50, 100, 200):
        grid = Grid(game, cells)
        response = grid_best_response(grid, MeanPath(exact.mean))
        population = grid_evaluate(grid, response.policy, MeanPath(exact.mean)).population
        means = torch.stack([population.mean(t) for t in range(6)])
        values.append(exact.value - response.value)
        spreads.append((population.mass @ grid.x.square() - means.square() - exact.cov[:, 0]).abs().max().item())
        assert (means - exact.mean).abs().max() < grid.h[0]
    # Rounding to the lattice adds variance of order h², which costs; the exact order is 2 as h -> 0.
    for errors in (values, spreads):
        assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.3)
        assert np.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.3)
    assert 0 < values[-1] < 2e-3 * abs(exact.value)


def test_one_step_game_has_its_best_action_in_closed_form():
    game = LinearQuadratic(
        A_bar=0.0, c_m=0.0, c_x=2.0, c_a=0.5, x_target=0.3, horizon=1, noise_std=0.05, x_bound=2, a_bound=0.4
    )
    errors = []
    for cells in (100, 200, 400):
        grid = Grid(game, cells)
        response = grid_best_response(grid, MeanPath(torch.zeros(2, 1)))
        x = grid.x[:, 0]
        best = (-2 / 2.5 * (x - 0.3)).clamp(-0.4, 0.4)
        V = -2 * (x - 0.3) ** 2 - 0.5 * best**2 - 2 * ((x + best - 0.3) ** 2 + 0.05**2)
        inner = x.abs() < 1.4  # out of reach of the bounds
        errors.append((response.V[0] - V)[inner].abs().max().item())
        assert (response.actions[0, :, 0] - best)[inner].abs().max() < grid.h[0]
        assert errors[-1] < 2 * grid.h[0] ** 2 / 4 * 1.2  # rounding adds a variance of h²/4, at a weight of 2
    assert errors[2] < errors[1] / 3 < errors[0] / 9


def test_where_nothing_is_to_be_gained_nobody_moves():
    game = FourRooms(horizon=3)
    grid = Grid(game, 20)
    response = grid_best_response(grid, uniform(grid))
    assert not response.actions.any()
    each = -game.c_m * np.log(1 / game.domain.volume + game.epsilon)
    torch.testing.assert_close(response.V, (each * torch.arange(4, 0, -1).double())[:, None].expand_as(response.V))


def test_a_mixture_is_drawn_once_an_episode():
    grid = Grid(*GAMES["four rooms"])
    parts = [random_policy(grid, 1), random_policy(grid, 2)]
    mixture = type("Mixture", (), dict(policies=parts, weights=np.array([0.25, 0.75])))
    plays = [grid_evaluate(grid, p, uniform(grid)) for p in (mixture, *parts)]
    assert plays[0].value == pytest.approx(0.25 * plays[1].value + 0.75 * plays[2].value)
    mass = [p.population.mass for p in plays]
    torch.testing.assert_close(mass[0], 0.25 * mass[1] + 0.75 * mass[2])


def test_a_policy_known_by_its_samples_alone_is_integrated():
    grid = Grid(BeachBar(horizon=3), 100)
    policy = random_policy(grid)
    unknown = SimpleNamespace(sample=policy.sample)
    exact, drawn = grid_evaluate(grid, policy), grid_evaluate(grid, unknown)
    assert drawn.value == pytest.approx(exact.value, rel=5e-3) and drawn.value != exact.value
    assert (drawn.population.mass - exact.population.mass).abs().sum(1).max() < 0.05


def test_a_mixture_of_many_draws_as_often_as_one_policy_and_is_integrated_as_well():
    grid = Grid(BeachBar(horizon=3), 100)
    policy, asked = random_policy(grid), []

    class Counted:
        def sample(self, t, x, generator):
            asked.append(len(x))
            return policy.sample(t, x, generator)

    plays = []
    for n in (1, 8):
        plays.append(grid_evaluate(grid, type("Mixture", (), dict(policies=[Counted()] * n, weights=[1 / n] * n))))
        assert sum(asked) == pytest.approx(3 * 128 * 100, rel=0.02)
        asked.clear()
    exact = grid_evaluate(grid, policy)
    one, eight = ((p.population.mass[3] - exact.population.mass[3]).abs().sum() for p in plays)
    assert eight < 1.5 * one < 0.06
    assert plays[1].value == pytest.approx(exact.value, rel=5e-3)


def test_what_does_not_fit_is_named():
    grid = Grid(*GAMES["beach bar"])
    with pytest.raises(ValueError, match=r"policy: expected actions of shape \(7680, 1\), got \(7680, 2\)"):
        grid_evaluate(grid, AffinePolicy(torch.zeros(4, 2, 1), torch.zeros(4, 2)))
    with pytest.raises(ValueError, match="population: expected one with a density"):
        grid_best_response(grid, MeanPath(torch.zeros(5, 1)))
    lq = Grid(*GAMES["LQ, paper"])
    with pytest.raises(ValueError, match="displacement: expected at most .* in coordinate 0, got"):
        grid_best_response(lq, MeanPath(torch.full((5, 1), 50.0)))
