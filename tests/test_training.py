"""What the training benchmark makes of histories (`benchmarks/training.py`)."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import training

from mfglib.exact import lq_equilibrium
from mfglib.games import FourRooms, LinearQuadratic
from mfglib.learn.lookahead import LookaheadConfig
from mfglib.presets import sizes


def history(e):
    n = len(e)
    clocks = {f"seconds_{step}": np.full(n, s) for step, s in zip(training.STEPS, (1.0, 2.0, 3.0), strict=True)}
    return pd.DataFrame({"exploitability": e, "seconds_judge": np.full(n, 100.0), **clocks})


def test_time_to_the_goal_counts_training_alone_up_to_the_first_certificate_below_it():
    first = training.GOAL["beach-bar"]
    e = [20.0, np.nan, 20 * first * 1.01, np.nan, 20 * first * 0.99, 20 * first * 2]
    assert training.reached(history(e), "beach-bar") == (30.0, 36.0, 2 * first)
    assert training.reached(history([20.0, 10.0]), "beach-bar") == (np.inf, 12.0, 0.5)
    value = abs(lq_equilibrium(LinearQuadratic()).value)
    seconds, _, last = training.reached(history([value, 0.5 * training.GOAL["lq"] * value]), "lq")
    assert seconds == 12.0 and last == pytest.approx(0.5 * training.GOAL["lq"])


def test_seeds_that_never_arrive_are_counted_and_left_out_of_the_mean():
    rows = {r["measure"]: r["value"] for r in training.rows_of("x", [(10.0, 20.0, 0.1), (np.inf, 40.0, 0.3)])}
    assert rows["x: seconds to the goal, mean"] == 10 and rows["x: share of 2 seeds that reached it"] == 50
    assert rows["x: seconds in all, mean"] == 30 and rows["x: last exploitability, mean"] == pytest.approx(20)
    assert not any("to the goal" in r["measure"] for r in training.rows_of("x", [(np.inf, 1.0, 1.0)]))


def test_budgets():
    def config(kind):
        return LookaheadConfig(**sizes("lecture", FourRooms(), training.budget(kind))["look-ahead"])

    base = LookaheadConfig(**sizes("lecture", FourRooms())["look-ahead"])
    twice, larger, as_it_is = map(config, training.BUDGETS)
    assert as_it_is == base and larger.first_steps == base.first_steps
    assert (twice.first_steps, twice.steps) == (2 * base.first_steps, 2 * base.steps)
    for more in (twice, larger):
        assert (more.states, more.batch) == (2 * base.states, 2 * base.batch)
