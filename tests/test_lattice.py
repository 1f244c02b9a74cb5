"""The tables of the lattice of actions (`mfglib.exact.lattice`) against the game, asked row by row."""

import copy

import pytest
import torch
from grids import each_game, random_policy, uniform

from mfglib.exact.dynamic_programming import grid_evaluate
from mfglib.exact.grid import Grid
from mfglib.exact.lattice import action_values, last_reward, lattice_values, tables_of
from mfglib.exact.tables import TablePolicy
from mfglib.games import LinearQuadratic
from mfglib.games.base import clip
from mfglib.games.beach_bar import BeachBar
from mfglib.games.four_rooms import FourRooms
from mfglib.populations import CellPopulation


class Congestion(BeachBar):
    """Speed costs more in a crowd: rewards do not split."""

    def reward(self, t, x, a, population):
        return super().reward(t, x, a, population) - a[:, 0] ** 2 * population.log_prob(t, x).exp().to(x)


class Timed(BeachBar):
    """Costs and speeds that change with time."""

    def reward(self, t, x, a, population):
        return (1 + t) * super().reward(t, x, a, population)

    def displacement(self, t, x, a, population):
        return clip(a, self.a_bound) / (1 + t % 2)


class Lonely(BeachBar):
    """−∞ where somebody would be alone."""

    def reward(self, t, x, a, population):
        return super().reward(t, x, a, population) + population.log_prob(t, x).to(x)


def asked(grid, t, population, ahead):
    return action_values(grid, t, grid.actions.expand(len(grid.x), -1, -1), population, ahead)


def as_any_table(policy):
    return TablePolicy(policy.grid, policy.actions.clone(), policy.shares)


def random_crowd(grid):
    return grid_evaluate(grid, random_policy(grid, 3)).population


@each_game
def test_values_are_those_of_the_game_asked_row_by_row(game, cells):
    grid = Grid(game, cells)
    population, ahead = random_crowd(grid), grid.expected(grid.x.square().sum(1))
    for t in range(game.horizon):
        torch.testing.assert_close(lattice_values(grid, t, population, ahead), asked(grid, t, population, ahead))


@each_game
def test_a_policy_makes_and_earns_the_same_by_tables_and_row_by_row(game, cells):
    grid = Grid(game, cells)
    policy = random_policy(grid)
    for crowd in (None, random_crowd(grid)):
        one, other = grid_evaluate(grid, policy, crowd), grid_evaluate(grid, as_any_table(policy), crowd)
        torch.testing.assert_close(one.population.mass, other.population.mass)
        assert one.value == pytest.approx(other.value, rel=1e-10)


@pytest.mark.parametrize(
    ("game", "different"),
    [(BeachBar(horizon=3), 1), (FourRooms(horizon=2), 1), (Timed(horizon=3), 3), (Lonely(horizon=3), 1)],
    ids=["beach bar", "four rooms", "timed", "lonely"],
)
def test_games_that_split_have_tables_and_equal_ones_are_kept_once(game, different):
    grid = Grid(game, 20)
    tables = tables_of(grid)
    assert tables_of(grid) is tables and len(tables.c) == len(tables.moves) == game.horizon
    assert len({id(c) for c in tables.c}) == len({id(m) for m in tables.moves}) == different
    population, ahead = random_crowd(grid), grid.x[:, 0].sin()
    for t in range(game.horizon):
        torch.testing.assert_close(lattice_values(grid, t, population, ahead), asked(grid, t, population, ahead))


@pytest.mark.parametrize(
    "game",
    [
        Congestion(horizon=3),
        Congestion(c_m=0.0, horizon=3),
        LinearQuadratic(A_bar=0.3, x_bound=1.0, a_bound=0.2, initial_law="uniform", horizon=3),
    ],
    ids=["congestion", "congestion alone", "a crowd that moves its agents"],
)
def test_games_that_do_not_split_are_asked_row_by_row(game):
    grid = Grid(game, 20)
    assert tables_of(grid) is None
    population, ahead = random_crowd(grid), grid.x[:, 0].sin()
    for t in range(game.horizon):
        assert torch.equal(lattice_values(grid, t, population, ahead), asked(grid, t, population, ahead))


def test_where_nobody_is_a_reward_may_be_infinite():
    grid = Grid(Lonely(horizon=2), 20)
    crowd, ahead = uniform(grid).mass.clone(), grid.x[:, 0].sin()
    crowd[:, :7] = 0
    population = CellPopulation(grid, crowd / crowd.sum(1, keepdim=True))
    assert tables_of(grid).crowd(0, population)[:7].isneginf().all()
    torch.testing.assert_close(lattice_values(grid, 0, population, ahead), asked(grid, 0, population, ahead))


class Free(BeachBar):
    """+∞ where nobody is."""

    def reward(self, t, x, a, population):
        return -population.log_prob(t, x).to(x) - a[:, 0] ** 2


def test_rewards_without_a_bound_from_above_are_named():
    grid = Grid(Free(horizon=2), 20)
    crowd = uniform(grid).mass.clone()
    crowd[:, :7] = 0
    population, ahead = CellPopulation(grid, crowd / crowd.sum(1, keepdim=True)), grid.x[:, 0].sin()
    message = r"game.reward at t = [02]: expected a reward that is bounded from above, got \+inf"
    for call in (last_reward, lambda *_: lattice_values(grid, 0, population, ahead)):
        with pytest.raises(ValueError, match=message):
            call(grid, population)


@pytest.mark.parametrize("change", [dict(c_a=3.0), dict(a_bound=0.1)], ids=["reward", "moves"])
def test_a_game_that_is_changed_in_place_is_asked_again(change):
    game = BeachBar(horizon=3)
    grid = Grid(game, 20)
    policy, population, ahead = random_policy(grid), uniform(grid), grid.x[:, 0].sin()
    before = lattice_values(grid, 1, population, ahead), grid_evaluate(grid, policy).value
    vars(game).update(change)
    assert torch.equal(lattice_values(grid, 1, population, ahead), asked(grid, 1, population, ahead))
    assert grid_evaluate(grid, policy).value == grid_evaluate(grid, as_any_table(policy)).value != before[1]


def test_a_copy_of_a_grid_with_another_game_has_tables_of_its_own():
    """As `deda_fp.finite` makes it, whose rewards are others in the same cells."""
    grid = Grid(BeachBar(horizon=3), 20)
    policy = random_policy(grid)
    before = grid_evaluate(grid, policy).value  # makes tables
    other = copy.copy(grid)
    other.game = BeachBar(c_x=3.0, horizon=3)
    expected = grid_evaluate(Grid(other.game, 20), policy).value
    assert grid_evaluate(other, policy).value == pytest.approx(expected, rel=1e-12) != before
    assert grid_evaluate(grid, policy).value == before


def test_large_lattices_have_no_tables():
    assert tables_of(Grid(FourRooms.fast(horizon=1), 40)) is None
