"""What the contract tests share: a density against the samples that it should belong to, and learners' states."""

import math

import numpy as np
import torch
from scipy.stats import chisquare

from mfglib.learn.densities import GaussianPolicy
from mfglib.learn.networks import Networks
from mfglib.seeds import isolated

T = 3  # horizon of the networks below


def network(d, k, **options):
    """Weights far from their start, so that weights, means and deviations all depend on t and x."""
    unit = torch.arange(1.0, k + 1)
    inputs = {name: options.pop(name) for name in ("frequencies", "cell_edges") if name in options}
    options = dict(min_std=0.1, max_std=0.6) | options
    with isolated(0, "policy"):
        networks = Networks(T, torch.ones(d), torch.full((d,), 2.0), unit, (16, 16), **inputs)
        policy = GaussianPolicy(networks, **options)
        for name, head in policy.named_children():
            if name.endswith("_head") and head is not None:
                torch.nn.init.normal_(head.weight, std=0.5)
    return policy.requires_grad_(False)


@torch.no_grad()
def cells(log_prob, box, n, fine=1):
    """Edges of n cells along each axis of box: (2, d), and their probabilities (n^d,) by the midpoint rule on `fine`
    points along each axis of a cell."""
    d = box.shape[1]
    lines = [torch.linspace(*box[:, i].tolist(), n * fine + 1).double() for i in range(d)]
    grid = torch.cartesian_prod(*[(line[1:] + line[:-1]) / 2 for line in lines]).reshape(-1, d)
    mass = log_prob(grid).exp().double() * math.prod((line[1] - line[0]).item() for line in lines)
    return [line[::fine] for line in lines], mass.reshape([n, fine] * d).sum(list(range(1, 2 * d, 2))).ravel().numpy()


def histogram(x, edges):
    """Counts (n^d,) of x: (n, d)."""
    return np.histogramdd(x.numpy(), [e.numpy() for e in edges])[0].ravel()


def assert_density(log_prob, x, box=None, *, within=1e-3, samples=True):
    """The density integrates to 1, has the mean of the samples x: (n, d) and, unless told otherwise, their histogram;
    d is 1 or 2. Without a box, (2, d), it is the samples' own and half as much on each side."""
    n, fine = {1: (60, 200), 2: (20, 20)}[x.shape[1]]
    if box is None:
        low, high = x.amin(0), x.amax(0)
        box = torch.stack([low - (high - low) / 2, high + (high - low) / 2])
    edges, mass = cells(log_prob, box, n, fine)
    assert abs(mass.sum() - 1) < within
    counts, expected = histogram(x, edges), len(x) * mass / mass.sum()
    rare = expected < 10
    if samples:
        assert abs(counts[rare].sum() - expected[rare].sum()) < 5 * math.sqrt(expected[rare].sum() + 5)
        counts, expected = counts[~rare], expected[~rare]
        assert len(counts) > 5 and chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > 1e-3


def assert_mean(mean, x, within=0.0):
    """mean: (d,) is that of independent samples x: (n, d), up to five standard errors and a share of their spread."""
    assert ((mean - x.mean(0)).abs() <= (5 / len(x) ** 0.5 + within) * x.std(0) + 1e-6).all()


def assert_equal_states(one, other):
    """Bit for bit, NaN included."""
    one, other = ({name: value.clone() for name, value in s.items()} for s in (one, other))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name].nan_to_num(7e7), other[name].nan_to_num(7e7)) for name in one)


def differ(one, other):
    return any(not torch.equal(one[name], other[name]) for name in one)
