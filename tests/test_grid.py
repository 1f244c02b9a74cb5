"""Grids, populations and policies on them (`mfglib.exact.grid`)."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from grids import GAMES, each_game, random_policy
from helpers import gen

from mfglib.exact.dynamic_programming import grid_evaluate
from mfglib.exact.grid import Grid, on_lattice, points_on_lattice
from mfglib.games import LinearQuadratic
from mfglib.games.beach_bar import BeachBar
from mfglib.games.bounded import Law
from mfglib.games.domain import Domain
from mfglib.games.four_rooms import FourRooms
from mfglib.populations import CellPopulation, GaussianPath, MeanPath


@each_game
def test_the_volumes_of_the_cells_add_up(game, cells):
    grid = Grid(game, cells)
    assert len(grid.x) * grid.volume == pytest.approx(game.domain.volume)
    assert torch.equal(grid.cell(grid.x), torch.arange(len(grid.x)))
    within = (torch.rand(grid.x.shape, generator=gen()).double() - 0.5) * 0.99 * torch.from_numpy(grid.h)
    assert torch.equal(grid.cell((grid.x + within).float()), torch.arange(len(grid.x)))


@each_game
def test_push_and_expected_are_adjoint_as_gather_and_scatter(game, cells):
    grid = Grid(game, cells)
    m, ones = len(grid.x), torch.ones(len(grid.x)).double()
    value, mass, flow = (torch.randn(*s, generator=gen(i)).double() for i, s in enumerate([(m,), (m,), (m, 7)]))
    assert (grid.expected(value) @ mass).item() == pytest.approx((value @ grid.push(mass)).item())
    torch.testing.assert_close(grid.expected(ones), ones)
    reach, parts = torch.from_numpy(grid.max_steps * grid.h), (slice(0, m // 3), slice(m // 3, m))
    for move in (
        torch.rand(m, 7, len(reach), generator=gen(4)),
        torch.rand(1, 7, len(reach), generator=gen(5)).expand(m, -1, -1),
    ):
        move = (2 * move.double() - 1) * reach
        there, moved = grid.gather(value, move), grid.scatter(flow, move)
        assert (there * flow).sum().item() == pytest.approx((value @ moved).item())
        torch.testing.assert_close(grid.gather(ones, move), torch.ones(m, 7).double())
        torch.testing.assert_close(torch.cat([grid.gather(value, move[rows], rows) for rows in parts]), there)
        torch.testing.assert_close(sum(grid.scatter(flow[rows], move[rows], rows) for rows in parts), moved)


@pytest.mark.parametrize("start", [(0.2, 0.13), (0.21, 0.118)])
@pytest.mark.parametrize("a", [(0.1, 0.0), (0.1, 0.05), (0.05, 0.05), (0.1, 0.1)])
def test_at_the_corners_of_a_door_a_step_is_that_of_the_game(start, a):
    """In blocks of 0.05. One segment for move and noise together, which is another game here, is far off."""
    game, n = FourRooms(noise_bound=0.08, a_bound=0.1, horizon=1), 200_000
    grid = Grid(game, 80)
    cell = grid.cell(torch.tensor([start]))
    x, action = grid.x[cell].float().expand(n, 2), torch.tensor(a).expand(n, 2)
    two = game.step(0, x, action, None, gen())
    one = game.domain.move(x, action + game.noise.draw(n, gen()))
    move = torch.tensor(a, dtype=torch.float64).expand(len(grid.x), 1, 2)
    mass = torch.zeros(len(grid.x), dtype=torch.float64).index_fill_(0, cell, 1.0)
    mass = grid.push(grid.scatter(mass[:, None], move))
    blocks = torch.from_numpy(grid.coordinates // 8) @ torch.tensor([10, 1])
    p = torch.zeros(100, dtype=torch.float64).index_add_(0, blocks, mass)
    apart = [(torch.bincount(blocks[grid.cell(y)], minlength=100) / n - p).abs().sum() / 2 for y in (two, one)]
    assert apart[0] < 0.01 < 0.1 < apart[1]


def test_moves_keep_their_mean_and_noise_its_variance_away_from_the_edge():
    grid = Grid(BeachBar(a_bound=0.2, noise_bound=0.07), 90)
    middle = (grid.x[:, 0] - 0.5).abs() < 0.2
    move = torch.full((len(grid.x), 1, 1), 0.1234, dtype=torch.float64)
    first = grid.gather(grid.expected(grid.x[:, 0]), move)[:, 0]
    np.testing.assert_allclose(first[middle], grid.x[middle, 0] + 0.1234, rtol=1e-9)
    still = grid.gather(grid.expected(grid.x[:, 0] ** 2), 0 * move)[:, 0]
    np.testing.assert_allclose(still[middle], grid.x[middle, 0] ** 2 + 0.07**2 / 3, rtol=1e-7)


@pytest.mark.parametrize("name", ["gaussian", "uniform"])
def test_noise_on_the_lattice_has_the_variance_of_the_law(name):
    for std in (0.0, 1e-8, 0.01, 0.3, 1.0, 7.7, 50.0):
        weights = on_lattice(Law(name, 0.0, std, 1).quantiles(4096)[:, 0], std, 1.0)
        k = np.arange(len(weights)) - len(weights) // 2
        assert weights.sum() == pytest.approx(1) and (weights >= 0).all() and (weights == weights[::-1]).all()
        assert k**2 @ weights == pytest.approx(std**2, rel=1e-6, abs=1e-12)


def test_noise_on_points_is_exact_on_the_lattice():
    """On [0, 1] with 10 cells, cell 0 is at 0.05: one step down is reflected to itself, two steps to cell 1."""
    grid = Grid(with_law(BeachBar(), noise=Law.points([-0.2, 0.1], [1, 2])), 10)
    mass = torch.rand(10, generator=gen(), dtype=torch.float64)
    expected = torch.zeros(10, dtype=torch.float64)
    for i in range(10):
        expected[i - 2 if i >= 2 else 1 - i] += mass[i] / 3
        expected[min(i + 1, 9)] += mass[i] * 2 / 3
    torch.testing.assert_close(grid.push(mass), expected, atol=1e-15, rtol=0)
    value = torch.rand(10, generator=gen(1), dtype=torch.float64)
    assert float(grid.expected(value) @ mass) == pytest.approx(float(value @ grid.push(mass)), rel=1e-14)


def test_points_whose_coordinates_depend_on_each_other():
    """In 4-rooms, some diagonals: their law put together move by move, in units of cells, where corners are exact."""
    points, weights = np.array([[0.05, 0.05], [-0.05, -0.05], [0.025, -0.025], [-0.025, 0.025]]), np.array([1, 1, 3, 3])
    grid = Grid(with_law(FourRooms(), noise=Law.points(points, weights)), 20)
    mass, centres = torch.rand(len(grid.x), generator=gen()).double(), torch.from_numpy(grid.coordinates + 0.5)
    expected = torch.zeros_like(mass)
    for point, share in zip(points, weights / 8, strict=True):
        ends = grid.units.move(centres, torch.from_numpy(point / grid.h).round().expand_as(centres))
        expected.index_add_(0, torch.from_numpy(grid.index[tuple(ends.long().T)]), share * mass)
    torch.testing.assert_close(grid.push(mass), expected, atol=1e-14, rtol=0)


def test_points_between_lattice_points_keep_their_mean():
    points, weights, h = np.array([[0.31, -0.2], [-0.62, 0.4]]), np.array([2, 1]) / 3, np.array([0.1, 0.25])
    law = points_on_lattice(points, weights, h)
    steps = [h_i * (np.arange(n) - n // 2) for h_i, n in zip(h, law.shape, strict=True)]
    assert law.sum() == pytest.approx(1) and (law >= 0).all() and all(n % 2 for n in law.shape)
    for i, k in enumerate(steps):
        side = law.sum(1 - i)
        assert k @ side == pytest.approx(weights @ points[:, i], abs=1e-12)
        added = k**2 @ side - weights @ points[:, i] ** 2
        assert 0 < added <= h[i] ** 2 / 4


def test_the_uniform_population_stays_uniform_without_control():
    for game, cells in (GAMES["beach bar"], GAMES["four rooms"]):
        grid = Grid(game, cells)
        m, d = grid.x.shape
        flow = grid.scatter(torch.full((m, 1), 1 / m, dtype=torch.float64), torch.zeros(m, 1, d).double())
        np.testing.assert_allclose(grid.push(flow), 1 / m, rtol=1e-9)


def test_grid_population_is_a_density():
    grid = Grid(*GAMES["four rooms"])
    population = grid_evaluate(grid, random_policy(grid)).population
    x = population.sample(2, 50_000, gen())
    assert x.shape == (50_000, 2) and grid.game.domain.contains(x).float().mean() > 0.999  # float32 on faces
    seen = torch.bincount(grid.cell(x), minlength=len(grid.x)) / len(x)
    assert (seen - population.mass[2]).abs().sum() < 2 * (len(grid.x) / len(x)) ** 0.5
    torch.testing.assert_close(x.mean(0), population.mean(2).float(), atol=5e-3, rtol=0)
    density = population.density(2)
    assert density.shape == (20, 20) and np.nansum(density) * grid.volume == pytest.approx(1)
    assert np.isnan(density).sum() == 400 - len(grid.x)
    log_prob = population.log_prob(2, x)
    i, j = (x.double().numpy() / grid.h).astype(int).clip(0, 19).T
    usual = ~np.isnan(density[i, j])  # not on a face
    np.testing.assert_allclose(log_prob[usual], np.log(density[i, j])[usual], rtol=1e-5)
    with pytest.raises(ValueError, match="t: expected"):
        population.mean(-1)


def test_populations_of_other_kinds_are_read_at_the_cells():
    grid = Grid(LinearQuadratic(x_bound=4.0, a_bound=1.0, horizon=2), 200)
    flow = GaussianPath(torch.tensor([[0.1], [0.2], [0.3]]).double(), torch.full((3, 1, 1), 0.25).double())
    population = CellPopulation.of(grid, flow, grid.game.horizon)
    assert CellPopulation.of(grid, population, grid.game.horizon) is population
    for t in range(3):
        assert population.mass[t].sum().item() == pytest.approx(1, abs=1e-4)
        assert torch.equal(population.mean(t), flow.mean(t))
        torch.testing.assert_close(population.log_prob(t, grid.x), flow.log_prob(t, grid.x), atol=1e-4, rtol=1e-4)
    assert torch.equal(CellPopulation.of(grid, MeanPath(flow._mean), grid.game.horizon).mean(2), flow.mean(2))


def test_grid_policy_draws_by_its_probabilities():
    grid = Grid(*GAMES["beach bar"])
    policy = random_policy(grid)
    policy.shares[:, :, ::2] = 0
    policy.shares /= policy.shares.sum(-1, keepdim=True)
    x = grid.x[7].expand(100_000, 1).float()
    a = policy.sample(1, x, gen())
    index = torch.cdist(a.double(), grid.actions).argmin(1)
    seen, p = torch.bincount(index, minlength=len(grid.actions)) / len(a), policy.shares[1, 7]
    assert not seen[::2].any()
    assert (((seen - p) ** 2 / p)[1::2].sum() * len(a)).item() < 2 * len(p)
    assert policy.mean(1, x)[0].item() == pytest.approx(a.mean().item(), abs=0.003)
    torch.testing.assert_close(policy.log_prob(1, x, a), p[index].log().float())
    assert not policy.sample(4, x).any() and not policy.mean(4, x).any()


def test_points_on_a_wall_count_to_the_cell_beside_it_and_points_inside_are_refused():
    game = FourRooms(walls=[((0.2, 0.2), (0.3, 0.3))])
    grid = Grid(game, 20)
    faces = torch.tensor([[0.2, 0.25], [0.3, 0.25], [0.25, 0.2], [0.25, 0.3], [0.5, 0.5], [0.0, 0.5]])
    assert ((grid.x[grid.cell(faces)] - faces).abs() < grid.h[0]).all()
    with pytest.raises(ValueError, match="x: expected states outside the walls, got .*0.25"):
        grid.cell(torch.tensor([[0.1, 0.1], [0.25, 0.25]]))


BAR = BeachBar()
WIDE = LinearQuadratic(x_bound=1.0, a_bound=0.3)


def test_grids_share_tables_where_the_cells_are_the_same_and_nothing_of_the_game():
    one, same, finer, other = (Grid(*key) for key in ((BAR, 30), (BeachBar(bar=0.1), 30), (BAR, 31), (WIDE, 30)))
    assert one.target is same.target and one.game is not same.game and one.key == same.key
    assert one.key != finer.key and one.key != other.key and one.target is not other.target


def with_law(game, **laws):
    vars(game).update(laws)
    return game


@pytest.mark.parametrize(
    ("game", "cells", "error", "message"),
    [
        (FourRooms(), 15, ValueError, "cells: expected a number whose lines run along every wall, got 15"),
        (BeachBar(), 3, ValueError, "cells: expected an integer >= 4, got 3"),
        (LinearQuadratic(), 50, ValueError, "game: expected bounded states and actions"),
        (LinearQuadratic(x_bound=1.0), 50, ValueError, "game: expected bounded states and actions"),
        (LinearQuadratic(a_bound=1.0), 50, ValueError, "game: expected bounded states and actions"),
        (LinearQuadratic(np.eye(3), x_bound=1.0, a_bound=1.0), 9, ValueError, "dimensions of at most 2, got 3"),
        (
            with_law(BeachBar(a_bound=70.0), domain=Domain(0, 1, [((0.25,), (1.0,))]), start=Law.box(0.0, 0.25)),
            4,
            ValueError,
            "expected at most 64 reflections",
        ),
        (
            SimpleNamespace(),
            50,
            TypeError,
            "game: expected a bounded game with the member `domain`, got SimpleNamespace",
        ),
        (with_law(BeachBar(), noise=Law.points([0.0, 0.1])), 50, ValueError, r"game.noise: expected a law of mean 0"),
        (with_law(BeachBar(), start=Law.points([0.0, 0.1])), 50, ValueError, r"game.start: expected a law with a dens"),
        (with_law(BeachBar(), noise=Law.box(0.0, 0.1)), 50, ValueError, r"game.noise: expected a law of mean 0"),
        (
            with_law(FourRooms(), start=Law.box([0.0, 0.0], [0.5, 0.1])),
            20,
            ValueError,
            "game.start: expected a law outside the walls",
        ),
    ],
    ids=str,
)
def test_games_that_no_grid_can_solve_are_refused(game, cells, error, message):
    with pytest.raises(error, match=message):
        Grid(game, cells)
