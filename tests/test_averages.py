"""All average policies through the same properties, each against real best responses."""

from dataclasses import dataclass

import pytest
import torch
from contracts import assert_equal_states
from helpers import gen
from tiny import TINY

from mfglib.games import BeachBar, FourRooms, LinearQuadratic
from mfglib.policies import EpisodeMixture
from mfglib.populations import Particles
from mfglib.recipes import recipe_of
from mfglib.rollout import rollout
from mfglib.seeds import Random


@dataclass
class Case:
    average: str
    response: str
    game: object
    components: int = 1

    def learners(self, seed=0):
        sizes = TINY | {"cloned": TINY["cloned"] | dict(components=self.components)}
        options = dict(preset="smoke", sizes=sizes, best_response=self.response, average=self.average, seed=seed)
        learners = recipe_of(self.game, **options).build()
        return learners["best_response"], learners["average"]

    def crowd(self, policy):
        return Particles(rollout(self.game, policy, n=60, generator=gen(), rewards=False).x)


BAR, LQ, ROOMS = BeachBar(horizon=2), LinearQuadratic(horizon=2), FourRooms(horizon=2)
CASES = {
    "cloned Gaussian": Case("cloned", "ppo", LQ),
    "cloned Gaussian in two dimensions": Case("cloned", "ppo", ROOMS),
    "cloned mixture": Case("cloned", "look-ahead", BAR, 5),
    "cloned mixture in two dimensions": Case("cloned", "look-ahead", ROOMS, 12),
    "episodes": Case("episodes", "ppo", LQ),
    "episodes of clones": Case("episodes", "look-ahead", BAR, 5),
}
each = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def play(case, response, average, iterations):
    """Updates by the best responses to one crowd."""
    crowd, losses = case.crowd(average.policy), None
    for k in iterations:
        response.fit(crowd, k, Random(0, k))
        losses = average.update(response, crowd, k, Random(0, k))
    return losses


def actions(case, average):
    return rollout(case.game, average.policy, n=40, generator=gen(3), rewards=False).a


@each
def test_before_the_first_update_it_is_noise(case):
    _, average = case.learners()
    unit = torch.as_tensor(getattr(case.game, "a_bound", None) or 1.0).expand(case.game.action_dim)
    x = torch.zeros(20_000, case.game.state_dim)
    a = average.policy.sample(0, x, gen())
    torch.testing.assert_close(a.std(0), 0.1 * unit, rtol=0.05, atol=0)
    assert not average.policy.mean(1, x).any()


@each
def test_an_update_changes_the_policy_and_nothing_else(case):
    response, average = case.learners()
    play(case, response, average, [1])
    before, first = {name: value.clone() for name, value in response.state().items()}, actions(case, average)
    crowd, state = case.crowd(average.policy), torch.get_rng_state()
    x = crowd.x.clone()
    losses = average.update(response, crowd, 2, Random(0, 2))
    assert set(losses) == {"cloning_loss"}
    assert_equal_states(before, response.state())
    assert torch.equal(crowd.x, x) and torch.equal(torch.get_rng_state(), state)
    a = actions(case, average)
    assert a.shape == first.shape and a.isfinite().all() and not torch.equal(a, first)


@each
def test_a_fresh_one_goes_on_from_a_state_bit_for_bit(case):
    response, average = case.learners()
    play(case, response, average, [1, 2])
    other, fresh = case.learners(seed=1)
    for new, old in ((other, response), (fresh, average)):
        new.load({name: value.clone() for name, value in old.state().items()})
    assert torch.equal(actions(case, average), actions(case, fresh))
    one, two = (play(case, *learners, [3]) for learners in ((response, average), (other, fresh)))
    assert one == pytest.approx(two, nan_ok=True)
    assert_equal_states(average.state(), fresh.state())
    assert torch.equal(actions(case, average), actions(case, fresh))


@each
def test_what_iterations_have_learned_gives_their_policies_again(case):
    response, average = case.learners()
    other, fresh = case.learners(seed=1)
    for k in (1, 2, 3):
        play(case, response, average, [k])
        learned = {name: value.clone() for name, value in average.learned().items()}
        assert not any("memory" in name for name in learned)
        fresh.load(learned)
        assert torch.equal(actions(case, average), actions(case, fresh))


@pytest.mark.parametrize("name", ["episodes", "episodes of clones"])
def test_past_best_responses_stay_as_they_were_and_are_cloned_from_their_own_triples(name):
    case = CASES[name]
    response, average = case.learners()
    play(case, response, average, [1, 2])
    x = case.game.initial(9, gen())
    before = [policy.mean(1, x) for policy in average.policy.policies]
    play(case, response, average, [3])
    mixture = average.policy
    assert isinstance(mixture, EpisodeMixture) and len(before) == 2 and mixture.weights == pytest.approx([1 / 3] * 3)
    after = [policy.mean(1, x) for policy in mixture.policies]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=False))
    assert not torch.equal(after[0], after[2])
    assert not any(parameter.requires_grad for parameter in average.past.parameters())
    assert average.cloned.memory.iteration.unique().tolist() == ([3] if case.response == "look-ahead" else [])


def test_a_cloned_average_learns_from_the_triples_of_all_best_responses():
    response, average = CASES["cloned mixture"].learners()
    play(CASES["cloned mixture"], response, average, [1, 2, 3])
    counts = average.memory.iteration.bincount().tolist()
    assert counts == [0] + 3 * [BAR.horizon * TINY["cloned"]["agents"]]
