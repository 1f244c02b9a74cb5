"""Policies as tables on a grid: in each cell, some actions and their shares."""

import torch
from torch import Tensor

from mfglib.arguments import checked
from mfglib.checks import require_states, require_time
from mfglib.exact.grid import Grid
from mfglib.policies import sampler
from mfglib.protocols import Policy

QUANTILES = 32  # atoms that stand for a distribution that is known
DRAWS = 64  # atoms that stand for any other


class TablePolicy:
    """In each cell of a grid, actions (T, m, S, k) and their shares (T, m, S); an agent acts by the cell it is in, and
    not at t = T.

    Actions are clipped to the bounds. Raises ValueError for other shapes.
    """

    def __init__(self, grid: Grid, actions: Tensor, shares: Tensor) -> None:
        T, m = grid.game.horizon, len(grid.x)
        if actions.shape[:2] != (T, m) or shares.shape != actions.shape[:3]:
            raise ValueError(
                f"actions, shares: expected shapes ({T}, {m}, S, {grid.game.action_dim}) and ({T}, {m}, S), got "
                f"{tuple(actions.shape)} and {tuple(shares.shape)}"
            )
        bound = grid.actions.amax(0)
        self.grid, self.actions, self.shares = grid, actions.double().clamp(-bound, bound), shares.double()

    @classmethod
    def on_lattice(cls, grid: Grid, probabilities: Tensor) -> "TablePolicy":
        """Of probabilities (T, m, A) of the grid's lattice of actions, which all cells share."""
        policy = cls.__new__(cls)
        policy.grid, policy.shares = grid, probabilities.double()
        policy.actions = grid.actions.expand(*probabilities.shape, -1)
        return policy

    @classmethod
    @torch.no_grad()
    def of(cls, grid: Grid, policy: Policy, random: torch.Generator) -> "TablePolicy":
        """Any policy, in float32: by quantiles where its distribution is explicit (a method `atoms`), else by draws."""
        z = torch.special.ndtri((torch.arange(QUANTILES, dtype=torch.float64) + 0.5) / QUANTILES)
        z = (z / z.square().mean().sqrt()).float()  # midpoints alone lose some of the variance (decision X3)
        x, times = grid.x.float(), range(grid.game.horizon)
        if hasattr(policy, "atoms"):
            actions = torch.stack([policy.atoms(t, x, z) for t in times])
        else:
            each, act = x.repeat_interleave(DRAWS, 0), sampler(policy, random)
            actions = torch.stack([act(t, each).view(len(x), DRAWS) for t in times])
        actions = actions.double()[..., None]
        return cls(grid, actions, torch.full(actions.shape[:3], 1 / actions.shape[2]))

    def on_lattice_of(self, grid: Grid) -> bool:
        """Whether its shares are those of the lattice of actions of a grid with the cells of `grid`."""
        own, lattice = self.actions, grid.actions
        same = self.grid.key == grid.key and own.shape[2:] == lattice.shape and not any(own.stride()[:2])
        return same and torch.equal(own[0, 0], lattice)

    def at(self, t: int) -> tuple[Tensor, Tensor]:
        """Actions (m, S, k) and shares (m, S) at time t, without most of those that nobody takes."""
        actions, shares = self.actions[t], self.shares[t]
        S = int((shares > 0).sum(1).max())
        if 4 * S > shares.shape[1]:
            return actions, shares
        shares, index = shares.topk(S)
        return actions.gather(1, index[..., None].expand(-1, -1, actions.shape[2])), shares

    @checked
    def sample(self, t: int, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        require_states("x", x, self.grid.state_dim)
        if require_time(t, len(self.shares)) == len(self.shares):
            return x.new_zeros(len(x), self.grid.game.action_dim)
        # One search in the distribution functions of all cells, end to end: (n, S) would be large.
        ends = self.shares[t].cumsum(1)
        ends = ends / ends[:, -1:] + torch.arange(len(ends))[:, None]
        cell = self.grid.cell(x)
        u = torch.rand(len(x), generator=generator, dtype=torch.float64)
        index = torch.searchsorted(ends.flatten(), cell + u, right=True) - cell * ends.shape[1]
        return self.actions[t][cell, index.clamp(max=ends.shape[1] - 1)].to(x)

    @checked
    def mean(self, t: int, x: Tensor) -> Tensor:
        require_states("x", x, self.grid.state_dim)
        if require_time(t, len(self.shares)) == len(self.shares):
            return x.new_zeros(len(x), self.grid.game.action_dim)
        cell = self.grid.cell(x)
        return torch.einsum("ns,nsk->nk", self.shares[t, cell], self.actions[t][cell]).to(x)

    @checked
    def log_prob(self, t: int, x: Tensor, a: Tensor) -> Tensor:
        """Log-share of the nearest action of the cell, at t < T: a table has no density."""
        require_time(t, len(self.shares) - 1)
        require_states("x", x, self.grid.state_dim)
        if a.shape != (len(x), self.grid.game.action_dim):
            raise ValueError(f"x, a: expected shapes (n, d) and (n, k), got {tuple(x.shape)} and {tuple(a.shape)}")
        cell = self.grid.cell(x)
        nearest = (self.actions[t][cell] - a.double()[:, None]).square().sum(2).argmin(1)
        return self.shares[t, cell, nearest].log().to(x)
