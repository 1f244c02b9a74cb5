"""Trained deviators: a lower bound of exploitability, held against known ones."""

import math

import pytest
import torch
from tiny import TINY

from deda_fp.deviators import lower_bound
from deda_fp.examples.flocking import Flocking
from mfglib import best_response_gap, exploitability
from mfglib.exact.lq import lq_equilibrium
from mfglib.games import LinearQuadratic
from mfglib.policies import NoisePolicy

GAME = LinearQuadratic(horizon=4)
STILL = NoisePolicy(torch.zeros(1))
SMALL = dict(agents=4000, preset="smoke", sizes={"networks": dict(hidden=(32,)), "ppo": dict(first_updates=20)})


def test_the_bound_holds_and_reaches_most_of_the_truth():
    truth, bound = exploitability(GAME, STILL), lower_bound(GAME, STILL, deviators=2, **SMALL)
    assert bound.value < truth.value + 4 * math.hypot(bound.error, truth.error)
    assert bound.value > 0.7 * truth.value
    assert len(bound.gains) == 2


def test_the_bound_holds_in_four_dimensions():
    game = Flocking(c_s=0.0, horizon=4)
    still = NoisePolicy(torch.zeros(2))
    truth, bound = exploitability(game.linear_quadratic(), still), lower_bound(game, still, deviators=1, **SMALL)
    assert 0.3 * truth.value < bound.value < truth.value + 4 * math.hypot(bound.error, truth.error)


def test_nobody_gains_at_equilibrium():
    equilibrium = lq_equilibrium(GAME)
    bound = lower_bound(GAME, equilibrium.policy, deviators=2, **SMALL)
    assert bound.value < 4 * bound.error


def test_a_given_population_is_the_one_that_is_faced():
    """The gain is then one over the gap against that population, whatever the policy itself would make."""
    crowd = lq_equilibrium(LinearQuadratic(horizon=4, x_target=-2.0)).population
    gap = best_response_gap(GAME, STILL, crowd, torch.Generator().manual_seed(0), n=20_000)
    bound = lower_bound(GAME, STILL, crowd, deviators=1, **SMALL)
    assert 0.7 * gap < bound.value < gap + 4 * bound.error + 0.03 * gap  # the gap, too, is an estimate


def test_more_deviators_keep_those_that_were_there_and_seeds_repeat():
    few = dict(agents=200, preset="smoke", sizes=TINY)
    one, two = (lower_bound(GAME, STILL, deviators=n, **few) for n in (1, 2))
    assert two.gains[0] == one.gains[0] and max(two.gains) >= max(one.gains)
    assert lower_bound(GAME, STILL, deviators=2, **few).value == two.value
    assert lower_bound(GAME, STILL, deviators=1, seed=1, **few).gains != one.gains


@pytest.mark.parametrize("bad", [dict(deviators=0), dict(agents=1), dict(seed=-1), dict(agents="x"), dict(preset="x")])
def test_bad_arguments_are_named(bad):
    with pytest.raises((TypeError, ValueError), match=next(iter(bad))):
        lower_bound(GAME, STILL, **bad)
