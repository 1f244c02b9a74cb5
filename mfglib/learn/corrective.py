"""Averages whose weights solve the game restricted to the best responses so far, instead of following a schedule.

The first best responses are rough, and 1/k never forgives them: here they end with the weight 0. References: fully
corrective Frank–Wolfe (Jaggi, ICML 2013); policy-space response oracles with a Nash meta-solver (Lanctot et al., arXiv
1711.00832), in mean field games Muller et al., arXiv 2111.08350.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mfglib.checks import require_finite
from mfglib.games.cells import Cells
from mfglib.learn.cloning import ClonedAverage, CloningConfig, Memory
from mfglib.learn.episodes import EpisodeAverage
from mfglib.learn.networks import Networks
from mfglib.learn.table import cells_of
from mfglib.populations import CellPopulation, Repeated
from mfglib.protocols import BestResponse, Game, Population, TensorState
from mfglib.rollout import Rollout, mean_action, redrawn, rollout
from mfglib.seeds import Random
from mfglib.trial import separable

CELLS = {1: 50, 2: 20}  # along the longest side
DRAWS = 16  # of each agent's step (decision S9)
TOLERANCE = 1e-3  # of the range of what best responses earn
STEPS = 1000  # most of a solution


@dataclass(frozen=True)
class Corrective:
    """The weights of best responses 1..k are those of an equilibrium of the game restricted to them (`RestrictedGame`).

    `cells`: along the longest side of the domain, of the histograms that say where the agents of each are; None for 50
    in one dimension and 20, or what fits the walls, in two.
    """

    cells: int | None = None

    def weights(self, k: int) -> np.ndarray:
        """Refused: they are not known before best responses are."""
        raise TypeError("averaging: 'corrective' is for the learners of `mfglib.solve`, and has no weights by itself")


class RestrictedGame(TensorState):
    """The game in which each agent draws one of the best responses 1..k, at the start, and follows it.

    Moves ignore the population, so μ_i, where the agents of best response i are, does not depend on what the others do;
    and rewards split as r_t(x, a, μ) = c_t(x, a) + f_t(x, μ). So the crowd of the weights w is μ^w = Σ_i w_i μ_i, and
    best response i earns

        U_i(w) = earned_i + Σ_t ⟨μ_{i,t}, r_t(·, 0, μ^w_t)⟩,   earned_i = E_i Σ_t c_t(x_t, a_t) − c_t(x_t, 0).

    mass: (k, T+1, m) of μ_i in the cells of the domain, actions: (k, T, a) mean actions, earned: (k,), solution: (k,),
    the weights; all from simulated agents.

    Raises ValueError for a game without a `domain` of one or two dimensions, and for one that is not such a game
    (`separable`).
    """

    def __init__(self, game: Game, cells: int | None = None) -> None:
        self.game, self.grid = game, _cells(game, cells)
        empty = dict(dtype=torch.float64)
        self.mass = torch.empty(0, game.horizon + 1, len(self.grid.x), **empty)
        self.actions = torch.empty(0, game.horizon, game.action_dim, **empty)
        self.earned, self.solution = torch.empty(0, **empty), torch.empty(0, **empty)

    def weights(self, k: int) -> np.ndarray:
        """Of best responses 1..k, all that were added: (k,)."""
        if k != len(self.solution):
            raise ValueError(f"k: expected {len(self.solution)}, the number of best responses, got {k}")
        return self.solution.numpy()

    @torch.no_grad()
    def add(self, x: Tensor, a: Tensor, generator: torch.Generator) -> None:
        """Solve the game with one more best response, of which x: (T+1, n, d) and a: (T, n, k) are a roll-out. Where
        its agents are is counted over several draws of each one's last step."""
        game, means, earned = self.game, mean_action(self.game, a).double().cpu(), 0.0
        seen = CellPopulation(self.grid, self._shares(x), actions=means)
        for t, actions in enumerate(a):
            acted, still = (game.reward(t, x[t], v, seen) for v in (actions, torch.zeros_like(actions)))
            earned += (acted - still).double().mean().item()
        drawn = redrawn(game, Rollout(x, a, x[..., 0]), seen, DRAWS, generator)
        require_finite("averaging: what the best response earns", earned)
        self.mass = torch.cat([self.mass, self._shares(drawn)[None]])
        self.actions = torch.cat([self.actions, means[None]])
        self.earned = torch.cat([self.earned, self.earned.new_tensor([earned])])
        k = len(self.earned)
        start = torch.cat([self.solution * (1 - 1 / k), self.earned.new_tensor([1 / k])])
        self.solution = equilibrium_weights(self.payoffs, start)

    def _shares(self, x: Tensor) -> Tensor:
        """Of agents x: (T+1, n, d), in the cells: (T+1, m)."""
        found = [self.grid.find(states).cpu() for states in x]
        counts = torch.stack([torch.bincount(cells[cells >= 0], minlength=len(self.grid.x)) for cells in found])
        return counts.double() / x.shape[1]

    @torch.no_grad()
    def payoffs(self, w: Tensor) -> Tensor:
        """U(w): (k,) -> (k,), in units of reward."""
        mass, x, total = torch.einsum("i,itm->tm", w, self.mass), self.grid.x, self.earned.clone()
        crowd = CellPopulation(self.grid, mass, actions=torch.einsum("i,itk->tk", w, self.actions))
        crowd = Repeated(crowd, x, lambda t: (mass[t] / self.grid.volume).log())
        still = x.new_zeros(len(x), self.game.action_dim)
        for t, own in enumerate(self.mass.unbind(1)):
            reward = self.game.reward(t, x, still, crowd).double()
            total += torch.where(own > 0, own * reward, 0.0).sum(1)
        return total


def equilibrium_weights(
    payoffs: Callable[[Tensor], Tensor], w: Tensor, tolerance: float = TOLERANCE, steps: int = STEPS
) -> Tensor:
    """Weights w: (k,) of an equilibrium of a population game: w · U(w) >= max_i U_i(w) − tolerance · range of U, from
    the start w; after `steps` the best that was seen.

    The extragradient method, with steps that adapt (Korpelevich, 1976; Khobotov, 1987). It asks for no potential, and
    converges where agents avoid each other.
    """

    def earned(w: Tensor) -> Tensor:
        U = payoffs(w)
        require_finite("averaging: what best responses earn", *U.tolist())
        return U

    best, least, eta = w, math.inf, 0.0
    for _ in range(steps):
        U = earned(w)
        gap, spread = float(U.max() - w @ U), float(U.max() - U.min())
        if gap < least:
            best, least = w, gap
        if gap <= tolerance * spread:
            break
        eta = 1.5 * eta or 1 / spread
        while True:  # until what is earned changes by less than the weights do
            half = project(w + eta * U)
            change, moved = earned(half) - U, half - w
            if eta * change.norm() <= 0.9 * moved.norm():
                break
            eta /= 2
        w = project(w + eta * (U + change))
    return best


def project(v: Tensor) -> Tensor:
    """The point of the simplex that is nearest to v: (k,)."""
    ordered = v.sort(descending=True).values
    excess = (ordered.cumsum(0) - 1) / torch.arange(1, len(v) + 1)
    return (v - excess[(ordered > excess).nonzero()[-1, 0]]).clamp_min(0)


def _cells(game: Game, cells: int | None) -> Cells:
    domain = getattr(game, "domain", None)
    if domain is None or domain.state_dim not in CELLS:
        raise ValueError(
            f"averaging: 'corrective' needs a game with a `domain` of one or two dimensions, got {game!r}; "
            f"try 'linear' or 'geometric'"
        )
    if not separable(game):
        raise ValueError(
            f"averaging: 'corrective' needs a game whose moves ignore the population and whose rewards are a function "
            f"of (t, x, a) plus one of (t, x, μ), got {game!r}; try 'linear' or 'geometric'"
        )
    return cells_of(domain, CELLS[domain.state_dim]) if cells is None else Cells(domain, cells)


class _ShownMemory(Memory):
    """M_SL, which shows each best response to a restricted game before it takes it in."""

    def __init__(self, restricted: RestrictedGame, like: Memory) -> None:
        super().__init__(*like.sizes, like.capacity, like.device)
        self.restricted = restricted

    def add(self, x: Tensor, a: Tensor, iteration: int, generator: torch.Generator) -> None:
        self.restricted.add(x, a, generator)
        super().add(x, a, iteration, generator)


class CorrectiveAverage(ClonedAverage):
    """π̄ of Algo. 2 and 3, cloned from M_SL with the weights of a restricted game; they are in what `update` returns."""

    def __init__(
        self,
        game: Game,
        networks: Networks | None = None,
        config: CloningConfig | None = None,
        averaging: Corrective | None = None,
    ) -> None:
        restricted = RestrictedGame(game, (averaging or Corrective()).cells)
        super().__init__(game, networks, config, restricted)
        self.memory = _ShownMemory(restricted, self.memory)

    def update(self, response: BestResponse, population: Population, k: int, random: Random) -> dict[str, float]:
        return super().update(response, population, k, random) | _named(self.averaging)

    def state(self) -> dict[str, Tensor]:
        return super().state() | _prefixed(self.averaging.state())

    def load(self, state: dict[str, Tensor]) -> None:
        rest, own = _parted(state)
        self.averaging.load(own)
        super().load(rest)


class CorrectiveEpisodes(EpisodeAverage):
    """π̄ of Algo. 1 as the mixture of all best responses so far with the weights of a restricted game."""

    def __init__(
        self,
        game: Game,
        networks: Networks | None = None,
        config: CloningConfig | None = None,
        averaging: Corrective | None = None,
        best_response: BestResponse | None = None,
    ) -> None:
        super().__init__(game, networks, config, None, best_response)
        self.averaging = RestrictedGame(game, (averaging or Corrective()).cells)
        self.cloned.memory = _ShownMemory(self.averaging, self.cloned.memory)

    def update(self, response: BestResponse, population: Population, k: int, random: Random) -> dict[str, float]:
        losses = super().update(response, population, k, random)
        if len(self.averaging.solution) < k:  # it was not cloned, so nobody has followed it
            options = dict(n=self.config.agents, generator=random("memory"), rewards=False)
            play = rollout(self.cloned.game, response.policy, population, **options)
            self.averaging.add(play.x, play.a, random("memory keys"))
        return losses | _named(self.averaging)

    def state(self) -> dict[str, Tensor]:
        return super().state() | _prefixed(self.averaging.state())

    def learned(self) -> dict[str, Tensor]:
        return super().learned() | _prefixed({"solution": self.averaging.solution})

    def load(self, state: dict[str, Tensor]) -> None:
        rest, own = _parted(state)
        self.averaging.load(own)
        super().load(rest)


PREFIX = "restricted."


def _named(restricted: RestrictedGame) -> dict[str, float]:
    return {f"weight_{i}": float(w) for i, w in enumerate(restricted.solution, 1)}


def _prefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {PREFIX + name: value.contiguous() for name, value in state.items()}


def _parted(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    own = {name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)}
    return {name: value for name, value in state.items() if not name.startswith(PREFIX)}, own
