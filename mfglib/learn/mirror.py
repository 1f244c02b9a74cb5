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

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mfglib.checks import require_positive
from mfglib.games.base import clip, known_moves
from mfglib.learn.candidates import LookaheadPolicy, ahead, candidates
from mfglib.learn.lookahead import Lookahead, LookaheadConfig
from mfglib.learn.networks import Networks
from mfglib.learn.table import Table, table_of
from mfglib.policies import NoisePolicy
from mfglib.populations import CellPopulation
from mfglib.protocols import BestResponse, Game, Policy, Population, TensorState
from mfglib.seeds import Random


@dataclass(frozen=True)
class MirrorConfig(LookaheadConfig):
    """As for best responses that look ahead, but for `temperature`: τ > 0, of the first policies."""

    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "temperature")


class MirrorValues(nn.Module):
    """S_k: (T, m) in a table, and C_k; those of the iteration before, which momentum asks for."""

    def __init__(self, horizon: int, table: Table, temperature: float) -> None:
        super().__init__()
        self.table = table
        for name in ("S", "S_before"):
            self.register_buffer(name, torch.zeros(horizon, len(table.x)))
        for name in ("C", "C_before"):
            self.register_buffer(name, torch.zeros(()))
        self.register_buffer("tau", temperature * (horizon - torch.arange(horizon)) / horizon, persistent=False)

    def add(self, W: Tensor, k: int) -> None:
        """The step of iteration k, with W_k: (T, m)."""
        beta = (k - 1) / (k + 2)
        self.S, self.S_before = self.S + beta * (self.S - self.S_before) + W, self.S
        self.C, self.C_before = self.C + beta * (self.C - self.C_before) + 1, self.C

    def logits(self, t: int, reward: Tensor, S: Tensor) -> Tensor:
        """L_k of actions with these rewards and sums."""
        return (self.C * reward + S) / self.tau[t]


class MirrorPolicy(LookaheadPolicy):
    """π_k, drawn from candidates."""

    def _pick(self, t: int, x: Tensor, a: Tensor, generator: torch.Generator | None) -> Tensor:
        index = torch.multinomial(self._shares(t, x, a), 1, generator=generator)[:, 0]
        return a[torch.arange(len(x), device=x.device), index]

    def _mean(self, t: int, x: Tensor) -> Tensor:
        a = candidates(self.game, x, self.candidates, None, jitter=False)
        return (self._shares(t, x, a)[..., None] * clip(a, self.game.a_bound)).sum(1)

    def _shares(self, t: int, x: Tensor, a: Tensor) -> Tensor:
        """Probabilities (n, M) of actions a: (n, M, k)."""
        reward, z = ahead(self.game, self.population, t, x, a, x.new_zeros(len(x)))
        S = self.values.table(self.values.S[t, None], z)[0].view_as(reward)
        return self.values.logits(t, reward, S).softmax(1)


class Mirror(Lookahead):
    """Mirror descent in place of best responses, for bounded games that split: `values` learns W_k, `mirror` sums.

    Raises ValueError for a game whose steps or rewards do not split as this module says, or without a `domain` of one
    or two dimensions.
    """

    Config = MirrorConfig

    def __init__(self, game: Game, networks: Networks | None = None, config: MirrorConfig | None = None) -> None:
        domain = getattr(game, "domain", None)
        if domain is None or domain.state_dim > 2 or not known_moves(game):
            raise ValueError(
                f"averaging: 'mirror' needs a bounded game (`BoundedGame`) of one or two dimensions, got {game!r}; "
                f"try 'linear' or 'geometric'"
            )
        super().__init__(game, networks, config)
        if not self.separable:
            raise ValueError(
                f"averaging: 'mirror' needs a game whose moves ignore the population and whose rewards are a function "
                f"of (t, x, a) plus one of (t, x, μ), got {game!r}; try 'linear' or 'geometric'"
            )
        table, times = self.values.table or table_of(domain), game.horizon + 1  # or it says why there is none
        self.mirror = MirrorValues(game.horizon, table, self.config.temperature).to(table.x.device)
        m, mean = len(table.x), table.x.mean(0).expand(times, -1)
        shared = dict(device=str(table.x.device), actions=table.x.new_zeros(game.horizon, game.action_dim))
        self.anybody = CellPopulation(table.grid, torch.full((times, m), 1 / m), mean, **shared)

    @property
    def policy(self) -> MirrorPolicy:
        """For rewards and moves it does not matter which population it is."""
        return MirrorPolicy(self.game, self.anybody, self.mirror, self.config.acting_candidates)

    def fit(self, population: Population, k: int, random: Random) -> dict[str, float]:
        """π_k from π_{k−1}; returns the loss as `Lookahead` does."""
        loss = self.sweep(population, k, random("best response"))
        self.mirror.add(self.values.W, k)
        return {"critic_loss": loss}

    def _value(self, t: int, reward: Tensor, z: Tensor) -> Tensor:
        """V_t of π_{k−1}."""
        S, W = (v.view_as(reward) for v in self.mirror.table(torch.stack([self.mirror.S[t], self.values.W[t]]), z))
        return (self.mirror.logits(t, reward, S).softmax(1) * (reward + W)).sum(1)

    def learned(self) -> dict[str, Tensor]:
        """The policy, without what only later steps read."""
        return {f"mirror.{name}": getattr(self.mirror, name) for name in ("S", "C")}


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
