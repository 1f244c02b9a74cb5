"""Best responses by proximal policy optimisation, vectorised over agents, on a finite horizon.

References: Schulman et al., arXiv 1707.06347 (PPO) and arXiv 1506.02438 (generalised advantage estimation).
What the finite horizon changes: value function and normalisation are per time, and the last value is the last reward,
which is known. With one scale for all times, the first step of the LQ game (large costs) would hide the others.
Why not the implementation of Stable-Baselines3, which `mfglib.adapters.sb3` offers: decision P4.
"""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mfglib.checks import integer, number, require_finite, require_positive
from mfglib.learn.densities import GaussianPolicy
from mfglib.learn.networks import Networks, TimeStateFeatures, head, mlp, unit_of
from mfglib.policies import MeanPolicy, gaussian_log_prob
from mfglib.protocols import Game, ModuleState, Population
from mfglib.rollout import Rollout, rollout
from mfglib.schedules import budget
from mfglib.seeds import Random


@dataclass(frozen=True)
class PPOConfig:
    """How each best response is trained."""

    agents: int = 512
    """agents of one roll-out, each giving `horizon` transitions"""
    first_updates: int = 27
    """roll-outs for the first best response, which starts from nothing; the next ones have 2/(k + 1) as many"""
    updates: int = 14
    """roll-outs for each later one, which starts from the last: at least so many"""
    epochs: int = 3
    """passes over each roll-out; more passes over fewer roll-outs are worse for the same work (decision P1)"""
    minibatches: int = 4
    learning_rate: float = 1e-3
    """falls linearly to 5% within a best response: with a constant rate the gap grows again (decision P2)"""
    later_learning_rate: float = 3e-4
    """that of best responses after the first"""
    decay: float = 0.995
    """best responses act by an exponential average of the actor's weights over gradient steps (Polyak and Juditsky,
    1992), a share 1 − decay of each new one, more at the start; 0 for the last weights (decision P5)"""
    clip: float = 0.2
    gae_lambda: float = 0.9
    """a smaller value harms the first best responses, whose critic starts from nothing, and these stay in the average
    (decision P3)"""
    exploration_std: float = 0.1
    """floor of the standard deviation, in units of action; without one the policy narrows until its steps are noise"""
    max_grad_norm: float = 1.0
    max_std: float = math.e
    """ceiling of the standard deviation, in units of action"""
    temperature: float = 0.0
    """τ: best response k maximises rewards −(τ/k) log π(a|x) on top of the game's. 0 is the paper's best response"""

    def __post_init__(self) -> None:
        zero = "temperature", "decay"  # what may be 0
        require_positive(self, *(name for name in self.__dataclass_fields__ if name not in zero))
        number("PPOConfig.temperature", self.temperature)
        number("PPOConfig.decay", self.decay, at_most=1.0)
        integer("PPOConfig.agents", self.agents, at_least=2)  # for a spread of returns
        if self.exploration_std > self.max_std:
            raise ValueError(
                f"PPOConfig: expected exploration_std <= max_std, got {self.exploration_std} and {self.max_std}"
            )


class Critic(nn.Module):
    """V_t(x), as shift_t + unit_t · net(t, x), where shift and unit are the returns' mean and spread at time t."""

    def __init__(self, networks: Networks) -> None:
        super().__init__()
        horizon, hidden = networks.horizon, networks.hidden
        self.inputs = TimeStateFeatures(networks)
        self.net = nn.Sequential(mlp(self.inputs.width, hidden), head(hidden[-1], 1))
        self.register_buffer("shift", torch.zeros(horizon))
        self.register_buffer("unit", torch.ones(horizon))

    def normalised(self, t: Tensor, x: Tensor) -> Tensor:
        return self.net(self.inputs(t, x)).squeeze(-1)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """t: (n,) integers < horizon, x: (n, d); returns (n,) in units of reward."""
        return self.normalised(t, x) * self.unit[t] + self.shift[t]


def fit_ppo(
    game: Game,
    population: Population,
    policy: GaussianPolicy,
    critic: Critic,
    config: PPOConfig,
    generator: torch.Generator,
    *,
    updates: int,
    temperature: float = 0.0,
    learning_rate: float | None = None,
    average: "WeightAverage | None" = None,
) -> dict[str, float]:
    """Improve `policy` against the fixed `population`, in place, from where it is; returns its last losses. `average`
    is shown the weights of `policy` after each gradient step; `learning_rate` replaces that of `config`.

    `temperature` > 0 adds −temperature · log π_t(a|x) to each reward: an entropy-smoothed best response.
    Source: paper, Algo. 3, the best response π*_k against Ḡ_{k−1}. Raises DivergenceError if a loss is not finite.
    """
    parameters = [*policy.parameters(), *critic.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=learning_rate or config.learning_rate, eps=1e-5, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, updates)
    for _ in range(updates):
        play = rollout(game, policy, population, n=config.agents, generator=generator)
        batch = _batch(play, policy, critic, config, temperature)
        for _ in range(config.epochs):
            for rows in torch.randperm(len(batch[0]), generator=generator, device=play.x.device).chunk(
                config.minibatches
            ):
                policy_loss, critic_loss = _losses(policy, critic, config, *(column[rows] for column in batch))
                optimizer.zero_grad()
                (policy_loss + critic_loss).backward()
                nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
                optimizer.step()
                if average is not None:
                    average.add(policy)
        schedule.step()
        losses = {"policy_loss": policy_loss.item(), "critic_loss": critic_loss.item()}
        require_finite("best response", *losses.values())
    return losses


class WeightAverage(nn.Module):
    """`policy`, a copy of a network whose weights are an exponential average of those that `add` is shown: over the
    last tenth or so of them, and at most 1/(1 − decay)."""

    def __init__(self, policy: GaussianPolicy, decay: float) -> None:
        super().__init__()
        self.policy, self.decay = copy.deepcopy(policy).requires_grad_(False), decay
        self.register_buffer("steps", torch.zeros(()))

    @torch.no_grad()
    def add(self, policy: GaussianPolicy) -> None:
        self.steps += 1
        share = max(1 - self.decay, 9 / (9 + float(self.steps)))
        torch._foreach_lerp_(list(self.policy.parameters()), list(policy.parameters()), share)


class PPO(ModuleState, nn.Module):
    """Best responses by PPO, for any game: `actor` and `critic`, trained on from one iteration to the next.

    The best response acts by the mean of the actor with averaged weights, or, with a temperature, as that actor does.
    """

    Config = PPOConfig

    def __init__(self, game: Game, networks: Networks | None = None, config: PPOConfig | None = None) -> None:
        super().__init__()
        self.game, self.config, self.faced = game, config or PPOConfig(), None
        net = networks or Networks.of(game)
        stds = dict(min_std=self.config.exploration_std, max_std=self.config.max_std)
        self.actor, self.critic = GaussianPolicy(net, bound=net.bounded, **stds), Critic(net)
        self.average = WeightAverage(self.actor, self.config.decay)
        self.to(net.device)

    @property
    def policy(self) -> GaussianPolicy | MeanPolicy:
        return self.average.policy if self.config.temperature else MeanPolicy(self.average.policy)

    def fit(self, population: Population, k: int, random: Random) -> dict[str, float]:
        """Paper, Algo. 3: π*_k against Ḡ_{k−1}, from π*_{k−1}; returns the last losses."""
        updates = budget(k, self.config.first_updates, self.config.updates)
        rate = self.config.learning_rate if k == 1 else self.config.later_learning_rate
        options = dict(updates=updates, temperature=self.config.temperature / k, learning_rate=rate)
        learner, self.faced = (self.actor, self.critic, self.config), population
        return fit_ppo(self.game, population, *learner, random("best response"), average=self.average, **options)

    def kept(self) -> nn.Module:
        return copy.deepcopy(self.policy)


@torch.no_grad()
def _batch(
    play: Rollout, policy: GaussianPolicy, critic: Critic, config: PPOConfig, temperature: float = 0.0
) -> tuple[Tensor, ...]:
    """Times, states, actions, their log-probabilities, advantages and targets, flat: (T·n, ...)."""
    T, n, _ = play.a.shape
    t = torch.arange(T, device=play.x.device).repeat_interleave(n)
    x, a = play.x[:-1].flatten(0, 1), play.a.flatten(0, 1)
    log_prob = policy.log_prob(t, x, a)
    reward = play.reward[:-1] - temperature * log_prob.view(T, n)
    value = torch.cat([critic(t, x).view(T, n), play.reward[-1:]])  # (T+1, n): the last value is the last reward
    advantage = torch.empty(T, n, device=x.device)
    later = torch.zeros(n, device=x.device)
    for s in reversed(range(T)):
        later = reward[s] + value[s + 1] - value[s] + config.gae_lambda * later
        advantage[s] = later
    target = advantage + value[:-1]
    critic.shift.copy_(target.mean(1))
    critic.unit.copy_(unit_of(target.std(1), critic.shift))
    target = (target - critic.shift[:, None]) / critic.unit[:, None]
    advantage = _without_state(advantage, play.x[:-1])
    advantage = advantage / unit_of(advantage.std(1, keepdim=True), advantage.mean(1, keepdim=True))
    return t, x, a, log_prob, advantage.flatten(), target.flatten()


def _without_state(advantage: Tensor, x: Tensor) -> Tensor:
    """What a least-squares fit on 1, x, x² at each time cannot explain: (T, n), (T, n, d) -> (T, n).

    A baseline on top of the critic's (in the spirit of Duan et al., arXiv 1604.06778): the state alone is no merit of
    the action, and where rewards range widely the critic's error would drown what the action did.
    """
    centre = x.mean(1, keepdim=True)
    z = (x - centre) / unit_of(x.std(1, keepdim=True), centre)
    features = torch.cat([torch.ones_like(z[..., :1]), z, z.square()], dim=-1)  # (T, n, 1 + 2d)
    gram = features.mT @ features / features.shape[1] + 1e-4 * torch.eye(features.shape[-1], device=x.device)
    weights = torch.linalg.solve(gram, features.mT @ advantage[..., None] / features.shape[1])
    return advantage - (features @ weights).squeeze(-1)


def _losses(
    policy: GaussianPolicy, critic: Critic, config: PPOConfig,
    t: Tensor, x: Tensor, a: Tensor, old_log_prob: Tensor, advantage: Tensor, target: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The clipped surrogate (arXiv 1707.06347, Eq. 7) and the squared error of the value."""
    ratio = (gaussian_log_prob(a, *policy.gaussian(t, x)) - old_log_prob).exp()
    clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
    policy_loss = -torch.min(ratio * advantage, clipped * advantage).mean()
    return policy_loss, 0.5 * (critic.normalised(t, x) - target).square().mean()
