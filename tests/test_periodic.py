"""Rings and tori, from the domain through grid, flow and tables to `solve`, against what is known."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import gen

from deda_fp.distances import total_variation, wasserstein
from deda_fp.finite import crowd_distance, windows
from mfglib import check_game, solve
from mfglib.exact.dynamic_programming import grid_evaluate
from mfglib.exact.equilibrium import grid_equilibrium
from mfglib.exact.grid import Grid
from mfglib.exact.grid_judge import GridJudge
from mfglib.games import BoundedGame, Domain, Law
from mfglib.games.base import squared_norm
from mfglib.games.cells import Cells
from mfglib.learn.flow import FlowConfig, TimeFlow, fit_flow
from mfglib.learn.networks import NetworkConfig, Networks, StateFeatures
from mfglib.learn.table import Table
from mfglib.policies import NoisePolicy
from mfglib.populations import CellPopulation, Particles
from mfglib.rollout import rollout
from mfglib.seeds import isolated

RING, TORUS = Domain(-1.0, 2.0, periodic=True), Domain([0.0, 0.0], [2.0, 1.0], periodic=True)
WALLS = [((0.0, 0.4), (0.2, 0.6)), ((0.7, 0.4), (1.0, 0.6))]  # one wall, across the seam
CYLINDER = Domain([0.0, 0.0], [1.0, 1.0], WALLS, periodic=(True, False))
SPACES = {"ring": RING, "torus": TORUS, "cylinder": CYLINDER}
every_space = pytest.mark.parametrize("domain", SPACES.values(), ids=SPACES)
open_space = pytest.mark.parametrize("domain", [RING, TORUS], ids=["ring", "torus"])


class Stalls(BoundedGame):
    """Agents near `bar` earn more, less in a crowd; they start within `wide` of 0. On [0, 1] with reflecting ends, or
    on the ring of 2 around it, turned by `shift`, where everything is even: the interval is its fold."""

    def __init__(self, ring=True, bar=0.3, wide=0.4, shift=0.0, noise=None):
        self.ring, self.bar, self.shift, self.horizon, self.a_bound, self.action_dim = ring, bar, shift, 4, 0.3, 1
        self.domain = Domain(0.0, 2.0, periodic=True) if ring else Domain(0.0, 1.0)
        self.start = Law.box(shift - wide, shift + wide) if ring else Law.box(0.0, wide)
        self.noise = noise or Law.box(-0.1, 0.1)

    def reward(self, t, x, a, population):
        near = torch.cos(math.pi * (x - self.shift)) - math.cos(math.pi * self.bar)
        crowd = population.log_prob(t, x).to(x).exp() * (2 if self.ring else 1)
        return -3 * squared_norm(near) - 2 * squared_norm(a) - 0.5 * crowd


NOISES = {"uniform": None, "points": Law.points([-0.2, 0.0, 0.2], [1, 2, 1])}
every_noise = pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)

# --- the domain


@every_space
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_moves_end_inside_and_a_uniform_crowd_stays_uniform(domain, dtype):
    x = domain.uniform(100_000, gen()).to(dtype)
    for scale in (1e-9, 1e-3, 0.1, 0.6, 7.0):
        v = scale * (2 * torch.rand(x.shape, generator=gen(1), dtype=dtype) - 1)
        end = domain.move(x, v)
        assert domain.contains(end).all() and end.dtype == dtype
        if not len(domain.walls):  # it is where the move leads, but for whole turns
            torch.testing.assert_close(
                domain.shortest(end - x - v), torch.zeros_like(x), atol=2e-6 * (1 + scale), rtol=0
            )
    x, cells = domain.move(end, 0.2 * torch.randn(x.shape, generator=gen(2), dtype=dtype)), Cells(domain, 10)
    share = torch.bincount(cells.find(x), minlength=len(cells.x)) / len(x)
    even = 1 / len(cells.x)
    assert (share - even).abs().max() < 5 * math.sqrt(even / len(x))


def test_a_move_across_the_seam_meets_the_wall_behind_it():
    ends = CYLINDER.move(
        torch.tensor([[0.95, 0.1], [0.05, 0.1], [0.95, 0.1], [0.6, 0.5], [0.3, 0.5]], dtype=torch.float64),
        torch.tensor([[0.1, 0.0], [-0.1, 0.0], [0.1, 0.4], [0.2, 0.0], [-0.7, 0.0]], dtype=torch.float64),
    )
    expected = [[0.05, 0.1], [0.95, 0.1], [0.05, 0.3], [0.6, 0.5], [0.6, 0.5]]
    # the third meets the wall's lower face at 0.4, beyond the seam; the last two bounce between x = 0.2 and x = 0.7
    torch.testing.assert_close(ends, torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=0)


def test_walls_on_a_torus_are_where_the_seam_is_not():
    """The same room with the seam elsewhere gives the same moves."""
    one = Domain([0.0, 0.0], [1.0, 1.0], [((0.3, 0.3), (0.6, 0.7))], periodic=True)
    parts = [((a, b), (c, d)) for a, c in ((0.0, 0.1), (0.8, 1.0)) for b, d in ((0.0, 0.2), (0.8, 1.0))]
    other = Domain([0.0, 0.0], [1.0, 1.0], parts, periodic=True)  # turned by (1/2, 1/2)
    assert one.volume == pytest.approx(other.volume)
    x, v = one.uniform(5000, gen()).double(), torch.randn(5000, 2, generator=gen(1)).double() * 0.7
    ends = other.move((x + 0.5).remainder(1), v)
    off = one.shortest(ends - 0.5 - one.move(x, v)).abs().amax(1)
    assert (off < 1e-9).double().mean() > 0.999  # but for corners


def test_shortest_ways_and_centres():
    way = RING.shortest(torch.tensor([[2.9], [-2.9], [1.4], [0.0]]))
    torch.testing.assert_close(way, torch.tensor([[-0.1], [0.1], [1.4], [0.0]]), atol=1e-6, rtol=0)
    away = torch.tensor([[1.9, 0.2], [0.1, 0.6], [0.0, 0.1]])
    half = Domain([0.0, 0.0], [2.0, 1.0], periodic=(True, False))
    torch.testing.assert_close(half.centre(away), torch.tensor([0.0, 0.3]), atol=1e-6, rtol=0)
    assert sorted(half.images().tolist()) == [[-2.0, 0.0], [0.0, 0.0], [2.0, 0.0]]


@pytest.mark.parametrize("value", [None, 1, "yes", (True,), (True, False, True), (1, 0), [[True, False]]])
def test_what_periodic_may_be(value):
    with pytest.raises(ValueError, match="periodic: expected a boolean, or 2 of them"):
        Domain([0.0, 0.0], [1.0, 1.0], periodic=value)


# --- the grid


@every_noise
def test_a_ring_of_20_cells_against_its_fold(noise):
    folded = grid_equilibrium(Stalls(ring=False, noise=noise), cells=10, tolerance=0.05, progress=False)
    ring = grid_equilibrium(Stalls(noise=noise), cells=20, tolerance=0.05, progress=False)
    mass = ring.population.mass
    torch.testing.assert_close(mass, mass.flip(1), atol=1e-10, rtol=0)
    torch.testing.assert_close(2 * mass[:, :10], folded.population.mass, atol=1e-10, rtol=0)
    assert ring.value == pytest.approx(folded.value, abs=1e-10)
    assert ring.exploitability == pytest.approx(folded.exploitability, abs=1e-10)
    assert (mass[-1] - mass[0]).abs().max() > 0.01


@every_noise
def test_a_turned_start_turns_the_equilibrium(noise):
    here, there = (
        grid_equilibrium(Stalls(noise=noise, shift=shift), cells=20, tolerance=0.05, progress=False)
        for shift in (0.0, 0.7)
    )
    torch.testing.assert_close(there.population.mass, here.population.mass.roll(7, 1), atol=1e-10, rtol=0)


def test_simulated_agents_agree_with_the_grid():
    for noise in NOISES.values():
        game, n, still = Stalls(noise=noise), 200_000, NoisePolicy(torch.zeros(1))
        grid = Grid(game, 20 if noise else 160)  # points of two cells are exact on 20, the uniform law is rounded
        x = rollout(game, still, n=n, generator=gen(), rewards=False).x
        mass = grid_evaluate(grid, still).population.mass.unflatten(1, (20, -1)).sum(2)
        for t in range(game.horizon + 1):
            share = torch.bincount(Cells(game.domain, 20).cell(x[t]), minlength=20) / n
            assert 0.5 * (share - mass[t]).abs().sum() < 0.005  # four times what n agents are off by


def test_a_turned_start_turns_the_crowd_on_a_torus():
    """Agents who drift past both seams."""
    game, masses = Stalls(), []
    drift = SimpleNamespace(sample=lambda t, x, generator=None: x.new_tensor([0.27, -0.12]).expand_as(x))
    game.domain, game.action_dim, game.noise = TORUS, 2, Law.box([-0.1, -0.3], [0.1, 0.3])
    for low in (np.array([0.2, 0.1]), np.array([1.7, 0.8])):  # the second start lies across both seams
        game.start = Law.box(low, low + [0.6, 0.4])
        masses.append(grid_evaluate(Grid(game, 20), drift).population.mass.view(-1, 20, 10))
    torch.testing.assert_close(masses[1], masses[0].roll((15, 7), (1, 2)), atol=1e-12, rtol=0)
    assert masses[0].amax() > 0.03


def test_noise_goes_around_a_small_ring():
    """Noise wider than the ring: on a ring of 8 cells, its law on the lattice modulo 8."""
    game = Stalls(noise=Law.box(-3.0, 3.0))
    grid = Grid(game, 8)
    reach, expected = len(grid.weights) // 2, np.zeros(8)
    np.add.at(expected, np.arange(-reach, reach + 1) % 8, grid.weights.numpy())
    row = grid.push(torch.eye(8, dtype=torch.float64)[3])
    np.testing.assert_allclose(row, np.roll(expected, 3), atol=1e-14)


# --- tables and networks


@open_space
def test_tables_are_linear_across_the_seam(domain):
    table = Table(Cells(domain, 40))
    wave = lambda x: torch.cos(1 + 2 * math.pi * (x - torch.as_tensor(domain.lower).to(x)) / width).sum(1)  # noqa: E731
    width = torch.as_tensor(domain.upper - domain.lower).float()
    x = domain.uniform(5000, gen())
    torch.testing.assert_close(table(wave(table.x)[None], x)[0], wave(x), atol=0.02, rtol=0)
    low, high = x.clone(), x.clone()
    low[:, 0], high[:, 0] = float(domain.lower[0]), float(domain.upper[0])
    torch.testing.assert_close(
        *table(torch.randn(1, len(table.x), generator=gen()), torch.cat([low, high])).chunk(2, 1)
    )


@pytest.mark.parametrize("frequencies", [0, 2, 5])
@open_space
def test_networks_read_the_two_sides_of_the_seam_alike(domain, frequencies):
    game = Stalls()
    game.domain = domain
    features = StateFeatures(Networks.of(game, NetworkConfig(frequencies=frequencies)))
    x = domain.uniform(100, gen())
    assert features(x).shape == (100, features.width)
    torch.testing.assert_close(
        features(x + torch.as_tensor(domain.upper - domain.lower).float()), features(x), atol=1e-4, rtol=0
    )
    assert torch.linalg.matrix_rank(features(x)) == features.width  # each says something


# --- the flow

SMALL, T = FlowConfig(hidden=(16,), bins=5), 2
BOX = dict(
    turn=[[0.0, 0.0], [-0.3, 0.2], [-0.9, 0.0]],
    loc=[[0.0, 0.0], [0.2, 0.1], [0.05, 0.3]],
    scale=[[1.0, 1.0], [0.5, 0.8], [0.9, 0.4]],
)


def random_flow(domain):
    d = domain.state_dim
    with isolated(0, "flow"):
        flow = TimeFlow(T, d, SMALL, domain)
        for p in flow.parameters():
            torch.nn.init.normal_(p, std=0.4)
    for name, value in BOX.items():
        getattr(flow, name).copy_(torch.tensor(value)[:, :d])
    return flow.double()


@every_space
def test_the_flow_integrates_to_1_and_agrees_with_its_samples(domain):
    flow, cells, fine = random_flow(domain), Cells(domain, 10), Cells(domain, 40_000 if domain.state_dim == 1 else 1000)
    for t in range(T + 1):
        x = flow.sample(t, 200_000, gen(t))
        assert domain.contains(x).all()
        with torch.no_grad():
            mass = flow.log_prob(t, fine.x).exp() * fine.volume
        assert float(mass.sum()) == pytest.approx(1, abs=3e-3)
        share = torch.bincount(cells.find(x), minlength=len(cells.x)) / len(x)
        model = torch.zeros(len(cells.x), dtype=torch.float64).index_add_(0, cells.find(fine.x), mass)
        assert 0.5 * (share - model).abs().sum() < 0.008


@open_space
def test_the_density_of_the_flow_is_continuous_across_the_seam(domain):
    flow, x = random_flow(domain), domain.uniform(500, gen()).double()
    for t in range(T + 1):
        for i in range(domain.state_dim):
            low, high = x.clone(), x.clone()
            low[:, i], high[:, i] = domain.lower[i], domain.upper[i]
            p = flow.log_prob(t, low)
            torch.testing.assert_close(p, flow.log_prob(t, high), atol=1e-9, rtol=0)
            high[:, i] -= 1e-9
            torch.testing.assert_close(p, flow.log_prob(t, high), atol=1e-5, rtol=0)


def test_the_flow_learns_wrapped_gaussians():
    stds, x = (0.2, 0.5, 3.0), torch.randn(3, 20_000, 1, generator=gen())
    x = torch.stack([RING.fold(s * part - 1.0) for s, part in zip(stds, x, strict=True)])  # around the seam
    with isolated(0, "fit"):
        flow = TimeFlow(T, 1, FlowConfig(), RING)
    fit_flow(flow, x, FlowConfig(), gen(), steps=150)
    assert flow.scale[0] < 0.7 and (flow.scale[1:] == 1).all()  # an arc, and whole rings
    z = torch.linspace(-1, 2, 3001)[:, None]
    for t, s in enumerate(stds):
        images = [torch.distributions.Normal(-1.0, s).log_prob(z[:, 0] + 3 * k).exp() for k in range(-9, 10)]
        with torch.no_grad():
            off = flow.log_prob(t, z).exp() - sum(images)
        assert 0.5 * 3 * off.abs().mean() < 0.03


# --- agents, distances and crowds


def test_kernels_go_around():
    x = RING.fold(2.0 + 0.1 * torch.randn(5000, 1, generator=gen()))[None]
    z, crowd = torch.linspace(-1, 2, 3001)[:, None], Particles(x, domain=RING)
    p = crowd.log_prob(0, z).exp()
    assert float(p[:-1].mean() * 3) == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(p[0], p[-1])
    assert float(p[0]) == pytest.approx(1 / (0.1 * math.sqrt(2 * math.pi)), rel=0.05)
    moved = Particles(RING.fold(x[0] + 1.3)[None], domain=RING).log_prob(0, RING.fold(z + 1.3)).exp()
    torch.testing.assert_close(moved, p, atol=2e-3, rtol=0)


def test_distances_go_around():
    a, b = torch.tensor([[-0.9], [1.95]]), torch.tensor([[1.9], [-1.0]])
    assert wasserstein(a, b, RING) == pytest.approx((0.1 + 0.05) / 2, abs=1e-6)
    a, b = torch.tensor([[1.95, 0.5], [1.0, 0.02]]), torch.tensor([[0.05, 0.5], [1.0, 0.98]])
    assert wasserstein(a, b, TORUS) == pytest.approx((0.1 + 0.04) / 2, abs=1e-6)
    grid = Grid(Stalls(), 20)
    one, other = torch.zeros(5, 20, dtype=torch.float64), torch.zeros(5, 20, dtype=torch.float64)
    one[:, 19], other[:, 2] = 1.0, 1.0
    judge = GridJudge(Stalls(), 20)
    assert judge.wasserstein(CellPopulation(grid, one), CellPopulation(grid, other)) == pytest.approx(3 * 0.1)
    near, area = windows(grid, one[:1].numpy(), 0.5)
    assert near[0].nonzero()[0].tolist() == [0, 1, 17, 18, 19] and area == pytest.approx(0.5)
    assert windows(grid, one[:1].numpy(), 9.0)[0] == pytest.approx(1.0)  # the whole ring, once


def test_the_distance_of_a_crowd_does_not_depend_on_the_seam():
    still, far = NoisePolicy(torch.zeros(1)), []
    for shift in (0.0, 0.7):
        crowd = grid_evaluate(Grid(Stalls(shift=shift), 100), still).population
        far.append(crowd_distance(Stalls(shift=shift), still, crowd, 500, gen(), 1))
    assert far[0] == pytest.approx(far[1], rel=0.02) and 0 < far[0] < 0.05


# --- learning


@pytest.mark.parametrize("options", [{}, {"averaging": "mirror"}, {"algorithm": "algo-1"}], ids=str)
def test_a_ring_is_learned_and_certified(options):
    check_game(Stalls())
    found = solve(Stalls(), iterations=2, preset="smoke", seed=0, progress=False, **options)
    assert found.history.exploitability.between(0, 10).all() and len(found.history) >= 2


@every_noise
def test_the_learned_population_is_that_of_its_policy(noise):
    game = Stalls(noise=noise)
    found = solve(game, iterations=2, preset="smoke", sizes={"flow": dict(steps=60, first_steps=120)}, seed=0)
    own = grid_evaluate(Grid(game, 40), found.policy).population
    assert max(total_variation(found.population, own, t) for t in range(game.horizon + 1)) < 0.2
