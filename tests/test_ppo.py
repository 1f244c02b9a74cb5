"""What is particular to PPO (`mfglib.learn.ppo`); see also tests/test_best_responses.py."""

import math

import pytest
import torch
from helpers import gen

from mfglib.exact import lq_equilibrium
from mfglib.games import LinearQuadratic
from mfglib.learn.densities import GaussianPolicy
from mfglib.learn.networks import Networks
from mfglib.learn.ppo import PPO, Critic, PPOConfig, WeightAverage, _batch, fit_ppo
from mfglib.rollout import Rollout, rollout
from mfglib.seeds import Random, isolated

GAME = LinearQuadratic(horizon=3, c_x=1.0, c_a=0.5, initial_std=0.5, noise_std=0.1)
CROWD = lq_equilibrium(GAME).population


def learners(game=GAME):
    d, k = game.state_dim, game.action_dim
    with isolated(0, "learners"):
        networks = Networks(game.horizon, torch.zeros(d), torch.ones(d), torch.ones(k), (32, 32))
        return GaussianPolicy(networks, min_std=0.1), Critic(networks)


def play(T=3, n=400):
    policy, critic = learners()
    critic.shift.copy_(torch.tensor([-1.0, -2.0, -3.0]))
    critic.unit.copy_(torch.tensor([1.0, 2.0, 0.5]))
    return rollout(GAME, policy, CROWD, n=n, generator=gen()), policy, critic


@pytest.mark.parametrize("gae_lambda", [0.3, 0.9, 1.0])
def test_advantages_and_targets_are_the_textbooks(gae_lambda):
    """arXiv 1506.02438, Eq. 16 without discount, as a sum over later times instead of a recursion."""
    r, policy, critic = play()
    T, n, _ = r.a.shape
    with torch.no_grad():
        V = [critic(torch.full((n,), t), r.x[t]) for t in range(T)] + [r.reward[T]]  # the last value is known
    delta = [r.reward[t] + V[t + 1] - V[t] for t in range(T)]
    advantage = torch.stack([sum(gae_lambda ** (s - t) * delta[s] for s in range(t, T)) for t in range(T)])
    target = advantage + torch.stack(V[:T])
    t, x, a, log_prob, ours, normalised = _batch(r, policy, critic, PPOConfig(gae_lambda=gae_lambda))
    for s in range(T):  # what is left after a regression on 1, x, x², in its own unit; up to the small ridge
        features = torch.cat([torch.ones(n, 1), r.x[s], r.x[s].square()], -1)
        left = advantage[s] - features @ torch.linalg.lstsq(features, advantage[s]).solution
        torch.testing.assert_close(ours.view(T, n)[s], left / left.std(), atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(critic.shift, target.mean(1))
    back = normalised.view(T, n) * critic.unit[:, None] + critic.shift[:, None]
    torch.testing.assert_close(back, target, atol=1e-4, rtol=1e-4)
    assert torch.equal(t.view(T, n)[:, 0], torch.arange(T)) and torch.equal(x.view(T, n, 1), r.x[:-1])
    torch.testing.assert_close(log_prob.view(T, n)[1], policy.log_prob(1, r.x[1], r.a[1]))
    if gae_lambda == 1:  # then a target is the reward to go
        torch.testing.assert_close(target, r.reward.flip(0).cumsum(0).flip(0)[:T], atol=1e-4, rtol=1e-4)


def test_constant_rewards_do_not_divide_by_zero():
    r, policy, critic = play()
    batch = _batch(Rollout(r.x, r.a, torch.zeros_like(r.reward)), policy, critic, PPOConfig(gae_lambda=1.0))
    assert all(torch.isfinite(v).all() for v in batch)


# --- smoothed best responses


class Flat(LinearQuadratic):
    """One decision that only costs: reward −a², whatever the state."""

    def __init__(self):
        super().__init__(horizon=1, c_x=0.0, c_m=0.0, c_a=1.0, A_bar=0.0, initial_std=0.3)


@pytest.mark.parametrize("temperature", [0.08, 0.32])
def test_temperature_finds_the_gibbs_policy(temperature):
    """E −a² + τ H is largest for N(0, τ/2)."""
    policy, critic = learners(Flat())
    config = PPOConfig(agents=1024, learning_rate=3e-3, exploration_std=0.01)
    fit_ppo(Flat(), CROWD, policy, critic, config, gen(1), updates=80, temperature=temperature)
    with torch.no_grad():
        mean, std = policy.gaussian(0, torch.linspace(-0.5, 0.5, 11)[:, None])
    assert mean.abs().max() < 0.1
    assert std.mean().item() == pytest.approx(math.sqrt(temperature / 2), rel=0.15)


# --- averaged weights


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_an_average_of_weights_is_exponential_and_follows_fast_at_first(decay):
    policy, _ = learners()
    average, seen = WeightAverage(policy, decay), []
    for step in range(1, 60):
        with torch.no_grad():
            policy.mean_head.bias.fill_(float(step))
        average.add(policy)
        seen.append(average.policy.mean_head.bias.item())
    expected = 0.0
    for step, value in enumerate(seen, 1):
        expected += max(1 - decay, 9 / (9 + step)) * (step - expected)
        assert value == pytest.approx(expected, rel=1e-4)
    assert decay or seen[-1] == 59.0
    assert all(not p.requires_grad for p in average.policy.parameters())


def test_best_responses_act_by_the_averaged_weights_and_learn_on_from_the_last():
    with isolated(0, "learner"):
        learner = PPO(GAME, config=PPOConfig(agents=64, first_updates=3, updates=2))
    learner.fit(CROWD, 1, Random(0, 1))
    x = GAME.initial(20, gen())
    acted, last = learner.policy.mean(1, x), learner.actor.mean(1, x)
    torch.testing.assert_close(acted, learner.average.policy.mean(1, x))
    assert not torch.allclose(acted, last)
    before = [p.clone() for p in learner.actor.parameters()]
    learner.fit(CROWD, 2, Random(0, 2))
    assert all(not torch.equal(*pair) for pair in zip(before, learner.actor.parameters(), strict=True))
    assert learner.average.steps == (3 + 2) * PPOConfig().epochs * PPOConfig().minibatches
