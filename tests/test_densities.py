"""The network policy: one Gaussian, or a mixture of several (`mfglib.learn.densities`)."""

import math

import pytest
import torch
from contracts import T, network
from helpers import gen

from mfglib.learn.densities import GaussianPolicy
from mfglib.learn.networks import Networks
from mfglib.seeds import isolated


def test_a_tensor_of_times_is_each_time_on_its_own():
    policy, x = network(2, 3), torch.randn(40, 2, generator=gen())
    t = torch.arange(40) % (T + 1)
    together = policy(t, x)
    for i in range(40):
        alone = policy(int(t[i]), x[i : i + 1])
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[i], b[0])
    assert not torch.allclose(policy(0, x)[1], policy(1, x)[1])  # time matters


def test_standard_deviation_has_its_first_value_floor_and_ceiling():
    centre, unit = torch.zeros(1), torch.tensor([4.0])
    x = torch.linspace(-100, 100, 500)[:, None]
    with isolated(0):
        fresh = GaussianPolicy(Networks(T, centre, centre + 1, unit, (8,)), initial_std=0.25)
    torch.testing.assert_close(fresh.gaussian(0, x)[1], torch.full((500, 1), 1.0), atol=0.05, rtol=0)
    policy = network(1, 1, min_std=0.3, max_std=math.e)
    for bias, expected in ((-50.0, 0.3), (50.0, math.e)):
        policy.std_head.bias.fill_(bias)
        torch.testing.assert_close(policy.gaussian(1, x)[1], torch.full((500, 1), expected))


@pytest.mark.parametrize("bound", [False, True])
def test_bound_keeps_the_mean_within_the_unit_and_its_gradient_alive(bound):
    policy, x = network(1, 2, bound=bound), torch.linspace(-50, 50, 200)[:, None]
    unit = torch.tensor([1.0, 2.0])
    free = policy.mean_head(policy.hidden(policy.inputs(1, x)))
    torch.testing.assert_close(policy.mean(1, x), (free.tanh() if bound else free) * unit)
    assert (policy.mean(1, x).abs() <= unit).all() == bound
    policy.mean_head.bias.copy_(torch.tensor([3.0, -3.0])).requires_grad_()
    policy.mean_head.weight.zero_()
    policy.gaussian(1, x)[0].sum().backward()
    assert (policy.mean_head.bias.grad > 0).all()


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (dict(frequencies=-1), "frequencies"),
        (dict(frequencies=1.5), "frequencies"),
        (dict(components=0), "components"),
        (dict(components=2.5), "components"),
        (dict(min_std=0.0), "min_std"),
        (dict(initial_std=-1.0), "initial_std"),
        (dict(max_std=math.nan), "max_std"),
        (dict(min_std=0.5, max_std=0.4), "max_std"),
    ],
    ids=str,
)
def test_options_are_validated(given, name):
    with pytest.raises(ValueError, match=f"{name}: expected .*, got "):
        network(2, 3, **given)


def test_starts_near_zero():
    with isolated(0):
        policy = GaussianPolicy(Networks(T, torch.zeros(1), torch.ones(1), torch.ones(1), (32, 32)))
    assert policy.mean(0, torch.linspace(-3, 3, 50)[:, None]).abs().max() < 0.01


def test_log_density_and_its_gradient_are_finite_far_from_all_components():
    policy = network(1, 1, components=5).requires_grad_(True)
    log_prob = policy.log_prob(0, torch.zeros(2, 1), torch.tensor([[-1e4], [1e4]]))
    log_prob.sum().backward()
    assert log_prob.isfinite().all() and all(p.grad.isfinite().all() for p in policy.parameters())


@pytest.mark.parametrize(("components", "k"), [(5, 1), (5, 2), (8, 3)])
def test_means_start_spread_over_the_actions(components, k):
    unit = torch.arange(1.0, k + 1)
    with isolated(0):
        policy = GaussianPolicy(Networks(T, torch.zeros(1), torch.ones(1), unit, (32, 32)), components=components)
    log_weight, mean, _ = policy(0, torch.zeros(1, 1))
    m = mean[0] / unit
    torch.testing.assert_close(log_weight.exp(), torch.full((1, components), 1 / components), atol=0.01, rtol=0)
    assert m.abs().max() <= 1.01 and (m.amax(0) - m.amin(0) > 1).all()
    torch.testing.assert_close(m, -m.flip(0), atol=0.02, rtol=0)  # symmetric
    distance = torch.cdist(m, m) + 9 * torch.eye(components)
    assert distance.min() > 1 / components
