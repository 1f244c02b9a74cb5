"""All populations through the same properties, and what is particular to those without a network."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from contracts import assert_density, assert_mean
from helpers import ROUNDING, gen
from scipy.stats import chi2, gaussian_kde, multivariate_normal

from mfglib.games import FourRooms
from mfglib.games.domain import Domain
from mfglib.learn.flow import FlowConfig, TimeFlow, fit_flow
from mfglib.populations import GaussianPath, MeanPath, Particles
from mfglib.seeds import isolated

T = 2


def states(d, n=400, seed=0):
    """(T + 1, n, d): unlike spreads in unlike coordinates, moving with t."""
    x = torch.randn(T + 1, n, d, generator=gen(seed)).double()
    return x * torch.linspace(0.3, 2, d) + torch.arange(T + 1)[:, None, None]


def gaussian(d):
    root = torch.randn(T + 1, d, d, generator=gen(2)).double()
    return torch.randn(T + 1, d, generator=gen(3)).double(), root @ root.mT


def flow(d, domain=None):
    """Fitted to a skewed law, in another unit in each coordinate where there is no domain."""
    config = FlowConfig(steps=40, batch=128, hidden=(32, 32))
    with isolated(1, "flow"):
        flow = TimeFlow(T, d, config, domain)
    x = torch.rand(T + 1, 4000, d, generator=gen()).square()
    with torch.no_grad():
        x = flow.unfold.from_unit(x) if domain else x * torch.tensor([1.0, 10.0, 0.1])[:d]
    fit_flow(flow, x, config, gen())
    return flow.requires_grad_(False)


UNIT, WALL, ROOMS = Domain(0.0, 1.0), Domain(-1.0, 2.0, [([0.0], [0.5])]), FourRooms().domain


@dataclass
class Case:
    make: object
    d: int = 1
    domain: Domain | None = None
    smoothed: bool = False  # the density is that of the samples after a Gaussian kernel
    within: float = 1e-3  # of 1, the density's integral on cells


SPACES = {
    "R": Case(lambda: flow(1)),
    "R^2": Case(lambda: flow(2), 2, within=5e-3),
    "R^3": Case(lambda: flow(3), 3),
    "an interval": Case(lambda: flow(1, UNIT), 1, UNIT),
    "an interval with a wall": Case(lambda: flow(1, WALL), 1, WALL),
    # it jumps a hundredfold at the edge of the box around the population, in the middle of cells
    "4-rooms": Case(lambda: flow(2, ROOMS), 2, ROOMS, within=0.012),
}
POPULATIONS = {f"flow on {name}": case for name, case in SPACES.items()} | {
    "agents": Case(lambda: Particles(states(1)), smoothed=True),
    "agents in two dimensions": Case(lambda: Particles(states(2).float(), 0.4), 2, smoothed=True),
    "Gaussian": Case(lambda: GaussianPath(*gaussian(1))),
    "Gaussian in two dimensions": Case(lambda: GaussianPath(*gaussian(2)), 2, within=1e-2),
}


@pytest.fixture(scope="module", params=POPULATIONS.values(), ids=POPULATIONS)
def case(request):
    request.param.population = request.param.make()
    return request.param


def test_answers_have_the_shape_of_states_and_lie_in_the_domain(case):
    for t in range(T + 1):
        x = case.population.sample(t, 7, gen(t))
        assert x.shape == (7, case.d) and case.population.log_prob(t, x).shape == (7,)
        assert case.population.mean(t).shape == (case.d,) and case.population.log_prob(t, x).isfinite().all()
        assert not case.domain or case.domain.contains(x).all()


def test_the_generator_alone_decides(case):
    before = torch.get_rng_state()
    first, again, other = (case.population.sample(1, 9, gen(s)) for s in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_density_is_that_of_the_samples_and_so_is_the_mean(case):
    for t in (0, T):
        x = case.population.sample(t, 50_000, gen(t))
        assert_mean(case.population.mean(t), x, 0.01 if isinstance(case.population, TimeFlow) else 0.0)
        box = torch.tensor(np.stack([case.domain.lower, case.domain.upper])) if case.domain else None
        if case.d < 3:
            log_prob = lambda y, t=t, x=x: case.population.log_prob(t, y.to(x.dtype))  # noqa: E731
            assert_density(log_prob, x, box, within=case.within, samples=not case.smoothed)


def test_times_outside_the_horizon_are_refused(case):
    x = case.population.sample(0, 2, gen())
    for t in (-1, T + 1):
        for member, arguments in (("sample", (3,)), ("log_prob", (x,)), ("mean", ())):
            with pytest.raises(ValueError, match=rf"t: expected an integer in 0\.\.{T}, got {t}"):
                getattr(case.population, member)(t, *arguments)


# --- agents


@pytest.mark.parametrize("bandwidth", [None, 0.4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_particle_density_is_scipys_in_one_dimension(bandwidth, dtype):
    x = states(1).to(dtype)
    grid = torch.linspace(-2, 4, 101, dtype=dtype)[:, None]
    tolerance = ROUNDING if dtype == torch.float64 else dict(rtol=1e-4, atol=1e-4)
    for t in range(3):
        # both take the width as a factor times the sample's standard deviation, with n − 1; both default to Scott
        expected = gaussian_kde(x[t, :, 0].double(), bandwidth).logpdf(grid[:, 0].double())
        ours = Particles(x, bandwidth).log_prob(t, grid)
        np.testing.assert_allclose(ours, expected, **tolerance)


@pytest.mark.parametrize("chunk", [1, 400, 1700, 1 << 22])
def test_particle_density_does_not_depend_on_the_chunks(chunk):
    particles, query = Particles(states(2)), states(2, n=37, seed=1)[0]
    torch.testing.assert_close(particles.log_prob(0, query, chunk=chunk), particles.log_prob(0, query))


def direct(agents, query, bandwidth):
    """log-density by one float64 sum."""
    agents, query = agents.double(), query.double()
    width = bandwidth * agents.std(0)
    z = (query[:, None] - agents) / width
    return (
        torch.logsumexp(-0.5 * z.square().sum(-1), 1) - (width * (2 * np.pi) ** 0.5).log().sum() - np.log(len(agents))
    )


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("bandwidth", [0.01, 0.2])
def test_single_precision_is_a_direct_sum_to_four_digits(d, bandwidth):
    agents = torch.randn(5000, d, generator=gen()) * torch.linspace(1e-3, 50, d) + 7
    query = torch.cat([torch.randn(200, d, generator=gen(1)) * torch.linspace(1e-3, 50, d) + 7, agents[:100]])
    ours = Particles(agents[None], bandwidth).log_prob(0, query).double()
    torch.testing.assert_close(ours, direct(agents, query, bandwidth), atol=1e-4, rtol=1e-5)


def test_density_far_from_all_agents_does_not_underflow():
    agents, query = states(2)[0].float(), torch.tensor([[30.0, -40.0], [0.0, 0.0], [200.0, 1.0]])
    ours = Particles(agents[None], 0.3).log_prob(0, query).double()
    expected = direct(agents, query, 0.3)
    assert expected.min() < -1000
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("bandwidth", [0.0, -0.1, float("nan"), float("inf")])
def test_bandwidth_is_validated(bandwidth):
    with pytest.raises((TypeError, ValueError), match="bandwidth: expected .*finite number"):
        Particles(states(1), bandwidth)


@pytest.mark.parametrize("shift", [10.0, 100.0, 1000.0])
def test_particle_density_moves_with_the_particles(shift):
    """In single precision too: prices near 100 are no harder than prices near 0."""
    x, query = states(1, n=1000).float(), torch.linspace(-1, 1, 50)[:, None]
    moved = Particles(x + shift).log_prob(0, query + shift)
    torch.testing.assert_close(moved, Particles(x).log_prob(0, query), atol=1e-5 * shift + 1e-4, rtol=0)


def test_particles_sample_themselves():
    x = states(2, n=5)
    draws = Particles(x).sample(1, 5000, gen())
    counts = (draws[:, None] == x[1]).all(-1).sum(0)
    assert counts.sum() == 5000 and chi2.sf(((counts - 1000) ** 2 / 1000).sum(), 4) > 1e-3
    with pytest.raises(ValueError, match=r"x: expected shape \(T\+1, n, d\) with n > 0, got \(5, 2\)"):
        Particles(x[0])


# --- Gaussians and mean paths


@pytest.mark.parametrize("d", [1, 3])
def test_the_gaussian_density_is_scipys(d):
    mean, cov = gaussian(d)
    x, law = GaussianPath(mean, cov).sample(1, 50, gen()), multivariate_normal(mean[1], cov[1])
    np.testing.assert_allclose(GaussianPath(mean, cov).log_prob(1, x), law.logpdf(x), rtol=1e-9)
    np.testing.assert_allclose(GaussianPath(mean, cov).log_prob(1, x.float()), law.logpdf(x), atol=1e-3)


@pytest.mark.parametrize("rank", [0, 1])
def test_gaussian_flow_samples_a_singular_law_and_has_no_density_there(rank):
    direction = torch.tensor([[1.0, 2.0]]).double()
    cov = rank * direction.T @ direction
    flow = GaussianPath(torch.ones(1, 2).double(), cov[None])
    x = flow.sample(0, 1000, gen()) - 1
    torch.testing.assert_close(x[:, 1], 2 * x[:, 0], atol=1e-6, rtol=0)
    assert x[:, 0].std().item() == pytest.approx(rank, abs=0.1)
    with pytest.raises((ValueError, RuntimeError)):
        flow.log_prob(0, torch.zeros(1, 2).double())


def test_mean_path_knows_its_mean():
    path = torch.rand(4, 2)
    assert torch.equal(MeanPath(path).mean(3), path[3])
    for t in (-1, 4):
        with pytest.raises(ValueError, match=rf"t: expected an integer in 0\.\.3, got {t}"):
            MeanPath(path).mean(t)
