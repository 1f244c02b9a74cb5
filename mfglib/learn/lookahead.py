"""Best responses by fitted value iteration on post-decision states, for bounded games of known moves.

An agent in x that chooses a is first moved to z = moved(x, a), and then the noise acts. So all that an action changes
in the future is where z is: Q_t(x, a) = r_t(x, a) + W_t(z), with W_t(z) = E V_{t+1}(next state from z). W_t is a
function of a state alone, learned by regression backwards in time; the maximum over actions is taken over random
candidates. Where an action leads is learned from one step, not, as in PPO, from the noisy sum of all later rewards
(decision L3).

References: Powell, Approximate Dynamic Programming (2nd ed., 2011), Section 4.6, post-decision states; Ernst et al.,
JMLR 6 (2005), fitted Q iteration; Huré et al., arXiv 1812.04300, networks trained backwards over a finite horizon.
"""

import contextlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mfglib.checks import number, require_finite, require_positive
from mfglib.games.base import known_moves
from mfglib.learn.candidates import CHUNK, LookaheadPolicy, ahead, candidates
from mfglib.learn.networks import Networks, StateFeatures, head, mlp, unit_of
from mfglib.learn.table import Table, table_of
from mfglib.protocols import Game, ModuleState, Population
from mfglib.schedules import budget
from mfglib.seeds import Random
from mfglib.trial import separable


@dataclass(frozen=True)
class LookaheadConfig:
    """How values after the move are fitted, and how many actions are tried in a state."""

    first_steps: int = 500
    """steps of each regression for the first best response; the next have 2/(k + 1) as many"""
    steps: int = 40
    """steps of each regression for later ones, which start from the last: at least so many"""
    states: int = 4096
    """post-decision states that W_t is fitted to, at each time"""
    uniform_share: float = 0.5
    """share of them that is uniform in the domain; the rest is where the population is at time t + 1"""
    batch: int = 1024
    learning_rate: float = 1e-2
    """falls linearly to 0 within a regression"""
    candidates: int = 25
    """actions tried in each state while learning, stratified: a square number in two dimensions; at least 2 a side"""
    acting_candidates: int = 25
    """actions tried in each state while acting, before a second look at 3 or 9 around the one chosen"""
    temperature: float = 0.0
    """τ: best response k maximises rewards −(τ/k) log π(a|x) on top of the game's. 0 is the paper's best response"""

    def __post_init__(self) -> None:
        zero = "uniform_share", "temperature"  # what may be 0
        require_positive(self, *(name for name in self.__dataclass_fields__ if name not in zero))
        if self.states < 2:
            raise ValueError(f"LookaheadConfig.states: expected at least 2, got {self.states}")
        number("LookaheadConfig.temperature", self.temperature)
        number("LookaheadConfig.uniform_share", self.uniform_share, at_most=1.0)


class PostDecisionValues(nn.Module):
    """W_t(z) for t = 0..T−1, as shift_t + unit_t · net_t(z). Each time step has its own network, so fitting W_t leaves
    the values of later times unchanged.

    With a `table`, what a network has learned is kept in it, W: (T, m), and looked up there: in a fortieth of the time
    (decision L6), and it is asked for some millions of states in each iteration.
    `temperature` is τ/k of the last fit.
    """

    def __init__(self, networks: Networks, table: Table | None = None) -> None:
        super().__init__()
        self.features, horizon, hidden = StateFeatures(networks), networks.horizon, networks.hidden
        width = self.features.width
        self.nets = nn.ModuleList(nn.Sequential(*mlp(width, hidden), head(hidden[-1], 1)) for _ in range(horizon))
        self.register_buffer("shift", torch.zeros(horizon))
        self.register_buffer("unit", torch.ones(horizon))
        self.register_buffer("temperature", torch.zeros(()))
        self.table = table
        if table is not None:
            self.register_buffer("W", torch.zeros(horizon, len(table.x)))

    def forward(self, t: int, z: Tensor) -> Tensor:
        """(n, d) -> (n,), in units of reward."""
        return self.network(t, z) if self.table is None else self.table(self.W[t, None], z)[0]

    def network(self, t: int, z: Tensor) -> Tensor:
        """(n, d) -> (n,), by the network itself."""
        return self.nets[t](self.features(z)).squeeze(-1) * self.unit[t] + self.shift[t]

    def fit(
        self, t: int, z: Tensor, target: Tensor, config: LookaheadConfig, steps: int, generator: torch.Generator
    ) -> Tensor:
        """Fit W_t to the targets (n,) in z: (n, d), from where it is; returns the mean squared error of the last step,
        in units of the targets' variance."""
        require_finite("best response: the rewards", target)
        self.shift[t], self.unit[t] = target.mean(), unit_of(target.std(), target.mean())
        target, features = (target - self.shift[t]) / self.unit[t], self.features(z)
        loss = _regress(self.nets[t], features, target, config, steps, generator)
        _refit(self.nets[t], features, target)
        if self.table is not None:
            with torch.no_grad():
                self.W[t] = self.network(t, self.table.x)
        return loss


RIDGE = 1e-4  # of the mean square of what a last layer reads


def _regress(
    net: nn.Module, features: Tensor, target: Tensor, config: LookaheadConfig, steps: int, generator: torch.Generator
) -> Tensor:
    optimizer = torch.optim.Adam(net.parameters(), lr=config.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1 / steps, steps)
    for _ in range(steps):
        rows = torch.randint(len(target), (config.batch,), generator=generator, device=target.device)
        loss = (net(features[rows]).squeeze(-1) - target[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return loss.detach()


@torch.no_grad()
def _refit(net: nn.Sequential, features: Tensor, target: Tensor) -> None:
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


class Lookahead(ModuleState, nn.Module):
    """Best responses that look one step ahead, for bounded games: `values`, fitted on from one iteration to the next.

    Raises ValueError for a game whose moves are not known (`mfglib.games.base.known_moves`).
    """

    Config = LookaheadConfig

    def __init__(self, game: Game, networks: Networks | None = None, config: LookaheadConfig | None = None) -> None:
        super().__init__()
        if not known_moves(game):
            raise ValueError(
                "best_response: expected another learner for this game, got one that looks ahead, which asks for "
                "bounded states, at most two bounded actions and `BoundedGame.step`"
            )
        self.game, self.config, self.faced = game, config or self.Config(), None
        self.separable, net, table = separable(game), networks or Networks.of(game), None
        with contextlib.suppress(ValueError):  # no table: networks themselves are asked
            table = table_of(game.domain)
        self.values = PostDecisionValues(net, table)
        self.to(net.device)

    @property
    def policy(self) -> LookaheadPolicy:
        tried = self.config.acting_candidates
        return LookaheadPolicy(self.game, self.faced, self.values, tried, separable=self.separable)

    def fit(self, population: Population, k: int, random: Random) -> dict[str, float]:
        """Paper, Algo. 3: π*_k against Ḡ_{k−1}, from π*_{k−1}; returns the mean squared error of the last step over all
        times, in units of the targets' variance. With a temperature the reward of π is larger by −τ/k log π_t(a|x): an
        entropy-smoothed best response, up to a constant. Raises DivergenceError if a loss is not finite."""
        self.values.temperature.fill_(self.config.temperature / k)
        return {"critic_loss": self.sweep(population, k, random("best response"))}

    def sweep(self, population: Population, k: int, generator: torch.Generator) -> float:
        """Fit W_t from t = T−1 back to 0."""
        self.faced, game, config, losses = population, self.game, self.config, []
        steps, inside = budget(k, config.first_steps, config.steps), round(config.uniform_share * config.states)
        for t in reversed(range(game.horizon)):
            crowd = population.sample(t + 1, config.states - inside, generator)
            z = torch.cat([game.domain.uniform(inside, generator), crowd])
            losses.append(self.values.fit(t, z, self._targets(t, z, generator), config, steps, generator))
        result = float(torch.stack(losses).mean())
        require_finite("best response", result)
        return result

    @torch.no_grad()
    def _targets(self, t: int, z: Tensor, generator: torch.Generator) -> Tensor:
        """Of W_t in z: (n, d) -> (n,): the mean of V_{t+1} after two draws of the noise, opposite ones if its law is
        symmetric about its mean 0, as a `Law` is."""
        game = self.game
        noise = game.noise.draw(len(z), generator, z.dtype)
        opposite = getattr(game.noise, "symmetric", False)
        other = -noise if opposite else game.noise.draw(len(z), generator, z.dtype)
        ends = [game.domain.move(z, e) for e in (noise, other)]
        return sum(torch.cat([self.next(t + 1, part, generator) for part in x.split(CHUNK)]) for x in ends) / 2

    def next(self, t: int, x: Tensor, generator: torch.Generator) -> Tensor:
        """V_t(x) against the population that is faced, (n, d) -> (n,): its last reward if t = T, else `_value`."""
        game, tried = self.game, self.config.candidates
        if t == game.horizon:
            return game.reward(t, x, x.new_zeros(len(x), game.action_dim), self.faced).to(x)
        reward, z = ahead(game, self.faced, t, x, candidates(game, x, tried, generator))
        return self._value(t, reward, z)

    def _value(self, t: int, reward: Tensor, z: Tensor) -> Tensor:
        """V_t (n,) by the rewards (n, M) of the candidates and the states after their moves (n·M, d): the best Q, or
        their smoothed maximum τ log mean exp(Q/τ)."""
        Q, tau = reward + self.values(t, z).view_as(reward), self.values.temperature
        return tau * (torch.logsumexp(Q / tau, 1) - math.log(Q.shape[1])) if tau > 0 else Q.amax(1)

    def kept(self) -> None:
        return None  # too slow to be played many times

    def learned(self) -> dict[str, Tensor]:
        """What the policy reads: the table, where there is one."""
        read = ("values.temperature", "values.W") if self.values.table is not None else self.state()
        return {name: self.state()[name] for name in read}

    def load(self, state: dict[str, Tensor]) -> None:
        self.load_state_dict(self.state() | state)
