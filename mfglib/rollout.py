"""Play a policy in a game against a population, vectorised over agents."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mfglib.arguments import checked
from mfglib.checks import integer
from mfglib.games.base import clip, uses_actions
from mfglib.policies import sampler
from mfglib.populations import Particles
from mfglib.protocols import Game, Policy, Population


@dataclass(frozen=True)
class Rollout:
    """n agents over the horizon: x (T+1, n, d), a (T, n, k) as the policy chose, reward (T+1, n); NaN if not asked."""

    x: Tensor
    a: Tensor
    reward: Tensor

    @property
    def value(self) -> float:
        """The mean total reward, an estimate of J."""
        return self.reward.sum(0).mean().item()


@torch.no_grad()
@checked
def rollout(
    game: Game,
    policy: Policy,
    population: Population | None = None,
    *,
    n: int,
    generator: torch.Generator,
    rewards: bool = True,
    start: Tensor | None = None,
) -> Rollout:
    """n agents that start from μ_0, or from `start`: (n, d), and follow `policy`; the last reward has a = 0.

    With `population=None` the agents are the population themselves: they react to their own empirical
    measure and to what they do, and the states are a sample of μ^π (paper, Section 2). Otherwise the population is
    given, and each agent is one representative player against it. `rewards=False` leaves the rewards out: they can be
    expensive (one density evaluation per agent) and are not needed to fit states or actions.

    A policy with `episode(n, generator)` is asked for it once, and what it returns is played (see `EpisodeMixture`).
    Raises ValueError if `start` has another shape.
    """
    integer("n", n, at_least=1)
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator: expected a torch.Generator, got {generator!r}")
    if start is not None and start.shape != (n, game.state_dim):
        raise ValueError(f"start: expected shape (n, d), {(n, game.state_dim)}, got {tuple(start.shape)}")
    x0 = _shaped("game.initial", game.initial(n, generator), n, game.state_dim).float() if start is None else start
    T = game.horizon
    x = x0.new_empty(T + 1, n, game.state_dim)
    a = x0.new_zeros(T + 1, n, game.action_dim)
    reward = x0.new_full((T + 1, n), float("nan"))
    x[0] = x0
    own = population is None and uses_actions(game)
    acted = x0.new_zeros(T, game.action_dim)
    if population is None:  # a view: it answers for time t as soon as x[t], and acted[t], is written
        population = Particles(x, actions=acted if own else None, domain=getattr(game, "domain", None))
    act = sampler(policy.episode(n, generator) if hasattr(policy, "episode") else policy, generator)
    for t in range(T + 1):  # copies are handed out: a game or policy may work in place
        if t < T:
            a[t] = _shaped("policy", act(t, x[t].clone()), n, game.action_dim)
            if own:
                acted[t] = mean_action(game, a[t])
        if rewards:
            reward[t] = _shaped("game.reward", game.reward(t, x[t].clone(), a[t].clone(), population), n)
        if t < T:
            new = game.step(t, x[t].clone(), a[t].clone(), population, generator)
            x[t + 1] = _shaped("game.step", new, n, game.state_dim)
    return Rollout(x, a[:T], reward)


def mean_action(game: Game, a: Tensor) -> Tensor:
    """(..., n, k) -> (..., k): of actions as they act, within the game's bounds."""
    return clip(a, getattr(game, "a_bound", None)).mean(-2)


@torch.no_grad()
def redrawn(game: Game, play: Rollout, population: Population | None, draws: int, generator: torch.Generator) -> Tensor:
    """States (T+1, draws · n, d) of the agents of a roll-out against `population`, each one's last step drawn anew
    `draws` times: at each t they have the law of the agents, with less of the noise of a finite number of them, and
    nobody acts again."""
    x = play.x
    if population is None:
        actions = mean_action(game, play.a) if uses_actions(game) else None
        population = Particles(x, actions=actions, domain=getattr(game, "domain", None))
    steps = [torch.cat([game.initial(x.shape[1], generator).float() for _ in range(draws)])]
    for t, a in enumerate(play.a):
        new = [game.step(t, x[t].clone(), a.clone(), population, generator) for _ in range(draws)]
        steps.append(torch.cat(new))
    return torch.stack(steps)


def _shaped(name: str, value: Tensor, *shape: int) -> Tensor:
    """`value`, which would be broadcast if it had another shape without a word."""
    if value.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {tuple(value.shape)}")
    return value
