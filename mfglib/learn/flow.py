"""The time-conditioned normalizing flow Ḡ: a population that can be sampled and whose density is known exactly.

Reference: neural spline flows, Durkan et al., arXiv 1906.04032. Paper, Algo. 3, line of Ḡ_k.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mfglib.arguments import checked
from mfglib.checks import integer, require_finite, require_positive, require_states, require_time
from mfglib.games.base import uses_actions
from mfglib.games.domain import Domain
from mfglib.learn.networks import TimeFeatures, mlp, unit_of
from mfglib.learn.spline import spline, spline_inverse
from mfglib.learn.unfold import Unfold
from mfglib.protocols import Game, KnowsActions, ModuleState, Policy
from mfglib.rollout import mean_action, redrawn, rollout
from mfglib.schedules import budget, decayed
from mfglib.seeds import Random

RANGE = 5.0  # without bounds, the splines bend the population within this many standard deviations of its mean
OUTSIDE = 0.01  # with bounds, slope of the first map where no agent was, relative to the uniform law
# Steps in which the learning rate rises. A fresh Adam moves every parameter by the full rate at once, which would throw
# away what the fit before had found (decision F1).
WARM_UP = 10


@dataclass(frozen=True)
class FlowConfig:
    """How the flow is built and fitted."""

    bins: int = 8
    hidden: tuple[int, ...] = (64, 64)
    steps: int = 60
    """steps of a fit, from the population of the iteration before; at least so many (decision F4)"""
    first_steps: int = 120
    """steps of the first fits, from the identity and from agents who do not act; the next have 2/(k + 1) as many"""
    batch: int = 256
    """samples per time and step"""
    learning_rate: float = 5e-3
    agents: int = 30_000
    """N, agents simulated for each population, to which Ḡ is fitted (decision S1)"""
    draws: int = 1
    """of each agent's last step: so many states, at the price of a move (decision S1)"""
    decay_after: int | None = None
    """iteration from which the learning rate falls like 1/k; see `CloningConfig`"""

    def __post_init__(self) -> None:
        require_positive(self, *(name for name in self.__dataclass_fields__ if name != "decay_after"))
        integer("FlowConfig.agents", self.agents, at_least=2)  # for a spread of states
        if self.decay_after is not None:
            require_positive(self, "decay_after")


class TimeFlow(nn.Module):
    """A triangular map for every time t: coordinate i goes through a monotone rational-quadratic spline, whose
    parameters a network finds from t and the coordinates before i. One such map can reach any density.

    On all of R^d, x = loc_t + scale_t · z: loc and scale are the sample mean and standard deviation in closed form, the
    splines act on |z| <= RANGE, and the base is Gaussian. On a domain, the free area is first unfolded into the unit
    cube (`Unfold`), and the base is uniform; loc and scale are the corner and the size of the smallest box in the
    cube around the population. Nothing is sampled in a wall or beyond the edge, and the density there is 0. A periodic
    coordinate is turned so that the box leaves out the largest gap; its spline, and so the density, is periodic.

    The splines start at the identity. So the flow starts as the Gaussian with the right moments, or as the uniform law,
    and learns the shape.

    Args:
        domain: the bounded state space; None for all of R^d.

    Raises ValueError if the domain has another dimension than `state_dim`.
    """

    def __init__(self, horizon: int, state_dim: int, config: FlowConfig, domain: Domain | None = None) -> None:
        super().__init__()
        self.horizon, self.state_dim = horizon, state_dim
        self.time = TimeFeatures(horizon)
        if domain is not None and domain.state_dim != state_dim:
            raise ValueError(f"domain: expected {state_dim} dimensions, got {domain.state_dim}")
        self.unfold = None if domain is None else Unfold(domain)
        self.log_volume = 0.0 if domain is None else math.log(domain.volume)
        features = [i + (self.unfold.width(i) if self.unfold else 0) for i in range(state_dim)]
        self.nets = nn.ModuleList(_Conditioner(self.time.width, n, config) for n in features)
        self.periodic = self.unfold.periodic if self.unfold else (False,) * state_dim
        buffers = {"loc": 0.0, "scale": 1.0, "means": 0.0} | ({"turn": 0.0} if any(self.periodic) else {})
        for name, value in buffers.items():
            self.register_buffer(name, torch.full((horizon + 1, state_dim), value))

    @checked
    def log_prob(self, t: int, x: Tensor) -> Tensor:
        """Log-density in the game's own units: (n, d) -> (n,); −inf outside the domain and in its walls."""
        x = self._states("x", x)
        result = self._to_base(require_time(t, self.horizon), self._unfolded(x))[1] - self.log_volume
        if not self.unfold:
            return result
        return torch.where(self.unfold.contains(x) | x.isnan().any(-1), result, -torch.inf)

    @torch.no_grad()
    @checked
    def sample(self, t: int, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n independent states of the population at time t: (n, d)."""
        shape = integer("n", n, at_least=0), self.state_dim
        return self.from_base(t, torch.randn(shape, generator=generator, dtype=self.loc.dtype, device=self.loc.device))

    def mean(self, t: int) -> Tensor:
        """Mean state (d,), by quadrature over the base when the flow was fitted."""
        return self.means[require_time(t, self.horizon)]

    def from_base(self, t: int, z: Tensor) -> Tensor:
        """The states (n, d) that standard normal z: (n, d) stand for."""
        time, z = self.time.table[require_time(t, self.horizon)][None], self._states("z", z)
        base = torch.special.ndtr(z) if self.unfold else 0.5 + z / (2 * RANGE)
        v = base[:, :0]
        for i, net in enumerate(self.nets):
            raw = net(time, self._features(self._restore(t, v), v))
            v = torch.cat([v, spline_inverse(raw, base[:, i], self.periodic[i])[:, None]], -1)
        y = self._restore(t, v)
        return self.unfold.from_unit(y) if self.unfold else y

    def _states(self, name: str, x: Tensor) -> Tensor:
        """x as this flow computes; ValueError if it is not (n, d)."""
        require_states(name, x, self.state_dim)
        return x.to(self.loc)

    def _unfolded(self, x: Tensor) -> Tensor:
        """Where x: (…, d) is in the unit cube; without a domain, x."""
        return self.unfold.to_unit(x) if self.unfold else x

    def _to_base(self, t: int | slice, y: Tensor) -> tuple[Tensor, Tensor]:
        """Of unfolded states y: (…, n, d), at one time or at all: their place in the base: (…, n, d), which is uniform
        on [0, 1] or N(1/2, 1/(2 RANGE)), and the log-density of y: (…, n)."""
        time, v, log_density = self.time.table[t].unsqueeze(-2), *self._standardise(t, y)
        base = []
        for i, net in enumerate(self.nets):
            raw = net(time, self._features(y[..., :i], v[..., :i]))
            base_i, log_slope = spline(raw, v[..., i], self.periodic[i])
            log_density = log_density + log_slope
            base.append(base_i)
        base = torch.stack(base, -1)
        if not self.unfold:
            z = (base - 0.5) * (2 * RANGE)
            log_density = log_density - 0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)
        return base, log_density

    def _standardise(self, t: int | slice, y: Tensor) -> tuple[Tensor, Tensor]:
        """v: (…, n, d), with the population in [0, 1] or nearly, and the log of its density if the splines do nothing,
        as far as it depends on loc and scale: (…, n)."""
        loc, scale = self.loc[t].unsqueeze(-2), self.scale[t].unsqueeze(-2)
        if not self.unfold:
            return 0.5 + (y - loc) / scale / (2 * RANGE), -scale.log().sum(-1)
        y = self.unfold.turned(y, self.turn[t].unsqueeze(-2)) if any(self.periodic) else y
        size = 1 - OUTSIDE * (1 - scale)  # of the box on the other side
        beyond = (y < loc) | (y > loc + scale)
        log_slope = torch.where(beyond, math.log(OUTSIDE), (size / scale).log()).sum(-1)
        return _bend(y, loc, scale, OUTSIDE * loc, size, OUTSIDE), log_slope

    def _restore(self, t: int, v: Tensor) -> Tensor:
        """The unfolded coordinates (n, i) of the first i standardised ones v: (n, i)."""
        loc, scale = self.loc[t, : v.shape[-1]], self.scale[t, : v.shape[-1]]
        if not self.unfold:
            return loc + scale * (v - 0.5) * (2 * RANGE)
        y = _bend(v, OUTSIDE * loc, 1 - OUTSIDE * (1 - scale), loc, scale, 1 / OUTSIDE)
        return self.unfold.turned(y, -self.turn[t, : v.shape[-1]]) if any(self.periodic) else y

    def _features(self, y: Tensor, v: Tensor) -> Tensor | None:
        """What a network reads of the coordinates before its own, unfolded y: (…, n, i) and standardised v."""
        if not v.shape[-1]:
            return None
        if not self.unfold:
            return (v - 0.5) * (2 * RANGE)
        return torch.cat([self.unfold.places(v), self.unfold.features(y)], -1)


def _bend(y: Tensor, low: Tensor, width: Tensor, new_low: Tensor, new_width: Tensor, slope: float) -> Tensor:
    """The piecewise linear map that takes [low, low + width] to its new place, with the given slope outside."""
    y = y - low
    inside = torch.minimum(y.clamp_min(0), width)
    return new_low + new_width / width * inside + slope * (y - inside)


class _Conditioner(nn.Module):
    """Parameters of a spline from the time and the coordinates before: a linear map of both, plus a network; 0 at the
    start. What depends on the time alone is computed once for all samples."""

    def __init__(self, time: int, features: int, config: FlowConfig) -> None:
        super().__init__()
        hidden, outputs = config.hidden, 3 * config.bins + 1
        self.split = [hidden[0], outputs]
        self.time = nn.Linear(time, sum(self.split))
        self.state = nn.Linear(features, sum(self.split), bias=False) if features else None
        self.network = nn.Sequential(nn.SiLU(), *mlp(hidden[0], hidden[1:]), nn.Linear(hidden[-1], outputs))
        for parameter in (self.time.weight, self.time.bias, *(self.state.parameters() if features else ())):
            nn.init.zeros_(parameter[hidden[0] :])
        for parameter in self.network[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, time: Tensor, features: Tensor | None) -> Tensor:
        """time: (…, 1, width), features: (…, n, f) -> (…, n, 3 bins + 1), or (…, 1, 3 bins + 1) without features."""
        first = self.time(time) if features is None else self.time(time) + self.state(features)
        hidden, linear = first.split(self.split, -1)
        return linear + self.network(hidden)


def fit_flow(
    flow: TimeFlow, x: Tensor, config: FlowConfig, generator: torch.Generator, *, steps: int | None = None
) -> float:
    """Maximum likelihood on states x: (T+1, n, d), in place, from where the flow is (paper, Algo. 3, Ḡ_k from Ḡ_{k−1}).

    Args:
        steps: number of steps; None for `config.steps`.

    Returns the mean negative log-likelihood of the last tenth of the steps, in the game's units.
    Raises DivergenceError if a state or the loss is not finite, and ValueError for states of another shape or outside
    the flow's domain.
    """
    steps, times, d = config.steps if steps is None else steps, *flow.loc.shape
    if x.ndim != 3 or x.shape[0] != times or x.shape[2] != d:
        raise ValueError(f"x: expected shape ({times}, n, {d}), got {tuple(x.shape)}")
    require_finite("flow: the simulated states", x)
    x = x.to(flow.loc)
    y = flow._unfolded(x)
    if flow.unfold:
        if outside := (~flow.unfold.contains(x)).sum().item():
            raise ValueError(f"x: expected states in the flow's domain, got {outside} of {x[..., 0].numel()} outside")
        for name, value in flow.unfold.box(y).items():
            getattr(flow, name).copy_(value)
    else:
        flow.loc.copy_(y.mean(1))
        flow.scale.copy_(torch.maximum(y.std(1), 1e-6 * unit_of(y.std((0, 1)), y.mean((0, 1)))))
    y = _sort(y, config.batch)
    optimizer = torch.optim.Adam(flow.parameters(), lr=config.learning_rate, betas=(0.9, 0.99), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / WARM_UP, 1 - step / steps))
    losses = torch.empty(steps, device=x.device)
    stratum = torch.arange(config.batch, device=x.device)
    for step in range(steps):
        share = (stratum + torch.rand(config.batch, generator=generator, device=x.device)) / config.batch
        rows = (share * x.shape[1]).long().clamp_max(x.shape[1] - 1)
        loss = -flow._to_base(slice(None), y[:, rows])[1].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses[step] = loss.detach()
    result = losses[-max(1, steps // 10) :].mean().item() + flow.log_volume
    require_finite("flow", result, flow)
    with torch.no_grad():
        base = _normal_quadrature(1024, d).to(x)
        flow.means.copy_(torch.stack([flow.from_base(t, base).mean(0) for t in range(times)]))
    return result


class FlowPopulation(KnowsActions, ModuleState, TimeFlow):
    """Ḡ_k of Algo. 3: a flow, fitted on from one iteration to the next to agents that follow π̄_k. In a game that asks
    for it, their mean actions are kept beside."""

    Config = FlowConfig

    def __init__(self, game: Game, config: FlowConfig | None = None, device: str = "cpu") -> None:
        config = config or FlowConfig()
        super().__init__(game.horizon, game.state_dim, config, getattr(game, "domain", None))
        self.game, self.config = game, config
        if uses_actions(game):
            self.register_buffer("actions", torch.zeros(game.horizon, game.action_dim))
        self.to(device)

    def fit(self, policy: Policy, k: int, random: Random) -> dict[str, float]:
        """Paper, Algo. 3: Ḡ_k by maximum likelihood on N trajectories of π̄_k, from Ḡ_{k−1}; returns the loss."""
        config = decayed(self.config, k)
        play = rollout(self.game, policy, n=config.agents, generator=random("population"), rewards=False)
        x = play.x if config.draws == 1 else redrawn(self.game, play, None, config.draws, random("last steps"))
        if uses_actions(self.game):
            self.actions.copy_(mean_action(self.game, play.a))
        steps = budget(k, config.first_steps, config.steps)
        return {"flow_loss": fit_flow(self, x, config, random("flow"), steps=steps)}


def _sort(y: Tensor, parts: int) -> Tensor:
    """Each time's states (T+1, n, d) in an order in which neighbours are alike: by blocks of the rank of all but the
    last coordinate, then by the last. A batch with one state from each of `parts` parts of it has less variance than a
    batch of as many random states (decision F2)."""
    (n, d), blocks = y.shape[1:], math.ceil(parts ** (1 / y.shape[-1]))
    low, high = y[..., -1].aminmax(dim=1, keepdim=True)
    key = (y[..., -1] - low) / (high - low + 1e-30) * 0.99
    for i in range(d - 1):
        rank = y[..., i].argsort(1).argsort(1)
        key = key + blocks**i * (rank * blocks // n)
    return y.gather(1, key.argsort(1)[..., None].expand_as(y))


def _normal_quadrature(n: int, d: int) -> Tensor:
    """n points whose average integrates against a standard normal: midpoints of quantiles, or a Sobol net."""
    if d == 1:
        u = (torch.arange(n)[:, None] + 0.5) / n
    else:
        u = torch.quasirandom.SobolEngine(d, scramble=True, seed=0).draw(n).clamp(1e-6, 1 - 1e-6)
    return torch.distributions.Normal(0.0, 1.0).icdf(u)
