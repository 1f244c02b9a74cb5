"""The Gymnasium view of a best response (`mfglib.adapters.gym`)."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import Congestion

from mfglib.exact import grid_fictitious_play, lq_equilibrium
from mfglib.games import BeachBar, FourRooms, LinearQuadratic
from mfglib.judge import best_response_gap
from mfglib.policies import NoisePolicy
from mfglib.populations import MeanPath, Particles
from mfglib.rollout import rollout
from mfglib.seeds import generator

gymnasium = pytest.importorskip("gymnasium")
pytest.importorskip("stable_baselines3")
from gymnasium.utils.env_checker import check_env as gymnasium_check  # noqa: E402
from stable_baselines3.common.env_checker import check_env as sb3_check  # noqa: E402

from mfglib.adapters.gym import BestResponseEnv, BestResponseVectorEnv, PredictPolicy  # noqa: E402

LQ = LinearQuadratic(horizon=5)
EQ = lq_equilibrium(LQ)
PATH = MeanPath(EQ.mean.float())


def crowd(game):
    """Agents that never act, as a population."""
    return Particles(
        rollout(
            game, NoisePolicy(torch.zeros(game.action_dim)), n=500, generator=generator(0, "crowd"), rewards=False
        ).x
    )


GAMES = [BeachBar(horizon=3), FourRooms(horizon=3), LinearQuadratic.paper(), LQ]


@pytest.mark.filterwarnings("ignore:.*infinity. This is probably too (low|high):UserWarning")
@pytest.mark.parametrize("game", GAMES, ids=repr)
def test_the_checkers_of_gymnasium_and_stable_baselines3(game):
    env = BestResponseEnv(game, crowd(game), action_scale=2.0 if game is LQ else None)
    gymnasium_check(env, skip_render_check=True)
    sb3_check(env, warn=True)


def test_an_episode_is_one_of_the_game():
    """The same random numbers, played by hand."""
    env = BestResponseVectorEnv(LQ, PATH, 7, action_scale=0.5)
    observation, _ = env.reset(seed=3)
    again = BestResponseVectorEnv(LQ, PATH, 7, action_scale=0.5)
    np.testing.assert_array_equal(again.reset(seed=3)[0], observation)
    random = generator(int(np.random.Generator(np.random.PCG64(3)).integers(1 << 31)), "environment")
    x = LQ.initial(7, random)
    total, by_hand, actions = 0.0, 0.0, np.random.default_rng(0).uniform(-1, 1, (LQ.horizon, 7, 1)).astype(np.float32)
    for t, action in enumerate(actions):
        np.testing.assert_allclose(observation, np.column_stack([x, np.full(7, t / LQ.horizon)]), rtol=1e-6)
        a = 0.5 * torch.from_numpy(action)
        by_hand = by_hand + LQ.reward(t, x, a, PATH)
        x = LQ.step(t, x, a, PATH, random)
        observation, reward, ended, cut, info = env.step(action)
        total = total + reward
        assert ended.all() == (t == LQ.horizon - 1) and not cut.any() and bool(info) == ended.all()
    np.testing.assert_allclose(info["final_obs"][:, 0], x[:, 0], rtol=1e-6)
    by_hand = by_hand + LQ.reward(LQ.horizon, x, torch.zeros(7, 1), PATH)
    np.testing.assert_allclose(total, by_hand, rtol=1e-5)
    assert (observation[:, 1] == 0).all() and observation.shape == env.observation_space.shape  # the next episode


def test_one_agent_and_many_earn_the_same():
    game = BeachBar(horizon=3)
    population = grid_fictitious_play(game, 1, cells=40).population
    one, many = BestResponseEnv(game, population), BestResponseVectorEnv(game, population, 4000)
    action, values = np.array([0.3], np.float32), []
    for episode in range(300):
        one.reset(seed=episode)
        values.append(sum(one.step(action)[1] for _ in range(3)))
    many.reset(seed=0)
    mean = sum(many.step(np.repeat(action[None], 4000, 0))[1] for _ in range(3)).mean()
    assert np.mean(values) == pytest.approx(mean, abs=4 * np.std(values) / np.sqrt(300))


def test_seeds():
    env = BestResponseEnv(LQ, PATH)
    first, later = env.reset(seed=1)[0], env.reset()[0]
    assert not np.array_equal(first, later)  # without a seed the stream goes on
    np.testing.assert_array_equal(env.reset(seed=1)[0], first)
    np.testing.assert_array_equal(env.reset()[0], later)


def test_an_optimal_model_has_no_gap():
    """A model that predicts the equilibrium's actions, in units of the environment, is its best response."""
    env = BestResponseEnv(LQ, PATH, action_scale=2.0)

    class Optimal:
        def predict(self, observations, deterministic):
            assert observations.dtype == np.float32
            t = round(float(observations[0, 1]) * LQ.horizon)
            return (EQ.policy.mean(t, torch.from_numpy(observations[:, :1])) / 2.0).numpy(), None

    policy = PredictPolicy(Optimal(), env)
    assert best_response_gap(LQ, policy, PATH, generator(0, "gap")) < 1e-6
    x = torch.zeros(3, 1)
    assert policy.mean(LQ.horizon, x).shape == (3, 1) and not policy.sample(LQ.horizon, x).any()
    with pytest.raises(NotImplementedError, match="density"):
        policy.log_prob(0, x, x)


def test_a_game_of_ones_own():
    env = BestResponseVectorEnv(Congestion(), crowd(Congestion()), 5)
    assert env.reset(seed=0)[0].shape == (5, 2) and env.single_action_space == gymnasium.spaces.Box(-1, 1, (1,))


def test_bad_arguments():
    with pytest.raises(TypeError, match="game"):
        BestResponseEnv(object(), PATH)
    with pytest.raises(ValueError, match="action_scale: expected > 0, got 0"):
        BestResponseEnv(LQ, PATH, action_scale=0)
    with pytest.raises(ValueError, match="n: expected an integer >= 1, got 0"):
        BestResponseVectorEnv(LQ, PATH, 0)


def test_without_the_extra_the_mend_is_named():
    code = "import sys; sys.modules['gymnasium'] = None; import mfglib; import mfglib.adapters.gym"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert run.returncode != 0 and "pip install 'deda-fp[rl]'" in run.stderr
