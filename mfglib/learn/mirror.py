"""Mirror descent with momentum: values are averaged, not policies.

In place of best responses and of their average, policy k is π_k ∝ exp L_k, with

    L_k = L_{k−1} + β_k (L_{k−1} − L_{k−2}) + Q_k / τ_t,   β_k = (k − 1)/(k + 2),   τ_t = τ (T − t)/T,

where Q_k is what actions are worth to an agent who follows π_{k−1} against the population of iteration k − 1. Errors of
Q_k that are new in each iteration average out before anybody acts on them, and no clone blurs what the policy says.

Moves ignore the population, and rewards split as r_t(x, a, μ) = c_t(x, a) + f_t(x, μ). So Q_k(x, a) = r(x, a, μ) +
W_k(z), z the state after the move, and as f is the same for all actions, L_k = (C_k r(x, a, ·) + S_k(z)) / τ_t up to a
constant, with numbers C and functions S of a state that follow the same recursion. W_k is learned as for best
responses that look ahead (`mfglib.learn.lookahead`); S_k, the sum, is kept in tables.

References: Perolat et al., arXiv 2103.00623 (mirror descent in mean field games); Laurière et al., arXiv 2203.11973
(with networks); Nesterov, 1983 (momentum).
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy import ndimage
from torch import Tensor, nn

from mfglib.checks import require_finite, require_positive
from mfglib.games.base import clip
from mfglib.games.cells import Cells
from mfglib.games.domain import Domain
from mfglib.learn.corrective import separable
from mfglib.learn.lookahead import (
    CHUNK,
    LookaheadConfig,
    LookaheadPolicy,
    PostDecisionValues,
    _regress,
    candidates,
)
from mfglib.learn.networks import Networks, unit_of
from mfglib.policies import NoisePolicy
from mfglib.populations import CellPopulation, Repeated
from mfglib.protocols import BestResponse, Game, ModuleState, Policy, Population, TensorState
from mfglib.schedules import budget
from mfglib.seeds import Random

CELLS = {1: 200, 2: 40}  # of a table, along the longest side
FINEST = 4  # times as many are tried where walls ask for it
RIDGE = 1e-4  # of the mean square of what a last layer reads


@dataclass(frozen=True)
class MirrorConfig(LookaheadConfig):
    """As for best responses that look ahead, but for `temperature`: τ > 0, of the first policies."""

    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "temperature")


class Table(nn.Module):
    """Functions of a state by their values at the centres of cells, linear between them. Cells in walls have the value
    of the nearest free one.

    shape: cells along each coordinate, x: (m, d), the centres of the free cells.
    """

    def __init__(self, grid: Cells) -> None:
        super().__init__()
        domain, free = grid.domain, grid.index >= 0
        self.shape = free.shape
        nearest = ndimage.distance_transform_edt(~free, return_distances=False, return_indices=True)
        self.register_buffer("source", torch.from_numpy(grid.index[tuple(nearest)]), persistent=False)
        for name, value in (("x", grid.x), ("lower", domain.lower), ("width", domain.upper - domain.lower)):
            self.register_buffer(name, torch.as_tensor(value).float(), persistent=False)

    def forward(self, values: Tensor, z: Tensor) -> Tensor:
        """F functions, by their values (F, m), at z: (n, d) -> (F, n)."""
        lattices, place = values[:, self.source], ((z - self.lower) / self.width * 2 - 1).flip(1)
        if len(self.shape) == 1:
            lattices, place = lattices[:, None], torch.cat([place, torch.zeros_like(place)], 1)
        options = dict(mode="bilinear", padding_mode="border", align_corners=False)
        return nn.functional.grid_sample(lattices[None], place[None, None], **options)[0, :, 0]


class MirrorValues(nn.Module):
    """S_k: (T, m) in a table, and C_k; those of the iteration before, which momentum asks for. `anybody`: a population,
    for rewards and moves where it does not matter which."""

    def __init__(self, game: Game, config: MirrorConfig) -> None:
        super().__init__()
        cells = _cells(game)
        self.table = Table(cells)
        T, m = game.horizon, len(self.table.x)
        for name in ("S", "S_before"):
            self.register_buffer(name, torch.zeros(T, m))
        for name in ("C", "C_before"):
            self.register_buffer(name, torch.zeros(()))
        self.anybody = CellPopulation(cells, torch.full((T + 1, m), 1 / m))
        self.register_buffer("tau", config.temperature * (T - torch.arange(T)) / T, persistent=False)

    def add(self, W: Tensor, k: int) -> None:
        """The step of iteration k, with W_k: (T, m)."""
        beta = (k - 1) / (k + 2)
        self.S, self.S_before = self.S + beta * (self.S - self.S_before) + W, self.S
        self.C, self.C_before = self.C + beta * (self.C - self.C_before) + 1, self.C

    def logits(self, t: int, reward: Tensor, S: Tensor) -> Tensor:
        """L_k of actions with these rewards and sums."""
        return (self.C * reward + S) / self.tau[t]


class MirrorPolicy(LookaheadPolicy):
    """π_k, drawn from stratified random candidates. What rewards say of a crowd is the same for all actions, so any
    `population` will do, and its density is not looked up."""

    def _choose(self, t: int, x: Tensor, generator: torch.Generator | None) -> Tensor:
        a = candidates(self.game, x, self.candidates, generator)
        index = torch.multinomial(self._shares(t, x, a), 1, generator=generator)[:, 0]
        return a[torch.arange(len(x), device=x.device), index]

    def _mean(self, t: int, x: Tensor) -> Tensor:
        a = candidates(self.game, x, self.candidates, None, jitter=False)
        return (self._shares(t, x, a)[..., None] * clip(a, self.game.a_bound)).sum(1)

    def _shares(self, t: int, x: Tensor, a: Tensor) -> Tensor:
        """Probabilities (n, M) of actions a: (n, M, k)."""
        reward, z = ahead(self.game, self.population, lambda t: x.new_zeros(len(x)), t, x, a)
        S = self.values.table(self.values.S[t, None], z)[0].view_as(reward)
        return self.values.logits(t, reward, S).softmax(1)


def ahead(
    game: Game, population: Population, log_density: Callable[[int], Tensor], t: int, x: Tensor, a: Tensor
) -> tuple[Tensor, Tensor]:
    """Rewards (n, M) of actions a: (n, M, k), clipped to the bounds, in states x: (n, d) where the crowd has the given
    log-density (n,), and the states after the move (n·M, d)."""
    M = a.shape[1]
    each, a = x.repeat_interleave(M, 0), clip(a.flatten(0, 1), game.a_bound)
    crowd = Repeated(population, each, lambda t: log_density(t).repeat_interleave(M))
    return game.reward(t, each, a, crowd).to(x).view(-1, M), game.moved(t, each, a, crowd)


class Mirror(ModuleState, nn.Module):
    """Mirror descent in place of best responses, for bounded games that split: `values` learns W_k, `mirror` sums.

    Raises ValueError for a game whose steps or rewards do not split as this module says, or without a `domain` of one
    or two dimensions.
    """

    Config = MirrorConfig

    def __init__(self, game: Game, networks: Networks | None = None, config: MirrorConfig | None = None) -> None:
        super().__init__()
        self.game, self.config, self.faced = game, config or MirrorConfig(), None
        net = networks or Networks.of(game)
        self.mirror = MirrorValues(game, self.config)
        self.values = PostDecisionValues(net)
        self.to(net.device)

    @property
    def policy(self) -> MirrorPolicy:
        return MirrorPolicy(self.game, self.mirror.anybody, self.mirror, self.config.acting_candidates)

    def fit(self, population: Population, k: int, random: Random) -> dict[str, float]:
        """π_k from π_{k−1}, by a sweep from t = T−1 back to 0; returns the mean squared error of the last step over all
        times, in units of the targets' variance."""
        self.faced, game, config, generator = population, self.game, self.config, random("best response")
        values, W, losses = self.values, torch.empty_like(self.mirror.S), []
        steps = budget(k, config.first_steps, config.steps)
        for t in reversed(range(game.horizon)):
            inside = round(config.uniform_share * config.states)
            crowd = population.sample(t + 1, config.states - inside, generator)
            z = torch.cat([game.domain.uniform(inside, generator), crowd])
            target = self._target(t, z, W, generator)
            values.shift[t], values.unit[t] = target.mean(), unit_of(target.std(), target.mean())
            target, features = (target - values.shift[t]) / values.unit[t], values.features(z)
            losses.append(_regress(values.nets[t], features, target, config, steps, generator))
            refit(values.nets[t], features, target)
            with torch.no_grad():
                W[t] = values(t, self.mirror.table.x)
        self.mirror.add(W, k)
        result = float(torch.stack(losses).mean())
        require_finite("best response", result)
        return {"critic_loss": result}

    @torch.no_grad()
    def _target(self, t: int, z: Tensor, W: Tensor, generator: torch.Generator) -> Tensor:
        """Of W_t at states after the move: (n, d) -> (n,), from two opposite draws of the noise about its mean 0."""
        noise, target = self.game.noise.draw(len(z), generator, z.dtype), torch.zeros_like(z[:, 0])
        for e in (noise, -noise):
            x = self.game.domain.move(z, e)
            target += torch.cat([self._next(t + 1, part, W, generator) for part in x.split(CHUNK)]) / 2
        require_finite("best response: the rewards", target)
        return target

    def _next(self, t: int, x: Tensor, W: Tensor, generator: torch.Generator) -> Tensor:
        """V_t(x) of π_{k−1}: (n, d) -> (n,)."""
        game, mirror = self.game, self.mirror
        if t == game.horizon:
            return game.reward(t, x, x.new_zeros(len(x), game.action_dim), self.faced).to(x)
        a = candidates(game, x, self.config.candidates, generator)
        reward, z = ahead(game, self.faced, lambda t: self.faced.log_prob(t, x), t, x, a)
        S, W = (v.view_as(reward) for v in mirror.table(torch.stack([mirror.S[t], W[t]]), z))
        return (mirror.logits(t, reward, S).softmax(1) * (reward + W)).sum(1)

    def kept(self) -> None:
        return None  # too slow to be played many times

    def learned(self) -> dict[str, Tensor]:
        """The policy, without what only later steps read."""
        return {f"mirror.{name}": getattr(self.mirror, name) for name in ("S", "C")}

    def load(self, state: dict[str, Tensor]) -> None:
        self.load_state_dict(self.state() | state)


@torch.no_grad()
def refit(net: nn.Sequential, features: Tensor, target: Tensor) -> None:
    """Give a network the last layer that fits the targets (n,) best, by least squares, held to what it was where they
    say little."""
    last, h = net[-1], net[:-1](features)
    h = torch.cat([h, torch.ones_like(h[:, :1])], 1).double()
    before = torch.cat([last.weight[0], last.bias]).double()
    gram = h.T @ h
    gram.diagonal().add_(RIDGE * gram.diagonal().mean())
    after = before + torch.linalg.solve(gram, h.T @ (target.double() - h @ before))
    last.weight.copy_(after[None, :-1])
    last.bias.copy_(after[-1:])


@dataclass(frozen=True)
class LastConfig:
    """The policy before the first response."""

    initial_std: float = 0.1
    """its standard deviation, a ~ N(0, std²), in units of action"""

    def __post_init__(self) -> None:
        require_positive(self, "initial_std")


class LastResponse(TensorState):
    """No average: the last response as it acts."""

    Config = LastConfig

    def __init__(
        self,
        game: Game,
        networks: Networks | None = None,
        config: LastConfig | None = None,
        best_response: BestResponse | None = None,
    ) -> None:
        net, self.config, self.response = networks or Networks.of(game), config or LastConfig(), best_response
        self.first = NoisePolicy(net.unit.to(net.device) * self.config.initial_std)
        self.fitted = torch.zeros((), dtype=torch.bool)

    @property
    def policy(self) -> Policy:
        return self.response.policy if self.fitted else self.first

    def update(self, response: BestResponse, population: Population, k: int, random: Random) -> dict[str, float]:
        """Take the response; there is no loss."""
        self.response, self.fitted = response, torch.ones((), dtype=torch.bool)
        return {}


def _cells(game: Game) -> Cells:
    domain: Domain | None = getattr(game, "domain", None)
    if domain is None or domain.state_dim not in CELLS or not hasattr(game, "moved"):
        raise ValueError(
            f"averaging: 'mirror' needs a bounded game (`BoundedGame`) of one or two dimensions, got {game!r}; "
            f"try 'linear' or 'geometric'"
        )
    if not separable(game):
        raise ValueError(
            f"averaging: 'mirror' needs a game whose moves ignore the population and whose rewards are a function of "
            f"(t, x, a) plus one of (t, x, μ), got {game!r}; try 'linear' or 'geometric'"
        )
    for number_of_cells in range(CELLS[domain.state_dim], FINEST * CELLS[domain.state_dim]):
        with contextlib.suppress(ValueError):  # its lines miss a wall
            return Cells(domain, number_of_cells)
    return Cells(domain, FINEST * CELLS[domain.state_dim])  # which says so
