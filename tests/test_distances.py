import math

import numpy as np
import pytest
import torch
from helpers import gen

from deda_fp.distances import (
    cell_masses,
    counts,
    flow_wasserstein,
    flow_wasserstein_gaussian,
    leak,
    policy_error,
    total_variation,
    wasserstein,
)
from mfglib.exact import lq_equilibrium
from mfglib.exact.grid import Grid
from mfglib.games import FourRooms, LinearQuadratic
from mfglib.learn.flow import FlowConfig, TimeFlow
from mfglib.policies import AffinePolicy
from mfglib.populations import CellPopulation, Particles
from mfglib.seeds import isolated

T = 2


@pytest.mark.parametrize("d", [1, 2, 3])
def test_wasserstein_is_a_distance_that_measures_translations(d):
    x, y = (torch.randn(200, d, generator=gen(s)) for s in (0, 1))
    shift = torch.arange(1.0, d + 1)
    assert wasserstein(x, x) == pytest.approx(0, abs=1e-6)
    assert wasserstein(x, x[torch.randperm(200, generator=gen())]) == pytest.approx(0, abs=1e-6)
    assert wasserstein(x, x + shift) == pytest.approx(shift.norm().item(), rel=1e-5)  # for any sample: a theorem
    assert wasserstein(x, y) == pytest.approx(wasserstein(y, x), rel=1e-5)
    assert wasserstein(3 * x, 3 * y) == pytest.approx(3 * wasserstein(x, y), rel=1e-4)


def test_wasserstein_of_unlike_sizes():
    assert wasserstein(torch.tensor([[0.0]]), torch.tensor([[1.0], [3.0]])) == pytest.approx(2)
    assert wasserstein(torch.zeros(1, 2), torch.tensor([[3.0, 4.0], [0.0, 0.0]])) == pytest.approx(2.5)


def gaussian_flow():
    """An untrained flow is Gaussian, with the moments of its affine layer."""
    with isolated(0):
        flow = TimeFlow(T, 1, FlowConfig(hidden=(8,)))
    for p in flow.parameters():
        torch.nn.init.zeros_(p)
    flow.loc.copy_(torch.tensor([[0.0], [1.0], [-2.0]]))
    flow.scale.copy_(torch.tensor([[1.0], [0.5], [3.0]]))
    return flow


def test_flow_against_a_gaussian():
    """W1(N(m, s²), N(m', s²)) = |m − m'| and W1(N(m, s²), N(m, s'²)) = |s − s'| √(2/π)."""
    flow, same = gaussian_flow(), torch.tensor([[[1.0]], [[0.25]], [[9.0]]]).double()
    mean = flow.loc.double()
    np.testing.assert_allclose(flow_wasserstein_gaussian(flow, mean, same), 0, atol=1e-3)
    np.testing.assert_allclose(flow_wasserstein_gaussian(flow, mean + 0.7, same), 0.7, rtol=1e-3)
    std = torch.tensor([[[2.0]], [[0.1]], [[3.5]]]).double()
    expected = np.array([1.0, 0.4, 0.5]) * math.sqrt(2 / math.pi)
    np.testing.assert_allclose(flow_wasserstein_gaussian(flow, mean, std.square()), expected, rtol=5e-3)


def test_flow_against_samples():
    flow = gaussian_flow()
    x = flow.loc[:, None] + flow.scale[:, None] * torch.randn(T + 1, 50_000, 1, generator=gen())
    np.testing.assert_allclose(flow_wasserstein(flow, x) / flow.scale[:, 0].numpy(), 0, atol=0.02)
    shifted = flow_wasserstein(flow, x + 5)
    np.testing.assert_allclose(shifted, 5, atol=0.05)


def test_policy_error_is_relative_to_the_range_of_exact_actions():
    game = LinearQuadratic(horizon=3)
    eq = lq_equilibrium(game)
    np.testing.assert_allclose(policy_error(eq.policy, eq), 0, atol=1e-5)
    half = eq.cov[:-1, 0, 0].sqrt() * math.sqrt(2 * math.log(20))  # exp(−z²/2) = 5%
    m, K, k = eq.mean[:-1, 0], eq.K[:, 0, 0], eq.k[:, 0]
    ends = torch.stack([K * (m - half) + k, K * (m + half) + k])
    spread = ends.max() - ends.min()
    off = AffinePolicy(eq.K, eq.k + torch.tensor([[0.1], [0.2], [-0.3]]))
    np.testing.assert_allclose(policy_error(off, eq), torch.tensor([0.1, 0.2, 0.3]).double() / spread, rtol=1e-4)
    steeper = AffinePolicy(eq.K + 0.1, eq.k)  # worst at an end of the window
    expected = 0.1 * (m.abs() + half) / spread
    np.testing.assert_allclose(policy_error(steeper, eq), expected, rtol=1e-4)


def test_masses_and_total_variation_on_a_grid():
    grid = Grid(FourRooms(), 20)
    mass = torch.zeros(21, len(grid.x), dtype=torch.float64)
    mass[:, :100], mass[5, :], mass[6, 0] = 0.01, 0.0, 0.5
    mass[5, 100:200], mass[6, 1:100] = 0.01, 0.5 / 99
    population, everywhere = CellPopulation(grid, mass), CellPopulation(grid, torch.ones_like(mass) / len(grid.x))
    assert torch.equal(cell_masses(population, grid, 3), mass[3])
    half = CellPopulation(Grid(FourRooms(), 40), torch.ones(21, 1360, dtype=torch.float64) / 1360)
    torch.testing.assert_close(cell_masses(half, grid, 0, points=2), everywhere.mass[0])  # four cells in one
    assert total_variation(population, population, 3) == 0 and total_variation(population, everywhere, 3) > 0.5
    assert total_variation(CellPopulation(grid, mass.roll(2, 0)), population, 5) == pytest.approx(1)  # disjoint
    assert leak(population, grid, 6) == pytest.approx(0)


def test_counts_of_agents_in_cells():
    grid = Grid(FourRooms(), 20)
    again = grid.x[[3, 5, 5]]
    found = counts([grid.x, again], grid)
    assert found.shape == (2, len(grid.x)) and (found[0] == 1).all()
    assert found[1].nonzero()[:, 0].tolist() == [3, 5] and found[1, [3, 5]].tolist() == [1, 2]


def test_what_a_kernel_puts_into_walls_is_leak_and_a_flow_puts_none():
    game = FourRooms()
    x = game.domain.uniform(2000, gen()).expand(21, -1, -1)
    grid = Grid(game, 20)
    kernel = Particles(x)
    missing = leak(kernel, grid, 0)
    drawn = x[0] + kernel.bandwidth * x[0].std(0) * torch.randn(2000, 2, generator=gen(1))  # the kernel's law
    outside = 1 - game.domain.contains(drawn).float().mean().item()
    assert missing == pytest.approx(outside, abs=0.03) and missing > 0.1
    flow = TimeFlow(20, 2, FlowConfig(hidden=(8,)), game.domain)
    assert abs(leak(flow, grid, 0)) < 1e-5
    assert total_variation(flow, CellPopulation(grid, torch.ones(21, 340, dtype=torch.float64) / 340), 0) < 1e-5


NAN, PLANE, LINE = torch.full((3, 2), float("nan")), torch.ones(3, 2), torch.ones(3, 1)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (NAN, PLANE, "x: expected some states with finite"),
        (PLANE, NAN, "y: expected some states with finite"),
        (PLANE, PLANE * math.inf, "y: expected some states with finite"),
        (torch.ones(5, 1), PLANE, "x, y: expected samples of one dimension"),
        (PLANE[:0], PLANE, "x: expected some states"),
        (PLANE[:0], PLANE[:0], "x: expected some states"),
        (LINE, LINE[:0], "y: expected some states"),
        (LINE[:, 0], LINE, "x: expected shape"),
        (None, LINE, "x: expected a tensor"),
    ],
)
def test_what_is_no_sample_has_no_distance(x, y, message):
    with pytest.raises((TypeError, ValueError), match=message):
        wasserstein(x, y)
