"""Policies with a density, as networks: a Gaussian, or a mixture of Gaussians."""

import math

import torch
from torch import Tensor, nn

from mfglib.arguments import checked
from mfglib.checks import integer, number, require_states, shown
from mfglib.learn.networks import Networks, TimeStateFeatures, head, mlp
from mfglib.policies import gaussian_log_prob


class GaussianPolicy(nn.Module):
    """π_t(a|x) = Σ_j w_j(t, x) N(a; m_j(t, x), diag s_j(t, x)²), with j = 1..components.

    One component is the paper's policy: an MLP with parallel mean and standard-deviation heads (Section 5). More are a
    mixture density network (Bishop, 1994): where best responses disagree, their average has several modes, and one
    Gaussian would act where none of them does.

    The mean heads read the hidden layer, and so extrapolate linearly; the heads of deviations and weights read its
    tanh, and so stay level beyond the data. If both extrapolated linearly, the standard deviation would grow without
    bound in the tails of μ_0 (decision C2).

    Args:
        networks: how it reads (t, x); its `unit` is that of actions.
        components: number of Gaussians (decision C1). Several start with means spread over [−1, 1] · unit, so
            that they specialise.
        initial_std, min_std, max_std: first, least and largest standard deviation, in units of action.
        bound: the means are unit · tanh(·), for games that clip actions to ±unit: without it, a mean
            beyond the bound learns nothing, for no action that it draws changes anything.

    Raises ValueError for components < 1, a deviation that is not > 0, and if min_std > max_std.
    """

    def __init__(
        self,
        networks: Networks,
        *,
        components: int = 1,
        initial_std: float = 0.5,
        min_std: float = 1e-3,
        max_std: float = math.e,
        bound: bool = False,
    ) -> None:
        super().__init__()
        self.initial_log_std, self.min_log_std, self.max_log_std = _log_stds(initial_std, min_std, max_std)
        self.components, self.bound = integer("components", components, at_least=1), bound
        self.shape = self.components, len(networks.unit)
        outputs, width = self.components * len(networks.unit), networks.hidden[-1]
        self.inputs = TimeStateFeatures(networks)
        self.hidden = mlp(self.inputs.width, networks.hidden)
        self.mean_head, self.std_head = head(width, outputs), head(width, outputs)
        self.weight_head = head(width, self.components) if self.components > 1 else None
        self.register_buffer("action_scale", networks.unit.clone())
        with torch.no_grad():
            self.mean_head.bias.copy_(_spread(*self.shape).flatten())

    def forward(self, t: int | Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """t: an integer or (n,) integers, x: (n, d); returns log-weights (n, J), means and deviations (n, J, k)."""
        h = self.hidden(self.inputs(t, x))
        level = torch.tanh(h)
        log_std = self.std_head(level) + self.initial_log_std
        std = log_std.clamp(self.min_log_std, self.max_log_std).exp().unflatten(-1, self.shape)
        mean = self.mean_head(h).unflatten(-1, self.shape)
        mean = (mean.tanh() if self.bound else mean) * self.action_scale
        log_weight = h.new_zeros(len(h), 1) if self.weight_head is None else self.weight_head(level).log_softmax(-1)
        return log_weight, mean, std * self.action_scale

    def gaussian(self, t: int | Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, each (n, k), of the one component."""
        _, mean, std = self(t, x)
        return mean[:, 0], std[:, 0]

    @torch.no_grad()
    @checked
    def sample(self, t: int | Tensor, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        log_weight, mean, std = self(t, x)
        noise = torch.randn(len(x), self.shape[1], generator=generator, device=x.device, dtype=x.dtype)
        if self.components == 1:
            return mean[:, 0] + std[:, 0] * noise
        component = torch.multinomial(log_weight.exp(), 1, generator=generator)[..., None].expand(-1, 1, self.shape[1])
        return mean.gather(1, component)[:, 0] + std.gather(1, component)[:, 0] * noise

    @checked
    def log_prob(self, t: int | Tensor, x: Tensor, a: Tensor) -> Tensor:
        """(n, d), (n, k) -> (n,)."""
        require_states("x", x)
        if a.shape != (len(x), self.shape[1]) or not a.is_floating_point():
            raise ValueError(f"x, a: expected (n, d) and (n, {self.shape[1]}), got {shown(x)} and {shown(a)}")
        if self.components == 1:
            return gaussian_log_prob(a, *self.gaussian(t, x))
        log_weight, mean, std = self(t, x)
        return torch.logsumexp(log_weight + gaussian_log_prob(a[:, None], mean, std), dim=-1)

    @torch.no_grad()
    @checked
    def mean(self, t: int | Tensor, x: Tensor) -> Tensor:
        log_weight, mean, _ = self(t, x)
        return mean[:, 0] if self.components == 1 else (log_weight.exp()[..., None] * mean).sum(1)

    @torch.no_grad()
    def atoms(self, t: int, x: Tensor, z: Tensor) -> Tensor:
        """Equally likely actions (n, S) that stand for the law of a single action in the states x: (n, d), by its
        quantiles at the probabilities of the standard normal quantiles z: (S,), which have mean 0 and variance 1."""
        log_weight, mean, std = self(t, x)
        if self.components == 1:
            return mean[:, 0] + std[:, 0] * z
        return _mixture_quantiles(log_weight, mean, std, len(z))


def _log_stds(initial_std: float, min_std: float, max_std: float) -> tuple[float, float, float]:
    """Their logarithms; raises ValueError unless all are > 0 and min_std <= max_std."""
    for name, value in (("initial_std", initial_std), ("min_std", min_std), ("max_std", max_std)):
        number(name, value, positive=True)
    if min_std > max_std:
        raise ValueError(f"max_std: expected at least min_std = {min_std}, got {max_std}")
    return math.log(initial_std), math.log(min_std), math.log(max_std)


def _spread(n: int, k: int) -> Tensor:
    """n points (n, k) in [−1, 1]^k, symmetric about 0: regular along the first axis, by Roberts' R-sequence along the
    others."""
    root = 2.0
    for _ in range(50):
        root = (1 + root) ** (1 / k)  # of root^k = root + 1: the golden ratio for two axes, which have one sequence
    step = torch.tensor([1 / n, *(root ** -float(i) for i in range(1, k))], dtype=torch.float64)
    u = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2)[:, None] * step
    return (2 * (u - u.round())).float()


def _mixture_quantiles(log_weight: Tensor, mean: Tensor, std: Tensor, n: int) -> Tensor:
    """n quantiles (m, n) at midpoints of mixtures of J Gaussians: (m, J), (m, J, 1), (m, J, 1), by bisection, with the
    mixtures' own mean and variance."""
    weight, mean, std = log_weight.exp()[:, None], mean.transpose(1, 2), std.transpose(1, 2)  # (m, 1, J)
    u = (torch.arange(n) + 0.5) / n
    low = (mean - 6 * std).amin(2).expand(-1, n).clone()
    high = (mean + 6 * std).amax(2).expand(-1, n).clone()
    for _ in range(30):
        middle = (low + high) / 2
        below = (weight * torch.special.ndtr((middle[..., None] - mean) / std)).sum(2) < u
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    atoms, centre = (low + high) / 2, (weight * mean).sum(2)
    spread = ((weight * (std.square() + mean.square())).sum(2) - centre.square()).clamp_min(0).sqrt()
    off = atoms - atoms.mean(1, keepdim=True)
    return centre + off * spread / off.square().mean(1, keepdim=True).sqrt().clamp_min(1e-12)
