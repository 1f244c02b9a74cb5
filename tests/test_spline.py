"""The spline against zuko's, autograd and its own definition."""

import pytest
import torch
import torch.nn.functional as F
from helpers import gen
from zuko.transforms import MonotonicRQSTransform

from mfglib.learn.spline import LEAST_BIN, MOST_SLOPE, spline, spline_inverse

K = 6
X = torch.linspace(-1.501, 2.5, 1000, dtype=torch.float64)
CASES = [(bins, std) for bins in (1, 2, 8) for std in (0.1, 1.0, 5.0)]
every_spline = pytest.mark.parametrize(("bins", "std"), CASES)


def parameters(bins: int, std: float, rows: int = 7) -> torch.Tensor:
    """Splines (rows, 1, 3 bins + 1), for one row of x each."""
    return std * torch.randn(rows, 1, 3 * bins + 1, generator=gen(bins)).double()


def test_zero_is_the_identity():
    y, log_slope = spline(torch.zeros(1, 3 * K + 1).double(), X)
    torch.testing.assert_close(y, X)
    torch.testing.assert_close(log_slope, torch.zeros_like(X))


def test_is_zukos_spline_for_the_same_knots_and_slopes():
    """zuko's is the identity outside, and on [−1, 1]; the slope of ours at a knot is relative to the bins beside it."""
    raw = parameters(K, 1.0)[0]
    sizes = (1 - K * LEAST_BIN) * raw[0, : 2 * K].reshape(2, K).softmax(-1) + LEAST_BIN
    knots = F.pad(sizes.cumsum(-1), (1, 0))
    s = sizes[1] / sizes[0]
    beside = (torch.cat([s[:1], s]) * torch.cat([s, s[-1:]])).sqrt()
    slopes = beside * (raw[0, 2 * K :] / (1 + raw[0, 2 * K :].abs() / MOST_SLOPE)).exp()
    reference = MonotonicRQSTransform(torch.zeros(K), torch.zeros(K), torch.zeros(K - 1), bound=1.0)
    reference.horizontal, reference.vertical, reference.derivatives = *(2 * knots - 1), slopes
    x = torch.linspace(0.001, 0.999, 997, dtype=torch.float64)
    y, log_slope = spline(raw, x)
    expected, expected_slope = reference.call_and_ladj(2 * x - 1)
    torch.testing.assert_close(y, (expected + 1) / 2, atol=1e-12, rtol=0)
    torch.testing.assert_close(log_slope, expected_slope, atol=1e-10, rtol=0)
    torch.testing.assert_close(spline_inverse(raw, x), (reference.inv(2 * x - 1) + 1) / 2, atol=1e-12, rtol=0)


@every_spline
def test_inverse(bins, std):
    raw = parameters(bins, std)
    x = X.expand(7, -1)
    y, log_slope = spline(raw, x)
    assert std < 1 or (y - x).abs().max() > 0.05
    error = (spline_inverse(raw, y) - x).abs() * log_slope.exp().clamp_max(1)  # where it is flat, x is not known better
    assert error.max() < 1e-11
    torch.testing.assert_close(spline(raw, spline_inverse(raw, x))[0], x, atol=1e-9, rtol=0)


@every_spline
def test_slope_by_autograd_and_monotone(bins, std):
    raw, x = parameters(bins, std), X.repeat(7, 1).requires_grad_()
    y, log_slope = spline(raw, x)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), x)[0].log(), log_slope, atol=1e-6, rtol=0)
    assert (y.diff(dim=-1) > 0).all()


@every_spline
def test_maps_the_unit_interval_onto_itself_and_is_linear_beyond(bins, std):
    raw = parameters(bins, std)
    x = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0]).double().expand(7, -1)
    y, log_slope = spline(raw, x)
    torch.testing.assert_close(y[:, 2:4], x[:, 2:4], atol=1e-12, rtol=0)
    slope = log_slope.exp()
    for outer, edge in ((0, 2), (1, 2), (4, 3), (5, 3)):
        torch.testing.assert_close(slope[:, outer], slope[:, edge])
        torch.testing.assert_close(y[:, outer] - y[:, edge], slope[:, edge] * (x[:, outer] - x[:, edge]))


def test_slopes_have_no_jump_at_a_knot():
    raw = parameters(K, 1.0, rows=1)[0]
    x = torch.linspace(0, 1, 200_001).double()
    assert spline(raw, x)[1].diff().abs().max() < 0.01


def test_gradients_of_the_parameters():
    raw = parameters(3, 1.0, rows=2).requires_grad_()
    x = torch.tensor([[0.2, 0.7, -0.3, 1.4]]).double().expand(2, -1)
    assert torch.autograd.gradcheck(lambda r: spline(r, x), raw)
    assert torch.autograd.gradcheck(lambda r: spline_inverse(r, x), raw)


def test_one_spline_for_all_samples_or_one_each():
    raw, x = parameters(K, 1.0), torch.rand(7, 5, generator=gen()).double()
    each = raw.expand(-1, 5, -1).contiguous()
    for shared, own in zip(spline(raw, x), spline(each, x), strict=True):
        assert torch.equal(shared, own)
    assert torch.equal(spline_inverse(raw, x), spline_inverse(each, x))


@pytest.mark.parametrize("std", [5.0, 100.0])
def test_extreme_parameters_stay_finite_and_inside_in_single_precision(std):
    raw = parameters(8, std, rows=500).float()
    x = torch.cat([torch.linspace(0, 1, 200), torch.tensor([1e-30, 1 - 6e-8])]).expand(500, -1)
    y, log_slope = spline(raw, x)
    back = spline_inverse(raw, x)
    assert (
        torch.isfinite(log_slope).all() and log_slope.abs().max() < 3 * MOST_SLOPE - 2 * torch.tensor(LEAST_BIN).log()
    )
    for value in (y, back):
        assert ((value > -1e-5) & (value < 1 + 1e-5)).all()
