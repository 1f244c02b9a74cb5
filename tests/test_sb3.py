"""Best responses by Stable-Baselines3 (`mfglib.adapters.sb3`)."""

import dataclasses
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from pandas.testing import assert_frame_equal

from mfglib import replay, solve
from mfglib.adapters.gym import BestResponseVectorEnv
from mfglib.adapters.sb3 import SB3Config, SB3Policy, fit_sb3
from mfglib.adapters.sb3_env import Agents
from mfglib.exact import lq_equilibrium
from mfglib.games import BeachBar, LinearQuadratic
from mfglib.judge import best_response_gap
from mfglib.learn.lookahead import LookaheadConfig
from mfglib.learn.ppo import PPOConfig
from mfglib.policies import MeanPolicy
from mfglib.populations import MeanPath
from mfglib.presets import PRESETS, learner_config, restored
from mfglib.seeds import generator, isolated

LQ = LinearQuadratic(horizon=4)
PATH = MeanPath(lq_equilibrium(LQ).mean.float())
TINY = SB3Config("sac", first_steps=64, steps=64, agents=8, gradient_steps=2, batch=16)
KINDS = ["sac", "ppo"]


def untrained(game, config, seed=0):
    with isolated(seed, "parameters"):
        return SB3Policy(game, torch.ones(game.action_dim), (16, 16), config)


def test_the_environment_is_gymnasiums():
    """Step by step, over the end of an episode; SB3 only wants the last observation elsewhere."""
    ours, theirs = Agents(LQ, PATH, 5, seed=3), BestResponseVectorEnv(LQ, PATH, 5)
    theirs.np_random = np.random.default_rng(3)
    np.testing.assert_array_equal(ours.reset(), theirs.play.start(5, theirs.np_random))
    actions = np.random.default_rng(0).uniform(-1, 1, (6, 5, 1)).astype(np.float32)
    for t, action in enumerate(actions):
        observation, reward, done, infos = ours.step(action)
        expected, earned, ended, _, info = theirs.step(action)
        np.testing.assert_array_equal(observation, expected)
        np.testing.assert_allclose(reward, earned, rtol=1e-6)
        assert done.tolist() == ended.tolist() == [t == LQ.horizon - 1] * 5
        if ended.all():
            np.testing.assert_array_equal([i["terminal_observation"] for i in infos], info["final_obs"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_best_response_is_learned(kind):
    """Two fits, the second from the first: the exact gap falls to a small part of where it was."""
    config = SB3Config(kind, agents=64, gradient_steps=8, learning_rate=3e-3)
    policy = untrained(LQ, config)
    gaps = [best_response_gap(LQ, MeanPolicy(policy), PATH, generator(0, "gap"))]
    for i in range(2):
        losses = fit_sb3(LQ, PATH, policy, config, seed=i, steps=10_000)
        gaps.append(best_response_gap(LQ, MeanPolicy(policy), PATH, generator(0, "gap")))
    assert np.isfinite(list(losses.values())).all()
    assert gaps[1] < 0.2 * gaps[0] and gaps[2] < 0.06 * gaps[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_depends_on_its_seed_alone_and_leaves_global_generators_as_they_were(kind):
    config = dataclasses.replace(TINY, algorithm=kind)
    fitted = []
    for seed in (1, 1, 2):
        policy = untrained(LQ, config)
        torch.rand(1), np.random.rand(1), random.random()  # noqa: NPY002
        before = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # noqa: NPY002
        fit_sb3(LQ, PATH, policy, config, seed, steps=64)
        after = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # noqa: NPY002
        assert torch.equal(before[0], after[0]) and (before[1] == after[1]).all() and before[2] == after[2]
        fitted.append(torch.cat([p.flatten() for p in policy.parameters()]))
    assert torch.equal(fitted[0], fitted[1]) and not torch.equal(fitted[0], fitted[2])


@pytest.mark.parametrize("name", ["sb3-sac", "sb3-ppo"])
@pytest.mark.parametrize("algorithm", ["deda-fp", "algo-1"])
def test_fictitious_play_with_it_resumes_bit_for_bit(name, algorithm, tmp_path):
    game = BeachBar(horizon=3)
    options = dict(algorithm=algorithm, best_response=name, preset="smoke", certify=False, progress=False)
    straight = solve(game, iterations=3, **options)
    solve(game, iterations=1, directory=tmp_path, **options)
    resumed = solve(game, iterations=3, directory=tmp_path, **options)
    clocks = [column for column in straight.history if column.startswith("seconds")]
    assert_frame_equal(straight.history.drop(columns=clocks), resumed.history.drop(columns=clocks))
    x = torch.linspace(0, 1, 9)[:, None]
    assert torch.equal(straight.best_response.mean(1, x), resumed.best_response.mean(1, x))
    assert (straight.best_response.mean(1, x).abs() <= game.a_bound + 1e-6).all()  # the box of actions is the game's
    if algorithm == "deda-fp":
        last = list(replay(game, tmp_path))[-1]
        assert torch.equal(last.best_response.mean(1, x), straight.best_response.mean(1, x))


def test_learners_by_name():
    kinds = {"ppo": PPOConfig, "look-ahead": LookaheadConfig, "sb3-ppo": SB3Config, "sb3-sac": SB3Config}
    for name, kind in kinds.items():
        for preset, config in PRESETS.items():
            learner = learner_config(name, preset)
            whole = dataclasses.replace(config, best_response=learner)
            assert isinstance(learner, kind) and restored(dataclasses.asdict(whole)) == whole
    assert [learner_config(f"sb3-{kind}", "smoke").algorithm for kind in KINDS] == KINDS


def test_bad_arguments():
    with pytest.raises(ValueError, match="best_response: expected one of .*'sb3-sac'.*, got 'dqn'"):
        solve(LQ, best_response="dqn")
    with pytest.raises(ValueError, match="config.best_response: expected a PPOConfig for this game, got a Lookahead"):
        solve(LQ, best_response="look-ahead")
    with pytest.raises(ValueError, match='SB3Config.algorithm: expected "sac" or "ppo", got \'a2c\''):
        SB3Config("a2c")
    with pytest.raises(ValueError, match="SB3Config.agents: expected > 0, got 0"):
        SB3Config(agents=0)
    with pytest.raises(NotImplementedError, match="density"):
        untrained(LQ, TINY).log_prob(0, torch.zeros(1, 1), torch.zeros(1, 1))


def test_without_the_extra_the_mend_is_named():
    """And everything else works."""
    code = (
        "import sys; sys.modules['stable_baselines3'] = sys.modules['gymnasium'] = None\n"
        "from mfglib import solve; from mfglib.games import LinearQuadratic\n"
        "options = dict(iterations=1, preset='smoke', certify=False, progress=False)\n"
        "solve(LinearQuadratic(horizon=2), **options); print('solved')\n"
        "solve(LinearQuadratic(horizon=2), best_response='sb3-sac', **options)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode != 0 and "solved" in run.stdout and "pip install 'deda-fp[rl]'" in run.stderr
