"""Policies π_t(a|x) that need no network: noise, affine ones, means, and mixtures drawn once per episode."""

import inspect
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mfglib.arguments import checked
from mfglib.checks import array, integer, require_shape, require_states, require_time, vector
from mfglib.protocols import Policy


class MeanPolicy(nn.Module):
    """A policy that acts by the mean of another: a best response without its exploration noise."""

    @checked
    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy

    def sample(self, t: int, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.policy.mean(t, x)

    def log_prob(self, t: int, x: Tensor, a: Tensor) -> Tensor:
        raise NotImplementedError("a greedy policy has no density: it puts all its mass on its mean")

    def atoms(self, t: int, x: Tensor, z: Tensor) -> Tensor:
        """Equally likely actions (n, S) that stand for the distribution of a single action: here, the mean alone."""
        return self.policy.mean(t, x)

    mean = sample


class NoisePolicy:
    """The policy a ~ N(0, diag std²), std: (k,); it never acts if that is 0."""

    @checked
    def __init__(self, std: Tensor) -> None:
        require_shape("std", std, None)
        if not (std >= 0).all():
            raise ValueError(f"std: expected >= 0, got {std.tolist()}")
        self.std = std

    @checked
    def sample(self, t: int, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        require_states("x", x)
        shape = len(x), len(self.std)
        if not self.std.any():
            return x.new_zeros(shape)
        return self.std * torch.randn(shape, generator=generator, device=x.device)

    def log_prob(self, t: int, x: Tensor, a: Tensor) -> Tensor:
        return gaussian_log_prob(a, torch.zeros_like(a), self.std.expand_as(a))

    @checked
    def mean(self, t: int, x: Tensor) -> Tensor:
        require_states("x", x)
        return x.new_zeros(len(x), len(self.std))

    def atoms(self, t: int, x: Tensor, z: Tensor) -> Tensor:
        return (self.std * z).expand(len(x), -1)


class AffinePolicy:
    """a ~ N(K_t x + k_t, diag(std)²), in float64; the form of every exact LQ best response.

    Args: K: (T, k, d), k: (T, k), std: scalar or (k,) standard deviation of the action. At t = T the action is 0.
    """

    @checked
    def __init__(self, K: Tensor, k: Tensor, std: float | Tensor = 0.0) -> None:
        if K.ndim != 3 or k.shape != K.shape[:2]:
            raise ValueError(f"K, k: expected shapes (T, k, d) and (T, k), got {tuple(K.shape)} and {tuple(k.shape)}")
        self.K, self.k = K.double(), k.double()
        self.std = torch.from_numpy(vector("std", std, self.k.shape[-1]))

    @checked
    def mean(self, t: int, x: Tensor) -> Tensor:
        require_states("x", x, self.K.shape[-1])
        if require_time(t, len(self.K)) == len(self.K):
            return x.new_zeros(len(x), self.k.shape[-1])
        return x @ self.K[t].T.to(x) + self.k[t].to(x)

    def atoms(self, t: int, x: Tensor, z: Tensor) -> Tensor:
        """Equally likely actions (n, S) that stand for the distribution of a single action, as z: (S,) for N(0, 1)."""
        mean = self.mean(t, x)
        return mean + self.std.to(x) * z if self.std.any() else mean

    @checked
    def sample(self, t: int, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        mean = self.mean(t, x)
        if t == len(self.K):
            return mean
        noise = torch.randn(mean.shape, generator=generator, device=x.device, dtype=x.dtype)
        return mean + self.std.to(x) * noise

    def log_prob(self, t: int, x: Tensor, a: Tensor) -> Tensor:
        """Raises ValueError for a deterministic policy, which has no density."""
        if not self.std.all():
            raise ValueError(
                "AffinePolicy.log_prob: expected std > 0, got a deterministic policy, which has no density"
            )
        return gaussian_log_prob(a, self.mean(t, x), self.std.to(x).expand_as(a))


def gaussian_log_prob(a: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """log N(a; mean, diag std²), summed over the last dimension: (n, k) -> (n,)."""
    z = (a - mean) / std
    return (-0.5 * z.square() - std.log() - 0.5 * math.log(2 * math.pi)).sum(-1)


def sampler(policy: Policy, generator: torch.Generator) -> Callable[[int, Tensor], Tensor]:
    """`policy.sample` with this generator; a policy of one's own may also leave the argument out."""
    if "generator" in inspect.signature(policy.sample).parameters:
        return lambda t, x: policy.sample(t, x, generator=generator)
    return policy.sample


class EpisodeMixture:
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
        if not isinstance(policies, (list, tuple, nn.ModuleList)) or not (policies := list(policies)):
            raise ValueError(f"policies: expected a list of at least one, got {policies!r}")
        for policy in policies:
            if not (hasattr(policy, "sample") or hasattr(policy, "episode")):
                raise TypeError(f"policies: expected policies, with a member sample, got {policy!r} among them")
        self.policies = policies
        w = array("weights", np.ones(len(policies)) if weights is None else weights)
        if w.shape != (len(self.policies),):
            raise ValueError(f"weights: expected shape ({len(self.policies)},), one a policy, got {w.shape}")
        if not ((w >= 0).all() and 0 < w.sum() < math.inf):
            raise ValueError(f"weights: expected finite numbers >= 0 with a sum > 0, got {w.tolist()}")
        self.weights = w / w.sum()

    @checked
    def episode(self, n: int, generator: torch.Generator | None = None) -> "Episode":
        """A policy for n agents, each with a policy drawn now by `weights`."""
        device = "cpu" if generator is None else generator.device
        weights = torch.as_tensor(self.weights, device=device)
        integer("n", n, at_least=1)
        return Episode(self.policies, torch.multinomial(weights, n, replacement=True, generator=generator), generator)

    def sample(self, t: int, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.episode(len(x), generator).sample(t, x, generator)

    def log_prob(self, t: int, x: Tensor, a: Tensor) -> Tensor:
        raise NotImplementedError(
            "a mixture drawn once per episode has no density given (t, x): it depends on the past"
        )

    def mean(self, t: int, x: Tensor) -> Tensor:
        raise NotImplementedError("a mixture drawn once per episode has no mean given (t, x): it depends on the past")


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
