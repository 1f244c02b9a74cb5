"""The loop alone: what it asks of three learners, in which order, and stepped by hand."""

import itertools

import pandas as pd
import pytest
import torch
from helpers import gen
from tiny import BAR, GAME, TINY, tiny

from mfglib.fictitious_play import fictitious_play
from mfglib.recipes import recipe_of
from mfglib.seeds import Random


class Recorder:
    """All three learners at once: it notes what it is asked."""

    policy = "π"

    def __init__(self, log):
        self.log, self.fitted = log, -1

    def fit(self, other, k, random):
        assert isinstance(random, Random)
        self.log.append((self.name, getattr(other, "fitted", other), k, random.k, random.seed))
        self.fitted = k
        return {f"{self.name}_loss": float(k)}

    def update(self, response, population, k, random):
        self.log.append(("average", response.name, population.fitted, k, random.k))
        return {"cloning_loss": 0.5}


def recorders():
    log = []
    learners = [Recorder(log) for _ in range(3)]
    for learner, name in zip(learners, ("response", "average", "population"), strict=True):
        learner.name = name
    return log, learners


def test_each_iteration_asks_the_three_learners_in_turn():
    log, learners = recorders()
    steps = list(itertools.islice(fictitious_play(*learners, seed=7), 3))
    assert log == [
        ("population", "π", 0, 0, 7),
        ("response", 0, 1, 1, 7), ("average", "response", 0, 1, 1), ("population", "π", 1, 1, 7),
        ("response", 1, 2, 2, 7), ("average", "response", 1, 2, 2), ("population", "π", 2, 2, 7),
    ]  # fmt: skip
    assert steps[0].losses == {"population_loss": 0.0} and steps[0].best_response is steps[0].faced is None
    assert steps[2].losses == {"response_loss": 2.0, "cloning_loss": 0.5, "population_loss": 2.0}
    assert [step.k for step in steps] == [0, 1, 2] and steps[2].faced.fitted == 1  # a copy, which stays as it was
    assert steps[2].population is learners[2] and steps[2].policy == "π"
    assert set(steps[0].seconds) == {"population"}
    assert set(steps[1].seconds) == {"best_response", "cloning", "population"}


def test_it_starts_where_it_is_told_and_does_nothing_unasked():
    log, learners = recorders()
    loop = fictitious_play(*learners, start=4)
    assert log == []
    step = next(loop)
    assert step.k == 4 and [entry[0] for entry in log] == ["response", "average", "population"]


@pytest.mark.parametrize("game", [GAME, BAR], ids=["LQ", "beach bar"])
def test_stepped_by_hand_it_is_what_solve_does(game):
    solution = tiny(game)
    learners = recipe_of(game, preset="smoke", sizes=TINY).build()
    loop = fictitious_play(*learners.values())
    steps = [next(loop), next(loop), next(loop)]
    losses = pd.DataFrame([step.losses for step in steps])
    pd.testing.assert_frame_equal(losses, solution.history[list(losses)], check_exact=True)
    x = solution.population.sample(1, 20, gen())
    assert torch.equal(x, learners["population"].sample(1, 20, gen()))
    assert torch.equal(steps[-1].policy.sample(1, x, gen()), solution.policy.sample(1, x, gen()))
