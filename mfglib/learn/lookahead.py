"""Best responses by fitted value iteration on post-decision states, for bounded games of known moves.

An agent in x that chooses a is first moved to z = moved(x, a), and then the noise acts. So all that an action changes
in the future is where z is: Q_t(x, a) = r_t(x, a) + W_t(z), with W_t(z) = E V_{t+1}(next state from z). W_t is a
function of a state alone, learned by regression backwards in time; the maximum over actions is taken over random
candidates. Where an action leads is learned from one step, not, as in PPO, from the noisy sum of all later rewards
(decision L3).

References: Powell, Approximate Dynamic Programming (2nd ed., 2011), Section 4.6, post-decision states; Ernst et al.,
JMLR 6 (2005), fitted Q iteration; Huré et al., arXiv 1812.04300, networks trained backwards over a finite horizon.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mfglib.arguments import checked
from mfglib.checks import number, require_finite, require_positive, require_time
from mfglib.games.base import clip, constant, known_moves
from mfglib.learn.networks import Networks, StateFeatures, head, mlp, unit_of
from mfglib.populations import Repeated
from mfglib.protocols import Game, ModuleState, Population
from mfglib.schedules import budget
from mfglib.seeds import Random


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

    `temperature` is τ/k of the last fit.
    """

    def __init__(self, networks: Networks) -> None:
        super().__init__()
        self.features, horizon, hidden = StateFeatures(networks), networks.horizon, networks.hidden
        width = self.features.width
        self.nets = nn.ModuleList(nn.Sequential(*mlp(width, hidden), head(hidden[-1], 1)) for _ in range(horizon))
        self.register_buffer("shift", torch.zeros(horizon))
        self.register_buffer("unit", torch.ones(horizon))
        self.register_buffer("temperature", torch.zeros(()))

    def forward(self, t: int, z: Tensor) -> Tensor:
        """(n, d) -> (n,), in units of reward."""
        return self.nets[t](self.features(z)).squeeze(-1) * self.unit[t] + self.shift[t]


class LookaheadPolicy:
    """π_t(a|x) ∝ exp(Q_t(x, a)/τ), or the best action if τ = 0, among stratified random candidates: first all over the
    box of actions, then in a cell around the one chosen. The second look is cheap and halves the regret that is due to
    the size of the cells (decision L1).

    Q is that of `values` against `population`, which is asked for rewards and moves at time t. Where these are
    functions of (x, a) plus functions of (x, μ), as in beach bar and 4-rooms, any population will do.
    """

    def __init__(self, game: Game, population: Population, values: PostDecisionValues, candidates: int) -> None:
        self.game, self.population, self.values, self.candidates = game, population, values, candidates

    affordable_draws = 4  # of each cell's action, when a judge asks: many candidates stand behind each

    @torch.no_grad()
    @checked
    def sample(self, t: int, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(n, d) -> (n, k); 0 at t = T."""
        if self._is_last(t, x):
            return x.new_zeros(len(x), self.game.action_dim)
        return torch.cat([self._choose(t, part, generator) for part in x.split(CHUNK)])

    def _is_last(self, t: int, x: Tensor) -> bool:
        """Whether nobody acts any more; ValueError for other times and for states that are not in the domain."""
        if not self.game.domain.contains(x).all():
            raise ValueError("x: expected states in the game's domain, got some outside or in walls")
        return require_time(t, self.game.horizon) == self.game.horizon

    def _choose(self, t: int, x: Tensor, generator: torch.Generator | None) -> Tensor:
        a = self._pick(t, x, candidates(self.game, x, self.candidates, generator), generator)
        return self._pick(t, x, around(self.game, x, a, self.candidates, generator), generator)

    def _pick(self, t: int, x: Tensor, a: Tensor, generator: torch.Generator | None) -> Tensor:
        """One of the actions a: (n, M, k) in each state: (n, k)."""
        Q, tau = lookahead(self.game, self.population, self.values, t, x, a), self.values.temperature
        if tau > 0:
            index = torch.multinomial((Q / tau).softmax(1), 1, generator=generator)[:, 0]
        else:
            index = Q.argmax(1)
        return a[torch.arange(len(x), device=x.device), index]

    @torch.no_grad()
    @checked
    def mean(self, t: int, x: Tensor) -> Tensor:
        """The mean action within the bounds, over regular candidates: (n, d) -> (n, k)."""
        if self._is_last(t, x):
            return x.new_zeros(len(x), self.game.action_dim)
        return torch.cat([self._mean(t, part) for part in x.split(CHUNK)])

    def _mean(self, t: int, x: Tensor) -> Tensor:
        a = candidates(self.game, x, self.candidates, None, jitter=False)
        Q, tau = lookahead(self.game, self.population, self.values, t, x, a), self.values.temperature
        weight = (Q / tau).softmax(1) if tau > 0 else (Q == Q.amax(1, keepdim=True)).to(Q)
        return (weight[..., None] * clip(a, self.game.a_bound)).sum(1) / weight.sum(1, keepdim=True)

    def log_prob(self, t: int, x: Tensor, a: Tensor) -> Tensor:
        raise NotImplementedError("a policy that looks ahead has no density: it puts mass on the bounds of the actions")


CHUNK = 2048  # states at a time: with their candidates they should stay in a cache
REFINEMENT = 3  # candidates a side of the second look


def candidates(game: Game, x: Tensor, number: int, generator: torch.Generator | None, *, jitter: bool = True) -> Tensor:
    """Actions to try in each state x: (n, d) -> (n, M, k), one in each cell of a regular partition with M <= `number`.

    The outer cells reach half over the bounds, where a game clips: the best action is often at a bound, and candidates
    inside would miss it (decision L2). They are not clipped here: the cloned network then sees a density over the
    bound, not atoms on it, which would bind most of its Gaussians (decision L4).
    """
    side = _side(game, number)
    return _stratified(game, x, side, generator, jitter) * (side / (side - 1))


def around(game: Game, x: Tensor, a: Tensor, number: int, generator: torch.Generator | None) -> Tensor:
    """REFINEMENT^k actions (n, M, k) in a cell of the partition of `candidates`, laid around each a: (n, k)."""
    return a[:, None] + _stratified(game, x, REFINEMENT, generator, True) / (_side(game, number) - 1)


def _side(game: Game, number: int) -> int:
    return max(2, int(number ** (1 / game.action_dim) + 1e-9))


def _stratified(game: Game, x: Tensor, side: int, generator: torch.Generator | None, jitter: bool) -> Tensor:
    """One action in each of side^k equal cells of the box between the bounds: (n, side^k, k)."""
    k = game.action_dim
    low = torch.cartesian_prod(*[torch.arange(side, device=x.device, dtype=x.dtype)] * k).view(1, -1, k)
    u = torch.rand(len(x), *low.shape[1:], generator=generator, device=x.device, dtype=x.dtype) if jitter else 0.5
    return (((low + u) / side * 2 - 1) * constant(game.a_bound, x)).expand(len(x), -1, -1)


def lookahead(game: Game, population: Population, values: PostDecisionValues, t: int, x: Tensor, a: Tensor) -> Tensor:
    """Q_t of actions a: (n, M, k), clipped to the bounds, in states x: (n, d); returns (n, M)."""
    M = a.shape[1]
    each, a = x.repeat_interleave(M, 0), clip(a.flatten(0, 1), game.a_bound)
    crowd = Repeated(population, each, lambda t: population.log_prob(t, x).repeat_interleave(M))  # asked once a state
    Q = game.reward(t, each, a, crowd).to(x) + values(t, game.moved(t, each, a, crowd))
    return Q.view(-1, M)


def fit_values(
    game: Game,
    population: Population,
    values: PostDecisionValues,
    config: LookaheadConfig,
    generator: torch.Generator,
    *,
    steps: int,
    temperature: float = 0.0,
) -> dict[str, float]:
    """The best response to the fixed `population`, in place, from the last one: a sweep from t = T−1 back to 0. Returns
    the mean squared error of the last step over all times, in units of the targets' variance.

    `temperature` > 0 adds −temperature · log π_t(a|x) to each reward: an entropy-smoothed best response, up to a
    constant. Source: paper, Algo. 3, the best response π*_k against Ḡ_{k−1}. Raises DivergenceError if a loss is not
    finite.
    """
    values.temperature.fill_(temperature)
    losses = []
    for t in reversed(range(game.horizon)):
        inside = round(config.uniform_share * config.states)
        crowd = population.sample(t + 1, config.states - inside, generator)
        z = torch.cat([game.domain.uniform(inside, generator), crowd])
        target = _next_values(game, population, values, config, t + 1, _pushed(game, z, generator), generator)
        require_finite("best response: the rewards", target)
        values.shift[t], values.unit[t] = target.mean(), unit_of(target.std(), target.mean())
        target = (target - values.shift[t]) / values.unit[t]
        losses.append(_regress(values.nets[t], values.features(z), target, config, steps, generator))
    result = float(torch.stack(losses).mean())
    require_finite("best response", result)
    return {"critic_loss": result}


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
def _next_values(
    game: Game, population: Population, values: PostDecisionValues, config: LookaheadConfig, t: int, x: Tensor,
    generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """V_t(x), (n, d) -> (n,): the best Q of the candidates, or their smoothed maximum τ log mean exp(Q/τ)."""
    if t == game.horizon:
        return game.reward(t, x, x.new_zeros(len(x), game.action_dim), population).to(x)
    result, tau = [], values.temperature
    for part in x.split(CHUNK):
        Q = lookahead(game, population, values, t, part, candidates(game, part, config.candidates, generator))
        smooth = tau * (torch.logsumexp(Q / tau, 1) - math.log(Q.shape[1])) if tau > 0 else Q.amax(1)
        result.append(smooth)
    return torch.cat(result)


def _pushed(game: Game, z: Tensor, generator: torch.Generator) -> Tensor:
    """Next states of post-decision states z: (n, d)."""
    return game.domain.move(z, game.noise.draw(len(z), generator, z.dtype))


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
        self.game, self.config, self.faced = game, config or LookaheadConfig(), None
        net = networks or Networks.of(game)
        self.values = PostDecisionValues(net)
        self.to(net.device)

    @property
    def policy(self) -> LookaheadPolicy:
        return LookaheadPolicy(self.game, self.faced, self.values, self.config.acting_candidates)

    def fit(self, population: Population, k: int, random: Random) -> dict[str, float]:
        """Paper, Algo. 3: π*_k against Ḡ_{k−1}, from π*_{k−1}; returns the last loss."""
        self.faced = population
        steps, temperature = budget(k, self.config.first_steps, self.config.steps), self.config.temperature / k
        options = dict(steps=steps, temperature=temperature)
        return fit_values(self.game, population, self.values, self.config, random("best response"), **options)

    def kept(self) -> None:
        return None  # too slow to be played many times
