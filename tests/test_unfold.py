import numpy as np
import pytest
import torch
from helpers import gen
from scipy.stats import chisquare

from mfglib.games import FourRooms
from mfglib.games.domain import Domain
from mfglib.learn.unfold import Unfold

DOMAINS = {
    "interval": Domain(-1.0, 3.0),
    "interval with walls": Domain(0.0, 1.0, [([0.2], [0.3]), ([0.9], [1.0])]),
    "4-rooms": FourRooms().domain,
    "cylinder": Domain([0, 0], [1, 2], [([0, 0.5], [0.3, 1]), ([0.8, 0.5], [1, 1])], periodic=(True, False)),
    "wall right across": Domain([0, 0], [3, 2], [([1, 0], [1.5, 2]), ([2, 1], [3, 2])]),
    "walls at the start": Domain([0, 0], [1, 1], [([0, 0], [0.25, 1]), ([0.25, 0], [0.5, 0.5])]),
    "cube": Domain([0, 0, 0], [1, 2, 1], [([0.5, 0.5, 0], [1, 1, 0.5]), ([0, 1, 0.25], [0.5, 2, 1])]),
}
every_domain = pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS)


def uniform(domain: Domain, n: int) -> torch.Tensor:
    return domain.uniform(n, gen()).double()


def unit(domain: Domain, n: int) -> torch.Tensor:
    return torch.rand(n, domain.state_dim, generator=gen(1)).double()


@every_domain
def test_bijection(domain):
    unfold, x, u = Unfold(domain), uniform(domain, 2000), unit(domain, 2000)
    assert ((unfold.to_unit(x) >= 0) & (unfold.to_unit(x) <= 1)).all()
    torch.testing.assert_close(unfold.from_unit(unfold.to_unit(x)), x, atol=1e-9, rtol=0)
    torch.testing.assert_close(unfold.to_unit(unfold.from_unit(u)), u, atol=1e-9, rtol=0)


@every_domain
def test_uniform_law_stays_uniform_both_ways(domain):
    unfold, n, d = Unfold(domain), 100_000, domain.state_dim
    cells = (unfold.to_unit(uniform(domain, n)) * 10).long().clamp_max(9)
    counts = np.bincount((cells * 10 ** torch.arange(d)).sum(-1), minlength=10**d)
    assert chisquare(counts).pvalue > 1e-3
    x = unfold.from_unit(unit(domain, n)).numpy()
    areas, counts = [], []  # of boxes of a coarse grid, less the walls in them
    lines = [np.linspace(low, high, 6) for low, high in zip(domain.lower, domain.upper, strict=True)]
    for index in np.ndindex(*[5] * d):
        low, high = (np.array([line[i + k] for i, line in zip(index, lines, strict=True)]) for k in (0, 1))
        overlap = np.minimum(high, domain.walls[:, 1]) - np.maximum(low, domain.walls[:, 0])
        areas.append(np.prod(high - low) - overlap.clip(0).prod(1).sum())
        counts.append(((x >= low) & (x < high)).all(1).sum())
    areas, counts = np.array(areas), np.array(counts)
    free = areas > 1e-12
    assert counts[~free].sum() == 0 and counts.sum() == n
    assert chisquare(counts[free], n * areas[free] / domain.volume).pvalue > 1e-3


@every_domain
def test_jacobian_is_one_over_the_volume(domain):
    unfold, x, h = Unfold(domain), uniform(domain, 300), 1e-7
    shift = h * torch.eye(domain.state_dim).double()
    jacobian = torch.stack([(unfold.to_unit(x + e) - unfold.to_unit(x - e)) / (2 * h) for e in shift], -1)
    assert (jacobian.triu(1) == 0).all()  # u_i depends on x_1, …, x_i alone
    torch.testing.assert_close(
        torch.linalg.det(jacobian), torch.full((300,), 1 / domain.volume).double(), rtol=1e-6, atol=0
    )


@every_domain
def test_nothing_is_ever_in_a_wall_or_outside_in_single_precision(domain):
    unfold, d = Unfold(domain), domain.state_dim
    jumps = torch.unique(torch.cat([torch.as_tensor(cdf).flatten() for cdf in unfold._cdf])).float()
    up, down = (torch.nextafter(jumps, torch.full_like(jumps, end)) for end in (2.0, -1.0))
    edges = torch.cat([jumps, up, down, torch.tensor([-1.0, 0.0, 1.0, 2.0])])
    edges = edges[torch.randint(len(edges), (50_000, d), generator=gen())]
    for u in (torch.rand(100_000, d, generator=gen()), edges):
        x = unfold.from_unit(u)
        assert x.dtype == torch.float32 and domain.contains(x).all() and unfold.contains(x).all()


@every_domain
def test_contains_is_that_of_the_domain(domain):
    size = torch.as_tensor(domain.upper - domain.lower)
    x = torch.as_tensor(domain.lower) + size * (1.4 * unit(domain, 20_000) - 0.2)
    inside = domain.contains(x)
    assert 0.01 < inside.double().mean() < 0.99 and torch.equal(Unfold(domain).contains(x), inside)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_states_on_a_face_are_inside_and_come_back(dtype):
    domain = DOMAINS["4-rooms"]
    unfold = Unfold(domain)
    lines = torch.tensor([0.0, 0.125, 0.175, 0.225, 0.275, 0.325, 0.375, 0.5], dtype=dtype)
    along = torch.linspace(0.01, 0.49, 25).to(dtype)
    faces = torch.cat([torch.cartesian_prod(lines, along), torch.cartesian_prod(along, lines)])
    free = faces[domain.contains(faces) & unfold.contains(faces)]
    assert len(free) > 100
    back = unfold.from_unit(unfold.to_unit(free))
    torch.testing.assert_close(back, free, atol=1e-6, rtol=0)
    assert unfold.contains(back).all()


def test_face_between_two_walls_is_not_free_area():
    domain = Domain([0, 0], [3, 3], [([0, 1], [1, 2]), ([1, 1], [2, 2])])
    x = torch.tensor([[1.0, 1.5], [1.0, 1.0], [2.0, 1.5], [0.0, 1.5]])
    assert Unfold(domain).contains(x).tolist() == [False, True, True, False]


def test_features_tell_the_cells_apart():
    unfold = Unfold(DOMAINS["4-rooms"])
    assert unfold.shape == (7, 7) and [unfold.width(k) for k in range(3)] == [0, 14, 28]
    u = unit(DOMAINS["4-rooms"], 500)
    for k in range(3):
        f = unfold.features(u[:, :k])
        assert f.shape == (500, unfold.width(k)) and (f.abs() <= 1).all()
    one_hot, place = f[:, :7], f[:, 7:14]
    assert (one_hot.sum(-1) == 1).all() and (place[one_hot == 0] == 0).all()
    assert torch.equal(one_hot.argmax(-1), unfold.unit_cells(u)[:, 0])
    assert Unfold(DOMAINS["interval"]).features(u[:, :1]).shape == (500, 0)
