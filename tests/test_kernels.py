"""Sums of Gaussian kernels (`mfglib.kernels`): through a lattice as pair by pair."""

import pytest
import torch
from helpers import gen

from mfglib import kernels


def pairs(x, agents):
    """log Σ_j 2^(−|x_i − agent_j|²) as it is written, in double precision."""
    square = (x.double()[:, None] - agents.double()).square().sum(-1)
    return torch.logsumexp(-square * torch.log(torch.tensor(2.0, dtype=torch.float64)), 1)


def crowd(d, n, size, dtype, seed=0):
    return torch.rand(n, d, generator=gen(seed), dtype=dtype) * size


@pytest.mark.parametrize("dtype, error", [(torch.float32, 3e-6), (torch.float64, 1e-13)])
@pytest.mark.parametrize("d, size", [(1, 0.0), (1, 0.5), (1, 15.0), (2, 0.5), (2, 8.0)])
def test_a_lattice_is_as_exact_as_pairs_near_the_crowd_and_far_from_it(d, size, dtype, error):
    agents, x = crowd(d, 3000, size, dtype), crowd(d, 3000, 2 * size + 20, dtype, seed=1) - (size + 20) / 2
    assert kernels._by_lattice(x, agents) is not None
    found, right = kernels.log_kernel_sum(x, agents, 40).double(), pairs(x, agents)
    assert ((found - right).abs() <= error * right.abs().clamp_min(1)).all()


def test_it_does_not_depend_on_the_parts(monkeypatch):
    agents, x = crowd(2, 3000, 5.0, torch.float64), crowd(2, 2000, 5.0, torch.float64, seed=1)
    whole = kernels._by_lattice(x, agents)
    monkeypatch.setattr(kernels, "PART", 700)
    torch.testing.assert_close(kernels._by_lattice(x, agents), whole, rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    "x, agents",
    [
        (crowd(3, 3000, 2.0, torch.float32), crowd(3, 3000, 2.0, torch.float32)),
        (crowd(2, 20, 2.0, torch.float32), crowd(2, 3000, 2.0, torch.float32)),
        (crowd(1, 3000, 9.0, torch.float32), crowd(1, 3000, 1e5, torch.float32)),
        (torch.empty(0, 1), crowd(1, 3000, 1.0, torch.float32)),
    ],
    ids=["three dimensions", "few states", "narrow kernels", "no states"],
)
def test_pairs_are_summed_where_a_lattice_does_not_pay(x, agents):
    assert kernels._by_lattice(x, agents) is None
    torch.testing.assert_close(kernels.log_kernel_sum(x, agents, 40).double(), pairs(x, agents), rtol=1e-5, atol=1e-5)


def test_a_state_that_is_no_number_is_the_only_one_without_an_answer():
    agents, x = crowd(1, 3000, 5.0, torch.float32), crowd(1, 3000, 5.0, torch.float32, seed=1)
    x[7], x[8] = torch.nan, torch.inf
    found = kernels.log_kernel_sum(x, agents, 40)
    assert found[7].isnan() and found[8] == -torch.inf and found.isfinite().sum() == len(x) - 2
