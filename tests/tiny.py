"""The smallest runs that still have every part, shared by tests."""

import pandas as pd
import torch
from helpers import gen

from mfglib import solve
from mfglib.games import BeachBar, LinearQuadratic

GAME, BAR = LinearQuadratic(horizon=3), BeachBar(horizon=3)
TINY = {
    "networks": dict(hidden=(8,)),
    "ppo": dict(agents=16, first_updates=2, updates=1),
    "look-ahead": dict(first_steps=2, steps=1, states=64, batch=32, candidates=4, acting_candidates=4),
    "sb3": dict(first_steps=64, steps=64, agents=8, gradient_steps=2, batch=16),
    "cloned": dict(agents=20, steps=5, batch=64),
    "flow": dict(agents=100, steps=5, first_steps=5, batch=32, hidden=(8,)),
    "agents": dict(agents=100),
    "certify": dict(agents=200, cells=20),
}


def tiny(game=GAME, algorithm="deda-fp", **options):
    sizes = {name: fields | options.get("sizes", {}).get(name, {}) for name, fields in TINY.items()}
    defaults = dict(iterations=2, preset="smoke", progress=False)
    return solve(game, algorithm, **defaults | options | dict(sizes=sizes))


def measured(history):
    """Without wall times."""
    return history.drop(columns=[column for column in history if column.startswith("seconds_")])


def assert_same(one, other):
    """Bit for bit: histories but for wall times, and what policies and populations do."""
    pd.testing.assert_frame_equal(measured(one.history), measured(other.history), check_exact=True)
    assert_same_step(one, other)


def assert_same_step(one, other):
    t = 1
    states = [thing.population.sample(t, 50, gen()) for thing in (one, other)]
    assert torch.equal(*states)
    x = states[0]
    assert torch.equal(*(thing.population.log_prob(t, x) for thing in (one, other)))
    for policy in ("policy", "best_response"):
        assert torch.equal(*(getattr(thing, policy).sample(t, x, gen(1)) for thing in (one, other)))
