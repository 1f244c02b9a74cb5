"""What networks read of time and state, and how they are built."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mfglib.checks import integer, require_positive, require_time
from mfglib.policies import NoisePolicy
from mfglib.protocols import Game
from mfglib.rollout import rollout
from mfglib.seeds import generator


class TimeFeatures(nn.Module):
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


class StateFeatures(nn.Module):
    """What a network reads of a state x: z, which is x in the units below; waves of z; cells between walls.

    Args:
        centre, scale: (d,) typical mean and standard deviation of states.
        frequencies: sin and cos of πjz for j = 1..frequencies, coordinate by coordinate: where the target bends on a
            scale much finer than `scale`, a network finds it faster from these (Tancik et al., arXiv 2006.10739).
        cell_edges: for each coordinate, where faces of walls cut it into cells, its ends included: which cell, one-hot,
            and the place in it from −1 to 1. Values and policies jump at walls.
    """

    def __init__(self, centre: Tensor, scale: Tensor, frequencies: int = 0, cell_edges: Sequence[Tensor] = ()) -> None:
        super().__init__()
        self.frequencies = integer("frequencies", frequencies, at_least=0)
        self.register_buffer("centre", centre.clone())
        self.register_buffer("scale", scale.clone())
        self.cells = [len(e) - 1 for e in cell_edges]
        for i, e in enumerate(cell_edges):
            self.register_buffer(f"edges_{i}", e.clone(), persistent=False)
        self.width = len(centre) * (1 + 2 * self.frequencies) + 2 * sum(self.cells)

    def forward(self, x: Tensor) -> Tensor:
        """(n, d) -> (n, width)."""
        x = x.to(self.centre)
        z = (x - self.centre) / self.scale
        angles = [math.pi * j * z for j in range(1, self.frequencies + 1)]
        parts = [z, *(wave for angle in angles for wave in (angle.sin(), angle.cos()))]
        for i, n in enumerate(self.cells):
            edges, x_i = getattr(self, f"edges_{i}"), x[:, i].contiguous()
            cell = torch.bucketize(x_i, edges[1:-1])
            one_hot = nn.functional.one_hot(cell, n).to(x)
            place = (x_i - edges[cell]) / (edges[cell + 1] - edges[cell]) * 2 - 1
            parts += [one_hot, one_hot * place[:, None]]
        return torch.cat(parts, -1)


class TimeStateFeatures(nn.Module):
    """What a network reads of (t, x): `StateFeatures` of the same arguments, and `TimeFeatures`."""

    def __init__(
        self, horizon: int, centre: Tensor, scale: Tensor, frequencies: int = 0, cell_edges: Sequence[Tensor] = ()
    ) -> None:
        super().__init__()
        self.time, self.state = TimeFeatures(horizon), StateFeatures(centre, scale, frequencies, cell_edges)
        self.width = self.state.width + self.time.width

    def forward(self, t: int | Tensor, x: Tensor) -> Tensor:
        """t: an integer or (n,) integers, x: (n, d); returns (n, width)."""
        return torch.cat([self.state(x), self.time(t, len(x))], dim=-1)


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
        if self.action_scale is not None:
            require_positive(self, "action_scale")


class Networks:
    """How networks for a game read states and write actions: typical states, the unit of actions, hidden layers.

    centre, scale: (d,) of the domain, or of agents that do not act; unit: (k,) of actions; `inputs`: what every network
    takes by name. Learners that are given None make one of their own.

    Args:
        seed: of the agents that do not act.
    """

    def __init__(self, game: Game, config: NetworkConfig | None = None, *, seed: int = 0, device: str = "cpu") -> None:
        config = config or NetworkConfig()
        bound, domain = getattr(game, "a_bound", None), getattr(game, "domain", None)
        scale = config.action_scale or (1.0 if bound is None else bound)
        self.game, self.hidden, self.device, self.bounded = game, config.hidden, device, bound is not None
        self.unit = torch.as_tensor(scale, dtype=torch.float32).expand(game.action_dim)
        if domain is None:
            still = NoisePolicy(torch.zeros(game.action_dim))
            random = generator(seed, 0, "normalisation", device=device)
            x = rollout(game, still, n=2000, generator=random, rewards=False).x.flatten(0, 1).cpu()
            self.centre, self.scale, edges = x.mean(0), x.std(0).clamp_min(1e-6), []
        else:
            lower, upper = (torch.as_tensor(v, dtype=torch.float32) for v in (domain.lower, domain.upper))
            self.centre, self.scale = (lower + upper) / 2, (upper - lower) / 2
            edges = [torch.from_numpy(e).float() for e in domain.edges] if len(domain.walls) else []
        self.inputs: dict[str, Any] = dict(frequencies=config.frequencies, cell_edges=edges)

    def arguments(self) -> tuple[int, Tensor, Tensor]:
        """Horizon, centre and scale: the first arguments of networks of time and state."""
        return self.game.horizon, self.centre, self.scale
