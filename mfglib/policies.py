"""Time-conditioned policies π_t(a|x): sample(t, x), log_prob(t, x, a) and mean(t, x)."""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from mfglib.checks import require_time
from mfglib.games.base import integer, number


class Policy(Protocol):
    """t: an integer 0..T, x: (n, d), a: (n, k)."""

    def sample(self, t: int, x: Tensor, generator: torch.Generator | None = None) -> Tensor: ...  # (n, k)
    def log_prob(self, t: int, x: Tensor, a: Tensor) -> Tensor: ...  # (n,)
    def mean(self, t: int, x: Tensor) -> Tensor: ...  # (n, k)


class TimeTable(nn.Module):
    """Features of an integer time: t/T and a one-hot vector, so that a network may change sharply with t."""

    def __init__(self, horizon: int) -> None:
        super().__init__()
        self.width = horizon + 2
        table = torch.cat([torch.linspace(0, 1, horizon + 1)[:, None], torch.eye(horizon + 1)], dim=1)
        self.register_buffer("table", table, persistent=False)

    def forward(self, t: int | Tensor, n: int) -> Tensor:
        """t: an integer for all, or (n,) integers; returns (n, width)."""
        if isinstance(t, int):
            require_time(t, len(self.table) - 1)
        return self.table[t].expand(n, self.width)


def mlp(inputs: int, hidden: Sequence[int]) -> nn.Sequential:
    """Hidden layers with SiLU. It extrapolates linearly: where states are rare, tanh saturates and left 0.7–1.0% of
    the value unearned on the LQ game, ReLU 0.2–0.3%, SiLU 0.1–0.3% in half the time (PPO, 48 updates, 3 seeds)."""
    widths = [inputs, *hidden]
    layers: list[nn.Module] = []
    for a, b in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(a, b), nn.SiLU()]
    return nn.Sequential(*layers)


def head(inputs: int, outputs: int) -> nn.Linear:
    """A last layer that starts small, so that training starts from an output near zero."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=1e-3)
    nn.init.zeros_(layer.bias)
    return layer


class Place(nn.Module):
    """What a network reads of a state x: z, which is x in the units below; its waves; the cells of a domain with walls.

    Args:
        centre, scale: (d,) typical mean and standard deviation of states.
        waves: sin and cos of πjz for j = 1..waves, coordinate by coordinate: where the answer bends on a scale much
            finer than `scale`, a network finds it faster from these (Tancik et al., arXiv 2006.10739).
        edges: for each coordinate, where faces of walls cut it into cells, its ends included: which cell, one-hot, and
            the place in it from −1 to 1. Answers jump at walls.
    """

    def __init__(self, centre: Tensor, scale: Tensor, waves: int = 0, edges: Sequence[Tensor] = ()) -> None:
        super().__init__()
        self.waves = integer("waves", waves, at_least=0)
        self.register_buffer("centre", centre.clone())
        self.register_buffer("scale", scale.clone())
        self.cells = [len(e) - 1 for e in edges]
        for i, e in enumerate(edges):
            self.register_buffer(f"edges_{i}", e.clone(), persistent=False)
        self.width = len(centre) * (1 + 2 * self.waves) + 2 * sum(self.cells)

    def forward(self, x: Tensor) -> Tensor:
        """(n, d) -> (n, width)."""
        x = x.to(self.centre)
        z = (x - self.centre) / self.scale
        angles = [math.pi * j * z for j in range(1, self.waves + 1)]
        parts = [z, *(wave for angle in angles for wave in (angle.sin(), angle.cos()))]
        for i, n in enumerate(self.cells):
            edges, x_i = getattr(self, f"edges_{i}"), x[:, i].contiguous()
            cell = torch.bucketize(x_i, edges[1:-1])
            one_hot = nn.functional.one_hot(cell, n).to(x)
            place = (x_i - edges[cell]) / (edges[cell + 1] - edges[cell]) * 2 - 1
            parts += [one_hot, one_hot * place[:, None]]
        return torch.cat(parts, -1)


class Inputs(nn.Module):
    """What a network reads of (t, x): the state, as a `Place` of the same arguments, and the time table."""

    def __init__(
        self, horizon: int, centre: Tensor, scale: Tensor, waves: int = 0, edges: Sequence[Tensor] = ()
    ) -> None:
        super().__init__()
        self.time, self.place = TimeTable(horizon), Place(centre, scale, waves, edges)
        self.width = self.place.width + self.time.width

    def forward(self, t: int | Tensor, x: Tensor) -> Tensor:
        """t: an integer or (n,) integers, x: (n, d); returns (n, width)."""
        return torch.cat([self.place(x), self.time(t, len(x))], dim=-1)


class GaussianPolicy(nn.Module):
    """a ~ N(f(t, x), diag g(t, x)²), an MLP with parallel mean and standard-deviation heads (paper, Section 5).

    The mean head reads the hidden layer, and so extrapolates linearly; the standard-deviation head reads its tanh, and
    so stays level beyond the data. With one rule for both, exp(log std) ran away on the tails of μ_0: 4.7%
    exploitability instead of 0.8% on the LQ game after 20 iterations.

    Args:
        centre, scale: (d,) typical mean and standard deviation of states, for normalising the input.
        action_scale: (k,) unit of actions: the heads answer in this unit.
        initial_std, min_std, max_std: first, least and largest standard deviation in units of `action_scale`.
        waves, edges: see `Place`.
        bound: the mean is action_scale · tanh(·), for games that clip actions to ±action_scale: without it, a mean
            beyond the bound learns nothing, for no action that it draws changes anything.

    Raises ValueError for a deviation that is not > 0, and if min_std > max_std.
    """

    def __init__(
        self,
        horizon: int,
        centre: Tensor,
        scale: Tensor,
        action_scale: Tensor,
        hidden: Sequence[int] = (256, 256),
        *,
        initial_std: float = 0.5,
        min_std: float = 1e-3,
        max_std: float = math.e,
        waves: int = 0,
        edges: Sequence[Tensor] = (),
        bound: bool = False,
    ) -> None:
        super().__init__()
        self.initial_log_std, self.min_log_std, self.max_log_std = log_stds(initial_std, min_std, max_std)
        self.inputs = Inputs(horizon, centre, scale, waves, edges)
        self.hidden = mlp(self.inputs.width, hidden)
        self.mean_head, self.std_head = head(hidden[-1], len(action_scale)), head(hidden[-1], len(action_scale))
        self.register_buffer("action_scale", action_scale.clone())
        self.bound = bound

    def forward(self, t: int | Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """t: an integer or (n,) integers, x: (n, d); returns mean and standard deviation, each (n, k)."""
        h = self.hidden(self.inputs(t, x))
        log_std = self.std_head(torch.tanh(h)) + self.initial_log_std
        std = log_std.clamp(self.min_log_std, self.max_log_std).exp()
        mean = self.mean_head(h)
        return (mean.tanh() if self.bound else mean) * self.action_scale, std * self.action_scale

    @torch.no_grad()
    def sample(self, t: int | Tensor, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        mean, std = self(t, x)
        return mean + std * torch.randn(mean.shape, generator=generator, device=x.device, dtype=x.dtype)

    def log_prob(self, t: int | Tensor, x: Tensor, a: Tensor) -> Tensor:
        return gaussian_log_prob(a, *self(t, x))

    @torch.no_grad()
    def mean(self, t: int | Tensor, x: Tensor) -> Tensor:
        return self(t, x)[0]


def log_stds(initial_std: float, min_std: float, max_std: float) -> tuple[float, float, float]:
    """Their logarithms; raises ValueError unless all are > 0 and min_std <= max_std."""
    for name, value in (("initial_std", initial_std), ("min_std", min_std), ("max_std", max_std)):
        number(name, value, positive=True)
    if min_std > max_std:
        raise ValueError(f"max_std: expected at least min_std = {min_std}, got {max_std}")
    return math.log(initial_std), math.log(min_std), math.log(max_std)


class Greedy:
    """A policy that acts by the mean of another: a best response without its exploration noise."""

    def __init__(self, policy: GaussianPolicy) -> None:
        self.policy = policy

    def sample(self, t: int, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.policy.mean(t, x)

    def log_prob(self, t: int, x: Tensor, a: Tensor) -> Tensor:
        raise NotImplementedError("a greedy policy has no density: it puts all its mass on its mean")

    mean = sample


class Still:
    """The policy a ~ N(0, diag std²), std: (k,); it never acts if that is 0."""

    def __init__(self, std: Tensor) -> None:
        self.std = std

    def sample(self, t: int, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        shape = len(x), len(self.std)
        if not self.std.any():
            return x.new_zeros(shape)
        return self.std * torch.randn(shape, generator=generator, device=x.device)

    def log_prob(self, t: int, x: Tensor, a: Tensor) -> Tensor:
        return gaussian_log_prob(a, torch.zeros_like(a), self.std.expand_as(a))

    def mean(self, t: int, x: Tensor) -> Tensor:
        return x.new_zeros(len(x), len(self.std))


class AffinePolicy:
    """a ~ N(K_t x + k_t, diag(std)²), in float64; the form of every exact LQ best response.

    Args: K: (T, k, d), k: (T, k), std: scalar or (k,) standard deviation of the action. At t = T the action is 0.
    """

    def __init__(self, K: Tensor, k: Tensor, std: float | Tensor = 0.0) -> None:
        self.K, self.k = K.double(), k.double()
        self.std = torch.as_tensor(std, dtype=torch.float64).expand(self.k.shape[-1])

    def mean(self, t: int, x: Tensor) -> Tensor:
        if require_time(t, len(self.K)) == len(self.K):
            return x.new_zeros(len(x), self.k.shape[-1])
        return x @ self.K[t].T.to(x) + self.k[t].to(x)

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


class Predicted:
    """A policy whose actions, in units of `scale`: (k,), come from `model.predict(observations, deterministic=...)`, as
    Stable-Baselines3 has it; 0 at t = T. A subclass sets model, scale and horizon."""

    def sample(self, t: int, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(n, d) -> (n, k). The model draws from its own random numbers: `generator` is not used."""
        return self._act(t, x, False)

    def mean(self, t: int, x: Tensor) -> Tensor:
        return self._act(t, x, True)

    def log_prob(self, t: int, x: Tensor, a: Tensor) -> Tensor:
        raise NotImplementedError("a model behind `predict` tells actions, not their density")

    def _act(self, t: int, x: Tensor, deterministic: bool) -> Tensor:
        if t == self.horizon:
            return x.new_zeros(len(x), len(self.scale))
        action, _ = self.model.predict(observed(t, x, self.horizon), deterministic=deterministic)
        return torch.as_tensor(action).to(x) * self.scale.to(x)


def observed(t: int, x: Tensor, horizon: int) -> np.ndarray:
    """What agents in states x: (n, d) observe at t, the state and t/T: (n, d + 1)."""
    return torch.cat([x.float(), x.new_full((len(x), 1), t / horizon).float()], 1).cpu().numpy()


AVERAGING = ("uniform", "linear", "geometric")


def averaging_weights(k: int, averaging: str = "uniform", step: float = 0.5) -> np.ndarray:
    """Weights (k,) of best responses 1..k in the average policy, summing to 1.

    Fictitious play moves the average towards best response i by a step η_i: 1/i ("uniform", the paper's),
    2/(i+1) ("linear": weight proportional to i), or the constant `step` after a first step of 1 ("geometric").
    """
    if averaging not in AVERAGING:
        raise ValueError(f"averaging: expected one of {AVERAGING}, got {averaging!r}")
    if not 0 < step <= 1:
        raise ValueError(f"step: expected a number in (0, 1], got {step!r}")
    i = np.arange(1, k + 1)
    eta = {"uniform": 1 / i, "linear": 2 / (i + 1), "geometric": np.where(i == 1, 1.0, step)}[averaging]
    left = np.append(np.cumprod((1 - eta)[:0:-1])[::-1], 1.0)  # what later steps leave of best response i
    return eta * left
