"""A lower bound of exploitability where no exact solver knows the game: what trained deviators gain."""

from dataclasses import dataclass

import torch

from mfglib.arguments import checked
from mfglib.checks import integer
from mfglib.populations import Particles
from mfglib.presets import Sizes
from mfglib.protocols import Game, Policy, Population
from mfglib.recipes import recipe_of
from mfglib.rollout import Rollout, mean_action, rollout
from mfglib.seeds import Random, derive, generator, torch_defaults


@dataclass(frozen=True)
class LowerBound:
    """What the best of some deviators gains over the policy, in units of the reward."""

    value: float
    """the estimate of a number that exploitability is not below; where it comes out negative, it says nothing"""
    error: float
    """one standard error of `value`, over held-out agents"""
    gains: tuple[float, ...]
    """of all deviators, on the agents that chose the best of them"""
    best_response: Policy
    """the deviator that `value` is about"""


@checked
def lower_bound(
    game: Game,
    policy: Policy,
    population: Population | None = None,
    *,
    deviators: int = 3,
    agents: int = 20_000,
    seed: int = 0,
    preset: str | None = None,
    sizes: Sizes | None = None,
) -> LowerBound:
    """Train best responses to a population, each by PPO from nothing with its own seed, and report the largest gain.

    Exploitability is the gain of the *best* deviation: any deviation gains at most as much. The best deviator is chosen
    on some agents, and its gain is measured on others, who start where the policy's agents start.

    Args:
        population: what agents face; None for simulated agents who follow the policy, one crowd of them in training
            and another when gains are measured. Then exploitability is bounded, else the `best_response_gap` against
            that population. The error of a simulated population is not part of the standard error.
        deviators: how many are trained.
        agents: how many are simulated for a population, and for each gain.
        preset, sizes: of PPO, as for `solve`.

    Raises ValueError or TypeError for bad arguments.
    """
    integer("deviators", deviators, at_least=1)
    integer("agents", agents, at_least=2)
    integer("seed", seed, at_least=0, at_most=None)
    with torch_defaults():
        faced = population or _own(game, policy, agents, generator(seed, "faced"))
        trained = []
        for i in range(deviators):
            own = derive(seed, "deviator", i)
            recipe = recipe_of(game, best_response="ppo", population="agents", preset=preset, sizes=sizes, seed=own)
            learner = recipe.build()["best_response"]
            learner.fit(faced, 1, Random(own, 1))
            trained.append(learner.policy)
        judged = population or _own(game, policy, agents, generator(seed, "judged"))
        gains = [_gain(game, policy, one, judged, agents, seed, "choice").mean().item() for one in trained]
        best = trained[max(range(deviators), key=gains.__getitem__)]
        gain = _gain(game, policy, best, judged, agents, seed, "held out")
        return LowerBound(gain.mean().item(), (gain.std() / agents**0.5).item(), tuple(gains), best)


def _own(game: Game, policy: Policy, n: int, random: torch.Generator) -> Particles:
    """The population that a policy makes, as n of its agents."""
    play = rollout(game, policy, n=n, generator=random, rewards=False)
    return Particles(play.x, actions=mean_action(game, play.a), domain=getattr(game, "domain", None))


def _gain(
    game: Game, policy: Policy, deviator: Policy, population: Population, n: int, seed: int, purpose: str
) -> torch.Tensor:
    """(n,) what each agent earns more by deviating, from the same start."""
    start = game.initial(n, generator(seed, purpose, "start")).float()

    def total(one: Policy) -> torch.Tensor:
        random = generator(seed, purpose, "moves")  # the same for both, so that as much noise as can be cancels
        play: Rollout = rollout(game, one, population, n=n, generator=random, start=start.clone())
        return play.reward.double().sum(0)

    return total(deviator) - total(policy)
