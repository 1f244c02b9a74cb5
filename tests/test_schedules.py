"""Weights of best responses, budgets and learning rates (`mfglib.schedules`)."""

import numpy as np
import pytest

from mfglib.learn.flow import FlowConfig
from mfglib.schedules import AVERAGING, Steps, averaging_of, budget, constant, decayed


@pytest.mark.parametrize("k", [1, 2, 7, 50])
def test_averaging_weights(k):
    i = np.arange(1, k + 1)
    np.testing.assert_allclose(Steps().weights(k), np.full(k, 1 / k), rtol=1e-12)
    np.testing.assert_allclose(Steps("linear").weights(k), i / i.sum(), rtol=1e-12)
    geometric = 0.3 * 0.7 ** (k - i)
    geometric[0] = 0.7 ** (k - 1)
    np.testing.assert_allclose(constant(0.3).weights(k), geometric, rtol=1e-12)
    assert all(Steps(a).weights(k).sum() == pytest.approx(1, abs=1e-12) for a in AVERAGING)


def test_unknown_averaging_is_named():
    with pytest.raises(ValueError, match="averaging: expected one of .*'uniform'.*, got 'median'"):
        averaging_of("median")


def test_an_object_with_weights_is_taken_as_it_is():
    class Last:
        def weights(self, k):
            return np.eye(k)[-1]

    last = Last()
    assert averaging_of(last) is last and averaging_of("linear") == Steps("linear")


@pytest.mark.parametrize("step", [0.0, 1.5, -0.1])
def test_a_step_outside_its_range_is_named(step):
    with pytest.raises(ValueError, match=rf"step: expected a number in \(0, 1\], got {step}"):
        constant(step)


def test_budgets_fall_to_the_later_one():
    assert [budget(k, 100, 30) for k in range(7)] == [100, 100, 67, 50, 40, 33, 30]


def test_learning_rates_fall_from_an_iteration_on():
    config = FlowConfig(learning_rate=0.1, decay_after=2)
    assert [decayed(config, k).learning_rate for k in range(1, 5)] == pytest.approx([0.1, 0.1, 0.2 / 3, 0.05])
    assert decayed(FlowConfig(), 9) == FlowConfig()
