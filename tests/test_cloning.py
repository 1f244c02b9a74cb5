import math

import numpy as np
import pytest
import torch
from helpers import gen
from scipy.stats import chisquare

from mfglib.checks import DivergenceError
from mfglib.learn.cloning import CloningConfig, Memory, clone
from mfglib.learn.densities import GaussianPolicy
from mfglib.learn.networks import Networks
from mfglib.policies import AffinePolicy
from mfglib.seeds import isolated

T = 2
ONE = np.ones(1)


def numbered(start, n, horizon=1):
    """Trajectories whose states count up from `start`, and actions with the opposite sign."""
    x = torch.arange(start, start + n * horizon, dtype=torch.float32).view(horizon, n, 1)
    return x, -x


def test_memory_keeps_triples_together_in_order():
    memory, x, a = Memory(2, 1), torch.rand(4, 5, 2), torch.rand(3, 5, 1)  # x has one time more than a
    memory.add(x, a, 1, gen())
    assert len(memory) == 15
    for i in range(15):
        t, agent = divmod(i, 5)
        assert memory.t[i] == t and torch.equal(memory.x[i], x[t, agent]) and torch.equal(memory.a[i], a[t, agent])
    memory.add(x, a, 2, gen(1))
    assert memory.iteration.tolist() == [1] * 15 + [2] * 15


def test_memory_without_capacity_never_forgets():
    memory = Memory(1, 1)
    for i in range(1, 6):
        memory.add(*numbered(100 * i, 7), i, gen(i))
    assert sorted(memory.x[:, 0].tolist()) == [100.0 * i + j for i in range(1, 6) for j in range(7)]


def test_cleared_memory_is_a_new_one():
    memory, new = Memory(1, 1, capacity=5), Memory(1, 1, capacity=5)
    memory.add(*numbered(100, 9), 1, gen())
    memory.clear()
    assert len(memory) == 0 and memory.x.shape == memory.a.shape == (0, 1)
    for m in (memory, new):
        m.add(*numbered(200, 9), 2, gen(1))
    assert len(memory) == 5  # the capacity stays
    assert all(torch.equal(getattr(memory, name), getattr(new, name)) for name in Memory.FIELDS)


@pytest.mark.parametrize("sizes", [[40, 40, 40, 40], [100, 5, 5, 50], [10, 10, 100, 40]])
def test_memory_holds_a_uniform_sample_of_everything_ever_added(sizes):
    """Each of the 160 triples survives equally often, early or late, in a large batch or a small one."""
    survived = np.zeros(160)
    for seed in range(400):
        memory, start, g = Memory(1, 1, capacity=30), 0, gen(seed)
        for i, size in enumerate(sizes, 1):
            memory.add(*numbered(start, size), i, g)
            start += size
        assert len(memory) == 30 and (memory.iteration.diff() >= 0).all()
        assert torch.equal(memory.a, -memory.x)
        survived[memory.x[:, 0].long()] += 1
    # fixed sample size without replacement: Pearson's sum has 159 degrees of freedom after dividing by 1 − 30/160
    expected = 400 * 30 / 160
    statistic = ((survived - expected) ** 2 / (expected * (1 - 30 / 160))).sum() * 159 / 160
    assert 110 < statistic < 215  # 99.8% of chi2(159)
    blocks = np.add.reduceat(survived, np.cumsum([0, *sizes[:-1]]))
    assert chisquare(blocks, 12000 * np.array(sizes) / 160).pvalue > 1e-3


@pytest.mark.parametrize("weights", [[1 / 3] * 3, [0.1, 0.2, 0.7], [0.0, 1.0, 0.0]])
@pytest.mark.parametrize("capacity", [None, 60])
def test_draw_gives_each_iteration_its_weight_whatever_its_size(weights, capacity):
    memory = Memory(1, 1, capacity)
    for i, n in enumerate((50, 200, 10), 1):
        memory.add(*numbered(1000 * i, n), i, gen(i))
    t, x, a = memory.sampler(np.array(weights), gen())(60_000)
    assert t.shape == (60_000,) and x.shape == a.shape == (60_000, 1) and torch.equal(a, -x)
    share = torch.bincount((x[:, 0] // 1000).long(), minlength=4)[1:] / 60_000
    np.testing.assert_allclose(share, weights, atol=0.01)
    second = x[(x >= 2000) & (x < 3000)]
    if len(second):  # and within an iteration, every triple alike
        kept = (memory.iteration == 2).sum().item()
        counts = torch.unique(second, return_counts=True)[1]
        assert len(counts) == kept and chisquare(counts).pvalue > 1e-3


def fresh_policy(k=1):
    with isolated(0, "clone"):
        return GaussianPolicy(Networks(T, torch.zeros(1), torch.ones(1), torch.ones(k), (64, 64)))


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_clone_recovers_a_conditional_gaussian(beta):
    def mean(t, x):
        return torch.cat([torch.sin(2 * x) + t, -0.5 * x], -1)

    def std(t, x):
        return torch.cat([0.2 + 0.1 * x.square() + 0.2 * t, 0.3 + 0 * x], -1)

    x = torch.randn(T, 5000, 1, generator=gen())
    a = torch.stack([mean(t, x[t]) + std(t, x[t]) * torch.randn(5000, 2, generator=gen(t + 1)) for t in range(T)])
    memory, policy = Memory(1, 2), fresh_policy(2)
    memory.add(x, a, 1, gen())
    loss = clone(policy, memory, ONE, CloningConfig(steps=400, batch=1024, beta=beta), gen())
    entropy = torch.stack([std(t, x[t]).log().sum(-1).mean() for t in range(T)]).mean() + math.log(2 * math.pi * math.e)
    assert loss == pytest.approx(entropy.item(), abs=0.06)
    grid = torch.linspace(-1.2, 1.2, 25)[:, None]
    for t in range(T):
        fitted_mean, fitted_std = policy.gaussian(t, grid)
        torch.testing.assert_close(fitted_mean, mean(t, grid), atol=0.1, rtol=0)
        torch.testing.assert_close(fitted_std, std(t, grid), atol=0, rtol=0.25)


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_clone_of_a_mixture_has_its_moments(beta):
    """Weights ¼ and ¾ on a = x + 1 and a = x − 1, both noiseless: mean x − ½, standard deviation ½√3."""
    memory, policy = Memory(1, 1), fresh_policy()
    for i, (n, shift) in enumerate(((3000, 1.0), (500, -1.0)), 1):
        x = torch.randn(T, n, 1, generator=gen(i))
        memory.add(x, x + shift, i, gen(i))
    clone(policy, memory, np.array([0.25, 0.75]), CloningConfig(steps=300, batch=1024, beta=beta), gen())
    grid = torch.linspace(-1.2, 1.2, 25)[:, None]
    mean, std = policy.gaussian(1, grid)
    torch.testing.assert_close(mean, grid - 0.5, atol=0.12, rtol=0)
    torch.testing.assert_close(std, torch.full_like(std, math.sqrt(3) / 2), atol=0.08, rtol=0)


def two_sided(noise):
    """Actions on two sides of 0, ¼ of them below, both wavy in x; and the entropy of a given x (the sides overlap
    nowhere)."""
    x, below = torch.randn(T, 4000, 1, generator=gen(1)), torch.rand(T, 4000, 1, generator=gen(2)) < 0.25
    a = torch.where(below, -1.0, 1.0) * (0.8 + 0.2 * torch.sin(2 * x)) + noise * torch.randn(x.shape, generator=gen(3))
    memory = Memory(1, 1)
    memory.add(x, a, 1, gen())
    sides = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    return memory, sides + math.log(noise) + 0.5 * math.log(2 * math.pi * math.e)


def fresh_mixture():
    with isolated(0, "clone"):
        return GaussianPolicy(Networks(T, *torch.tensor([[0.0], [1.0], [1.0]]), (64, 64)), components=5)


def test_clone_of_two_sides_by_a_mixture_and_by_a_gaussian():
    (memory, entropy), config = two_sided(0.1), CloningConfig(steps=300, batch=1024)
    losses, between = [], []
    for policy in (fresh_mixture(), fresh_policy()):
        losses.append(clone(policy, memory, ONE, config, gen()))
        a = policy.sample(1, torch.zeros(20_000, 1), gen(1))
        between.append((a.abs() < 0.4).float().mean().item())
        if policy.components > 1:
            assert (a < 0).float().mean().item() == pytest.approx(0.25, abs=0.04)
            for side in (-1, 1):  # at x = 0 both sides are ±0.8 with deviation 0.1
                there = a[a * side > 0]
                assert there.mean().item() == pytest.approx(0.8 * side, abs=0.05)
                assert there.std().item() == pytest.approx(0.1, abs=0.05)
    assert losses[0] == pytest.approx(entropy, abs=0.06) and losses[1] > entropy + 1
    assert between[0] < 0.01 and between[1] > 0.2  # where nobody acts


@pytest.mark.parametrize("make", [fresh_policy, fresh_mixture], ids=["Gaussian", "mixture"])
def test_deviations_recover_after_noiseless_data(make):
    """The first average has one greedy best response in memory and collapses; the next must be able to widen."""
    policy, x, narrow, wide = make(), torch.randn(T, 2000, 1, generator=gen()), Memory(1, 1), Memory(1, 1)
    narrow.add(x, 0.5 * x, 1, gen())
    wide.add(x, 0.5 * x + torch.randn(T, 2000, 1, generator=gen(1)), 1, gen())
    for _ in range(2):
        clone(policy, narrow, ONE, CloningConfig(batch=1024), gen())
    assert (policy.sample(0, x[0], gen()) - 0.5 * x[0]).std() < 0.1
    loss = clone(policy, wide, ONE, CloningConfig(batch=1024), gen())
    assert loss == pytest.approx(0.5 * math.log(2 * math.pi * math.e), abs=0.06)
    assert (policy.sample(0, x[0], gen()) - 0.5 * x[0]).std().item() == pytest.approx(1, abs=0.15)


def test_any_module_with_a_density_can_be_cloned_and_nothing_else():
    class Laplace(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.centre = torch.nn.Parameter(torch.zeros(1))

        def log_prob(self, t, x, a):
            return -(a - self.centre).abs().sum(-1) - math.log(2)

    memory, policy = Memory(1, 1), Laplace()
    memory.add(torch.zeros(T, 500, 1), 0.3 + torch.randn(T, 500, 1, generator=gen()), 1, gen())
    clone(policy, memory, ONE, CloningConfig(steps=300, batch=1000, learning_rate=0.01), gen())
    assert policy.centre.item() == pytest.approx(memory.a.median().item(), abs=0.05)
    with pytest.raises(TypeError, match="policy: expected a module with `log_prob`, got AffinePolicy"):
        clone(AffinePolicy(torch.zeros(T, 1, 1), torch.zeros(T, 1)), memory, ONE, CloningConfig(), gen())


def test_actions_that_are_not_finite_are_a_divergence():
    memory = Memory(1, 1)
    memory.add(torch.zeros(T, 10, 1), torch.full((T, 10, 1), torch.nan), 1, gen())
    with pytest.raises(DivergenceError, match="cloning"):
        clone(fresh_policy(), memory, ONE, CloningConfig(steps=2, batch=8), gen())
