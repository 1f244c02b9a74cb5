import math

import numpy as np
import pytest
import torch
from helpers import BlackBox, gen
from scipy.stats import chisquare

from mfglib.games import LinearQuadratic
from mfglib.learn.densities import GaussianPolicy, MixturePolicy
from mfglib.policies import AffinePolicy, EpisodeMixture
from mfglib.rollout import rollout
from mfglib.seeds import isolated

T = 3


def make(cls, d, k, **options):
    """Weights far from their start, so that weights, means and deviations all depend on t and x."""
    unit = torch.arange(1.0, k + 1)
    with isolated(0, "policy"):
        policy = cls(T, torch.ones(d), torch.full((d,), 2.0), unit, (16, 16), min_std=0.1, max_std=0.6, **options)
    with isolated(0, "heads"):
        for name, head in policy.named_children():
            if name.endswith("_head"):
                torch.nn.init.normal_(head.weight, std=0.7)
    return policy.requires_grad_(False)


@pytest.mark.parametrize(("d", "k"), [(1, 1), (2, 2), (3, 1)])
def test_density_integrates_to_one(d, k):
    policy = make(MixturePolicy, d, k)
    axes = [torch.linspace(-12 * (i + 1), 12 * (i + 1), 601) for i in range(k)]
    a = torch.cartesian_prod(*axes).reshape(-1, k)
    volume = math.prod((axis[1] - axis[0]).item() for axis in axes)
    for t, x in enumerate(torch.randn(T + 1, d, generator=gen())):
        density = policy.log_prob(t, x.expand(len(a), d), a).double().exp()
        assert density.sum().item() * volume == pytest.approx(1, abs=1e-4)
        mean = (density[:, None] * a).sum(0) * volume
        torch.testing.assert_close(policy.mean(t, x[None])[0].double(), mean, atol=2e-3, rtol=0)


def test_samples_have_the_density():
    policy, x = make(MixturePolicy, 1, 1), torch.full((40_000, 1), 0.7)
    a = policy.sample(1, x, gen())[:, 0].numpy()
    fine = torch.linspace(-12, 12, 24_001)
    cdf = policy.log_prob(1, x[:1].expand(24_001, 1), fine[:, None]).double().exp().cumsum(0).numpy() * 1e-3
    edges = np.interp(np.linspace(0, 1, 41)[1:-1], cdf, fine.numpy() + 5e-4)  # 40 intervals, equally likely
    assert chisquare(np.bincount(np.searchsorted(edges, a), minlength=40)).pvalue > 1e-3


def test_samples_have_the_moments():
    policy, x = make(MixturePolicy, 2, 2), torch.tensor([[0.5, -1.0]]).expand(100_000, 2)
    a = policy.sample(2, x, gen())
    log_weight, m, s = (v[0].double() for v in policy(2, x[:1]))
    w = log_weight.exp()
    mean = w @ m
    cov = torch.diag(w @ s.square()) + (m - mean).T @ (w[:, None] * (m - mean))
    torch.testing.assert_close(a.double().mean(0), mean, atol=0.02, rtol=0)
    torch.testing.assert_close(torch.cov(a.double().T), cov, atol=0.02 * cov.trace().item(), rtol=0)


@pytest.mark.parametrize("waves", [0, 2])
def test_one_component_is_the_gaussian_policy(waves):
    one, gaussian = make(MixturePolicy, 2, 3, components=1, waves=waves), make(GaussianPolicy, 2, 3, waves=waves)
    x = torch.randn(50, 2, generator=gen())
    t = torch.arange(50) % (T + 1)
    a = gaussian.sample(t, x, gen(1))
    torch.testing.assert_close(one.sample(t, x, gen(1)), a)
    torch.testing.assert_close(one.mean(t, x), gaussian.mean(t, x))
    torch.testing.assert_close(one.log_prob(t, x, a), gaussian.log_prob(t, x, a))


def test_log_density_and_its_gradient_are_finite_far_from_all_components():
    policy = make(MixturePolicy, 1, 1).requires_grad_(True)
    log_prob = policy.log_prob(0, torch.zeros(2, 1), torch.tensor([[-1e4], [1e4]]))
    log_prob.sum().backward()
    assert log_prob.isfinite().all() and all(p.grad.isfinite().all() for p in policy.parameters())


@pytest.mark.parametrize(("components", "k"), [(5, 1), (5, 2), (8, 3)])
def test_means_start_spread_over_the_actions(components, k):
    unit = torch.arange(1.0, k + 1)
    with isolated(0):
        policy = MixturePolicy(T, torch.zeros(1), torch.ones(1), unit, (32, 32), components=components)
    log_weight, mean, _ = policy(0, torch.zeros(1, 1))
    m = mean[0] / unit
    torch.testing.assert_close(log_weight.exp(), torch.full((1, components), 1 / components), atol=0.01, rtol=0)
    assert m.abs().max() <= 1.01 and (m.amax(0) - m.amin(0) > 1).all()
    torch.testing.assert_close(m, -m.flip(0), atol=0.02, rtol=0)  # symmetric
    distance = torch.cdist(m, m) + 9 * torch.eye(components)
    assert distance.min() > 1 / components


@pytest.mark.parametrize("given", [dict(components=0), dict(components=2.5), dict(waves=-1)], ids=str)
def test_components_and_waves_are_validated(given):
    with pytest.raises(ValueError, match=f"{next(iter(given))}: expected an integer"):
        make(MixturePolicy, 1, 1, **given)


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


def test_same_generator_same_episode():
    mixture = EpisodeMixture([always(-1.0, 0.5), always(1.0, 0.1)])
    first, again, other = (rollout(STRAIGHT, mixture, n=50, generator=gen(s)).x for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_what_a_mixture_cannot_answer():
    x = torch.zeros(3, 1)
    with pytest.raises(NotImplementedError, match="no density"):
        LEFT_RIGHT.log_prob(0, x, x)
    with pytest.raises(NotImplementedError, match="no mean"):
        LEFT_RIGHT.mean(0, x)
    with pytest.raises(ValueError, match="x: expected the states of the episode's 4 agents, got 3"):
        LEFT_RIGHT.episode(4, gen()).sample(0, x)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([1.0], r"expected shape \(2,\), one a policy, got \(1,\)"),
        ([1.0, -0.5], "expected finite numbers >= 0"),
        ([0.0, 0.0], "expected finite numbers >= 0"),
        ([math.nan, 1.0], "expected finite numbers >= 0"),
    ],
    ids=str,
)
def test_weights_are_validated(weights, said):
    with pytest.raises(ValueError, match=f"weights: {said}"):
        EpisodeMixture([always(0.0), always(1.0)], weights)
    with pytest.raises(ValueError, match="policies: expected at least one"):
        EpisodeMixture([])
