"""Behavioural cloning of the average policy π̄ from the memory M_SL (paper, Algo. 2 and 3)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mfglib.checks import number, require_finite, require_positive
from mfglib.learn.densities import GaussianPolicy
from mfglib.learn.networks import Networks
from mfglib.policies import NoisePolicy, gaussian_log_prob
from mfglib.protocols import BestResponse, Game, ModuleState, Policy, Population
from mfglib.rollout import rollout
from mfglib.schedules import Averaging, Steps, decayed
from mfglib.seeds import Random


@dataclass(frozen=True)
class CloningConfig:
    """How M_SL is filled and π̄ fitted."""

    agents: int = 1000
    """agents that follow each best response; N_sa = agents × horizon triples"""
    steps: int = 160
    batch: int = 2048
    learning_rate: float = 3e-3
    beta: float = 0.5
    """each sample's negative log-likelihood is weighted by std^(2 beta), without gradient (Seitzer et al., arXiv
    2203.09168): the optimum is the same, but large early errors no longer teach a large std first (decision C4). 0 is
    the paper's plain loss"""
    capacity: int | None = None
    """most triples kept in M_SL; None keeps all"""
    components: int = 1
    """Gaussians of π̄: 1 is the paper's policy, more are a mixture density network (decision C5)"""
    initial_std: float = 0.1
    """standard deviation of the first policy, a ~ N(0, std²), in units of action"""
    min_std: float = 1e-3
    """least standard deviation of a component, in units of action; of a mixture it is larger, because the likelihood of
    noiseless actions is too steep otherwise, and samples fall between the modes (decision C3)"""
    decay_after: int | None = None
    """iteration from which the learning rate falls like 1/k, as the steps of the average do; None for a constant one.
    Otherwise π̄ and Ḡ jitter from fit to fit, best responses chase the jitter, and averaging cannot remove the loss
    (decision S2)"""

    def __post_init__(self) -> None:
        require_positive(self, "agents", "steps", "batch", "learning_rate", "components", "initial_std", "min_std")
        number("CloningConfig.beta", self.beta, at_most=1.0)
        for name in ("capacity", "decay_after"):
            if getattr(self, name) is not None:
                require_positive(self, name)


class Memory:
    """M_SL: triples (t, s, a) of all best responses. It never forgets, unless a capacity is set: then it holds a
    uniform sample of everything ever added (each triple draws a random key; the smallest keys stay). What is cloned
    from it weighs best responses, in each state, by how many of their agents were there (decision C6).

    t (N,), x (N, d), a (N, k), iteration (N,) in order of arrival.
    """

    def __init__(self, state_dim: int, action_dim: int, capacity: int | None = None, device: str = "cpu") -> None:
        self.capacity, self.sizes, self.device = capacity, (state_dim, action_dim), device
        self.clear()

    def clear(self) -> None:
        """Forget everything (Algo. 1 keeps policies, not samples)."""
        (state_dim, action_dim), device = self.sizes, self.device
        self.t = torch.empty(0, dtype=torch.long, device=device)
        self.x = torch.empty(0, state_dim, device=device)
        self.a = torch.empty(0, action_dim, device=device)
        self.iteration = torch.empty(0, dtype=torch.long, device=device)
        self.key = torch.empty(0, dtype=torch.float64, device=device)

    FIELDS = ("t", "x", "a", "iteration", "key")

    def __len__(self) -> int:
        return len(self.t)

    def add(self, x: Tensor, a: Tensor, iteration: int, generator: torch.Generator) -> None:
        """Add trajectories x: (>= T, n, d), a: (T, n, k) of best response number `iteration`."""
        T, n, _ = a.shape
        key = torch.rand(T * n, generator=generator, dtype=torch.float64, device=a.device)
        t = torch.arange(T, device=a.device).repeat_interleave(n)
        new = (t, x[:T].flatten(0, 1), a.flatten(0, 1), torch.full_like(t, iteration), key)
        for name, value in zip(self.FIELDS, new, strict=True):
            setattr(self, name, torch.cat([getattr(self, name), value]))
        if self.capacity is not None and len(self) > self.capacity:
            kept = self.key.argsort()[: self.capacity].sort().values
            for name in self.FIELDS:
                setattr(self, name, getattr(self, name)[kept])

    def sampler(
        self, weights: np.ndarray, generator: torch.Generator
    ) -> Callable[[int], tuple[Tensor, Tensor, Tensor]]:
        """A function that draws n triples with replacement; iteration i (1-based) has the share weights[i − 1],
        whatever its size."""
        counts = torch.bincount(self.iteration, minlength=len(weights) + 1)[1:]
        share = torch.as_tensor(weights, dtype=torch.float64, device=self.t.device) * (counts > 0)
        start = counts.cumsum(0) - counts

        def draw(n: int) -> tuple[Tensor, Tensor, Tensor]:
            label = torch.multinomial(share, n, replacement=True, generator=generator)
            u = torch.rand(n, generator=generator, dtype=torch.float64, device=self.t.device)
            index = start[label] + (u * counts[label]).long()
            return self.t[index], self.x[index], self.a[index]

        return draw


def clone(
    policy: nn.Module,
    memory: Memory,
    weights: np.ndarray,
    config: CloningConfig,
    generator: torch.Generator,
) -> float:
    """Fit π̄ to M_SL by negative log-likelihood, in place, from where it is; iteration i has the share weights[i − 1].
    Returns the mean negative log-likelihood of the last tenth of the steps.

    The policy is a module with `log_prob(t, x, a)`; samples of a GaussianPolicy of one component are weighted by beta.
    Source: paper, Algo. 2 and 3. Raises TypeError for another policy, DivergenceError if the loss is not finite.
    """
    if not (isinstance(policy, nn.Module) and hasattr(policy, "log_prob")):
        raise TypeError(f"policy: expected a module with `log_prob`, got {type(policy).__name__}")
    parameters, draw = list(policy.parameters()), memory.sampler(weights, generator)
    optimizer = torch.optim.Adam(parameters, lr=config.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, config.steps)
    losses = torch.empty(config.steps, device=memory.x.device)
    gaussian = isinstance(policy, GaussianPolicy) and policy.components == 1
    for step in range(config.steps):
        t, x, a = draw(config.batch)
        if gaussian:
            mean, std = policy.gaussian(t, x)
            loss = -gaussian_log_prob(a, mean, std)
            weight = std.detach().mean(-1) ** (2 * config.beta)
            objective = (loss * weight / weight.mean()).mean()
        else:
            loss = -policy.log_prob(t, x, a)
            objective = loss.mean()
        optimizer.zero_grad()
        objective.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        losses[step] = loss.detach().mean()
    result = losses[-max(1, config.steps // 10) :].mean().item()
    require_finite("cloning", result, policy)
    return result


class ClonedAverage(ModuleState, nn.Module):
    """π̄ of Algo. 2 and 3: one network, cloned from M_SL; until then the policy of iteration 0, a ~ N(0, std²)."""

    Config = CloningConfig

    def __init__(
        self,
        game: Game,
        networks: Networks | None = None,
        config: CloningConfig | None = None,
        averaging: Averaging | None = None,
    ) -> None:
        super().__init__()
        self.game, self.config, self.averaging = game, config or CloningConfig(), averaging or Steps()
        net = networks or Networks.of(game)
        own = {name: getattr(self.config, name) for name in ("components", "initial_std", "min_std")}
        self.net = GaussianPolicy(net, **own)
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self.to(net.device)
        self.first = NoisePolicy(net.unit.to(net.device) * self.config.initial_std)
        self.memory = Memory(game.state_dim, game.action_dim, self.config.capacity, net.device)

    @property
    def policy(self) -> Policy:
        return self.net if self.fitted else self.first

    def update(self, response: BestResponse, population: Population, k: int, random: Random) -> dict[str, float]:
        """Add N_sa samples of π*_k to M_SL and fit π̄_k to all of M_SL, starting from π̄_{k−1}; returns the loss."""
        n, generator = self.config.agents, random("memory")
        play = rollout(self.game, response.policy, population, n=n, generator=generator, rewards=False)
        require_finite("cloning: the best response's roll-out", play.x, play.a)
        self.memory.add(play.x, play.a, k, random("memory keys"))
        config, weights = decayed(self.config, k), self.averaging.weights(k)
        self.fitted.fill_(True)
        return {"cloning_loss": clone(self.net, self.memory, weights, config, random("cloning"))}

    def state(self) -> dict[str, Tensor]:
        return self.learned() | {f"memory.{name}": getattr(self.memory, name) for name in Memory.FIELDS}

    def load(self, state: dict[str, Tensor]) -> None:
        weights = {name: value for name, value in state.items() if not name.startswith("memory.")}
        for name in state.keys() - weights.keys():
            setattr(self.memory, name.removeprefix("memory."), state[name])
        self.load_state_dict(weights)

    def learned(self) -> dict[str, Tensor]:
        """The network, without M_SL."""
        return super().state()
