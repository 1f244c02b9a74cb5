"""Populations as tables of cells (`mfglib.populations.CellPopulation`)."""

import numpy as np
import pytest
import torch
from helpers import gen
from scipy.stats import chi2, ks_2samp

from mfglib.exact import grid_fictitious_play
from mfglib.games import BeachBar, FourRooms
from mfglib.games.domain import Domain
from mfglib.learn.flow import FlowConfig, TimeFlow, fit_flow
from mfglib.policies import NoisePolicy
from mfglib.populations import CellPopulation, Particles, alias_table
from mfglib.rollout import rollout

BAR, ROOMS = BeachBar(horizon=2), FourRooms(horizon=2)


def flow_of(game, seed=0):
    """A flow that is far from uniform, fitted for a moment to agents who drift."""
    play = rollout(game, NoisePolicy(torch.full((game.action_dim,), 0.05)), n=2000, generator=gen(seed), rewards=False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        flow = TimeFlow(game.horizon, game.state_dim, FlowConfig(bins=6, hidden=(16, 16)), game.domain)
    fit_flow(flow, play.x, FlowConfig(bins=6, hidden=(16, 16), batch=128), gen(seed), steps=40)
    return flow.requires_grad_(False)


@pytest.fixture(scope="module", params=[BAR, ROOMS], ids=lambda game: type(game).__name__)
def made(request):
    flow = flow_of(request.param)
    cells = 100 if request.param is BAR else 40
    return request.param, flow, CellPopulation.tabulate(flow, request.param.domain, request.param.horizon, cells)


def test_alias_table_has_exactly_the_given_law():
    mass = np.random.default_rng(0).dirichlet(np.full(50, 0.1))
    share, other = alias_table(mass)
    back = share / 50 + np.bincount(other, 1 - share, 50) / 50
    np.testing.assert_allclose(back, mass, atol=1e-8)
    uniform = alias_table(np.full(4, 0.25))
    np.testing.assert_array_equal(uniform[0], 1.0)


def test_the_density_integrates_to_one_and_is_the_samples_own(made):
    """Exactly by cells, and a chi-squared test of samples against it."""
    game, _, table = made
    for t in range(game.horizon + 1):
        inside = torch.from_numpy(table.grid.lower_corners() + 0.37 * table.grid.h).float()
        assert table.log_prob(t, inside).double().exp().sum() * table.grid.volume == pytest.approx(1, abs=1e-5)
        n = 200_000
        counts = np.bincount(table.grid.find(table.sample(t, n, gen(t))), minlength=len(table.grid.x))
        expected = n * table.mass[t].numpy()
        seen = expected > 5
        statistic = ((counts - expected)[seen] ** 2 / expected[seen]).sum()
        assert chi2.sf(statistic, seen.sum()) > 1e-4
        assert counts[table.mass[t].numpy() == 0].sum() == 0


def test_it_is_near_the_flow_and_nearer_with_more_cells(made):
    game, flow, table = made
    fine = CellPopulation.tabulate(flow, game.domain, game.horizon, 4 * int(table.grid.shape.max()))
    x = fine.grid.x.float()
    exact = flow.log_prob(1, x).exp()

    def off(p):
        return 0.5 * float((p.log_prob(1, x).exp() - exact).abs().sum() * fine.grid.volume)

    assert off(fine) < 0.01 and off(table) < 0.1
    np.testing.assert_allclose(table.mean(1), flow.mean(1), atol=0.01)


def test_samples_of_table_and_flow_are_not_told_apart(made):
    game, flow, _ = made
    table = CellPopulation.tabulate(flow, game.domain, game.horizon)
    a, b = table.sample(1, 4000, gen(1)), flow.sample(1, 4000, gen(2))
    for i in range(game.state_dim):
        assert ks_2samp(a[:, i], b[:, i]).pvalue > 1e-3


def test_nobody_is_in_a_wall(made):
    game, _, table = made
    x = table.sample(2, 100_000, gen(3))
    assert game.domain.contains(x).all()
    outside = torch.full((1, game.state_dim), -0.1)
    assert table.log_prob(0, outside).item() == -np.inf
    if game is ROOMS:
        assert table.log_prob(2, torch.tensor([[0.25, 0.25]])).item() == -np.inf  # the block in the middle


def test_a_state_that_rounding_put_on_a_face_is_in_the_cell_beside_it(made):
    game, _, table = made
    ends = torch.from_numpy(np.stack([game.domain.lower, game.domain.upper])).float()
    assert (table.grid.find(torch.nextafter(ends, 2 * ends - 1)) >= 0).all()
    if game is ROOMS:
        faces = torch.tensor([[0.225, 0.1], [0.275, 0.1], [0.1, 0.225], [0.1, 0.275]])
        assert (table.grid.find(faces) >= 0).all()
        assert table.grid.find(torch.tensor([[0.25, 0.25], [0.25, 0.1]])).tolist() == [-1, -1]


def test_streams_of_several_processes_are_one_stream(made):
    _, _, table = made
    whole = torch.cat(list(table.stream(1, 10_500, 1000, seed=5)))
    parts = [list(table.stream(1, 10_500, 1000, seed=5, part=p, parts=3)) for p in range(3)]
    assert whole.shape[0] == 10_500 and [len(p) for p in parts] == [4, 4, 3]
    merged = torch.cat([parts[i % 3][i // 3] for i in range(11)])
    assert torch.equal(merged, whole)
    assert not torch.equal(torch.cat(list(table.stream(1, 10_500, 1000, seed=6))), whole)


def test_exact_populations_and_agents_can_be_tabulated_too():
    exact = grid_fictitious_play(BAR, 1, cells=40).population
    table = CellPopulation.tabulate(exact, BAR.domain, BAR.horizon, 40)
    np.testing.assert_allclose(table.mass, exact.mass, atol=1e-6)
    agents = Particles(rollout(BAR, NoisePolicy(torch.zeros(1)), n=500, generator=gen(), rewards=False).x)
    assert CellPopulation.tabulate(agents, BAR.domain, BAR.horizon, 40).sample(0, 10).shape == (10, 1)


def test_bad_arguments(made):
    game, flow, table = made
    with pytest.raises(ValueError, match="one or two dimensions, got 3"):
        CellPopulation.tabulate(flow, Domain(np.zeros(3), np.ones(3)), 2)
    with pytest.raises(ValueError, match="part: expected an integer in 0..1, got 2"):
        next(table.stream(0, 10, part=2, parts=2))
    with pytest.raises(ValueError, match="t: expected an integer in 0..2, got 3"):
        table.sample(3, 5)
    if game is ROOMS:
        with pytest.raises(ValueError, match="lines run along every wall, got 33"):
            CellPopulation.tabulate(flow, game.domain, 2, 33)
