"""Policies with a density, as networks: a Gaussian, or a mixture of them."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mfglib.checks import integer, number
from mfglib.learn.networks import Inputs, head, mlp
from mfglib.policies import gaussian_log_prob


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


def log_stds(initial_std: float, min_std: float, max_std: float) -> tuple[float, float, float]:
    """Their logarithms; raises ValueError unless all are > 0 and min_std <= max_std."""
    for name, value in (("initial_std", initial_std), ("min_std", min_std), ("max_std", max_std)):
        number(name, value, positive=True)
    if min_std > max_std:
        raise ValueError(f"max_std: expected at least min_std = {min_std}, got {max_std}")
    return math.log(initial_std), math.log(min_std), math.log(max_std)
