"""Any policy as one of a grid's lattice of actions: what a method starts from."""

from typing import Any

import torch
from torch import Tensor

from mfglib.exact.dynamic_programming import actions_of, grid_evaluate
from mfglib.exact.grid import Grid
from mfglib.exact.responses import mixed
from mfglib.exact.tables import TablePolicy

DRAWS = 64  # actions drawn in each cell of a policy that is no table, each a share of 1/64


def restated(grid: Grid, policy: Any) -> TablePolicy:
    """A policy on `grid`: in each cell, that of its centre, with the nearest actions of the lattice.

    Tables of another grid are read in the cell around, any other policy by draws at the centre. A mixture that agents
    draw from once per episode becomes its average in occupancy.

    Raises ValueError for a policy with another number of decisions, or of other states or actions.
    """
    game = grid.game
    if hasattr(policy, "policies"):
        return _averaged(grid, policy)
    if not isinstance(policy, TablePolicy):
        even = torch.full((len(grid.x),), 1 / len(grid.x), dtype=torch.float64)
        act = actions_of(grid, policy, DRAWS)
        with torch.no_grad():
            drawn = [act(t, even) for t in range(game.horizon)]
        if not all(actions.isfinite().all() for actions, _ in drawn):
            raise ValueError("initial_policy: expected finite actions at all centres of cells, got others")
        return TablePolicy.on_lattice(grid, torch.stack([_nearest(grid, *one) for one in drawn]))
    sizes = len(policy.shares), policy.grid.state_dim, policy.actions.shape[3]
    if sizes != (game.horizon, grid.state_dim, game.action_dim):
        expected = game.horizon, grid.state_dim, game.action_dim
        raise ValueError(
            f"initial_policy: expected a table with {expected[0]} decisions, {expected[1]} coordinates and "
            f"{expected[2]} actions, got one with {sizes[0]}, {sizes[1]} and {sizes[2]}"
        )
    if policy.on_lattice_of(grid):
        return TablePolicy.on_lattice(grid, policy.shares)
    cell = policy.grid.cell(grid.x)
    if any(policy.actions.stride()[:2]):
        each = zip(policy.actions[:, cell], policy.shares[:, cell], strict=True)
        return TablePolicy.on_lattice(grid, torch.stack([_nearest(grid, *one) for one in each]))
    nearest = torch.cdist(policy.actions[0, 0], grid.actions).argmin(1)  # of a lattice, which all cells share
    probabilities = torch.zeros(game.horizon, len(grid.x), len(grid.actions), dtype=torch.float64)
    return TablePolicy.on_lattice(grid, probabilities.index_add_(2, nearest, policy.shares[:, cell]))


def _nearest(grid: Grid, actions: Tensor, shares: Tensor) -> Tensor:
    """Shares (m, A) of the lattice's actions from those (m, S) of actions (m, S, k)."""
    nearest = torch.cdist(actions.double(), grid.actions.expand(len(actions), -1, -1)).argmin(2)
    return torch.zeros(len(actions), len(grid.actions), dtype=torch.float64).scatter_add_(1, nearest, shares)


def _averaged(grid: Grid, mixture: Any) -> TablePolicy:
    """The average in occupancy of policies that agents draw once per episode."""
    policy, mass, total = None, None, 0.0
    for member, weight in zip(mixture.policies, mixture.weights, strict=True):
        if not weight:
            continue
        new, total = restated(grid, member), total + float(weight)
        there, step = grid_evaluate(grid, new).population.mass, float(weight) / total
        policy = new if policy is None else mixed(policy, mass, new, there, step)
        mass = there if mass is None else torch.lerp(mass, there, step)
    return policy
