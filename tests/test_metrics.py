import math

import numpy as np
import pytest
import torch
from helpers import gen

from mfglib.exact import lq_equilibrium
from mfglib.flow import FlowConfig, TimeFlow
from mfglib.games import LinearQuadratic
from mfglib.metrics import flow_wasserstein, flow_wasserstein_gaussian, policy_error, wasserstein
from mfglib.policy import AffinePolicy
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
