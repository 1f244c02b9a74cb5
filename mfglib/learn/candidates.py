"""Acting by looking one step ahead: actions are tried, and what they earn is added to the value of where they lead."""

import torch
from torch import Tensor, nn

from mfglib.arguments import checked
from mfglib.checks import require_time
from mfglib.games.base import clip, constant
from mfglib.populations import Repeated
from mfglib.protocols import Game, Population

CHUNK = 2048  # states at a time: with their candidates they should stay in a cache
REFINEMENT = 3  # candidates a side of the second look


class LookaheadPolicy:
    """π_t(a|x) ∝ exp(Q_t(x, a)/τ), or the best action if τ = 0, among stratified random candidates: first all over the
    box of actions, then in a cell around the one chosen. The second look is cheap and halves the regret that is due to
    the size of the cells (decision L1).

    Q is that of `values` against `population`, which is asked for rewards and moves at time t. Where these are
    functions of (x, a) plus functions of (x, μ), as in beach bar and 4-rooms, any population will do, and with
    `separable` none is asked for its density: it is the same for all actions.
    """

    def __init__(
        self,
        game: Game,
        population: Population,
        values: nn.Module,
        candidates: int,
        *,
        separable: bool = False,
    ) -> None:
        self.game, self.population, self.values, self.candidates = game, population, values, candidates
        self.separable = separable

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
        Q, tau = self._worth(t, x, a), self.values.temperature
        if tau > 0:
            index = torch.multinomial((Q / tau).softmax(1), 1, generator=generator)[:, 0]
        else:
            index = Q.argmax(1)
        return a[torch.arange(len(x), device=x.device), index]

    def _worth(self, t: int, x: Tensor, a: Tensor) -> Tensor:
        """Q_t (n, M) of actions a: (n, M, k), but for what is the same for all."""
        reward, z = ahead(self.game, self.population, t, x, a, x.new_zeros(len(x)) if self.separable else None)
        return reward + self.values(t, z).view_as(reward)

    @torch.no_grad()
    @checked
    def mean(self, t: int, x: Tensor) -> Tensor:
        """The mean action within the bounds, over regular candidates: (n, d) -> (n, k)."""
        if self._is_last(t, x):
            return x.new_zeros(len(x), self.game.action_dim)
        return torch.cat([self._mean(t, part) for part in x.split(CHUNK)])

    def _mean(self, t: int, x: Tensor) -> Tensor:
        a = candidates(self.game, x, self.candidates, None, jitter=False)
        Q, tau = self._worth(t, x, a), self.values.temperature
        weight = (Q / tau).softmax(1) if tau > 0 else (Q == Q.amax(1, keepdim=True)).to(Q)
        return (weight[..., None] * clip(a, self.game.a_bound)).sum(1) / weight.sum(1, keepdim=True)

    def log_prob(self, t: int, x: Tensor, a: Tensor) -> Tensor:
        raise NotImplementedError("a policy that looks ahead has no density: it puts mass on the bounds of the actions")


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


def ahead(
    game: Game, population: Population, t: int, x: Tensor, a: Tensor, log_density: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Of actions a: (n, M, k), clipped to the bounds, in states x: (n, d): rewards (n, M), and the states after the
    move (n·M, d). `log_density`: (n,), of the crowd in x; None to ask the population, once a state."""
    M = a.shape[1]
    each, a = x.repeat_interleave(M, 0), clip(a.flatten(0, 1), game.a_bound)

    def known(t: int) -> Tensor:
        return (population.log_prob(t, x) if log_density is None else log_density).repeat_interleave(M)

    crowd = Repeated(population, each, known)
    return game.reward(t, each, a, crowd).to(x).view(-1, M), game.moved(t, each, a, crowd)
