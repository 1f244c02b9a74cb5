"""Mirror descent with momentum, by values after the move, for bounded games whose rewards split.

No average of policies, but of values: π_k ∝ exp L_k with

    L_k = L_{k−1} + β_k (L_{k−1} − L_{k−2}) + Q_k / τ_t,   β_k = (k − 1)/(k + 2),   τ_t = τ (T − t)/T,

where Q_k is that of π_{k−1} against the population of iteration k − 1. As Q_k(x, a) = r(x, a, μ) + W_k(z) and what
rewards say of the crowd is the same for all actions, L_k = (C_k r(x, a, ·) + S_k(z)) / τ_t, with C and S by the same
recursion. W_k is fitted as for best responses that look ahead, and then kept in a table, so that S_k is an exact sum.

References: Perolat et al., arXiv 2103.00623 (mirror descent); Laurière et al., arXiv 2203.11973 (with networks);
Nesterov, 1983 (momentum).
"""

from dataclasses import dataclass

import torch
from scipy import ndimage
from torch import Tensor, nn

from mfglib.checks import require_finite, require_positive
from mfglib.games.base import clip
from mfglib.games.cells import Cells
from mfglib.games.domain import Domain
from mfglib.learn.lookahead import (
    CHUNK,
    LookaheadConfig,
    LookaheadPolicy,
    PostDecisionValues,
    _regress,
    candidates,
)
from mfglib.learn.networks import Networks, unit_of
from mfglib.populations import Repeated
from mfglib.protocols import Game, ModuleState, Population
from mfglib.schedules import budget
from mfglib.seeds import Random

CELLS = {1: 400, 2: 80}  # of a table, along the longest side


@dataclass(frozen=True)
class MirrorConfig(LookaheadConfig):
    """As for best responses that look ahead, but for `temperature`: τ."""

    temperature: float = 1.0
    momentum: float = 1.0
    """largest β"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "temperature")


class Table(nn.Module):
    """Functions of a state by their values at the centres of cells, interpolated linearly between them."""

    def __init__(self, domain: Domain, cells: int | None = None) -> None:
        super().__init__()
        grid = Cells(domain, cells or CELLS[domain.state_dim])
        free = grid.index >= 0
        self.shape = free.shape
        nearest = ndimage.distance_transform_edt(~free, return_distances=False, return_indices=True)
        self.register_buffer("source", torch.from_numpy(grid.index[tuple(nearest)]), persistent=False)
        self.register_buffer("x", grid.x.float(), persistent=False)
        self.register_buffer("lower", torch.as_tensor(domain.lower).float(), persistent=False)
        self.register_buffer("width", torch.as_tensor(domain.upper - domain.lower).float(), persistent=False)

    def lattice(self, values: Tensor) -> Tensor:
        """(m,) at the centres -> `shape`; walls have the value of the nearest free cell."""
        return values[self.source]

    def __call__(self, lattices: Tensor, z: Tensor) -> Tensor:
        """F functions (F, *shape) at z: (n, d) -> (F, n)."""
        place = ((z - self.lower) / self.width * 2 - 1).flip(1)
        if len(self.shape) == 1:
            lattices, place = lattices[:, None], torch.cat([place, torch.zeros_like(place)], 1)
        options = dict(mode="bilinear", padding_mode="border", align_corners=False)
        return nn.functional.grid_sample(lattices[None], place[None, None], **options)[0, :, 0]


class MirrorValues(nn.Module):
    """S_k / C_k in tables, T of them, and τ_t / C_k."""

    def __init__(self, game: Game, config: MirrorConfig) -> None:
        super().__init__()
        self.table, T = Table(game.domain), game.horizon
        zeros = torch.zeros(T, *self.table.shape)
        for name in ("S", "S_before"):
            self.register_buffer(name, zeros.clone())
        self.register_buffer("C", torch.zeros(()))
        self.register_buffer("C_before", torch.zeros(()))
        self.register_buffer("tau", config.temperature * (T - torch.arange(T)) / T, persistent=False)

    def add(self, W: Tensor, k: int, momentum: float) -> None:
        beta = min((k - 1) / (k + 2), momentum)
        self.S, self.S_before = self.S + beta * (self.S - self.S_before) + W, self.S
        self.C, self.C_before = self.C + beta * (self.C - self.C_before) + 1, self.C

    def logits(self, t: int, reward: Tensor, S: Tensor) -> Tensor:
        return (self.C * reward + S) / self.tau[t]


class MirrorPolicy(LookaheadPolicy):
    """π_k."""

    def _pick(self, t: int, x: Tensor, a: Tensor, generator: torch.Generator | None) -> Tensor:
        logits = self._logits(t, x, a)
        index = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
        return a[torch.arange(len(x), device=x.device), index]

    def _logits(self, t: int, x: Tensor, a: Tensor) -> Tensor:
        reward, z = ahead(self.game, self.population, t, x, a)
        values = self.values
        return values.logits(t, reward, values.table(values.S[t, None], z)[0].view_as(reward))

    def _mean(self, t: int, x: Tensor) -> Tensor:
        a = candidates(self.game, x, self.candidates, None, jitter=False)
        weight = self._logits(t, x, a).softmax(1)
        return (weight[..., None] * clip(a, self.game.a_bound)).sum(1)


def ahead(game: Game, population: Population, t: int, x: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Rewards (n, M) of actions a: (n, M, k), clipped to the bounds, in states x: (n, d), and where they move to
    (n·M, d)."""
    M = a.shape[1]
    each, a = x.repeat_interleave(M, 0), clip(a.flatten(0, 1), game.a_bound)
    crowd = Repeated(population, each, lambda t: population.log_prob(t, x).repeat_interleave(M))
    return game.reward(t, each, a, crowd).to(x).view(-1, M), game.moved(t, each, a, crowd)


@torch.no_grad()
def _refit(net: nn.Sequential, features: Tensor, target: Tensor) -> None:
    """The last layer that fits all targets best, by least squares, held to what it was where they say little."""
    last = net[-1]
    h = net[:-1](features)
    h = torch.cat([h, torch.ones_like(h[:, :1])], 1).double()
    before = torch.cat([last.weight[0], last.bias]).double()
    gram, left = h.T @ h, target.double() - h @ before
    gram += 1e-4 * gram.diagonal().mean() * torch.eye(len(gram))
    after = before + torch.linalg.solve(gram, h.T @ left)
    last.weight.copy_(after[None, :-1])
    last.bias.copy_(after[-1:])


class Mirror(ModuleState, nn.Module):
    Config = MirrorConfig

    def __init__(self, game: Game, networks: Networks | None = None, config: MirrorConfig | None = None) -> None:
        super().__init__()
        self.game, self.config, self.faced = game, config or MirrorConfig(), None
        net = networks or Networks.of(game)
        self.values, self.mirror = PostDecisionValues(net), MirrorValues(game, self.config)
        self.to(net.device)

    @property
    def policy(self) -> MirrorPolicy:
        return MirrorPolicy(self.game, self.faced, self.mirror, self.config.acting_candidates)

    def fit(self, population: Population, k: int, random: Random) -> dict[str, float]:
        self.faced, game, config, generator = population, self.game, self.config, random("best response")
        values, mirror, T = self.values, self.mirror, self.game.horizon
        steps, losses, W = budget(k, config.first_steps, config.steps), [], torch.empty_like(mirror.S)
        for t in reversed(range(T)):
            inside = round(config.uniform_share * config.states)
            crowd = population.sample(t + 1, config.states - inside, generator)
            z = torch.cat([game.domain.uniform(inside, generator), crowd])
            noise = game.noise.draw(len(z), generator, z.dtype)
            target = torch.zeros(len(z))
            for e in (noise, -noise):  # antithetic
                x = game.domain.move(z, e)
                target += torch.cat([self._values(t + 1, part, W, generator) for part in x.split(CHUNK)]) / 2
            require_finite("best response: the rewards", target)
            values.shift[t], values.unit[t] = target.mean(), unit_of(target.std(), target.mean())
            target = (target - values.shift[t]) / values.unit[t]
            features = values.features(z)
            losses.append(_regress(values.nets[t], features, target, config, steps, generator))
            _refit(values.nets[t], features, target)
            with torch.no_grad():
                W[t] = mirror.table.lattice(values(t, mirror.table.x))
        mirror.add(W, k, config.momentum)
        result = float(torch.stack(losses).mean())
        require_finite("best response", result)
        return {"critic_loss": result}

    @torch.no_grad()
    def _values(self, t: int, x: Tensor, W: Tensor, generator: torch.Generator) -> Tensor:
        """V_t(x) of π_{k−1}: (n, d) -> (n,)."""
        mirror, game = self.mirror, self.game
        if t == game.horizon:
            return game.reward(t, x, x.new_zeros(len(x), game.action_dim), self.faced).to(x)
        reward, z = ahead(game, self.faced, t, x, candidates(game, x, self.config.candidates, generator))
        S, W = (v.view_as(reward) for v in mirror.table(torch.stack([mirror.S[t], W[t]]), z))
        return (mirror.logits(t, reward, S).softmax(1) * (reward + W)).sum(1)

    def kept(self) -> None:
        return None
