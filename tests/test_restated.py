"""Any policy as one of a grid's lattice of actions (`mfglib.exact.restated`)."""

import pytest
import torch

from mfglib.exact import grid_equilibrium
from mfglib.exact.dynamic_programming import grid_best_response, grid_evaluate
from mfglib.exact.grid import Grid
from mfglib.exact.restated import restated
from mfglib.exact.tables import TablePolicy
from mfglib.games import BeachBar, FourRooms
from mfglib.policies import EpisodeMixture, NoisePolicy

BAR = BeachBar(horizon=3)
GRID = Grid(BAR, 40)


class Towards:
    def sample(self, t, x):
        return 0.5 * (BAR.bar - x)


def test_a_table_of_the_same_lattice_is_itself():
    eq = grid_equilibrium(BAR, 40, 0.05, progress=False)
    assert torch.equal(restated(GRID, eq.policy).shares, eq.policy.shares)


def test_a_table_of_another_grid_is_read_in_the_cell_around():
    coarse = grid_equilibrium(BAR, 20, 0.05, progress=False).policy
    fine = restated(GRID, coarse)
    torch.testing.assert_close(fine.mean(1, GRID.x), coarse.mean(1, GRID.x), atol=0.5 * spacing(GRID), rtol=0)
    assert torch.equal(restated(Grid(BAR, 20), coarse).shares, coarse.shares)
    back = restated(Grid(BAR, 20), grid_equilibrium(BAR, 40, 0.05, progress=False).policy)  # to fewer cells too
    assert back.shares.shape == coarse.shares.shape


def spacing(grid):
    return float(grid.actions[1, 0] - grid.actions[0, 0])


@pytest.mark.parametrize("of_table", [False, True])
def test_other_policies_take_the_nearest_action_at_each_centre(of_table):
    policy = Towards()
    if of_table:  # with actions of each cell's own
        actions = torch.stack([policy.sample(t, GRID.x) for t in range(3)])[:, :, None]
        policy = TablePolicy(GRID, actions, torch.ones(actions.shape[:3]))
    found = restated(GRID, policy)
    wanted = Towards().sample(0, GRID.x).clamp(-BAR.a_bound, BAR.a_bound)
    torch.testing.assert_close(found.mean(0, GRID.x), wanted, atol=0.5 * spacing(GRID) + 1e-6, rtol=0)
    assert (found.shares.amax(2) == 1).all()


def test_a_best_response_keeps_its_value():
    population = grid_evaluate(GRID, NoisePolicy(torch.zeros(1))).population
    best = grid_best_response(GRID, population)
    assert grid_evaluate(GRID, restated(GRID, best.policy), population).value == pytest.approx(best.value, abs=0.02)


def test_two_actions():
    rooms = FourRooms(horizon=2)
    grid = Grid(rooms, 20)
    found = restated(grid, NoisePolicy(torch.zeros(2)))
    assert found.mean(0, grid.x).abs().max() < 1e-9
    noisy = restated(grid, NoisePolicy(torch.full((2,), 0.02)))
    assert noisy.shares.sum(2).sub(1).abs().max() < 1e-9 and noisy.shares.amax() < 0.5


def test_a_mixture_is_its_average_in_occupancy():
    parts = [Towards(), NoisePolicy(torch.zeros(1)), NoisePolicy(torch.full((1,), 9.0))]
    mixture = EpisodeMixture([restated(GRID, part) for part in parts], [1.0, 3.0, 0.0])
    mass = grid_evaluate(GRID, mixture).population.mass
    torch.testing.assert_close(grid_evaluate(GRID, restated(GRID, mixture)).population.mass, mass, atol=1e-12, rtol=0)


def test_policies_of_other_games_are_refused():
    with pytest.raises(ValueError, match="initial_policy: expected a table with 2 decisions, 1 coordinates and 1 act"):
        restated(Grid(BeachBar(horizon=2), 20), restated(GRID, Towards()))
    with pytest.raises(ValueError, match="policy: expected actions of shape"):
        restated(GRID, NoisePolicy(torch.zeros(2)))

    class Lost:
        def sample(self, t, x):
            return x / 0 - x / 0

    with pytest.raises(ValueError, match="initial_policy: expected finite actions"):
        restated(GRID, Lost())
