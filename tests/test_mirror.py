"""Mirror descent with momentum, in place of best responses and averages (`mfglib.learn.mirror`)."""

import itertools

import numpy as np
import pytest
import torch
from contracts import assert_equal_states
from helpers import gen

from mfglib import exploitability, replay, solve
from mfglib.exact import grid_fictitious_play
from mfglib.exact.dynamic_programming import grid_evaluate
from mfglib.exact.grid import Grid
from mfglib.fictitious_play import fictitious_play
from mfglib.games import BeachBar, FourRooms, LinearQuadratic
from mfglib.learn.candidates import ahead
from mfglib.learn.mirror import LastResponse, Mirror, MirrorConfig, MirrorValues
from mfglib.learn.table import table_of
from mfglib.policies import NoisePolicy
from mfglib.populations import CellPopulation, Particles
from mfglib.protocols import TensorState
from mfglib.recipes import recipe_of
from mfglib.seeds import Random, torch_defaults


class OwnCrowd(TensorState, CellPopulation):
    """The population that a policy makes, pushed forward on a grid."""

    def __init__(self, grid):
        super().__init__(grid, grid.initial[None])

    def fit(self, policy, k, random):
        own = grid_evaluate(self.grid, policy).population
        super().__init__(self.grid, own.mass, actions=own.actions)
        return {}


BAR, ROOMS = BeachBar(horizon=3), FourRooms(horizon=3)


@pytest.mark.parametrize(("game", "cells", "temperature"), [(BAR, 100, 3.2), (ROOMS, 20, 4.0)], ids=["beach", "rooms"])
def test_iterations_are_those_of_the_exact_solver(game, cells, temperature):
    """Learned values, against the population that the policy makes: iteration by iteration the exploitability of the
    solver on the grid, which shares no code with the learner."""
    K, scheme = 6, dict(method="momentum", temperature=temperature, cells=cells)
    exact = grid_fictitious_play(game, K, **scheme).history["exploitability"]
    sizes = {"mirror": dict(temperature=temperature, first_steps=300, steps=100, states=2048, batch=256, candidates=81)}
    sizes["mirror"]["acting_candidates"] = 81
    recipe = recipe_of(game, averaging="mirror", preset="smoke", sizes=sizes | {"networks": dict(hidden=(64, 64))})
    learners = recipe.build() | dict(population=OwnCrowd(Grid(game, cells)))
    with torch_defaults():
        steps = itertools.islice(fictitious_play(*learners.values()), K + 1)
        learned = [exploitability(game, step.policy, cells=cells, error=False).value for step in steps]
    np.testing.assert_allclose(learned[1:], exact[1:], atol=0.03 * exact[0], rtol=0.15)
    assert learned[-1] < 0.2 * learned[0]


def test_momentum_is_nesterovs():
    """C and S follow the recursion of L, so that L_k = (C_k r + S_k) / τ_t, by hand for random rewards and values."""
    values, random = MirrorValues(3, table_of(BAR.domain), 2.0), gen()
    reward = torch.randn(7, generator=random)
    before = now = torch.zeros(3, 7)
    tau = torch.tensor([2.0, 4 / 3, 2 / 3])[:, None]
    cells = torch.arange(7)
    for k in range(1, 6):
        W = torch.randn(values.S.shape, generator=random)
        values.add(W, k)
        before, now = now, now + (k - 1) / (k + 2) * (now - before) + (reward + W[:, cells]) / tau
        ours = torch.stack([values.logits(t, reward, values.S[t, cells]) for t in range(3)])
        torch.testing.assert_close(ours, now, atol=1e-4, rtol=1e-4)


def test_what_rewards_say_of_the_crowd_changes_no_policy():
    """It is the same for all actions, so that the policy asks no population for its density."""

    class Silent:
        mean = sample = None

        def log_prob(self, t, x):
            raise AssertionError("asked for its density")

    learner = _fitted()
    x, population = BAR.initial(50, gen()), learner.faced
    learner.faced = Silent()
    acted = learner.policy.sample(1, x, generator=gen(1))
    assert acted.std() > 0 and torch.isfinite(learner.policy.mean(1, x)).all()
    a = torch.rand(50, 4, 1, generator=gen()) * 0.6 - 0.3
    crowd, _ = ahead(BAR, population, 1, x, a)
    none, _ = ahead(BAR, population, 1, x, a, x.new_zeros(50))
    torch.testing.assert_close((crowd - none).std(1), torch.zeros(50), atol=1e-5, rtol=0)


def _fitted(k=1):
    learner = recipe_of(BAR, averaging="mirror", preset="smoke").build()["best_response"]
    crowd = Particles(BAR.initial(200, gen()).expand(4, -1, -1))
    for i in range(1, k + 1):
        learner.fit(crowd, i, Random(0, i))
    return learner


def test_the_last_response_is_played_and_before_it_a_small_noise():
    average, learner = LastResponse(BAR), _fitted()
    assert isinstance(average.policy, NoisePolicy) and float(average.policy.std) == pytest.approx(0.1 * BAR.a_bound)
    assert average.update(learner, learner.faced, 1, Random(0, 1)) == {}
    x = BAR.initial(30, gen())
    assert torch.equal(average.policy.sample(0, x, generator=gen()), learner.policy.sample(0, x, generator=gen()))


def test_a_replay_needs_the_sums_alone_and_a_resume_all():
    learner, fresh = _fitted(2), _fitted(1)
    x = BAR.initial(30, gen())
    fresh.load(learner.learned())
    assert set(learner.learned()) < set(learner.state())
    assert torch.equal(fresh.policy.sample(0, x, generator=gen()), learner.policy.sample(0, x, generator=gen()))
    fresh.load(learner.state())
    for one in (learner, fresh):
        one.fit(one.faced, 3, Random(0, 3))
    assert_equal_states(learner.state(), fresh.state())


@pytest.mark.parametrize("algorithm", ["deda-fp", "algo-2", "algo-1"])
def test_runs_resume_bit_for_bit_and_can_be_replayed(algorithm, tmp_path):
    run = dict(averaging="mirror", preset="smoke", progress=False, certify=False)
    solve(BAR, algorithm, iterations=1, directory=tmp_path / "two", **run)
    resumed = solve(BAR, algorithm, iterations=3, directory=tmp_path / "two", **run)
    whole = solve(BAR, algorithm, iterations=3, directory=tmp_path / "one", **run)
    x = BAR.initial(50, gen())
    for t in range(3):
        drawn = [s.policy.sample(t, x, generator=gen(t)) for s in (whole, resumed)]
        assert torch.equal(*drawn)
    *_, last = replay(BAR, tmp_path / "one")
    assert torch.equal(last.policy.sample(0, x, generator=gen()), whole.policy.sample(0, x, generator=gen()))
    assert torch.equal(last.population.log_prob(2, x), whole.population.log_prob(2, x))


class Pushed(BeachBar):
    """Agents are carried along by the crowd."""

    def displacement(self, t, x, a, population):
        return super().displacement(t, x, a, population) + 0.1 * population.mean(t)


@pytest.mark.parametrize(
    ("game", "message"),
    [
        (LinearQuadratic(horizon=3), "averaging: 'mirror' needs a bounded game"),
        (LinearQuadratic.paper(), "averaging: 'mirror' needs a game whose moves ignore the population"),
        (Pushed(horizon=3), "averaging: 'mirror' needs a game whose moves ignore the population"),
    ],
    ids=["unbounded", "moves by the mean", "carried along"],
)
def test_games_that_it_does_not_suit_are_refused(game, message):
    with pytest.raises(ValueError, match=message):
        solve(game, averaging="mirror", preset="smoke", iterations=1)


def test_a_temperature_must_be_positive():
    with pytest.raises(ValueError, match="MirrorConfig.temperature: expected a number > 0"):
        Mirror(BAR, config=MirrorConfig(temperature=0.0))
