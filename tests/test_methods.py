"""Exact methods on a grid (`mfglib.exact.methods`, `mfglib.exact.corrective`)."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from mfglib.exact import grid_equilibrium, grid_fictitious_play
from mfglib.exact.corrective import Corrective
from mfglib.exact.dynamic_programming import grid_evaluate
from mfglib.exact.methods import METHODS, FictitiousPlay, FixedPoint, Method, MirrorDescent, Search, method_of
from mfglib.exact.responses import best_response
from mfglib.games import BeachBar, LinearQuadratic, Market
from mfglib.policies import NoisePolicy
from mfglib.schedules import constant

BAR = BeachBar(horizon=5)
MARKET = Market(horizon=4)


def same(one, other):
    assert one.history.equals(other.history)
    assert torch.equal(one.policy.shares, other.policy.shares)


@pytest.mark.parametrize("name", METHODS)
def test_a_name_is_its_object(name):
    assert isinstance(METHODS[name], Method) and method_of(METHODS[name]) is METHODS[name] == method_of(name)
    same(*(grid_fictitious_play(BAR, 3, method=m, cells=20) for m in (name, METHODS[name])))


@pytest.mark.parametrize(
    ("given", "by_name"),
    [
        (FictitiousPlay(temperature=0.2), dict(method="smoothed", temperature=0.2)),
        (MirrorDescent(temperature=0.5), dict(method="mirror descent", temperature=0.5)),
        (MirrorDescent(momentum=True, temperature=0.5), dict(method="momentum", temperature=0.5)),
    ],
)
def test_temperatures_are_in_units_of_reward(given, by_name):
    same(grid_fictitious_play(BAR, 3, method=given, cells=20), grid_fictitious_play(BAR, 3, cells=20, **by_name))


def test_a_constant_schedule_is_the_damped_fixed_point_once_it_has_begun():
    """Its first step is 1, and every other one 1 − damping."""
    play = grid_fictitious_play(BAR, 4, method=FictitiousPlay(constant(0.3)), cells=20)
    first = grid_fictitious_play(BAR, 1, method=FixedPoint(0.0), cells=20)  # without damping: the best response
    ours, constant_steps = ([*p.history["exploitability"]] for p in (first, play))
    assert ours == constant_steps[:2]
    rest = grid_fictitious_play(BAR, 3, method=FixedPoint(0.7), cells=20, initial_policy=first.policy)
    assert rest.history["exploitability"].tolist() == pytest.approx(constant_steps[1:], rel=1e-9)


def test_the_damped_fixed_point_finds_the_market_and_circles_on_the_beach():
    """It needs best responses that contract; where agents avoid each other they do not."""
    market = grid_fictitious_play(MARKET, 20, method="damped fixed point", cells=40, every=20)
    assert market.exploitability < 1e-3 * market.first
    bar = grid_fictitious_play(BAR, 40, method="damped fixed point", cells=40, every=5)
    assert (bar.history["exploitability"] > 0.1 * bar.first).all()


@pytest.mark.parametrize("game", [BAR, MARKET], ids=["beach bar", "market"])
def test_corrective_finds_the_equilibrium_that_momentum_finds(game):
    ours = grid_fictitious_play(game, 15, method="corrective", cells=40, every=15)
    other = grid_equilibrium(game, 40, 0.002, method="momentum", progress=False)
    assert ours.exploitability < 0.01 * ours.first
    assert (ours.population.mass - other.population.mass).abs().sum(1).amax() / 2 < 0.05  # total variation


def test_corrective_beats_every_schedule_iteration_by_iteration():
    plays = {
        m: grid_fictitious_play(BAR, 10, method=m, cells=40, every=10) for m in ("corrective", "uniform", "linear")
    }
    assert plays["corrective"].exploitability < 0.5 * min(plays[m].exploitability for m in ("uniform", "linear"))


def test_corrective_plays_the_mixture_that_its_weights_say():
    """The population of its policy is the weighted mass of its best responses."""
    found = []

    class Watched(Corrective):
        def step(self, *args):
            found.append(super().step(*args))
            return found[-1]

    play = grid_fictitious_play(BAR, 6, method=Watched(), cells=30, every=6)
    parts = found[-1][1]
    assert sum(part.weight for part in parts) == pytest.approx(1)
    assert 1 < len(parts) <= 6
    mass = sum(part.weight * part.mass for part in parts)
    torch.testing.assert_close(mass, play.population.mass, atol=1e-10, rtol=0)


@dataclass(frozen=True)
class Halving:
    """A method of one's own: best responses, every second one forgotten."""

    def init(self, grid, start, first):
        return 0

    def step(self, grid, memory, k, policy, play):
        return (best_response(grid, play.population) if k % 2 else policy), memory + 1


def test_a_method_of_ones_own_runs_in_both():
    play = grid_fictitious_play(BAR, 4, method=Halving(), cells=20)
    assert play.history["exploitability"][1] == play.history["exploitability"][2] != play.history["exploitability"][3]
    calm = BeachBar(c_m=0.0, horizon=3)
    assert grid_equilibrium(calm, 20, 0.001, method=Halving(), progress=False).exploitability < 0.001 * play.first


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FictitiousPlay("newton"), "averaging: expected one of"),
        (lambda: FictitiousPlay(temperature=-1.0), "temperature: expected a number >= 0"),
        (lambda: MirrorDescent(temperature=0.0), "temperature: expected a number > 0"),
        (lambda: MirrorDescent(share=-1.0), "share: expected a number > 0"),
        (lambda: MirrorDescent(mixing=1.5), "mixing: expected a number"),
        (lambda: FixedPoint(1.0), r"damping: expected a number in \[0, 1\), got 1.0"),
        (lambda: Corrective(tolerance=0.0), "tolerance: expected a number > 0"),
        (lambda: Corrective(steps=0), "steps: expected an integer >= 1"),
        (lambda: method_of(3), "method: expected one of .* or an object with init and step, got 3"),
        (lambda: method_of(Search), "or an object with init and step"),
        (lambda: method_of(Search(), 0.5), "temperature: expected None for a method that is an object"),
        (lambda: method_of("search", 0.5), "temperature: expected None for method 'search'"),
        (lambda: grid_fictitious_play(LinearQuadratic.paper(), 1, method="corrective", cells=20), "'corrective' needs"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_mirror_descent_starts_from_the_policy_that_it_is_given():
    """π_1 ∝ π_0 exp(Q_1 / τ): at a temperature without end, π_0 with its share of uniform actions."""
    found = grid_equilibrium(BAR, 20, 0.02, method="momentum", progress=False)
    hot = MirrorDescent(momentum=True, temperature=1e9, mixing=0.1)
    play = grid_fictitious_play(BAR, 1, method=hot, cells=20, initial_policy=found.policy)
    mixed = 0.9 * found.policy.shares + 0.1 / found.policy.shares.shape[2]
    np.testing.assert_allclose(play.policy.shares, mixed, atol=1e-6)


def test_best_responses_are_those_of_the_lattice():
    grid = grid_fictitious_play(BAR, 0, cells=20).policy.grid
    crowd = grid_evaluate(grid, NoisePolicy(torch.full((1,), 0.1))).population
    sharp, soft = best_response(grid, crowd), best_response(grid, crowd, 1e-6)
    assert (sharp.shares.amax(2) == 1).all()
    values = [grid_evaluate(grid, policy, crowd).value for policy in (sharp, soft)]
    assert values[0] == pytest.approx(values[1], abs=1e-4)
