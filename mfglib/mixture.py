"""Average policies beyond one Gaussian: a mixture density network, and the exact mixture of past best responses."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mfglib.games.base import integer
from mfglib.policies import Inputs, Policy, gaussian_log_prob, head, log_stds, mlp, sampler


class MixturePolicy(nn.Module):
    """π_t(a|x) = Σ_j w_j(t, x) N(a; m_j(t, x), diag s_j(t, x)²), a mixture density network (Bishop, 1994).

    The average of best responses has several modes where they disagree; one Gaussian then acts where none of them
    would. The networks are `GaussianPolicy`'s, with a head for the weights, which stay level beyond the data.

    Args:
        components: number of Gaussians; None for 5 if actions are numbers, else 12 (4-rooms: total variation to the
            population of what it clones 0.06 instead of 0.08; beach bar: nothing gained). Their means start spread
            over [−1, 1] · action_scale, so that they specialise.
        others: as for `GaussianPolicy`, of which this is the very same with one component. The least deviation is
            larger: cloning two noiseless actions, 1e-3 made the likelihood so steep that 1.8% of samples fell between
            them, 1e-2 left 0.03% (480 steps).

    Raises ValueError for components < 1, a deviation that is not > 0, and if min_std > max_std.
    """

    def __init__(
        self,
        horizon: int,
        centre: Tensor,
        scale: Tensor,
        action_scale: Tensor,
        hidden: Sequence[int] = (256, 256),
        *,
        components: int | None = None,
        initial_std: float = 0.5,
        min_std: float = 1e-2,
        max_std: float = math.e,
        waves: int = 0,
        edges: Sequence[Tensor] = (),
    ) -> None:
        super().__init__()
        self.initial_log_std, self.min_log_std, self.max_log_std = log_stds(initial_std, min_std, max_std)
        components = (5 if len(action_scale) == 1 else 12) if components is None else components
        self.shape = integer("components", components, at_least=1), len(action_scale)
        outputs = components * len(action_scale)
        self.inputs = Inputs(horizon, centre, scale, waves, edges)
        self.hidden = mlp(self.inputs.width, hidden)
        self.mean_head, self.std_head = head(hidden[-1], outputs), head(hidden[-1], outputs)
        self.weight_head = head(hidden[-1], components)
        self.register_buffer("action_scale", action_scale.clone())
        with torch.no_grad():
            self.mean_head.bias.copy_(_spread(*self.shape).flatten())

    def forward(self, t: int | Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """t: an integer or (n,) integers, x: (n, d); returns log-weights (n, J), means and deviations (n, J, k)."""
        h = self.hidden(self.inputs(t, x))
        level = torch.tanh(h)
        log_std = self.std_head(level) + self.initial_log_std
        std = log_std.clamp(self.min_log_std, self.max_log_std).exp().unflatten(-1, self.shape)
        mean = self.mean_head(h).unflatten(-1, self.shape)
        return self.weight_head(level).log_softmax(-1), mean * self.action_scale, std * self.action_scale

    @torch.no_grad()
    def sample(self, t: int | Tensor, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        log_weight, mean, std = self(t, x)
        noise = torch.randn(len(x), self.shape[1], generator=generator, device=x.device, dtype=x.dtype)
        component = torch.multinomial(log_weight.exp(), 1, generator=generator)[..., None].expand(-1, 1, self.shape[1])
        return mean.gather(1, component)[:, 0] + std.gather(1, component)[:, 0] * noise

    def log_prob(self, t: int | Tensor, x: Tensor, a: Tensor) -> Tensor:
        """(n, d), (n, k) -> (n,)."""
        log_weight, mean, std = self(t, x)
        return torch.logsumexp(log_weight + gaussian_log_prob(a[:, None], mean, std), dim=-1)

    @torch.no_grad()
    def mean(self, t: int | Tensor, x: Tensor) -> Tensor:
        log_weight, mean, _ = self(t, x)
        return (log_weight.exp()[..., None] * mean).sum(1)


def _spread(n: int, k: int) -> Tensor:
    """n points (n, k) in [−1, 1]^k, symmetric about 0: regular along the first axis, by Roberts' R-sequence along the
    others."""
    root = 2.0
    for _ in range(50):
        root = (1 + root) ** (1 / k)  # of root^k = root + 1: the golden ratio for two axes, which have one sequence
    step = torch.tensor([1 / n, *(root ** -float(i) for i in range(1, k))], dtype=torch.float64)
    u = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2)[:, None] * step
    return (2 * (u - u.round())).float()


class UniformMixture:
    """The average policy of Algo. 1: at the start of an episode each agent draws one policy, and keeps it.

    Its population is the weighted mixture of the policies' populations. No policy of (t, x) alone is the same thing
    in one episode, so `rollout` asks for `episode`. A plain `sample` draws afresh at each call: that is the law of the
    first action, at t = 0, and of no later one.

    Args:
        policies: at least one, e.g. the best responses so far; they may be mixtures themselves.
        weights: None for equal ones, or as many numbers >= 0, which are divided by their sum.

    Raises ValueError for an empty list, and for weights of another length, negative, not finite, or all 0.
    """

    def __init__(self, policies: Sequence[Policy], weights: Sequence[float] | np.ndarray | None = None) -> None:
        self.policies = list(policies)
        if not self.policies:
            raise ValueError("policies: expected at least one, got none")
        w = np.array(np.ones(len(self.policies)) if weights is None else weights, dtype=np.float64)
        if w.shape != (len(self.policies),):
            raise ValueError(f"weights: expected shape ({len(self.policies)},), one a policy, got {w.shape}")
        if not (np.isfinite(w).all() and (w >= 0).all() and w.sum() > 0):
            raise ValueError(f"weights: expected finite numbers >= 0 with a sum > 0, got {w.tolist()}")
        self.weights = w / w.sum()

    def episode(self, n: int, generator: torch.Generator | None = None) -> "Episode":
        """A policy for n agents, each with a policy drawn now by `weights`."""
        device = "cpu" if generator is None else generator.device
        weights = torch.as_tensor(self.weights, device=device)
        return Episode(self.policies, torch.multinomial(weights, n, replacement=True, generator=generator), generator)

    def sample(self, t: int, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.episode(len(x), generator).sample(t, x, generator)

    def log_prob(self, t: int, x: Tensor, a: Tensor) -> Tensor:
        raise NotImplementedError("a mixture drawn once an episode has no density given (t, x): it depends on the past")

    def mean(self, t: int, x: Tensor) -> Tensor:
        raise NotImplementedError("a mixture drawn once an episode has no mean given (t, x): it depends on the past")


class Episode:
    """Agents that keep their policies: agent i follows policies[member[i]]; member: (n,) integers."""

    def __init__(self, policies: Sequence[Policy], member: Tensor, generator: torch.Generator | None = None) -> None:
        self.member = member
        self.parts = []
        for i, policy in enumerate(policies):
            agents = (member == i).nonzero()[:, 0]
            if len(agents):  # a policy without agents is not asked
                drawn = policy.episode(len(agents), generator) if hasattr(policy, "episode") else policy
                self.parts.append((agents, drawn))
        self.order = torch.cat([agents for agents, _ in self.parts]).argsort()

    def sample(self, t: int, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """x: (n, d), of the same agents in the same order; raises ValueError for another number of them."""
        if len(x) != len(self.member):
            raise ValueError(f"x: expected the states of the episode's {len(self.member)} agents, got {len(x)}")
        answers = [sampler(policy, generator)(t, x[agents]) for agents, policy in self.parts]
        return torch.cat(answers)[self.order]
