"""`solve`: what comes back, the same again, learners by name and of one's own, and what goes wrong."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import Congestion, gen, random_game
from tiny import BAR, GAME, assert_same, assert_same_step, tiny
from torch import nn

from mfglib import exploitability, replay, solve
from mfglib.checks import DivergenceError
from mfglib.exact import lq_equilibrium
from mfglib.games import FourRooms, LinearQuadratic
from mfglib.learn.candidates import LookaheadPolicy
from mfglib.learn.cloning import ClonedAverage, CloningConfig
from mfglib.learn.flow import FlowConfig, FlowPopulation, TimeFlow
from mfglib.learn.networks import NetworkConfig, Networks
from mfglib.policies import EpisodeMixture
from mfglib.populations import GaussianPath, Particles
from mfglib.protocols import ModuleState
from mfglib.rollout import rollout
from mfglib.schedules import constant

# --- what comes back


def test_solution_has_what_the_outside_relies_on(monkeypatch):
    """Names and call as in the README, at the smallest size."""
    monkeypatch.setenv("MFGLIB_PRESET", "smoke")
    game = LinearQuadratic(A=1.0, B=1.0, A_bar=0.06, c_x=5.0, c_a=0.1, c_m=1.0, x_target=0.6, horizon=20,
                           initial_mean=0.0, initial_std=0.58, noise_std=0.058, x_bound=None, a_bound=None)  # fmt: skip
    assert (game.horizon, game.state_dim, game.action_dim) == (20, 1, 1)
    solution = solve(game, algorithm="deda-fp", iterations=10, averaging="uniform", seed=0)
    assert isinstance(solution.history, pd.DataFrame) and list(solution.history["iteration"]) == list(range(11))
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
    eq = lq_equilibrium(game)
    sizes = {"networks": dict(hidden=(32, 32)), "flow": dict(agents=5000), "certify": dict(agents=5000)}
    solution = solve(game, iterations=5, averaging="linear", progress=False, preset="lecture", sizes=sizes)
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
    assert_same_step(judged, unjudged)
    assert unjudged.history[["exploitability", "best_response_gap"]].isna().all(axis=None)


@pytest.mark.parametrize("averaging", ["linear", constant(0.3)], ids=str)
def test_schedules_start_alike_and_then_differ(averaging):
    solution, plain = tiny(averaging=averaging), tiny()
    losses = zip(solution.history["cloning_loss"], plain.history["cloning_loss"], strict=True)
    assert [a == b for a, b in losses] == [False, True, False]  # NaN; one best response; two


def test_learning_rates_of_average_and_flow_fall_from_an_iteration_on():
    decay = dict(decay_after=1)
    falling, plain = tiny(sizes={"cloned": decay, "flow": decay}).history, tiny().history
    for loss, same in (("cloning_loss", [False, True, False]), ("flow_loss", [True, True, False])):
        assert (falling[loss] == plain[loss]).tolist() == same


def test_iterations_between_certificates_are_not_judged_and_learn_the_same():
    every, second = tiny(BAR, iterations=4), tiny(BAR, iterations=4, sizes={"certify": dict(every=2)})
    judged = ["exploitability", "policy_value", "best_response_gap"]
    assert second.history[judged].isna().all(axis=1).tolist() == [False, True, False, True, False]
    pd.testing.assert_frame_equal(every.history[judged][::2], second.history[judged][::2], check_exact=True)
    assert_same_step(every, second)


# --- learners: by name, or of one's own


def test_algorithms_differ_only_in_the_policy_and_population_that_they_carry():
    one, two, three = (tiny(BAR, name, best_response="ppo") for name in ("algo-1", "algo-2", "deda-fp"))
    assert isinstance(one.policy, EpisodeMixture) and len(one.policy.policies) == 2
    np.testing.assert_allclose(one.policy.weights, 0.5)
    assert isinstance(one.population, Particles) and isinstance(two.population, Particles)
    assert one.population.x.shape == two.population.x.shape == (4, 100, 1)  # the same N
    assert type(two.policy) is type(three.policy) and isinstance(three.population, TimeFlow)
    first = [s.history["exploitability"][0] for s in (one, two, three)]
    assert first[0] == first[1] == first[2]  # the same first policy, judged alike
    learned = one.history[["cloning_loss", "flow_loss"]].isna().all(axis=None)
    assert learned and two.history["flow_loss"].isna().all() and np.isfinite(two.history["cloning_loss"][1:]).all()
    assert all(np.isfinite(s.history["exploitability"]).all() for s in (one, two, three))


@pytest.mark.parametrize("algorithm", ["algo-1", "algo-2", "deda-fp"])
def test_looking_ahead_is_what_bounded_games_get_and_its_average_is_cloned_in_all_algorithms(algorithm):
    solution = tiny(BAR, algorithm)
    assert_same(solution, tiny(BAR, algorithm, best_response="look-ahead"))
    learned = solution.history[["critic_loss", "cloning_loss", "best_response_gap", "exploitability"]]
    assert "policy_loss" not in solution.history and np.isfinite(learned[1:]).all(axis=None)
    parts = solution.policy.policies if algorithm == "algo-1" else [solution.policy]
    assert all(policy.components == 5 for policy in parts) and isinstance(solution.best_response, LookaheadPolicy)


def test_names_are_those_of_the_algorithm():
    assert_same(tiny(BAR, "algo-2"), tiny(BAR, "deda-fp", population="agents"))
    assert_same(tiny(BAR, "algo-1", best_response="ppo"), tiny(BAR, "algo-2", best_response="ppo", average="episodes"))


def test_a_path_names_any_class_with_the_defaults_of_its_configuration(tmp_path):
    options = dict(game=GAME, iterations=1, directory=tmp_path)
    by_path = tiny(population="mfglib.learn.agents:SimulatedAgents", best_response="test_solver:Search", **options)
    assert by_path.population.x.shape == (4, 30_000, 1) and by_path.best_response.a != 0
    *_, last = replay(GAME, tmp_path)
    assert torch.equal(last.population.x, by_path.population.x)


def test_objects_of_the_library_are_trained_in_place():
    networks = Networks.of(BAR, NetworkConfig(hidden=(8,)))
    average = ClonedAverage(BAR, networks, CloningConfig(agents=20, steps=5, batch=64))
    population = FlowPopulation(BAR, FlowConfig(agents=100, steps=5, first_steps=5, batch=32, hidden=(8,)))
    solution = tiny(BAR, average=average, population=population)
    x = torch.linspace(0, 1, 9)[:, None]
    assert torch.equal(average.policy.mean(1, x), solution.policy.mean(1, x))
    assert torch.equal(population.log_prob(1, x), solution.population.log_prob(1, x))
    assert average.policy is not solution.policy  # which is at rest
    assert average.policy.log_prob(0, x, x).requires_grad and not solution.policy.log_prob(0, x, x).requires_grad


class Offset(nn.Module):
    """The same action at all times and in all states."""

    def __init__(self):
        super().__init__()
        self.register_buffer("a", torch.zeros(1))

    def sample(self, t, x, generator=None):
        return self.a.expand(len(x), 1)

    mean = sample


class Search(ModuleState, nn.Module):
    """A best response of one's own: the best of a few random offsets."""

    faced = None

    def __init__(self, game, tries=5):
        super().__init__()
        self.game, self.tries, self.policy = game, tries, Offset()

    def fit(self, population, k, random):
        value, generator = -math.inf, random("search")
        for a in torch.randn(self.tries, 1, generator=generator):
            trial = Offset()
            trial.a.copy_(a)
            earned = rollout(self.game, trial, population, n=50, generator=random("agents")).value
            if earned > value:
                value = earned
                self.policy.a.copy_(a)
        return {"policy_loss": -value}

    def kept(self):
        kept = Offset()
        kept.load_state_dict(self.policy.state_dict())
        return kept


@pytest.mark.parametrize("algorithm", ["algo-1", "deda-fp"])
def test_a_best_response_of_ones_own_is_certified_resumed_and_replayed(algorithm, tmp_path):
    """Averages and populations too: tests/test_howto.py."""
    straight = tiny(GAME, algorithm, best_response=Search(GAME))
    judged = straight.history[["exploitability", "best_response_gap"]]
    assert np.isfinite(judged[1:]).all(axis=None) and (judged[1:] > 0).all(axis=None)
    tiny(GAME, algorithm, iterations=1, directory=tmp_path, best_response=Search(GAME))
    assert_same(tiny(GAME, algorithm, directory=tmp_path, best_response=Search(GAME)), straight)
    *_, last = replay(GAME, tmp_path, best_response=Search(GAME))
    assert_same_step(last, straight)


# --- what goes wrong


class Broken(LinearQuadratic):
    broken_at, what = 1, "reward"

    def reward(self, t, x, a, population):
        reward = super().reward(t, x, a, population)
        return reward * math.nan if self.breaks("reward", t, population) else reward

    def step(self, t, x, a, population, generator):
        x = super().step(t, x, a, population, generator)
        return x * math.inf if self.breaks("step", t, population) else x

    def breaks(self, what, t, population):
        """Not yet in the trial that comes before."""
        return self.what == what and t == self.broken_at and not isinstance(population, GaussianPath)


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
        (dict(best_response="dqn"), "best_response: expected a learner or one of .*'sb3-sac'.*, got 'dqn'"),
        (dict(average="median"), "average: expected a learner or one of .*'cloned'.*, got 'median'"),
        (dict(population="swarm"), "population: expected a learner or one of .*'flow'.*, got 'swarm'"),
        (dict(best_response="look-ahead"), "best_response: expected another learner for this game"),
        (dict(preset="huge"), "preset: expected one of .*smoke.*got 'huge'"),
        (dict(sizes={"cloned": dict(size=3)}), "CloningConfig: expected fields among .*got \\['size'\\]"),
    ],
    ids=str,
)
def test_bad_arguments_are_named(arguments, match, monkeypatch):
    monkeypatch.delenv("MFGLIB_PRESET", raising=False)
    with pytest.raises((TypeError, ValueError), match=match):
        tiny(**arguments)


def test_what_is_no_game_is_refused():
    with pytest.raises(TypeError, match="game: expected an object with the member"):
        tiny(object())
    with pytest.raises((TypeError, ValueError), match="game: expected"):
        tiny(Congestion(), certify=True)


# --- other games


def test_a_students_own_game():
    """Its reward asks for the density, it inherits nothing, and no exact solver knows it."""
    sizes = {"ppo": dict(agents=200, first_updates=20, updates=5), "cloned": dict(agents=200, steps=100)}
    solution = solve(Congestion(), iterations=6, progress=False, seed=1, preset="smoke", sizes=sizes)
    assert solution.history[["exploitability", "best_response_gap", "policy_value"]].isna().all(axis=None)
    assert np.isfinite(solution.history["flow_loss"]).all()
    assert solution.population.mean(0).item() == pytest.approx(0, abs=0.15)
    assert solution.population.mean(3).item() > 0.5  # agents went where they want to be


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
    assert solution.history["exploitability_error"].isna().all()  # on demand: it is expensive
    assert solution.population.sample(20, 500, gen()).abs().max() <= 1
    assert solution.population.log_prob(3, torch.tensor([[1.5]])).item() == -math.inf


@pytest.mark.parametrize("response", ["ppo", "look-ahead"])
@pytest.mark.parametrize("components", [1, 12])
def test_two_dimensions_with_walls(components, response):
    game, sizes = FourRooms(horizon=2), {"cloned": dict(components=components), "certify": dict(cells=40)}
    solution = tiny(game, iterations=1, best_response=response, sizes=sizes)
    assert solution.policy.components == components
    assert game.domain.contains(solution.population.sample(2, 500, gen())).all()
    assert 0 <= solution.history["exploitability"].iloc[-1] <= 2 * solution.history["exploitability"][0]


def test_a_population_that_starts_at_one_point():
    solution = tiny(LinearQuadratic(horizon=3, initial_std=0.0, initial_mean=0.2))
    torch.testing.assert_close(solution.population.sample(0, 50), torch.full((50, 1), 0.2), atol=1e-3, rtol=0)
    assert np.isfinite(solution.history["exploitability"]).all()


# --- units


@pytest.mark.parametrize("unit", [1e-8, 1e6])
def test_units_of_states_change_nothing(unit):
    """A game in other units, whose costs stay: the same is learned, up to rounding."""
    history, samples = [], []
    for scale in (1.0, unit):
        states = dict(x_target=0.6 * scale, initial_std=0.58 * scale, noise_std=0.058 * scale)
        game = LinearQuadratic(horizon=3, **states, c_x=5 / scale**2, c_m=1 / scale**2, c_a=0.1 / scale**2)
        solution = tiny(game, sizes={"networks": dict(action_scale=scale)})
        losses = solution.history[["exploitability", "cloning_loss", "policy_loss"]]
        history.append(losses.assign(cloning_loss=losses["cloning_loss"] - math.log(scale)))  # a density's unit
        samples.append(solution.population.sample(2, 1000, gen()) / scale)
    np.testing.assert_allclose(*history, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(*samples, rtol=1e-3, atol=1e-4)


def test_a_game_without_noise_is_solved():
    """All agents are in one place; the mean stays where the exact one is."""
    game = LinearQuadratic(horizon=4, initial_std=0.0, noise_std=0.0)
    solution = solve(game, iterations=4, preset="lecture", sizes={"flow": dict(agents=500)}, progress=False)
    mean = torch.stack([solution.population.mean(t) for t in range(5)])
    torch.testing.assert_close(mean, lq_equilibrium(game).mean.float(), rtol=0, atol=0.05)
