"""Flows on R^d and on bounded domains, far from the identity; see also tests/test_populations.py."""

import math
import re

import pytest
import torch
from helpers import gen

from mfglib.checks import DivergenceError
from mfglib.games import FourRooms
from mfglib.games.domain import Domain
from mfglib.learn.flow import RANGE, FlowConfig, TimeFlow, fit_flow
from mfglib.seeds import isolated

T = 2
LOC = torch.tensor([[0.0, 0.0, 0.0], [1.0, -2.0, 0.5], [30.0, 0.1, -1.0]])
SCALE = torch.tensor([[1.0, 1.0, 1.0], [0.5, 2.0, 0.1], [4.0, 0.02, 1.0]])
BOX = torch.tensor([[0.0, 0.0], [0.2, 0.1], [0.7, 0.5]]), torch.tensor([[1.0, 1.0], [0.5, 0.8], [0.3, 0.4]])
ROOMS = FourRooms().domain
UNIT = Domain(0.0, 1.0)
SPACES = {
    "R": (1, None),
    "R^2": (2, None),
    "R^3": (3, None),
    "interval": (1, UNIT),
    "interval with a wall": (1, Domain(-1.0, 2.0, [([0.0], [0.5])])),
    "4-rooms": (2, ROOMS),
    "ring": (1, Domain(-1.0, 2.0, periodic=True)),
    "torus": (2, Domain([0.0, 0.0], [2.0, 1.0], periodic=True)),
}
every_space = pytest.mark.parametrize(("d", "domain"), SPACES.values(), ids=SPACES)
bounded = pytest.mark.parametrize(
    ("d", "domain"), [v for v in SPACES.values() if v[1]], ids=[k for k, v in SPACES.items() if v[1]]
)
SMALL = FlowConfig(hidden=(16,), bins=5)


def random_flow(d: int, domain: Domain | None = None) -> TimeFlow:
    """A flow far from the identity, that changes with t, in units that are not 1."""
    with isolated(0, "flow"):
        flow = TimeFlow(T, d, SMALL, domain)
        for p in flow.parameters():
            torch.nn.init.normal_(p, std=0.4)
    loc, scale = (LOC, SCALE) if domain is None else BOX
    flow.loc.copy_(loc[:, :d])
    flow.scale.copy_(scale[:, :d])
    return flow


def normal(n: int, d: int) -> torch.Tensor:
    return torch.randn(n, d, generator=gen()).double()


@every_space
def test_inverse_round_trip(d, domain):
    flow, z = random_flow(d, domain).double(), normal(200, d)
    start = TimeFlow(T, d, SMALL, domain).double()
    start.loc, start.scale = flow.loc, flow.scale
    for t in range(T + 1):
        x = flow.from_base(t, z)
        assert (x - start.from_base(t, z)).abs().max() > 0.05 * x.std()  # it does something
        base = flow._to_base(t, flow._unfolded(x))[0]
        torch.testing.assert_close(base, torch.special.ndtr(z) if domain else 0.5 + z / (2 * RANGE), atol=1e-8, rtol=0)


@every_space
def test_log_prob_is_the_change_of_variables_by_autograd(d, domain):
    flow, z = random_flow(d, domain).double(), 2 * normal(30, d)  # some where there are few agents
    for t in range(T + 1):
        of = lambda u, t=t: flow.from_base(t, u[None])[0]  # noqa: E731
        jacobian = torch.stack([torch.autograd.functional.jacobian(of, u) for u in z])
        expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1) - torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(flow.log_prob(t, flow.from_base(t, z)), expected, atol=1e-7, rtol=1e-7)


@every_space
def test_gradients_reach_all_parameters(d, domain):
    flow = random_flow(d, domain)
    torch.stack([flow.log_prob(t, flow.sample(t, 50, gen())).mean() for t in range(T + 1)]).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in flow.parameters())


@bounded
def test_nothing_in_walls_or_outside(d, domain):
    flow = random_flow(d, domain)
    for t in range(T + 1):
        x = flow.sample(t, 100_000, gen(t))
        assert domain.contains(x).all() and torch.isfinite(flow.log_prob(t, x)).all()
        size = torch.as_tensor(domain.upper - domain.lower).float()
        x = torch.as_tensor(domain.lower).float() + size * (3 * torch.rand(5000, d, generator=gen()) - 1)
        inside = domain.contains(x)
        assert 0 < inside.sum() < 5000 and torch.equal(flow.log_prob(t, x).isneginf(), ~inside)
        assert not flow.log_prob(t, x).isnan().any()
    start = TimeFlow(T, d, SMALL, domain)  # before any fit
    torch.testing.assert_close(start.log_prob(0, x[inside]), torch.full((int(inside.sum()),), -math.log(domain.volume)))


# --- errors


def test_times_outside_the_horizon_are_refused_for_the_base_too():
    for t in (-1, T + 1):
        with pytest.raises(ValueError, match=rf"t: expected an integer in 0\.\.2, got {t}"):
            random_flow(1).from_base(t, torch.zeros(3, 1))


@pytest.mark.parametrize("domain", [None, ROOMS], ids=["R^2", "4-rooms"])
def test_wrong_shapes_are_an_error(domain):
    flow = random_flow(2, domain)
    for shape in ((3,), (3, 1), (2, 3, 2)):
        for name, method in (("x", flow.log_prob), ("z", flow.from_base)):
            with pytest.raises(ValueError, match=re.escape(f"{name}: expected shape (n, 2), got {shape}")):
                method(0, torch.zeros(shape))
    for shape in ((3, 2), (T, 9, 2), (T + 1, 9, 1)):
        with pytest.raises(ValueError, match=re.escape(f"x: expected shape (3, n, 2), got {shape}")):
            fit_flow(flow, torch.zeros(shape), SMALL, gen())
    with pytest.raises(ValueError, match="domain: expected 1 dimensions, got 2"):
        TimeFlow(T, 1, SMALL, ROOMS)


def test_states_outside_the_domain_are_an_error():
    x = ROOMS.uniform(300, gen()).reshape(T + 1, 100, 2)
    x[1, 4], x[2, 5] = torch.tensor([0.25, 0.05]), torch.tensor([0.1, -0.01])  # in a wall, and below
    with pytest.raises(ValueError, match="x: expected states in the flow's domain, got 2 of 300 outside"):
        fit_flow(random_flow(2, ROOMS), x, SMALL, gen())


@pytest.mark.parametrize("domain", [None, UNIT], ids=["R", "interval"])
def test_what_is_not_finite_is_a_divergence(domain):
    x = torch.rand(T + 1, 100, 1, generator=gen())
    with pytest.raises(DivergenceError, match="flow: "):
        fit_flow(random_flow(1, domain), x, FlowConfig(hidden=(16,), bins=5, learning_rate=1e30), gen())
    x[1, 5] = torch.nan
    with pytest.raises(DivergenceError, match="flow: "):
        fit_flow(random_flow(1, domain), x, SMALL, gen())
