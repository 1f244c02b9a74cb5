"""Certificates beside the loop (`mfglib.certificates`)."""

import math

import pytest
import torch
from helpers import gen
from tiny import BAR, GAME

from mfglib.certificates import COLUMNS, Certify, CertifyConfig
from mfglib.fictitious_play import Step
from mfglib.judge import best_response_gap, exploitability
from mfglib.policies import NoisePolicy
from mfglib.populations import Particles
from mfglib.protocols import Exploitability
from mfglib.rollout import rollout
from mfglib.seeds import generator


def step(game, k, response=None):
    policy = NoisePolicy(torch.tensor([0.1]))
    population = Particles(rollout(game, policy, n=100, generator=gen(), rewards=False).x)
    return Step(
        k, response or (NoisePolicy(torch.tensor([0.2])) if k else None), policy, population, population, {}, {}
    )


@pytest.mark.parametrize("game", [GAME, BAR], ids=["LQ", "beach bar"])
def test_columns_are_what_the_judge_says(game):
    certify, one = Certify(game, CertifyConfig(agents=200, cells=20), seed=3), step(game, 1)
    row = certify(one)
    assert tuple(row) == COLUMNS
    e = exploitability(game, one.policy, n=200, cells=20, seed=3, error=False)
    assert (row["exploitability"], row["policy_value"]) == (e.value, e.policy_value)
    assert math.isnan(row["exploitability_error"]) == (game is BAR)  # on demand: it is expensive
    gap = best_response_gap(game, one.best_response, one.faced, generator(3, 1, "gap"), cells=20)
    assert row["best_response_gap"] == gap > 0


def test_the_first_iteration_has_no_best_response_and_some_are_not_certified():
    certify = Certify(GAME, CertifyConfig(every=2, agents=200), seed=0)
    missing = {k: [name for name, value in certify(step(GAME, k)).items() if math.isnan(value)] for k in range(3)}
    assert missing == {0: ["best_response_gap"], 1: list(COLUMNS), 2: []}


def test_a_policy_that_is_slow_to_sample_says_how_many_draws_it_can_afford():
    class Slow(NoisePolicy):
        affordable_draws, asked = 2, 0

        def sample(self, t, x, generator=None):
            Slow.asked += len(x)
            return super().sample(t, x, generator)

    Certify(BAR, CertifyConfig(agents=200, cells=20), 0)(step(BAR, 1, Slow(torch.tensor([0.1]))))
    most = BAR.horizon * 2 * 10  # on half as many cells
    assert 0.9 * most < Slow.asked <= most


@pytest.mark.parametrize("error, shown", [(0.0123, "1.23 ± 0.012 ("), (math.nan, "1.23 (")])
def test_a_certificate_prints_in_a_line(error, shown):
    text = str(Exploitability(1.2345, -4.0, -5.2345, error, "by hand", torch.zeros(2, 1).numpy()))
    assert text == f"{shown}best response -4, policy -5.234; by hand)"
