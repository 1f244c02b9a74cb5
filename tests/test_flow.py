"""Every flow through the same properties."""

import math

import numpy as np
import pytest
import torch
from helpers import gen
from scipy.stats import norm, qmc

from mfglib.checks import DivergenceError
from mfglib.flow import FlowConfig, TimeFlow, fit_flow
from mfglib.seeds import isolated

T = 2
LOC = torch.tensor([[0.0, 0.0, 0.0], [1.0, -2.0, 0.5], [30.0, 0.1, -1.0]])
SCALE = torch.tensor([[1.0, 1.0, 1.0], [0.5, 2.0, 0.1], [4.0, 0.02, 1.0]])
every_flow = pytest.mark.parametrize(("d", "transforms"), [(d, n) for d in (1, 2, 3) for n in (1, 2)])


def random_flow(d: int, transforms: int) -> TimeFlow:
    """A flow far from the identity, that changes with t, in units that are not 1; in float64."""
    with isolated(0, "flow"):
        flow = TimeFlow(T, d, FlowConfig(transforms=transforms, hidden=(16,), bins=5))
        for p in flow.parameters():
            torch.nn.init.normal_(p, std=0.4)
    flow.loc.copy_(LOC[:, :d])
    flow.scale.copy_(SCALE[:, :d])
    return flow


@every_flow
def test_inverse_round_trip(d, transforms):
    flow = random_flow(d, transforms).double()
    z = torch.randn(200, d, generator=gen()).double()
    for t in range(T + 1):
        x = flow.from_base(t, z)
        assert (x - (flow.loc[t] + flow.scale[t] * z)).abs().max() > 0.05 * flow.scale[t].min()  # it does something
        back = flow.flow(flow._context(t)).transform((x - flow.loc[t]) / flow.scale[t])
        torch.testing.assert_close(back, z, atol=1e-8, rtol=1e-8)


@every_flow
def test_log_prob_is_the_change_of_variables_by_autograd(d, transforms):
    flow = random_flow(d, transforms).double()
    z = torch.randn(20, d, generator=gen()).double()
    for t in range(T + 1):
        jacobian = torch.func.vmap(torch.func.jacrev(lambda u, t=t: flow.from_base(t, u[None])[0]))(z)
        expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1) - torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(flow.log_prob(t, flow.from_base(t, z)), expected, atol=1e-7, rtol=1e-7)


def grid_density(flow, t, d):
    """Grid (m, d) and probability of each cell (m,), at t; 9 standard deviations to each side."""
    axes = [flow.loc[t, i] + flow.scale[t, i] * torch.linspace(-9, 9, 4001 if d == 1 else 400) for i in range(d)]
    grid = torch.cartesian_prod(*axes).reshape(-1, d)
    cell = math.prod((axis[1] - axis[0]).item() for axis in axes)
    with torch.no_grad():
        return grid, flow.log_prob(t, grid).exp() * cell


@pytest.mark.parametrize(("d", "transforms"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_density_integrates_to_one_and_belongs_to_the_samples(d, transforms):
    flow, n = random_flow(d, transforms).double(), 50_000
    for t in range(T + 1):
        grid, mass = grid_density(flow, t, d)
        assert mass.sum().item() == pytest.approx(1, abs=2e-3)
        x = random_flow(d, transforms).sample(t, n, gen(t)).double()
        assert x.shape == (n, d)
        for f in (lambda v: v, torch.square, torch.tanh):
            unit = lambda v, f=f, t=t: f((v - flow.loc[t]) / flow.scale[t])  # noqa: E731
            expected, sampled = (mass[:, None] * unit(grid)).sum(0), unit(x)
            assert ((sampled.mean(0) - expected).abs() < 5 * sampled.std(0) / math.sqrt(n) + 5e-3).all()


@every_flow
def test_gradients_reach_all_parameters(d, transforms):
    flow = random_flow(d, transforms)
    torch.stack([flow.log_prob(t, flow.sample(t, 50, gen())).mean() for t in range(T + 1)]).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in flow.parameters())


@every_flow
def test_state_dict_round_trip(d, transforms):
    flow, fresh = random_flow(d, transforms), TimeFlow(T, d, FlowConfig(transforms=transforms, hidden=(16,), bins=5))
    flow.means.copy_(LOC[:, :d])
    fresh.load_state_dict(flow.state_dict())
    x = LOC[1:2, :d] + torch.rand(9, d, generator=gen())
    assert torch.equal(fresh.log_prob(1, x), flow.log_prob(1, x))
    assert torch.equal(fresh.sample(2, 9, gen()), flow.sample(2, 9, gen()))
    assert torch.equal(fresh.mean(1), flow.mean(1))


def test_same_generator_same_sample_and_the_global_one_is_left_alone():
    flow, before = random_flow(2, 1), torch.get_rng_state()
    assert torch.equal(flow.sample(1, 9, gen(3)), flow.sample(1, 9, gen(3)))
    assert not torch.equal(flow.sample(1, 9, gen(3)), flow.sample(1, 9, gen(4)))
    fit_flow(flow, torch.randn(T + 1, 50, 2, generator=gen()), FlowConfig(steps=2, batch=8), gen())
    assert torch.equal(torch.get_rng_state(), before)


def test_time_outside_the_horizon_is_an_error():
    flow, x = random_flow(1, 1), torch.zeros(3, 1)
    for t in (-1, T + 1):
        for method, argument in ((flow.sample, (3,)), (flow.log_prob, (x,)), (flow.from_base, (x,)), (flow.mean, ())):
            with pytest.raises(ValueError, match=rf"t: expected an integer in 0\.\.2, got {t}"):
                method(t, *argument)


# --- fitting

CONFIG = FlowConfig(steps=120, batch=256, hidden=(32, 32))


def new_flow(d, config=CONFIG, horizon=T):
    with isolated(1, "flow"):
        return TimeFlow(horizon, d, config)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_fits_a_moving_correlated_gaussian(d):
    x = LOC[:, None, :d] + SCALE[:, None, :d] * torch.randn(T + 1, 5000, d, generator=gen())
    if d > 1:
        x[..., 1] += 0.8 * SCALE[:, 1:2] * (x[..., 0] - LOC[:, :1]) / SCALE[:, :1]
    flow = new_flow(d)
    loss = fit_flow(flow, x, CONFIG, gen())
    entropy = d * 0.5 * math.log(2 * math.pi * math.e) + SCALE[:, :d].log().sum(1)  # the shear keeps the volume
    assert loss == pytest.approx(entropy.mean().item(), abs=0.06)
    for t in range(T + 1):
        assert -flow.log_prob(t, x[t]).mean().item() == pytest.approx(entropy[t].item(), abs=0.08)
        torch.testing.assert_close(flow.mean(t), x[t].mean(0), atol=0.05 * x[t].std().item(), rtol=0)
        draws = flow.sample(t, 20_000, gen(t))
        np.testing.assert_allclose(np.cov(draws.T), np.cov(x[t].T), atol=0.08 * x[t].var(0).sum())


def test_fits_two_peaks():
    side = torch.where(torch.rand(T + 1, 8000, 1, generator=gen()) < 0.3, -1.0, 1.0)
    x = 5 + side + 0.2 * torch.randn(T + 1, 8000, 1, generator=gen(1))
    config = FlowConfig(steps=400, learning_rate=1e-2)
    flow = new_flow(1, config)
    loss = fit_flow(flow, x, config, gen())
    grid = np.linspace(2, 8, 2000)
    density = 0.3 * norm.pdf(grid, 4, 0.2) + 0.7 * norm.pdf(grid, 6, 0.2)
    entropy = -np.sum(density * np.log(density + 1e-300)) * (grid[1] - grid[0])
    gaussian = 0.5 * math.log(2 * math.pi * math.e * (0.04 + 4 * 0.21))
    assert loss < entropy + 0.1 < gaussian - 0.4
    valley, left, right = (flow.log_prob(1, torch.tensor([[v]])).item() for v in (5.0, 4.0, 6.0))
    assert valley < left - 2 and 0.4 < right - left < 1.3  # log(0.7 / 0.3) = 0.85
    assert flow.mean(1).item() == pytest.approx(5.4, abs=0.05)


def test_mean_is_the_mean_of_the_samples_even_if_skewed():
    x = torch.rand(T + 1, 4000, 2, generator=gen()).square() * torch.tensor([1.0, 10.0])
    flow = new_flow(2)
    fit_flow(flow, x, CONFIG, gen())
    for t in range(T + 1):
        torch.testing.assert_close(flow.mean(t), flow.sample(t, 50_000, gen(t)).mean(0), atol=0.05, rtol=0)


def test_warm_start_goes_on_from_where_it_was():
    x = torch.rand(T + 1, 4000, 1, generator=gen()).pow(2)
    flow = new_flow(1)

    def loss_after_fitting(flow, steps, seed):
        fit_flow(flow, x, FlowConfig(steps=steps, hidden=(32, 32)), gen(seed))
        return -torch.stack([flow.log_prob(t, x[t]).mean() for t in range(T + 1)]).mean().item()

    losses = [loss_after_fitting(flow, 120, seed) for seed in range(4)]
    assert (np.diff(losses) < 0.01).all() and losses[-1] < losses[0]
    assert loss_after_fitting(flow, 5, 9) < loss_after_fitting(new_flow(1), 5, 9) - 0.1


def test_density_is_in_the_units_of_the_game():
    x = torch.rand(T + 1, 2000, 1, generator=gen())
    flows = new_flow(1), new_flow(1)
    small, large = (fit_flow(flow, scale * x, CONFIG, gen(1)) for flow, scale in zip(flows, (1.0, 100.0), strict=True))
    assert large - small == pytest.approx(math.log(100), abs=1e-3)
    query = torch.linspace(0.1, 0.9, 9)[:, None]
    difference = flows[0].log_prob(1, query) - flows[1].log_prob(1, 100 * query)
    torch.testing.assert_close(difference, torch.full((9,), math.log(100)), atol=1e-2, rtol=0)


def test_starts_as_the_gaussian_with_the_right_moments():
    x = LOC[:, None] + SCALE[:, None] * torch.rand(T + 1, 3000, 3, generator=gen())
    flow = new_flow(3)
    fit_flow(flow, x, FlowConfig(steps=1, learning_rate=1e-9, hidden=(32, 32)), gen())
    z = torch.as_tensor(norm.ppf(qmc.Sobol(3, seed=0).random(1024))).float()
    torch.testing.assert_close(flow.from_base(1, z), x[1].mean(0) + x[1].std(0) * z, atol=0.01, rtol=0)


def test_a_population_that_starts_at_one_point():
    x = torch.randn(T + 1, 1000, 1, generator=gen())
    x[0] = 2.0
    flow = new_flow(1)
    assert math.isfinite(fit_flow(flow, x, CONFIG, gen()))
    torch.testing.assert_close(flow.sample(0, 100, gen()), torch.full((100, 1), 2.0), atol=1e-3, rtol=0)
    assert flow.sample(1, 5000, gen()).std().item() == pytest.approx(1, abs=0.1)


def test_states_that_are_not_finite_are_a_divergence():
    x = torch.randn(T + 1, 100, 1, generator=gen())
    x[1, 5] = torch.nan
    with pytest.raises(DivergenceError, match="flow: "):
        fit_flow(new_flow(1), x, CONFIG, gen())


@pytest.mark.parametrize("field", ["transforms", "bins", "agents", "steps", "batch", "learning_rate"])
@pytest.mark.parametrize("value", [0, -1, math.nan, "many"])
def test_configuration_validates_itself(field, value):
    with pytest.raises(ValueError, match=rf"FlowConfig\.{field}: expected > 0, got {value!r}"):
        FlowConfig(**{field: value})
