"""All policies through the same properties, and what is particular to those without a network."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from contracts import T, assert_density, assert_mean, network
from helpers import BlackBox, gen
from scipy.stats import chisquare
from torch.distributions import Independent, Normal

from mfglib.games import BeachBar, LinearQuadratic
from mfglib.learn.candidates import LookaheadPolicy
from mfglib.learn.lookahead import LookaheadConfig
from mfglib.policies import AffinePolicy, EpisodeMixture, MeanPolicy, NoisePolicy, sampler
from mfglib.populations import MeanPath
from mfglib.recipes import recipe_of
from mfglib.rollout import rollout


def affine(d, k, std=0.3):
    return AffinePolicy(torch.randn(T, k, d, generator=gen()), torch.randn(T, k, generator=gen(1)), std)


def looking_ahead(temperature):
    game = BeachBar(horizon=T, c_m=0.0)
    values = recipe_of(game, preset="smoke").build()["best_response"].values.requires_grad_(False)
    values.temperature.fill_(temperature)
    return LookaheadPolicy(game, MeanPath(torch.zeros(T + 1, 1)), values, LookaheadConfig().acting_candidates)


def of_sb3():
    pytest.importorskip("stable_baselines3")
    response = recipe_of(LinearQuadratic(horizon=T), preset="smoke", best_response="sb3-ppo").build()["best_response"]
    return response.actor.requires_grad_(False)


@dataclass
class Case:
    make: object
    d: int = 1
    k: int = 1
    missing: tuple = ()  # members that it cannot answer
    timeless: bool = False  # the same at all times, and without a horizon
    torchs: bool = True  # it draws from the generator
    chosen: bool = True  # its actions are random
    mean: dict = field(default_factory=dict)  # how well the mean is known


NO_DENSITY = ("log_prob",)
POLICIES = {
    "noise": Case(lambda: NoisePolicy(torch.tensor([0.4])), timeless=True),
    "affine": Case(lambda: affine(2, 1), 2),
    "affine, two actions": Case(lambda: affine(1, 2), 1, 2),
    "Gaussian": Case(lambda: network(2, 1), 2),
    "Gaussian, two actions": Case(lambda: network(1, 2), 1, 2),
    "Gaussian with waves": Case(lambda: network(1, 1, frequencies=2)),
    "mixture of Gaussians": Case(lambda: network(3, 1, components=5), 3),
    "mixture of Gaussians, two actions": Case(lambda: network(2, 2, components=5), 2, 2),
    "mean of a Gaussian": Case(lambda: MeanPolicy(network(2, 3)), 2, 3, NO_DENSITY, chosen=False),
    "looking ahead": Case(lambda: looking_ahead(0.0), 1, 1, NO_DENSITY, mean=dict(within=2.0)),
    "looking ahead, smoothed": Case(lambda: looking_ahead(0.5), 1, 1, NO_DENSITY, mean=dict(within=0.05)),
    "once per episode": Case(
        lambda: EpisodeMixture([affine(1, 1), NoisePolicy(torch.ones(1))]), missing=("log_prob", "mean"), timeless=True
    ),
    "Stable-Baselines3": Case(of_sb3, missing=NO_DENSITY, torchs=False),
}
each = pytest.mark.parametrize("case", POLICIES.values(), ids=POLICIES)


@each
def test_answers_have_the_shape_dtype_and_device_of_actions(case):
    policy, x = case.make(), torch.rand(7, case.d, generator=gen())
    for t in range(T + 1 if not case.timeless else 1):  # the last time too
        a = policy.sample(t, x, generator=gen(t))
        answers = [a] if "mean" in case.missing else [a, policy.mean(t, x)]
        for answer in answers:
            assert answer.shape == (7, case.k) and (answer.dtype, answer.device) == (x.dtype, x.device)
            assert answer.isfinite().all() and not answer.requires_grad
        if "log_prob" not in case.missing and not (isinstance(policy, AffinePolicy) and t == T):
            assert policy.log_prob(t, x, a).shape == (7,)


@each
def test_the_generator_alone_decides(case):
    policy, x, before = case.make(), torch.rand(50, case.d, generator=gen()), torch.get_rng_state()
    if case.torchs:
        first, again, other = (policy.sample(1, x, generator=gen(s)) for s in (1, 1, 2))
        assert torch.equal(first, again) and torch.equal(first, other) == (not case.chosen)
        assert torch.equal(torch.get_rng_state(), before)


@each
def test_the_density_is_that_of_the_samples_and_so_is_the_mean(case):
    policy, n = case.make(), 40_000
    for t in (0, T - 1):
        x = torch.full((1, case.d), 0.4 + 0.1 * t)
        a = policy.sample(t, x.expand(n, -1), generator=gen(t))
        if "log_prob" in case.missing:
            with pytest.raises(NotImplementedError, match="density"):
                policy.log_prob(t, x, a[:1])
        else:
            assert_density(lambda b, t=t, x=x: policy.log_prob(t, x.expand(len(b), -1), b.float()), a)
        if "mean" in case.missing:
            with pytest.raises(NotImplementedError, match="no mean"):
                policy.mean(t, x)
        else:
            assert_mean(policy.mean(t, x)[0], a, **case.mean)


@each
def test_times_outside_the_horizon_are_refused(case):
    policy, x = case.make(), torch.zeros(2, case.d)
    for t in (-1, T + 1):
        for answer in () if case.timeless else (policy.sample, policy.mean):
            with pytest.raises(ValueError, match=rf"t: expected an integer in 0\.\.{T}, got {t}"):
                answer(t, x)


# --- no action, means, affine ones


def test_no_deviation_is_no_action():
    still, x = NoisePolicy(torch.zeros(2)), torch.rand(5, 3)
    assert torch.equal(still.sample(1, x), torch.zeros(5, 2)) and torch.equal(still.mean(1, x), torch.zeros(5, 2))


def test_greedy_acts_by_the_mean():
    policy, x = network(2, 3), torch.randn(5, 2, generator=gen())
    assert torch.equal(MeanPolicy(policy).sample(1, x), policy.mean(1, x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_affine_policy(dtype):
    K, k = torch.randn(T, 3, 2, generator=gen()), torch.randn(T, 3, generator=gen(1))
    policy, x = AffinePolicy(K, k, std=torch.tensor([0.1, 0.2, 0.3])), torch.randn(6, 2, generator=gen(2)).to(dtype)
    for t in range(T):
        mean = torch.stack([K[t].to(dtype) @ v + k[t].to(dtype) for v in x])
        torch.testing.assert_close(policy.mean(t, x), mean)
        a = policy.sample(t, x, gen(3))
        assert a.dtype == dtype
        law = Independent(Normal(policy.mean(t, x), torch.tensor([0.1, 0.2, 0.3]).to(dtype)), 1)
        torch.testing.assert_close(policy.log_prob(t, x, a), law.log_prob(a))
    assert torch.equal(policy.mean(T, x), torch.zeros(6, 3, dtype=dtype))


def test_deterministic_affine_policy_has_no_density():
    policy, x = AffinePolicy(torch.ones(T, 1, 1), torch.zeros(T, 1)), torch.ones(2, 1)
    assert torch.equal(policy.sample(0, x, gen()), policy.mean(0, x))
    with pytest.raises(ValueError, match="deterministic"):
        policy.log_prob(0, x, x)


def test_sampler_hands_over_the_generator_where_it_is_wanted():
    class Deaf:
        def sample(self, t, x):
            return t * x

    policy, x = network(2, 3), torch.ones(3, 2)
    assert torch.equal(sampler(Deaf(), gen())(2, x), 2 * x)
    g = gen(1)
    first, second = (sampler(policy, g)(0, x) for _ in range(2))
    assert torch.equal(first, policy.sample(0, x, gen(1))) and not torch.equal(first, second)


# --- mixtures drawn once per episode


def always(a, std=0.0):
    return AffinePolicy(torch.zeros(T, 1, 1), torch.full((T, 1), a), std=std)


LEFT_RIGHT = EpisodeMixture([always(-1.0), always(1.0)], [0.3, 0.7])
STRAIGHT = LinearQuadratic(A=1.0, B=1.0, A_bar=0.0, horizon=T, initial_mean=0.0, initial_std=0.0, noise_std=0.0)


def test_agents_keep_their_policy_for_the_episode():
    r = rollout(STRAIGHT, LEFT_RIGHT, n=10_000, generator=gen())
    assert set(r.x[T].flatten().tolist()) == {-3.0, 3.0}  # one-step marginals would leave 63% at ±1
    assert torch.equal(r.a, r.a[:1].expand_as(r.a))
    assert (r.a[0] > 0).float().mean().item() == pytest.approx(0.7, abs=0.02)


def test_sampled_afresh_it_is_the_marginal_of_the_first_step_only():
    a = [LEFT_RIGHT.sample(t, torch.zeros(10_000, 1), gen(t)) for t in range(2)]
    assert all((b > 0).float().mean().item() == pytest.approx(0.7, abs=0.02) for b in a)
    assert (a[0] * a[1] < 0).float().mean() > 0.3  # many turned round


def test_population_is_the_mixture_of_the_policies_populations():
    game = LinearQuadratic(A=0.9, horizon=T, A_bar=0.0, initial_std=0.2, noise_std=0.1)
    parts, weights = [always(-1.0, 0.1), always(0.5, 0.3), always(2.0, 0.2)], np.array([0.5, 0.3, 0.2])
    x = rollout(game, EpisodeMixture(parts, weights), n=40_000, generator=gen()).x
    alone = torch.stack([rollout(game, p, n=40_000, generator=gen(i + 1)).x for i, p in enumerate(parts)])
    for t in range(T + 1):
        share = torch.stack([torch.histc(y[t], 22, -4, 7) for y in (x, *alone)]) / 40_000
        expected = torch.as_tensor(weights, dtype=torch.float32) @ share[1:]
        torch.testing.assert_close(share[0], expected, atol=0.012, rtol=0)
        assert share[0].sum() > 0.999


@pytest.mark.parametrize("weights", [None, [1, 2, 5]])
def test_assignment_has_the_frequencies_of_the_weights(weights):
    mixture = EpisodeMixture([always(float(i)) for i in range(3)], weights)
    expected = np.full(3, 1 / 3) if weights is None else np.array([1, 2, 5]) / 8
    np.testing.assert_allclose(mixture.weights, expected)
    counts = torch.bincount(mixture.episode(20_000, gen()).member, minlength=3)
    assert chisquare(counts, 20_000 * expected).pvalue > 1e-3


def test_each_policy_is_asked_once_a_step_and_only_for_its_agents():
    asked = []

    class Recorder:
        def __init__(self, i):
            self.i = i

        def sample(self, t, x):  # a policy of one's own may leave the generator out
            asked.append((t, self.i, len(x)))
            return 10 * x + self.i

    mixture = EpisodeMixture([Recorder(0), Recorder(1), Recorder(2)], [0.5, 0.0, 0.5])
    episode, x = mixture.episode(100, gen()), torch.arange(100.0)[:, None]
    for t in range(2):
        assert torch.equal(episode.sample(t, x, gen()), 10 * x + episode.member[:, None])
    n = (episode.member == 0).sum().item()
    assert asked == [(t, *part) for t in range(2) for part in ((0, n), (2, 100 - n))]


def test_mixtures_of_mixtures_keep_their_parts_too():
    outer = EpisodeMixture([LEFT_RIGHT, BlackBox(always(0.0))], [0.5, 0.5])
    r = rollout(STRAIGHT, outer, n=10_000, generator=gen())
    ends, counts = r.x[T].unique(return_counts=True)
    assert ends.tolist() == [-3.0, 0.0, 3.0]
    assert chisquare(counts, [1500, 5000, 3500]).pvalue > 1e-3


def test_another_number_of_agents_is_refused():
    with pytest.raises(ValueError, match="x: expected the states of the episode's 4 agents, got 3"):
        LEFT_RIGHT.episode(4, gen()).sample(0, torch.zeros(3, 1))


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([1.0], r"expected shape \(2,\), one a policy, got \(1,\)"),
        ([1.0, -0.5], "expected finite numbers >= 0"),
        ([0.0, 0.0], "expected finite numbers >= 0"),
        ([math.nan, 1.0], "expected finite numbers"),
    ],
    ids=str,
)
def test_weights_are_validated(weights, said):
    with pytest.raises(ValueError, match=f"weights: {said}"):
        EpisodeMixture([always(0.0), always(1.0)], weights)
    with pytest.raises(ValueError, match="policies: expected a list of at least one"):
        EpisodeMixture([])
