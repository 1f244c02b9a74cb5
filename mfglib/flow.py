"""The time-conditioned normalizing flow Ḡ: a population that can be sampled and whose density is known exactly.

Reference: neural spline flows, Durkan et al., arXiv 1906.04032, through zuko. Paper, Algo. 3, line of Ḡ_k.
"""

from dataclasses import dataclass

import torch
import zuko
from torch import Tensor, nn

from mfglib.checks import require_finite, require_positive, require_time
from mfglib.policy import TimeTable


@dataclass(frozen=True)
class FlowConfig:
    """How the flow is built and fitted."""

    transforms: int = 1
    """spline layers; one is enough in one dimension, where a monotone spline can reach any density"""
    bins: int = 8
    hidden: tuple[int, ...] = (64, 64)
    agents: int = 30_000
    """agents simulated per fit, each giving T + 1 samples; 4,000 left a W1 of 4% of the std, 40,000 of 2%"""
    steps: int = 60
    batch: int = 256
    """samples per time and step"""
    learning_rate: float = 3e-3

    def __post_init__(self) -> None:
        require_positive(self, *self.__dataclass_fields__)


class TimeFlow(nn.Module):
    """x = loc_t + scale_t · z, with z from a rational-quadratic spline flow conditioned on t.

    The affine layer is set in closed form to each time's sample mean and standard deviation; the splines start
    at the identity. So the flow starts as the Gaussian with the right moments, and learns the shape.
    """

    def __init__(self, horizon: int, state_dim: int, config: FlowConfig) -> None:
        super().__init__()
        self.horizon, self.state_dim = horizon, state_dim
        self.time = TimeTable(horizon)
        base = zuko.lazy.UnconditionalDistribution(
            zuko.distributions.DiagNormal, torch.zeros(state_dim), torch.ones(state_dim), buffer=True
        )
        self.flow = zuko.flows.Flow(
            [_layer(i, state_dim, self.time.width, config) for i in range(config.transforms)], base
        )
        for name, value in (("loc", 0.0), ("scale", 1.0), ("means", 0.0)):
            self.register_buffer(name, torch.full((horizon + 1, state_dim), value))

    def log_prob(self, t: int, x: Tensor) -> Tensor:
        """Log-density in the game's own units: (n, d) -> (n,)."""
        z = (x.to(self.loc) - self.loc[require_time(t, self.horizon)]) / self.scale[t]
        return self.flow(self._context(t)).log_prob(z) - self.scale[t].log().sum()

    @torch.no_grad()
    def sample(self, t: int, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n independent states of the population at time t: (n, d)."""
        return self.from_base(t, torch.randn(n, self.state_dim, generator=generator, device=self.loc.device))

    def mean(self, t: int) -> Tensor:
        """Mean state (d,), by quadrature over the base when the flow was fitted."""
        return self.means[require_time(t, self.horizon)]

    def from_base(self, t: int, z: Tensor) -> Tensor:
        """The states (n, d) that standard normal z: (n, d) stand for."""
        return self.loc[require_time(t, self.horizon)] + self.scale[t] * self.flow(self._context(t)).transform.inv(z)

    def _context(self, t: int) -> Tensor:
        return self.time.table[t][None]  # (1, width): broadcasts over samples


def _layer(index: int, state_dim: int, context: int, config: FlowConfig) -> nn.Module:
    """One spline layer, starting at the identity. In one dimension the spline depends on t alone, so that one pass
    of the conditioner serves all samples of a time; otherwise it is autoregressive, in alternating order."""
    shapes = [(config.bins,), (config.bins,), (config.bins - 1,)]
    options = dict(univariate=zuko.transforms.MonotonicRQSTransform, shapes=shapes, hidden_features=config.hidden)
    options |= dict(features=state_dim, context=context, activation=nn.SiLU)
    if state_dim == 1:
        layer = zuko.flows.ElementWiseTransform(**options)
    else:
        order = torch.arange(state_dim)
        layer = zuko.flows.MaskedAutoregressiveTransform(order=order.flip(0) if index % 2 else order, **options)
    nn.init.normal_(layer.hyper[-1].weight, std=1e-3)
    nn.init.zeros_(layer.hyper[-1].bias)
    return layer


def fit_flow(flow: TimeFlow, x: Tensor, config: FlowConfig, generator: torch.Generator) -> float:
    """Maximum likelihood on states x: (T+1, n, d), in place, from where the flow is (paper, Algo. 3, Ḡ_k from Ḡ_{k−1}).

    Returns the mean negative log-likelihood of the last tenth of the steps, in the game's units.
    Raises DivergenceError if it is not finite.
    """
    require_finite("flow: the simulated states", x)
    flow.loc.copy_(x.mean(1))
    flow.scale.copy_(x.std(1).clamp_min(1e-6))
    z = (x - flow.loc[:, None]) / flow.scale[:, None]
    optimizer = torch.optim.Adam(flow.flow.parameters(), lr=config.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, config.steps)
    context = flow.time.table[:, None]  # (T+1, 1, width)
    losses = torch.empty(config.steps, device=x.device)
    for step in range(config.steps):
        rows = torch.randint(x.shape[1], (config.batch,), generator=generator, device=x.device)
        loss = -flow.flow(context).log_prob(z[:, rows]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses[step] = loss.detach()
    result = (losses[-max(1, config.steps // 10) :].mean() + flow.scale.log().sum(-1).mean()).item()
    require_finite("flow", result, flow)
    with torch.no_grad():
        base = _normal_quadrature(4096, flow.state_dim).to(x)
        flow.means.copy_(torch.stack([flow.from_base(t, base).mean(0) for t in range(len(x))]))
    return result


def _normal_quadrature(n: int, d: int) -> Tensor:
    """n points whose average integrates against a standard normal: midpoints of quantiles, or a Sobol net."""
    if d == 1:
        u = (torch.arange(n)[:, None] + 0.5) / n
    else:
        u = torch.quasirandom.SobolEngine(d, scramble=True, seed=0).draw(n).clamp(1e-6, 1 - 1e-6)
    return torch.distributions.Normal(0.0, 1.0).icdf(u)
