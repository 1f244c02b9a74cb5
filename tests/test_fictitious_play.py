import dataclasses
import importlib
import importlib.util
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import Congestion, gen, random_game
from safetensors import safe_open

from mfglib import exploitability, replay, solve
from mfglib.checks import DivergenceError
from mfglib.exact import lq_equilibrium
from mfglib.games import BeachBar, FourRooms, LinearQuadratic
from mfglib.judge import best_response_gap
from mfglib.learn.cloning import CloningConfig
from mfglib.learn.densities import GaussianPolicy, MixturePolicy
from mfglib.learn.flow import FlowConfig, TimeFlow
from mfglib.learn.lookahead import LookaheadConfig, LookaheadPolicy
from mfglib.learn.ppo import PPOConfig
from mfglib.policies import EpisodeMixture
from mfglib.populations import Particles
from mfglib.presets import PRESETS, Config
from mfglib.rollout import rollout
from mfglib.seeds import generator

GAME = LinearQuadratic(horizon=4)
TINY = Config(
    hidden=(8,),
    best_response=PPOConfig(agents=16, first_updates=2, updates=1),
    cloning=CloningConfig(agents=20, steps=5, batch=64),
    agents=100,
    flow=FlowConfig(steps=5, first_steps=5, batch=32, hidden=(8,)),
    judge_agents=200,
)
TINY_AHEAD = dataclasses.replace(
    TINY,
    best_response=LookaheadConfig(first_steps=2, steps=1, states=64, batch=32, candidates=4, acting=4),
    average="mixture",
)
both_learners = pytest.mark.parametrize("config", [TINY, TINY_AHEAD], ids=["PPO", "lookahead"])


def tiny(game=GAME, **options):
    return solve(game, **(dict(iterations=3, config=TINY, progress=False) | options))


def weights(solution):
    response = solution.best_response
    learners = (solution.policy, solution.population, getattr(response, "values", None) or response.policy)
    return [value for learner in learners for value in learner.state_dict().values()]


def assert_same(one, other):
    """Bit for bit, wall times apart."""
    assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))
    drop = [column for column in one.history if column.startswith("seconds_")]
    assert len(drop) == 4
    pd.testing.assert_frame_equal(one.history.drop(columns=drop), other.history.drop(columns=drop), check_exact=True)


# --- what comes back


def test_solution_has_what_the_outside_relies_on(monkeypatch):
    """Names and call as in the README, at the smallest size."""
    monkeypatch.setenv("MFGLIB_PRESET", "smoke")
    game = LinearQuadratic(A=1.0, B=1.0, A_bar=0.06, c_x=5.0, c_a=0.1, c_m=1.0, x_target=0.6, horizon=20,
                           initial_mean=0.0, initial_std=0.58, noise_std=0.058, x_bound=None, a_bound=None)  # fmt: skip
    assert (game.horizon, game.state_dim, game.action_dim) == (20, 1, 1)
    solution = solve(game, algorithm="deda-fp", iterations=20, averaging="uniform", seed=0)
    assert isinstance(solution.history, pd.DataFrame) and list(solution.history["iteration"]) == list(range(21))
    x = game.initial(9, gen())
    for t in range(21):
        assert solution.population.sample(t, 9).shape == (9, 1)
        assert solution.population.log_prob(t, x).shape == (9,) and solution.population.mean(t).shape == (1,)
        a = solution.policy.sample(t, x)
        assert a.shape == solution.policy.mean(t, x).shape == (9, 1) and solution.policy.log_prob(t, x, a).shape == (9,)
    r = rollout(game, solution.policy, solution.population, n=5000, generator=gen())
    assert (r.x.shape, r.a.shape, r.reward.shape) == ((21, 5000, 1), (20, 5000, 1), (21, 5000))
    e = exploitability(game, solution.policy)
    assert e.value >= 0 and e.value == pytest.approx(e.best_response_value - e.policy_value)
    assert e.error > 0 and isinstance(e.method, str)
    last = solution.history.iloc[-1]
    assert last["exploitability"] == pytest.approx(e.value, abs=6 * math.hypot(last["exploitability_error"], e.error))
    assert last["exploitability"] < 0.2 * solution.history["exploitability"][0]


def test_learns_the_equilibrium_of_a_small_game():
    game = LinearQuadratic(horizon=3, c_x=1.0, c_a=0.5, c_m=0.2, initial_std=0.5)
    eq, base = lq_equilibrium(game), PRESETS["lecture"]
    solution = solve(game, iterations=8, averaging="linear", progress=False, config=dataclasses.replace(
        base, hidden=(32, 32), agents=5000, judge_agents=5000))  # fmt: skip
    history = solution.history
    assert history["exploitability"].iloc[-1] < 0.02 * abs(eq.value) < 0.1 * history["exploitability"][0]
    assert (history["best_response_gap"].iloc[3:] < 0.02 * abs(eq.value)).all()
    assert history["policy_value"].iloc[-1] == pytest.approx(eq.value, rel=0.05)
    for t in range(4):
        std = eq.cov[t].sqrt().item()
        assert abs(solution.population.mean(t) - eq.mean[t]).item() < 0.15 * std
        assert solution.population.sample(t, 20_000, gen(t)).std().item() == pytest.approx(std, rel=0.25)


def test_history_has_a_finite_number_for_everything_that_was_measured():
    history = tiny().history
    learned = ["policy_loss", "critic_loss", "cloning_loss", "best_response_gap"]
    always = ["exploitability", "exploitability_error", "policy_value", "flow_loss"]
    clocks = [f"seconds_{step}" for step in ("best_response", "cloning", "population", "judge")]
    assert set(history) == {"iteration", *learned, *always, *clocks}
    assert np.isfinite(history[always + clocks]).all(axis=None) and np.isfinite(history[learned][1:]).all(axis=None)
    assert history[learned].loc[0].isna().all()  # nothing is learned in iteration 0 but the first population
    assert (history[["exploitability", "exploitability_error", "best_response_gap"]].dropna() >= 0).all(axis=None)


def test_what_comes_back_needs_no_gradient():
    solution = tiny(iterations=1)
    assert not solution.policy.log_prob(0, torch.zeros(2, 1), torch.zeros(2, 1)).requires_grad
    assert not solution.population.log_prob(0, torch.zeros(2, 1)).requires_grad


# --- same again


def test_same_seed_same_result_and_other_seeds_differ():
    first = tiny(seed=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)  # nothing depends on the global generator
        assert_same(first, tiny(seed=3))
    other, x = tiny(seed=4), torch.ones(1, 1)
    assert (first.history["flow_loss"] != other.history["flow_loss"]).all()
    assert not torch.equal(first.policy.mean(0, x), other.policy.mean(0, x))
    assert not torch.equal(first.population.mean(1), other.population.mean(1))


def test_global_generator_is_left_alone():
    before = torch.get_rng_state()
    tiny(iterations=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_judging_does_not_change_what_is_learned():
    judged, unjudged = tiny(), tiny(certify=False)
    assert all(torch.equal(a, b) for a, b in zip(weights(judged), weights(unjudged), strict=True))
    assert unjudged.history[["exploitability", "best_response_gap"]].isna().all(axis=None)


@pytest.mark.parametrize("averaging", ["uniform", "linear", "geometric"])
def test_schedules_start_alike_and_then_differ(averaging):
    solution, plain = tiny(averaging=averaging, step=0.3), tiny()
    same = [a == b for a, b in zip(solution.history["cloning_loss"], plain.history["cloning_loss"], strict=True)]
    assert same[1] and (averaging == "uniform" or not same[2])  # one best response has one average
    equal = [torch.equal(a, b) for a, b in zip(weights(solution), weights(plain), strict=True)]
    assert all(equal) == (averaging == "uniform")


# --- run directories

RUN = """
import sys, torch
torch.set_num_threads(1)
sys.path[:0] = [{tests!r}, {root!r}]
from test_fictitious_play import tiny
tiny(iterations=12, seed=5, directory=sys.argv[1])
"""


def test_killed_run_goes_on_bit_for_bit(tmp_path):
    tests = Path(__file__).parent
    script = RUN.format(tests=str(tests), root=str(tests.parent))
    directory = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-c", script, directory])
    while not (directory / "checkpoint-0002.safetensors").exists():
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (directory / "history.csv").exists()  # it was not done
    resumed = tiny(iterations=12, seed=5, directory=directory)
    assert_same(resumed, tiny(iterations=12, seed=5))
    written = pd.read_csv(directory / "history.csv")
    pd.testing.assert_frame_equal(written, resumed.history, check_exact=False)


@pytest.mark.parametrize("leftover", ["settings.json.part", "checkpoint-0002.part", "history.csv.part"])
def test_half_written_files_do_not_stop_a_run(tmp_path, leftover):
    """A kill can fall between writing beside and renaming, before anything else is there or later."""
    if leftover != "settings.json.part":
        tiny(iterations=1, directory=tmp_path)
    (tmp_path / leftover).write_bytes(b"{half")
    assert_same(tiny(iterations=2, directory=tmp_path), tiny(iterations=2))


def test_more_iterations_go_on_from_what_is_there(tmp_path):
    tiny(iterations=1, directory=tmp_path)
    assert_same(tiny(directory=tmp_path), tiny())
    assert_same(tiny(directory=tmp_path), tiny())  # nothing left to do
    with pytest.raises(ValueError, match="has 3 already, more than 2"):
        tiny(iterations=2, directory=tmp_path)


def test_capacity_of_the_memory_is_kept_through_a_resume(tmp_path):
    small = dataclasses.replace(TINY, cloning=dataclasses.replace(TINY.cloning, capacity=100))
    straight = tiny(config=small)
    assert all(not torch.equal(a, b) for a, b in zip(weights(straight)[4:6], weights(tiny())[4:6], strict=True))
    tiny(iterations=2, config=small, directory=tmp_path)
    assert_same(tiny(config=small, directory=tmp_path), straight)
    with safe_open(tmp_path / "checkpoint-0003.safetensors", framework="pt") as checkpoint:
        assert len(checkpoint.get_tensor("memory.t")) == 100


def test_directory_holds_plain_files_and_one_checkpoint(tmp_path):
    directory = tmp_path / "a" / "run"
    solution = tiny(directory=str(directory))
    names = sorted(file.name for file in directory.iterdir())
    learners = [f"learners-{k:04d}.safetensors" for k in range(4)]
    assert names == ["checkpoint-0003.safetensors", "history.csv", *learners, "settings.json"]
    with safe_open(directory / names[0], framework="pt") as checkpoint:
        for name, value in solution.policy.state_dict().items():
            assert torch.equal(checkpoint.get_tensor(f"weights.cloned.{name}"), value)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (dict(seed=1), "seed"),
        (dict(averaging="linear"), "averaging"),
        (dict(step=0.25), "step"),
        (dict(certify=False), "certify"),
        (dict(game=LinearQuadratic(horizon=4, c_m=2.0)), "game"),
        (dict(config=dataclasses.replace(TINY, initial_std=0.2)), "config"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_directory_of_another_run_is_refused_by_name_and_overwritten_on_demand(tmp_path, change, named):
    tiny(iterations=1, directory=tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=rf"other settings \({named}\).*overwrite=True"):
        tiny(**(dict(iterations=1, directory=tmp_path) | change))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    again = tiny(**(dict(iterations=1, directory=tmp_path, overwrite=True) | change))
    assert_same(again, tiny(**(dict(iterations=1) | change)))


def test_directory_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="not empty and holds no run"):
            tiny(directory=tmp_path, overwrite=overwrite)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_game_whose_code_changed_is_another_run(tmp_path, monkeypatch):
    """The student edits the reward and runs again: the old checkpoint belongs to another game."""

    def load(target):
        file = tmp_path / target / "own.py"
        file.parent.mkdir()
        reward = f"    def reward(self, t, x, a, population):\n        return -(x - {target}).square().sum(-1)\n"
        file.write_text(f"import helpers\n\n\nclass Own(helpers.Congestion):\n{reward}")
        spec = importlib.util.spec_from_file_location("own", file)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "own", module)
        spec.loader.exec_module(module)
        return module.Own()

    game = load("1")
    tiny(game, iterations=1, directory=tmp_path / "run")
    tiny(game, iterations=2, directory=tmp_path / "run")  # the same game goes on
    with pytest.raises(ValueError, match=r"other settings \(game\)"):
        tiny(load("2"), iterations=3, directory=tmp_path / "run")


def test_numbers_from_numpy_are_numbers(tmp_path):
    assert_same(tiny(iterations=np.int64(2), seed=np.int64(3), directory=tmp_path), tiny(iterations=2, seed=3))


# --- what goes wrong


class Broken(LinearQuadratic):
    broken_at, what = 1, "reward"

    def reward(self, t, x, a, population):
        reward = super().reward(t, x, a, population)
        return reward * math.nan if self.what == "reward" and t == self.broken_at else reward

    def step(self, t, x, a, population, generator):
        x = super().step(t, x, a, population, generator)
        return x * math.inf if self.what == "step" and t == self.broken_at else x


@pytest.mark.parametrize(("what", "iteration", "learner"), [("reward", 1, "best response"), ("step", 0, "flow")])
def test_numbers_that_are_not_finite_stop_the_run_and_say_where(tmp_path, what, iteration, learner):
    game = Broken(horizon=3)
    game.what = what
    with pytest.raises(DivergenceError) as error:
        tiny(game, directory=tmp_path, certify=False)
    message = str(error.value)
    assert message.startswith(f"iteration {iteration}, {learner}") and "last good checkpoint: " in message
    last = tmp_path / "checkpoint-0000.safetensors"
    assert last.exists() == (iteration > 0) and (str(last) in message) == (iteration > 0)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (dict(algorithm="algo-3"), "algorithm: expected one of .*deda-fp.*got 'algo-3'"),
        (dict(iterations=0), "iterations: expected an integer >= 1, got 0"),
        (dict(iterations=1.5), "iterations"),
        (dict(seed=-1), "seed"),
        (dict(seed="0"), "seed"),
        (dict(averaging="median"), "averaging"),
        (dict(step=0.0), "step"),
        (dict(step=1.5), "step"),
        (dict(config=None, preset="huge"), "preset: expected one of .*smoke.*got 'huge'"),
    ],
    ids=str,
)
def test_bad_arguments_are_named(arguments, match, monkeypatch):
    monkeypatch.delenv("MFGLIB_PRESET", raising=False)
    with pytest.raises(ValueError, match=match):
        tiny(**arguments)


def test_what_is_no_game_is_refused():
    with pytest.raises(TypeError, match="game: expected an object with the member"):
        tiny(object())
    with pytest.raises((TypeError, ValueError), match="game: expected"):
        tiny(Congestion(), certify=True)


# --- other games


def test_a_students_own_game():
    """Its reward asks for the density, it inherits nothing, and no exact solver knows it."""
    solution = solve(Congestion(), iterations=6, progress=False, seed=1, config=dataclasses.replace(
        PRESETS["smoke"], best_response=PPOConfig(agents=200, first_updates=20, updates=5),
        cloning=CloningConfig(agents=200, steps=100, batch=512)))  # fmt: skip
    assert solution.history[["exploitability", "best_response_gap", "policy_value"]].isna().all(axis=None)
    assert np.isfinite(solution.history["flow_loss"]).all()
    assert solution.population.mean(0).item() == pytest.approx(0, abs=0.15)
    assert solution.population.mean(3).item() > 0.5  # agents went where they want to be
    aversion = [Congestion(0.0), Congestion(0.8)]
    spreads = [solve(g, iterations=4, progress=False, config=PRESETS["smoke"]).population.sample(3, 4000, gen()).std()
               for g in aversion]  # fmt: skip
    assert all(torch.isfinite(s) for s in spreads)


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    horizon: int = 2
    state_dim: int = 1
    action_dim: int = 1

    def initial(self, n, generator):
        return torch.randn(n, 1, generator=generator)

    def step(self, t, x, a, population, generator):
        return x + a

    def reward(self, t, x, a, population):
        return -(x.square() + a.square()).sum(-1)


def test_a_game_needs_no_dictionary(tmp_path):
    tiny(Slotted(), iterations=1, directory=tmp_path)
    with pytest.raises(ValueError, match=r"other settings \(game\)"):
        tiny(Slotted(horizon=3), iterations=1, directory=tmp_path)


def test_two_dimensions_and_unlike_actions():
    game = random_game(2, 3, 3)
    solution = tiny(game, iterations=2)
    x = solution.population.sample(1, 5)
    assert x.shape == (5, 2) and solution.policy.sample(1, x).shape == (5, 3)
    assert np.isfinite(solution.history["exploitability"]).all()


def test_bounded_game_scales_its_actions_stays_inside_and_is_certified():
    solution = tiny(LinearQuadratic.paper(), iterations=1)
    assert solution.policy.action_scale.item() == pytest.approx(0.1)
    assert np.isfinite(solution.history["exploitability"]).all() and (solution.history["exploitability"] >= 0).all()
    assert solution.history["exploitability_error"].isna().all()  # on demand: it is dear
    assert solution.population.sample(20, 500, gen()).abs().max() <= 1
    assert solution.population.log_prob(3, torch.tensor([[1.5]])).item() == -math.inf


# --- the three algorithms

BAR = BeachBar(horizon=3)


def test_algorithms_differ_only_in_the_policy_and_population_that_they_carry():
    one, two, three = (tiny(BAR, algorithm=name, iterations=2) for name in ("algo-1", "algo-2", "deda-fp"))
    assert isinstance(one.policy, EpisodeMixture) and len(one.policy.policies) == 2
    np.testing.assert_allclose(one.policy.weights, 0.5)
    assert isinstance(one.population, Particles) and isinstance(two.population, Particles)
    assert one.population.x.shape == two.population.x.shape == (4, TINY.agents, 1)  # the same N
    assert type(two.policy) is type(three.policy) and isinstance(three.population, TimeFlow)
    first = [s.history["exploitability"][0] for s in (one, two, three)]
    assert first[0] == first[1] == first[2]  # the same first policy, judged alike
    learned = one.history[["cloning_loss", "flow_loss"]].isna().all(axis=None)
    assert learned and two.history["flow_loss"].isna().all() and np.isfinite(two.history["cloning_loss"][1:]).all()
    assert all(np.isfinite(s.history["exploitability"]).all() for s in (one, two, three))


@both_learners
def test_past_best_responses_of_algo_1_stay_as_they_were(config):
    x = torch.linspace(0, 1, 9)[:, None]
    short, long = (tiny(BAR, algorithm="algo-1", iterations=k, config=config).policy.policies for k in (2, 3))
    assert len(short) == 2 and len(long) == 3
    for before, after in zip(short, long, strict=False):
        torch.testing.assert_close(before.mean(1, x), after.mean(1, x), rtol=0, atol=0)
    assert not torch.equal(long[0].mean(1, x), long[2].mean(1, x))


@pytest.mark.parametrize("averaging", ["uniform", "linear"])
@pytest.mark.parametrize("algorithm", ["algo-1", "algo-2", "deda-fp"])
@both_learners
def test_every_algorithm_goes_on_from_its_checkpoint(tmp_path, algorithm, averaging, config):
    options = dict(algorithm=algorithm, averaging=averaging, config=config)
    tiny(BAR, iterations=2, directory=tmp_path, **options)
    resumed, straight = tiny(BAR, directory=tmp_path, **options), tiny(BAR, **options)
    drop = [column for column in straight.history if column.startswith("seconds_")]
    pd.testing.assert_frame_equal(
        resumed.history.drop(columns=drop), straight.history.drop(columns=drop), check_exact=True
    )
    for t in range(4):
        assert torch.equal(resumed.population.sample(t, 50, gen()), straight.population.sample(t, 50, gen()))
    for policy in ("policy", "best_response"):
        one, other = (getattr(s, policy).sample(1, torch.zeros(20, 1), gen()) for s in (resumed, straight))
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match=r"other settings \(algorithm\)"):
        other = {"algo-1": "algo-2", "algo-2": "deda-fp", "deda-fp": "algo-1"}[algorithm]
        tiny(BAR, directory=tmp_path, **options | {"algorithm": other})


@both_learners
def test_a_smoothed_best_response_acts_with_its_noise_and_a_plain_one_by_its_mean(config):
    x = torch.full((200, 1), 0.3)
    for temperature, spread in ((0.0, False), (1.0, True)):
        many = {} if config is TINY else dict(acting=200)  # so that the best of them is always nearly the same
        learner = dataclasses.replace(config.best_response, temperature=temperature, **many)
        for algorithm in ("algo-1", "deda-fp"):
            options = dict(iterations=1, config=dataclasses.replace(config, best_response=learner))
            response = tiny(BAR, algorithm=algorithm, **options).best_response
            assert (response.sample(0, x, gen()).std() > (1e-3 if config is TINY else 0.02)) == spread


def test_looking_ahead_has_no_policy_loss_and_its_average_is_cloned_in_all_algorithms():
    for algorithm in ("algo-1", "algo-2", "deda-fp"):
        solution = tiny(BAR, algorithm=algorithm, config=TINY_AHEAD, iterations=2)
        assert "policy_loss" not in solution.history and np.isfinite(
            solution.history[["critic_loss", "cloning_loss", "best_response_gap", "exploitability"]][1:]
        ).all(axis=None)
        parts = solution.policy.policies if algorithm == "algo-1" else [solution.policy]
        assert all(isinstance(policy, MixturePolicy) for policy in parts)
        assert isinstance(solution.best_response, LookaheadPolicy)


def test_past_of_algo_1_is_cloned_from_each_best_responses_own_triples(tmp_path):
    for algorithm, batches in (("algo-1", 1), ("algo-2", 3)):
        tiny(BAR, algorithm=algorithm, config=TINY_AHEAD, directory=tmp_path / algorithm)
        with safe_open(tmp_path / algorithm / "checkpoint-0003.safetensors", framework="pt") as checkpoint:
            iteration = checkpoint.get_tensor("memory.iteration")
        assert iteration.unique().tolist() == list(range(4 - batches, 4))
        assert len(iteration) == batches * BAR.horizon * TINY.cloning.agents


@pytest.mark.parametrize("game", [LinearQuadratic(horizon=3), Congestion()], ids=["unbounded", "own game"])
def test_games_that_cannot_look_ahead_are_refused_by_name(game):
    with pytest.raises(ValueError, match="config.best_response: expected a PPOConfig for this game, got a Lookahead"):
        tiny(game, config=TINY_AHEAD)


@both_learners
@pytest.mark.parametrize("average", ["gaussian", "mixture"])
def test_average_policy_of_either_kind_in_two_dimensions_with_walls(average, config):
    game = FourRooms(horizon=2)
    solution = tiny(game, iterations=1, config=dataclasses.replace(config, average=average, waves=2))
    assert isinstance(solution.policy, MixturePolicy if average == "mixture" else GaussianPolicy)
    x = solution.population.sample(2, 500, gen())
    assert game.domain.contains(x).all()
    assert 0 <= solution.history["exploitability"].iloc[-1] <= 2 * solution.history["exploitability"][0]
    with pytest.raises(ValueError, match='Config.average: expected "gaussian" or "mixture", got \'median\''):
        dataclasses.replace(TINY, average="median")


def test_a_population_that_starts_at_one_point():
    solution = tiny(LinearQuadratic(horizon=3, initial_std=0.0, initial_mean=0.2))
    torch.testing.assert_close(solution.population.sample(0, 50), torch.full((50, 1), 0.2), atol=1e-3, rtol=0)
    assert np.isfinite(solution.history["exploitability"]).all()


def test_iterations_between_certificates_are_not_judged_and_learn_the_same():
    every = tiny(BAR, iterations=4)
    second = tiny(BAR, iterations=4, config=dataclasses.replace(TINY, judge_every=2))
    judged = ["exploitability", "policy_value", "best_response_gap"]
    assert second.history[judged].isna().all(axis=1).tolist() == [False, True, False, True, False]
    pd.testing.assert_frame_equal(every.history[judged][::2], second.history[judged][::2], check_exact=True)


def test_learning_rates_of_average_and_flow_fall_from_iteration_settle_on(monkeypatch):
    rates = {"clone": [], "fit_flow": []}
    for name in rates:
        learner = getattr(importlib.import_module("mfglib.loop"), name)

        def recorded(*arguments, name=name, learner=learner, **options):
            config = next(a for a in arguments if hasattr(a, "learning_rate"))
            rates[name].append(config.learning_rate)
            return learner(*arguments, **options)

        monkeypatch.setattr(f"mfglib.loop.{name}", recorded)
    tiny(BAR, iterations=4, config=dataclasses.replace(TINY, settle=2))
    first = TINY.cloning.learning_rate, TINY.flow.learning_rate
    assert rates["clone"] == pytest.approx([first[0] * share for share in (1, 1, 2 / 3, 1 / 2)])
    assert rates["fit_flow"] == pytest.approx([first[1] * share for share in (1, 1, 1, 2 / 3, 1 / 2)])
    rates["clone"].clear()
    tiny(BAR, iterations=4)
    assert rates["clone"] == [first[0]] * 4


@both_learners
def test_replay_gives_back_the_learners_of_every_iteration(config, tmp_path):
    game = BeachBar(horizon=3)
    solution = tiny(game, config=config, directory=tmp_path / "run", certify=True)
    learned = list(replay(game, tmp_path / "run"))
    assert [one.iteration for one in learned] == [0, 1, 2, 3] and learned[0].best_response is None
    x = torch.rand(20, 1, generator=gen())
    assert learned[-1].policy.mean(1, x).equal(solution.policy.mean(1, x))
    assert learned[-1].population.log_prob(1, x).equal(solution.population.log_prob(1, x))
    assert not learned[1].policy.mean(1, x).equal(learned[2].policy.mean(1, x))
    samples = 4 if config is TINY_AHEAD else None  # as the loop asks for
    for before, one in zip(learned, learned[1:], strict=False):
        random = generator(0, one.iteration, "gap")
        options = dict(cells=config.judge_cells and config.judge_cells // 2, samples=samples)
        gap = best_response_gap(game, one.best_response, before.population, random, **options)
        assert gap == solution.history["best_response_gap"][one.iteration]


def test_replay_asks_for_a_finished_run_of_the_same_game(tmp_path):
    tiny(directory=tmp_path / "run", iterations=1)
    with pytest.raises(ValueError, match="expected a deda-fp run of LinearQuadratic"):
        list(replay(LinearQuadratic(horizon=5), tmp_path / "run"))
    tiny(directory=tmp_path / "other", iterations=1, algorithm="algo-2")
    with pytest.raises(ValueError, match="by algo-2"):
        list(replay(GAME, tmp_path / "other"))
    (tmp_path / "run" / "learners-0001.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="learners-0001"):
        list(replay(GAME, tmp_path / "run"))
    (tmp_path / "run" / "history.csv").unlink()
    with pytest.raises(ValueError, match="no history.csv"):
        list(replay(GAME, tmp_path / "run"))
