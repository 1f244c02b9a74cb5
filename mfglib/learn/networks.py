"""What networks read of time and state, and how they are built."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mfglib.checks import integer, require_positive, require_states, require_time
from mfglib.policies import NoisePolicy
from mfglib.protocols import Game
from mfglib.rollout import rollout
from mfglib.seeds import generator


def unit_of(std: Tensor, centre: Tensor) -> Tensor:
    """Standard deviations as units to divide by, of any scale; where there is none to speak of, the size of the centre,
    or 1 if that is 0 too."""
    size = centre.abs()
    return torch.where(std > 1e-6 * size, std, torch.where(size > 0, size, 1.0))


WAVES = 6  # of a periodic coordinate, at least (decision N2)


class TimeFeatures(nn.Module):
    """Features of an integer time: t/T and a one-hot vector, so that a network may change sharply with t."""

    def __init__(self, horizon: int) -> None:
        super().__init__()
        self.width = horizon + 2
        table = torch.cat([torch.linspace(0, 1, horizon + 1)[:, None], torch.eye(horizon + 1)], dim=1)
        self.register_buffer("table", table, persistent=False)

    def forward(self, t: int | Tensor, n: int) -> Tensor:
        """t: an integer for all, or (n,) integers; returns (n, width)."""
        if not isinstance(t, Tensor):
            require_time(t, len(self.table) - 1)
        elif t.is_floating_point() or t.shape not in ((), (n,)):
            raise ValueError(f"t: expected an integer or ({n},) integers, got shape {tuple(t.shape)} of {t.dtype}")
        return self.table[t].expand(n, self.width)


def mlp(inputs: int, hidden: Sequence[int]) -> nn.Sequential:
    """Hidden layers with SiLU, which extrapolates linearly: where states are rare, tanh saturates, and best responses
    lose value (decision N1)."""
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


@dataclass(frozen=True)
class NetworkConfig:
    """What the networks of all learners of a run share."""

    hidden: tuple[int, ...] = (64, 64)
    """hidden layers of policies and values; the paper's is (256, 256)"""
    frequencies: int = 0
    """waves beside the state in their input; see `StateFeatures`"""
    action_scale: float | None = None
    """unit of actions; None takes the game's `a_bound`, or 1 where it has none"""

    def __post_init__(self) -> None:
        require_positive(self, "hidden")
        integer("NetworkConfig.frequencies", self.frequencies, at_least=0)
        if self.action_scale is not None:
            require_positive(self, "action_scale")


@dataclass(frozen=True)
class Networks:
    """How networks for a game read time and state, and in which unit they write actions.

    Args:
        centre, scale: (d,) typical mean and standard deviation of states.
        unit: (k,) of actions.
        hidden: hidden layers.
        frequencies: sin and cos of πjz for j = 1..frequencies, coordinate by coordinate, z = (x − centre) / scale:
            where the target bends on a scale much finer than `scale`, a network finds it faster from these (Tancik et
            al., arXiv 2006.10739).
        cell_edges: for each coordinate, where faces of walls cut it into cells, its ends included: which cell, one-hot,
            and the place in it from −1 to 1. Values and policies jump at walls.
        bounded: whether the game clips actions to ±unit.
        periodic: for each coordinate, whether it is; () where none is. A network reads such a one by waves alone, which
            are periodic if `scale` is half its width: at least `WAVES` of them. With
            walls, what it reads jumps at the seam too.
    """

    horizon: int
    centre: Tensor
    scale: Tensor
    unit: Tensor
    hidden: Sequence[int] = (64, 64)
    frequencies: int = 0
    cell_edges: Sequence[Tensor] = ()
    bounded: bool = False
    device: str = "cpu"
    periodic: Sequence[bool] = ()

    @classmethod
    def of(cls, game: Game, config: NetworkConfig | None = None, *, seed: int = 0, device: str = "cpu") -> "Networks":
        """Typical states are those of the domain, or of agents that do not act, drawn with `seed`."""
        config, domain, bound = config or NetworkConfig(), getattr(game, "domain", None), getattr(game, "a_bound", None)
        action_scale = config.action_scale or (1.0 if bound is None else bound)
        unit = torch.as_tensor(action_scale, dtype=torch.float32).expand(game.action_dim)
        if domain is None:
            still = NoisePolicy(torch.zeros(game.action_dim))
            random = generator(seed, 0, "normalisation", device=device)
            x = rollout(game, still, n=2000, generator=random, rewards=False).x.flatten(0, 1).cpu()
            centre, scale, edges, around = x.mean(0), unit_of(x.std(0), x.mean(0)), (), ()
        else:
            lower, upper = (torch.as_tensor(v, dtype=torch.float32) for v in (domain.lower, domain.upper))
            centre, scale = (lower + upper) / 2, (upper - lower) / 2
            edges = [torch.from_numpy(e).float() for e in domain.edges] if len(domain.walls) else ()
            around = domain.periodic if any(domain.periodic) else ()
        shared = config.hidden, config.frequencies, edges, bound is not None, device, around
        return cls(game.horizon, centre, scale, unit, *shared)


class StateFeatures(nn.Module):
    """What a network reads of a state x: z, x in units of its typical states; waves of z; cells between walls. Of a
    periodic coordinate waves, without z."""

    def __init__(self, networks: Networks) -> None:
        super().__init__()
        self.frequencies = integer("frequencies", networks.frequencies, at_least=0)
        self.register_buffer("centre", networks.centre.clone())
        self.register_buffer("scale", networks.scale.clone())
        self.cells = [len(e) - 1 for e in networks.cell_edges]
        for i, e in enumerate(networks.cell_edges):
            self.register_buffer(f"edges_{i}", e.clone(), persistent=False)
        d, self.periodic = len(self.centre), [i for i, around in enumerate(networks.periodic) if around]
        self.straight, self.waves = [i for i in range(d) if i not in self.periodic], max(WAVES, self.frequencies)
        more = 2 * (self.waves - self.frequencies) - 1  # for a periodic coordinate
        self.width = d * (1 + 2 * self.frequencies) + more * len(self.periodic) + 2 * sum(self.cells)

    def forward(self, x: Tensor) -> Tensor:
        """(n, d) -> (n, width)."""
        require_states("x", x, len(self.centre))
        x = x.to(self.centre)
        z = (x - self.centre) / self.scale
        angles = [math.pi * j * z for j in range(1, self.frequencies + 1)]
        parts = [z, *(wave for angle in angles for wave in (angle.sin(), angle.cos()))]
        if self.periodic:
            parts[0], around = z[:, self.straight], z[:, self.periodic]
            angles = [math.pi * j * around for j in range(self.frequencies + 1, self.waves + 1)]
            parts += [wave for angle in angles for wave in (angle.sin(), angle.cos())]
        for i, n in enumerate(self.cells):
            edges, x_i = getattr(self, f"edges_{i}"), x[:, i].contiguous()
            cell = torch.bucketize(x_i, edges[1:-1])
            one_hot = nn.functional.one_hot(cell, n).to(x)
            place = (x_i - edges[cell]) / (edges[cell + 1] - edges[cell]) * 2 - 1
            parts += [one_hot, one_hot * place[:, None]]
        return torch.cat(parts, -1)


class TimeStateFeatures(nn.Module):
    """What a network reads of (t, x): `StateFeatures` and `TimeFeatures`."""

    def __init__(self, networks: Networks) -> None:
        super().__init__()
        self.time, self.state = TimeFeatures(networks.horizon), StateFeatures(networks)
        self.width = self.state.width + self.time.width

    def forward(self, t: int | Tensor, x: Tensor) -> Tensor:
        """t: an integer or (n,) integers, x: (n, d); returns (n, width)."""
        return torch.cat([self.state(x), self.time(t, len(x))], dim=-1)
