import pytest
import torch
from helpers import Congestion, gen, random_game

from mfglib.exact import lq_equilibrium
from mfglib.games import LinearQuadratic
from mfglib.policies import AffinePolicy, NoisePolicy
from mfglib.populations import MeanPath
from mfglib.rollout import redrawn, rollout

STEPS = dict(horizon=2, initial_std=0.0, noise_std=0.0, initial_mean=1.0)


@pytest.mark.parametrize(("d", "k", "T"), [(1, 1, 1), (2, 3, 4), (4, 2, 2)])
def test_shapes(d, k, T):
    game = random_game(d, k, T)
    r = rollout(game, lq_equilibrium(game).policy, n=7, generator=gen())
    assert (r.x.shape, r.a.shape, r.reward.shape) == ((T + 1, 7, d), (T, 7, k), (T + 1, 7))
    assert r.value == pytest.approx(r.reward.sum(0).mean().item())


def test_a_deterministic_game_by_hand():
    game = LinearQuadratic(A=0.5, B=2.0, A_bar=1.0, c_x=3.0, c_a=0.7, c_m=2.0, x_target=0.25, **STEPS)
    policy = AffinePolicy(torch.full((2, 1, 1), -0.5), torch.tensor([[0.1], [0.2]]))
    m = [0.3, -0.2, 0.9]
    r = rollout(game, policy, MeanPath(torch.tensor(m)[:, None]), n=3, generator=gen())
    x, total, xs, actions, rewards = 1.0, 0.0, [], [], []
    for t in range(3):
        a = [-0.5 * x + 0.1, -0.5 * x + 0.2, 0.0][t]  # the last reward has a = 0
        rewards.append(-3 * (x - 0.25) ** 2 - 0.7 * a**2 - 2 * (x - m[t]) ** 2)
        xs, actions, total = [*xs, x], [*actions, a], total + rewards[-1]
        x = 0.5 * x + 2 * a + m[t]
    for agent in range(3):
        torch.testing.assert_close(r.x[:, agent, 0], torch.tensor(xs))
        torch.testing.assert_close(r.a[:, agent, 0], torch.tensor(actions[:2]))
        torch.testing.assert_close(r.reward[:, agent], torch.tensor(rewards))
    assert r.value == pytest.approx(total, rel=1e-6)


def test_without_a_population_the_agents_are_the_population():
    game = LinearQuadratic(A_bar=0.5, c_m=2.0, horizon=3, noise_std=0.0)
    r = rollout(game, AffinePolicy(torch.zeros(3, 1, 1), torch.ones(3, 1)), n=50, generator=gen())
    for t in range(4):
        own_mean = r.x[t].mean(0)
        a = r.a[t] if t < 3 else torch.zeros(50, 1)
        torch.testing.assert_close(r.reward[t], game.reward(t, r.x[t], a, MeanPath(own_mean.expand(4, 1))))
        if t < 3:
            torch.testing.assert_close(r.x[t + 1], r.x[t] + r.a[t] + 0.5 * own_mean)


def test_when_population_and_policy_are_asked_and_no_gradient_is_kept():
    asked, acted = [], []

    class Recorder:
        def mean(self, t):
            asked.append(t)
            return torch.zeros(1)

        def sample(self, t, x):
            acted.append(t)
            return torch.zeros(len(x), 1).requires_grad_()

    r = rollout(LinearQuadratic(horizon=3, c_m=1.0), Recorder(), Recorder(), n=5, generator=gen())
    assert sorted(asked) == [0, 0, 1, 1, 2, 2, 3]  # step and reward at each t < T, the last reward at T
    assert acted == [0, 1, 2] and not r.x.requires_grad and not r.reward.requires_grad


def test_actions_are_recorded_as_the_policy_chose_them():
    game = LinearQuadratic(a_bound=0.1, horizon=1, noise_std=0.0, A_bar=0.0)
    r = rollout(game, AffinePolicy(torch.zeros(1, 1, 1), torch.full((1, 1), 5.0)), n=4, generator=gen())
    assert (r.a == 5).all()
    torch.testing.assert_close(r.x[1], r.x[0] + 0.1)


def test_same_generator_same_play():
    game, policy = Congestion(), AffinePolicy(torch.zeros(3, 1, 1), torch.zeros(3, 1), std=0.5)
    first, again, other = (rollout(game, policy, n=20, generator=gen(s)) for s in (1, 1, 2))
    assert torch.equal(first.x, again.x) and torch.equal(first.reward, again.reward)
    assert not torch.equal(first.x, other.x)


def test_agents_start_where_they_are_told():
    game = LinearQuadratic(horizon=2, noise_std=0.0, A_bar=0.0)
    start = torch.linspace(-3, 3, 11)[:, None]
    r = rollout(game, AffinePolicy(torch.zeros(2, 1, 1), torch.ones(2, 1)), n=11, generator=gen(), start=start)
    assert torch.equal(r.x[0], start)
    torch.testing.assert_close(r.x[1], game.A.item() * start + game.B.item())


@pytest.mark.parametrize("shape", [(10, 1), (11, 2), (11,)])
def test_start_of_another_shape_is_refused(shape):
    game = LinearQuadratic(horizon=2)
    with pytest.raises(ValueError, match=r"start: expected shape \(n, d\), \(11, 1\), got"):
        rollout(game, lq_equilibrium(game).policy, n=11, generator=gen(), start=torch.zeros(shape))


def test_rewards_are_left_out_on_demand():
    game, policy = LinearQuadratic(horizon=2), AffinePolicy(torch.zeros(2, 1, 1), torch.ones(2, 1))
    play, bare = (rollout(game, policy, n=5, generator=gen(), rewards=rewards) for rewards in (True, False))
    assert torch.equal(play.x, bare.x) and bare.reward.isnan().all() and play.reward.isfinite().all()


def test_a_policy_with_episodes_is_asked_for_one():
    asked = []

    class Drawn:
        def episode(self, n, generator):
            asked.append((n, generator))
            return AffinePolicy(torch.zeros(3, 1, 1), torch.full((3, 1), 7.0))

    g = gen()
    r = rollout(LinearQuadratic(horizon=3), Drawn(), n=5, generator=g)
    assert asked == [(5, g)] and (r.a == 7).all()


class InPlace:
    """Moves and rewards that work on what they are given."""

    horizon, state_dim, action_dim = 3, 1, 1

    def initial(self, n, generator):
        return torch.zeros(n, 1)

    def step(self, t, x, a, population, generator):
        x += 1.0
        return x

    def reward(self, t, x, a, population):
        x *= 2
        a -= 5
        return x[:, 0]


def test_a_game_that_works_in_place_does_not_rewrite_the_past():
    play = rollout(InPlace(), NoisePolicy(torch.zeros(1)), n=4, generator=gen())
    assert play.x[:, 0, 0].tolist() == [0, 1, 2, 3] and (play.a == 0).all()
    assert play.reward[:, 0].tolist() == [0, 2, 4, 6]


@pytest.mark.parametrize("value", [lambda x: -(x**2).sum(), lambda x: -(x**2), lambda x: -(x[:1, 0] ** 2)])
def test_rewards_are_not_broadcast(value):
    game = type("Own", (InPlace,), dict(reward=lambda self, t, x, a, population: value(x)))()
    with pytest.raises(ValueError, match=r"game.reward: expected shape \(4,\), got"):
        rollout(game, NoisePolicy(torch.zeros(1)), n=4, generator=gen())


# --- the last steps, drawn again


@pytest.mark.parametrize("crowd", [None, MeanPath(torch.full((4, 1), 5.0))], ids=["own", "given"])
def test_redrawn_states_are_steps_from_where_the_agents_were(crowd):
    still = dict(horizon=3, A_bar=0.3, initial_law="uniform", initial_std=0.5)
    policy = AffinePolicy(torch.full((3, 1, 1), -0.5), torch.tensor([[0.1], [0.2], [0.0]]))
    game = LinearQuadratic(noise_std=0.0, **still)
    play = rollout(game, policy, crowd, n=50, generator=gen())
    x = redrawn(game, play, crowd, 3, gen(1))
    assert x.shape == (4, 150, 1)
    for states in x[1:].split(50, 1):  # without noise nothing is drawn but the start
        torch.testing.assert_close(states, play.x[1:])
    assert not torch.equal(x[0, :50], x[0, 50:100])
    noisy = LinearQuadratic(noise_std=0.2, **still)
    noise = (redrawn(noisy, play, crowd, 200, gen(1)).view(4, 200, 50) - play.x[:, None, :, 0])[1:]
    torch.testing.assert_close(noise.std(1).mean(1), torch.full((3,), 0.2), atol=0.01, rtol=0)
    torch.testing.assert_close(noise.mean(1), torch.zeros(3, 50), atol=0.08, rtol=0)
