"""Games on small grids, and policies and populations on them, shared by the tests."""

import pytest
import torch
from helpers import gen

from mfglib.exact.dynamic_programming import grid_best_response
from mfglib.exact.lattice import action_values
from mfglib.exact.tables import TablePolicy
from mfglib.games import LinearQuadratic
from mfglib.games.beach_bar import BeachBar
from mfglib.games.four_rooms import FourRooms
from mfglib.populations import CellPopulation

GAMES = {
    "beach bar": (BeachBar(horizon=4), 60),
    "four rooms": (FourRooms(horizon=3), 20),
    "LQ, paper": (LinearQuadratic(x_bound=1.0, a_bound=0.2, initial_law="uniform", horizon=4), 50),
    "LQ, d = 2, A != 1": (
        LinearQuadratic([[0.9, 0.1], [0.0, 0.8]], c_m=0.5, x_bound=[1, 0.5], a_bound=[0.2, 0.3], horizon=2),
        16,
    ),
}
each_game = pytest.mark.parametrize(("game", "cells"), GAMES.values(), ids=GAMES.keys())


def uniform(grid):
    shape = (grid.game.horizon + 1, len(grid.x))
    return CellPopulation(grid, torch.full(shape, 1 / len(grid.x), dtype=torch.float64))


def random_policy(grid, seed=0, spread=3.0):
    shape = (grid.game.horizon, len(grid.x), len(grid.actions))
    return TablePolicy.on_lattice(grid, (spread * torch.randn(shape, generator=gen(seed)).double()).softmax(-1))


def soft(grid, population, temperature):
    """The soft-max of the values of the lattice's actions, before a best response."""
    V, a = grid_best_response(grid, population).V, grid.actions.expand(len(grid.x), -1, -1)
    Q = [action_values(grid, t, a, population, grid.expected(V[t + 1])) for t in range(grid.game.horizon)]
    return TablePolicy.on_lattice(grid, (torch.stack(Q) / temperature).softmax(2))
