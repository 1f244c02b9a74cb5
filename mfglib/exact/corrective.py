"""Fully corrective fictitious play on a grid: weights of a game that is restricted to the best responses so far."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from scipy.sparse import csr_array
from torch import Tensor

from mfglib.checks import integer, number
from mfglib.exact.dynamic_programming import Evaluation, grid_evaluate
from mfglib.exact.grid import Grid
from mfglib.exact.lattice import by_rows
from mfglib.exact.responses import best_response
from mfglib.exact.tables import TablePolicy
from mfglib.learn.corrective import equilibrium_weights
from mfglib.populations import CellPopulation
from mfglib.trial import separable


@dataclass(frozen=True)
class Followed:
    """One of the policies of a restricted game: `flow`, sparse (T·m, A), the mass that takes each action in each cell;
    mass: (T+1, m); actions: (T, k), their means, or None; `earned`, beside what depends on the crowd; `weight`."""

    flow: csr_array
    mass: Tensor
    actions: Tensor | None
    earned: float
    weight: float


@dataclass(frozen=True)
class Corrective:
    """Fully corrective fictitious play: the average of all best responses so far, with the weights of an equilibrium of
    the game restricted to them (`mfglib.learn.corrective`), and of the policy to start from, if one is given. Those
    whose weight is 0 are dropped.

    For games whose moves ignore the population and whose rewards are a function of (t, x, a) plus one of (t, x, μ);
    `init` raises ValueError for others, and the constructor for bad arguments.
    """

    tolerance: float = 1e-3
    """of the restricted game: what the best of its policies still gains, over the range of what they earn"""
    steps: int = 30
    """at most, of a solution of the restricted game (decision X5)"""

    def __post_init__(self) -> None:
        number("tolerance", self.tolerance, positive=True, at_most=1)
        integer("steps", self.steps, at_least=1)

    def init(self, grid: Grid, start: TablePolicy | None, first: float) -> tuple[Followed, ...]:
        if not separable(grid.game):
            raise ValueError(
                f"method: 'corrective' needs a game whose moves ignore the population and whose rewards are a function "
                f"of (t, x, a) plus one of (t, x, μ), got {grid.game!r}; try 'search' or 'momentum'"
            )
        if start is None:
            return ()
        play = grid_evaluate(grid, start)
        return (_followed(grid, start, play, play.population, 1.0),)

    def step(
        self, grid: Grid, memory: tuple[Followed, ...], k: int, policy: TablePolicy, play: Evaluation
    ) -> tuple[TablePolicy, tuple[Followed, ...]]:
        new = best_response(grid, play.population)
        played = grid_evaluate(grid, new, play.population)
        parts = (*memory, _followed(grid, new, played, play.population, 1 / (len(memory) + 1)))
        w = torch.tensor([part.weight for part in parts], dtype=torch.float64)
        w[:-1] *= 1 - w[-1]
        if len(parts) > 1:
            w = equilibrium_weights(_payoffs(grid, parts), w, self.tolerance, self.steps)
        parts = tuple(replace(part, weight=share) for part, share in zip(parts, w.tolist(), strict=True) if share > 0)
        flow = torch.from_numpy(sum(part.weight * part.flow for part in parts).toarray()).view(new.shares.shape)
        total = flow.sum(2, keepdim=True)
        return TablePolicy.on_lattice(grid, torch.where(total > 0, flow / total, new.shares)), parts


def _followed(grid: Grid, policy: TablePolicy, played: Evaluation, judge: CellPopulation, weight: float) -> Followed:
    """Of a policy that earned `played.value` in the population `judge`."""
    mass = played.population.mass
    flow = csr_array((mass[:-1, :, None] * policy.shares).flatten(0, 1).numpy())
    earned = played.value - float(_among(grid, mass[None], judge))
    return Followed(flow, mass, played.population.actions, earned, weight)


def _among(grid: Grid, masses: Tensor, crowd: CellPopulation) -> Tensor:
    """What agents with masses (n, T+1, m) who never act would be rewarded with in a crowd, over all times: (n,)."""
    still, total = torch.zeros(len(grid.x), 1, grid.game.action_dim, dtype=torch.float64), 0.0
    for t, mass in enumerate(masses.unbind(1)):
        reward = torch.cat([reward[:, 0] for _, reward, _ in by_rows(grid, t, still, crowd)])
        total = total + torch.where(mass > 0, mass * reward, 0.0).sum(1)
    return total


def _payoffs(grid: Grid, parts: tuple[Followed, ...]) -> Callable[[Tensor], Tensor]:
    """What each policy earns, (n,), where the crowd follows them with weights w: (n,)."""
    masses = torch.stack([part.mass for part in parts])
    earned = torch.tensor([part.earned for part in parts], dtype=torch.float64)
    actions = None if parts[0].actions is None else torch.stack([part.actions for part in parts])

    def payoffs(w: Tensor) -> Tensor:
        acted = None if actions is None else torch.einsum("i,itk->tk", w, actions)
        return earned + _among(grid, masses, CellPopulation(grid, torch.einsum("i,itm->tm", w, masses), actions=acted))

    return payoffs
