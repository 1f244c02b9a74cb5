"""All models of the population through the same properties, against independent agents."""

import math
from dataclasses import dataclass

import pytest
import torch
from contracts import assert_equal_states
from helpers import Congestion, gen, random_game

from mfglib.games import BeachBar, FourRooms, LinearQuadratic
from mfglib.policies import NoisePolicy
from mfglib.recipes import recipe_of
from mfglib.rollout import rollout
from mfglib.seeds import Random

SIZES = {"flow": dict(agents=4000, steps=60, first_steps=80, batch=128, hidden=(16, 16)), "agents": dict(agents=4000)}

LEVELS = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9])


@dataclass
class Case:
    name: str
    game: object

    def learner(self, seed=0, sizes=SIZES):
        recipe = recipe_of(self.game, preset="smoke", sizes=sizes, population=self.name, seed=seed)
        return recipe.build()["population"]


class Right:
    """One step in each direction, with a little noise."""

    def __init__(self, game):
        self.a = 0.3 * torch.as_tensor(getattr(game, "a_bound", None) or 1.0).float().expand(game.action_dim)

    def sample(self, t, x, generator=None):
        return self.a + 0.1 * self.a * torch.randn(len(x), len(self.a), generator=generator)


GAMES = {
    "LQ": LinearQuadratic(horizon=2),
    "LQ in two dimensions": random_game(2, 1, 2),
    "a game of one's own": Congestion(),
    "beach bar": BeachBar(horizon=2),
    "4-rooms": FourRooms(horizon=2),
}
CASES = {f"{name}, {label}": Case(name, game) for name in ("flow", "agents") for label, game in GAMES.items()}
each = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
one_each = pytest.mark.parametrize("case", [Case(name, GAMES["beach bar"]) for name in SIZES], ids=lambda c: c.name)


@each
def test_a_fit_follows_the_policy(case):
    """Also from the population of another one."""
    game, model = case.game, case.learner()
    for k, policy in enumerate((NoisePolicy(torch.full((game.action_dim,), 0.1)), Right(game))):
        losses = model.fit(policy, k, Random(0, k))
        x = rollout(game, policy, n=20_000, generator=gen(), rewards=False).x
        for t in range(game.horizon + 1):
            y, std = model.sample(t, 20_000, gen(t)), x[t].std(0)
            leaked = 0.01 if getattr(game, "domain", None) else 0.0  # mass of a flow beyond the box around the agents
            assert ((model.mean(t) - x[t].mean(0)).abs() < 0.1 * std + leaked).all()
            off = (y.quantile(LEVELS, 0) - x[t].quantile(LEVELS, 0)).abs()
            assert (off < 0.2 * std).all()
            assert model.log_prob(t, y[:50]).isfinite().all()
    assert set(losses) == {"flow_loss"} and math.isnan(losses["flow_loss"]) == (case.name == "agents")


@one_each
def test_a_fit_depends_on_its_random_numbers_alone(case):
    states, before = [], torch.get_rng_state()
    for seed in (1, 1, 2):
        model = case.learner()
        model.fit(Right(case.game), 0, Random(seed, 0))
        states.append(model)
    assert_equal_states(states[0].state(), states[1].state())
    assert not torch.equal(states[0].sample(1, 9, gen()), states[2].sample(1, 9, gen()))
    assert torch.equal(torch.get_rng_state(), before)


@one_each
def test_a_fresh_one_goes_on_from_a_state_bit_for_bit(case):
    policy, model, fresh = Right(case.game), case.learner(), case.learner(seed=1)
    model.fit(policy, 0, Random(0, 0))
    fresh.load({name: value.clone() for name, value in model.state().items()})
    x = model.sample(1, 20, gen())
    for k in (0, 1):
        if k:
            assert model.fit(policy, k, Random(0, k)) == pytest.approx(fresh.fit(policy, k, Random(0, k)), nan_ok=True)
        assert_equal_states(model.state(), fresh.state())
        assert torch.equal(model.log_prob(1, x), fresh.log_prob(1, x))
        assert torch.equal(model.sample(2, 9, gen()), fresh.sample(2, 9, gen()))


def test_agents_keep_nothing_that_can_be_simulated_again():
    for name, nothing in (("flow", False), ("agents", True)):
        model = Case(name, GAMES["LQ"]).learner()
        model.fit(Right(model.game), 0, Random(0, 0))
        learned = getattr(model, "learned", model.state)()
        assert (learned == {}) == nothing and model.state()
