"""What is particular to Stable-Baselines3's best responses; see also tests/test_best_responses.py."""

import dataclasses
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny import BAR, assert_same, tiny

from mfglib import replay
from mfglib.exact import lq_equilibrium
from mfglib.games import LinearQuadratic
from mfglib.populations import MeanPath
from mfglib.seeds import isolated

pytest.importorskip("stable_baselines3")
from mfglib.adapters.gym import BestResponseVectorEnv  # noqa: E402
from mfglib.adapters.sb3 import AgentsEnv, SB3Config, SB3Policy, fit_sb3  # noqa: E402

LQ = LinearQuadratic(horizon=4)
PATH = MeanPath(lq_equilibrium(LQ).mean.float())
TINY = SB3Config("sac", first_steps=64, steps=64, agents=8, gradient_steps=2, batch=16)
KINDS = ["sac", "ppo"]


def untrained(game, config, seed=0):
    with isolated(seed, "parameters"):
        return SB3Policy(game, torch.ones(game.action_dim), (16, 16), config)


def test_the_environment_is_gymnasiums():
    """Step by step, over the end of an episode; SB3 only wants the last observation elsewhere."""
    ours, theirs = AgentsEnv(LQ, PATH, 5, seed=3), BestResponseVectorEnv(LQ, PATH, 5)
    theirs.np_random = np.random.default_rng(3)
    np.testing.assert_array_equal(ours.reset(), theirs.agents.start(5, theirs.np_random))
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
def test_global_generators_of_all_libraries_stay_as_they_were(kind):
    config = dataclasses.replace(TINY, algorithm=kind)
    fitted = []
    for _ in range(2):  # and what they were does not matter
        policy = untrained(LQ, config)
        torch.rand(1), np.random.rand(1), random.random()  # noqa: NPY002
        before = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # noqa: NPY002
        fit_sb3(LQ, PATH, policy, config, 1, steps=64)
        after = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # noqa: NPY002
        assert torch.equal(before[0], after[0]) and (before[1] == after[1]).all() and before[2] == after[2]
        fitted.append(torch.cat([p.flatten() for p in policy.parameters()]))
    assert torch.equal(fitted[0], fitted[1])


@pytest.mark.parametrize(("name", "algorithm"), [("sb3-sac", "deda-fp"), ("sb3-ppo", "algo-1"), ("sb3-ppo", "algo-2")])
def test_fictitious_play_with_it_resumes_and_is_replayed(name, algorithm, tmp_path):
    options = dict(game=BAR, algorithm=algorithm, best_response=name, certify=False)
    straight = tiny(iterations=2, **options)
    tiny(iterations=1, directory=tmp_path, **options)
    assert_same(tiny(iterations=2, directory=tmp_path, **options), straight)
    x = torch.linspace(0, 1, 9)[:, None]
    *_, last = replay(BAR, tmp_path)
    assert torch.equal(last.best_response.mean(1, x), straight.best_response.mean(1, x))
    assert (straight.best_response.mean(1, x).abs() <= BAR.a_bound + 1e-6).all()  # the box of actions is the game's


def test_without_the_extra_the_mend_is_named():
    """And everything else works."""
    code = (
        "import sys; sys.modules['stable_baselines3'] = sys.modules['gymnasium'] = None\n"
        "from mfglib.games import LinearQuadratic; from mfglib.recipes import recipe_of\n"
        "game = LinearQuadratic(horizon=2); recipe_of(game).build(); print('built')\n"
        "recipe_of(game, best_response='sb3-sac').build()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert run.returncode != 0 and "built" in run.stdout and "pip install 'deda-fp[rl]'" in run.stderr
