"""All best responses through the same properties."""

import copy
import math
from dataclasses import dataclass

import pytest
import torch
from contracts import assert_equal_states, differ
from grids import uniform
from helpers import gen

from mfglib.checks import DivergenceError
from mfglib.exact import lq_equilibrium
from mfglib.exact.dynamic_programming import grid_evaluate
from mfglib.exact.grid import Grid
from mfglib.games import BeachBar, FourRooms, LinearQuadratic
from mfglib.judge import best_response_gap
from mfglib.policies import NoisePolicy
from mfglib.populations import CellPopulation, MeanPath
from mfglib.recipes import recipe_of
from mfglib.seeds import Random

LQ = LinearQuadratic(horizon=3, c_x=1.0, c_a=0.5, initial_std=0.5, noise_std=0.1)
FLAT = LinearQuadratic(horizon=2, A=[1.0, 0.8], B=[[1.0], [0.5]], c_a=0.5)
BAR, ROOMS = BeachBar(horizon=3), FourRooms(horizon=3)
BOUNDED = LinearQuadratic(horizon=6, x_bound=1.0, a_bound=0.1, initial_law="uniform", noise_law="uniform")
CELLS = {BAR: 60, ROOMS: 20, BOUNDED: 50}
NETWORKS = dict(hidden=(32, 32))
AHEAD = {"look-ahead": dict(states=1024, batch=256, first_steps=200, steps=40, acting_candidates=49, temperature=0.0)}
PPO = {"ppo": dict(agents=256, first_updates=40, updates=10)}
SB3 = {"sb3": dict(first_steps=6000, steps=6000, agents=64, gradient_steps=8, learning_rate=3e-3)}


def crowd_of(game):
    """A smooth, fixed crowd on a grid: two heaps on the beach, one in a corner of the rooms, those who do not act."""
    grid = Grid(game, CELLS[game])
    if game is BOUNDED:
        return grid_evaluate(grid, NoisePolicy(torch.zeros(1))).population
    corner = (grid.x - torch.tensor([0.0, 0.5]).double()[: game.state_dim]).norm(dim=1)
    weight = (-corner / 0.1).exp() if game is ROOMS else 1.1 + torch.sin(7 * grid.x[:, 0])
    return CellPopulation(grid, (weight / weight.sum()).expand(game.horizon + 1, -1))


def moving():
    return MeanPath(torch.linspace(1, -1, 4)[:, None])


@dataclass
class Case:
    name: str
    game: object
    crowd: object  # a function that makes it
    sizes: dict
    falls: float  # the gap after two fits, as a share of that of agents who do not act

    def learner(self, game=None, sizes=None, seed=0):
        if self.name.startswith("sb3"):
            pytest.importorskip("stable_baselines3")
        sizes = dict(networks=NETWORKS) | (self.sizes if sizes is None else sizes)
        recipe = recipe_of(game or self.game, preset="smoke", sizes=sizes, best_response=self.name, seed=seed)
        return recipe.build()["best_response"]

    def gap(self, policy):
        draws = dict(cells=CELLS[self.game], samples=4) if self.game in CELLS else {}
        return best_response_gap(self.game, policy, self.crowd(), gen(5), **draws)


CASES = {
    "PPO against the equilibrium": Case("ppo", LQ, lambda: lq_equilibrium(LQ).population, PPO, 0.05),
    "PPO against a moving crowd": Case("ppo", LQ, moving, PPO, 0.05),
    "PPO, two states, one action": Case("ppo", FLAT, lambda: MeanPath(torch.zeros(3, 2)), PPO, 0.05),
    "looking ahead, beach bar": Case("look-ahead", BAR, lambda: crowd_of(BAR), AHEAD, 0.02),
    "looking ahead, bounded LQ": Case("look-ahead", BOUNDED, lambda: crowd_of(BOUNDED), AHEAD, 0.05),
    "looking ahead, 4-rooms": Case("look-ahead", ROOMS, lambda: crowd_of(ROOMS), AHEAD, 0.1),
    "SAC of Stable-Baselines3": Case("sb3-sac", LQ, moving, SB3, 0.1),
    "PPO of Stable-Baselines3": Case("sb3-ppo", LQ, moving, SB3, 0.1),
}
SMALL = {
    "ppo": dict(agents=16, first_updates=2, updates=1),
    "look-ahead": dict(first_steps=2, steps=1, states=64, batch=32, candidates=4, acting_candidates=4),
    "sb3": dict(first_steps=64, steps=64, agents=8, gradient_steps=2, batch=16),
}
each = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
one_each = pytest.mark.parametrize("case", {c.name: c for c in CASES.values()}.values(), ids=lambda c: c.name)


@each
def test_the_exact_gap_falls(case):
    """To a small part of that of agents who do not act, in two fits, the second of which goes on from the first."""
    learner, crowd = case.learner(), case.crowd()
    idle = case.gap(NoisePolicy(torch.zeros(case.game.action_dim)))
    gaps = []
    for k in (1, 2):
        losses = learner.fit(crowd, k, Random(0, k))
        gaps.append(case.gap(learner.policy))
    assert losses and all(math.isfinite(loss) for loss in losses.values())
    assert set(losses) <= {"policy_loss", "critic_loss"}
    assert gaps[0] < 4 * case.falls * idle and gaps[1] < case.falls * idle


@one_each
def test_a_fit_depends_on_its_random_numbers_alone_and_leaves_the_population_as_it_was(case):
    crowd = case.crowd()
    before, states = torch.get_rng_state(), []
    kept = copy.deepcopy(vars(crowd))
    for seed in (1, 1, 2):
        learner = case.learner(sizes=SMALL)
        learner.fit(crowd, 1, Random(seed, 1))
        states.append(learner.state())
    assert_equal_states(states[0], states[1])
    assert differ(states[0], states[2])
    assert torch.equal(torch.get_rng_state(), before)
    tensors = [name for name, value in kept.items() if isinstance(value, torch.Tensor)]
    assert tensors and all(torch.equal(kept[name], vars(crowd)[name]) for name in tensors)


@one_each
def test_a_fresh_learner_goes_on_from_a_state_bit_for_bit(case):
    crowd, learner, fresh = case.crowd(), case.learner(sizes=SMALL), case.learner(sizes=SMALL, seed=1)
    learner.fit(crowd, 1, Random(0, 1))
    fresh.load({name: value.clone() for name, value in learner.state().items()})
    fresh.faced = crowd
    x = case.game.initial(20, gen())
    for k in (1, 2):
        if k == 2:
            assert learner.fit(crowd, k, Random(0, k)) == pytest.approx(fresh.fit(crowd, k, Random(0, k)), nan_ok=True)
        assert_equal_states(learner.state(), fresh.state())
        assert torch.equal(learner.policy.sample(0, x, generator=gen()), fresh.policy.sample(0, x, generator=gen()))


@one_each
def test_what_is_kept_stays_as_it_was(case):
    crowd, learner = case.crowd(), case.learner(sizes=SMALL)
    learner.fit(crowd, 1, Random(0, 1))
    kept = learner.kept()
    if case.name == "look-ahead":  # too slow to be played many times
        assert kept is None
        return
    x = case.game.initial(20, gen())
    before = learner.policy.mean(1, x)
    assert isinstance(kept, torch.nn.Module) and torch.equal(kept.mean(1, x), before)
    learner.fit(crowd, 2, Random(0, 2))
    assert torch.equal(kept.mean(1, x), before) and not torch.equal(learner.policy.mean(1, x), before)


@one_each
def test_the_policy_acts_against_the_population_that_it_was_trained_on(case):
    learner, crowd = case.learner(sizes=SMALL), case.crowd()
    assert learner.faced is None
    learner.fit(crowd, 1, Random(0, 1))
    assert learner.faced is crowd and getattr(learner.policy, "population", crowd) is crowd
    learner.faced = torch.nn.Linear(1, 1)  # a population may be a module: it is no part of the learner's state
    assert not any("faced" in name for name in learner.state())


@pytest.mark.parametrize("name", ["ppo", "look-ahead"])
def test_a_temperature_spreads_the_actions_and_without_one_the_mean_is_played(name):
    game, x = BeachBar(horizon=3), torch.full((300, 1), 0.3)
    crowd, deviations = uniform(Grid(game, 20)), []
    for temperature in (0.0, 1.0):
        sizes = {name: SMALL[name] | dict(temperature=temperature)}
        if name == "look-ahead":  # so many that the best of them is always nearly the same
            sizes[name] |= dict(acting_candidates=200)
        recipe = recipe_of(game, preset="smoke", sizes=sizes, best_response=name)
        learner = recipe.build()["best_response"]
        learner.fit(crowd, 1, Random(0, 1))
        deviations.append(learner.policy.sample(0, x, generator=gen()).std().item())
    assert deviations[0] < 0.01 and deviations[1] > 0.02


@pytest.mark.parametrize("t", [1, 3])
@pytest.mark.parametrize(("name", "kind"), [("ppo", LinearQuadratic), ("look-ahead", BeachBar)])
def test_a_reward_that_is_not_a_number_is_a_divergence(name, kind, t):
    class Broken(kind):
        def reward(self, s, x, a, population):
            return super().reward(s, x, a, population) + (math.nan if s == t == self.broken_at else 0.0)

    game = Broken(horizon=3)
    game.broken_at = None
    learner = recipe_of(game, preset="smoke", sizes=SMALL, best_response=name).build()["best_response"]
    game.broken_at = t
    with pytest.raises(DivergenceError, match="best response"):
        learner.fit(crowd_of(BAR) if name == "look-ahead" else moving(), 1, Random(0, 1))
