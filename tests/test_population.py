import numpy as np
import pytest
import torch
from helpers import ROUNDING, gen
from scipy.stats import chi2, gaussian_kde, kstest, multivariate_normal

from mfglib.populations import GaussianPath, MeanPath, Particles


def states(d, n=400, seed=0):
    """(3, n, d): unlike spreads in unlike coordinates, moving with t."""
    x = torch.randn(3, n, d, generator=gen(seed)).double()
    return x * torch.linspace(0.3, 2, d) + torch.arange(3)[:, None, None]


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


@pytest.mark.parametrize("d", [1, 2])
def test_particle_density_integrates_to_one(d):
    x = states(d)
    axes = [torch.linspace(-10, 12, 300, dtype=torch.float64)] * d
    grid = torch.cartesian_prod(*axes).reshape(-1, d)
    total = Particles(x).log_prob(1, grid).exp().sum() * (axes[0][1] - axes[0][0]) ** d
    assert total.item() == pytest.approx(1, abs=1e-6)


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
    with pytest.raises(ValueError, match="bandwidth: expected None or a finite number > 0, got"):
        Particles(states(1), bandwidth)


@pytest.mark.parametrize("shift", [10.0, 100.0, 1000.0])
def test_particle_density_moves_with_the_particles(shift):
    """In single precision too: prices near 100 are no harder than prices near 0."""
    x, query = states(1, n=1000).float(), torch.linspace(-1, 1, 50)[:, None]
    moved = Particles(x + shift).log_prob(0, query + shift)
    torch.testing.assert_close(moved, Particles(x).log_prob(0, query), atol=1e-5 * shift + 1e-4, rtol=0)


def test_particles_sample_themselves_and_average_themselves():
    x = states(2, n=5)
    particles = Particles(x)
    draws = particles.sample(1, 5000, gen())
    assert draws.shape == (5000, 2)
    counts = (draws[:, None] == x[1]).all(-1).sum(0)
    assert counts.sum() == 5000
    assert chi2.sf(((counts - 1000) ** 2 / 1000).sum(), 4) > 1e-3
    torch.testing.assert_close(particles.mean(2), x[2].mean(0))
    with pytest.raises(ValueError, match=r"x: expected shape \(T\+1, n, d\), got \(5, 2\)"):
        Particles(x[0])


def gaussian(d):
    root = torch.randn(3, d, d, generator=gen(2)).double()
    return torch.randn(3, d, generator=gen(3)).double(), root @ root.mT


@pytest.mark.parametrize("d", [1, 2, 3])
def test_gaussian_flow_is_gaussian(d):
    mean, cov = gaussian(d)
    flow = GaussianPath(mean, cov)
    for t in range(3):
        x = flow.sample(t, 100_000, gen(t))
        law = multivariate_normal(mean[t], cov[t])
        scale = cov[t].diagonal().sqrt()
        assert ((x.mean(0) - mean[t]).abs() < 5 * scale / 100_000**0.5).all()
        np.testing.assert_allclose(np.cov(x.T), cov[t], atol=0.03 * cov[t].trace())
        distance = ((x - mean[t]) @ torch.linalg.inv(cov[t]) * (x - mean[t])).sum(-1)
        assert kstest(distance[:2000], chi2(d).cdf).pvalue > 1e-3
        np.testing.assert_allclose(flow.log_prob(t, x[:50]), law.logpdf(x[:50]), rtol=1e-9)
        np.testing.assert_allclose(flow.log_prob(t, x[:50].float()), law.logpdf(x[:50]), atol=1e-3)
        assert torch.equal(flow.mean(t), mean[t])


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
