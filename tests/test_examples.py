"""The worked games that are not in the paper: what they claim to teach, on the exact solver's grid."""

import pytest
import torch

from deda_fp.examples.congestion import Congestion
from deda_fp.examples.evacuation import EXIT, Evacuation
from mfglib import check_game
from mfglib.exact.dynamic_programming import grid_best_response
from mfglib.exact.equilibrium import grid_equilibrium

GRID = dict(tolerance=0.01, iterations=100, progress=False)  # coarse grids: their lattice of actions costs up to 0.6%


def left(game, equilibrium, t):
    """Mean distance to the exit at t."""
    cells, mass = equilibrium.policy.grid.x, equilibrium.population.mass[t]
    distance = (torch.as_tensor(cells) - torch.tensor(EXIT)).norm(dim=-1)
    return float((torch.as_tensor(mass).double() * distance).sum())


@pytest.mark.parametrize("game", [Congestion(), Congestion(power=0), Evacuation(), Evacuation(c_m=0)])
def test_games_keep_the_contract(game):
    check_game(game)


def test_congestion_without_power_does_not_see_the_crowd():
    free, crowded = (grid_equilibrium(Congestion(power=p), cells=40, **GRID) for p in (0, 1))
    grid = free.policy.grid
    values = [grid_best_response(grid, e.population).value for e in (free, crowded)]
    assert values[0] == pytest.approx(values[1], rel=1e-12)


def test_a_dense_crowd_sets_out_more_slowly():
    free, crowded = (grid_equilibrium(Congestion(power=p), cells=40, **GRID) for p in (0, 1))
    assert crowded.exploitability <= 0.01 * crowded.first
    start, first, other = (
        float(v) for v in (free.population.mean(0), free.population.mean(1), crowded.population.mean(1))
    )
    assert start + 0.01 < other < first - 0.01  # μ_0 is 10/3 > 1 where people stand


def test_evacuation_is_for_the_reward_at_the_end_and_pays_for_crowds():
    stay = grid_equilibrium(Evacuation(c_m=1.0, c_exit=0.0), cells=20, **GRID)
    games = [Evacuation(c_m=c_m) for c_m in (0.01, 0.1)]
    found = [grid_equilibrium(game, cells=20, **GRID) for game in games]
    few, many = (left(game, e, game.horizon) for game, e in zip(games, found, strict=True))
    print(few, many, left(games[0], stay, 12), left(games[0], stay, 0))
    assert few < many < 0.5 * left(games[0], stay, 12)


@pytest.mark.parametrize("bad", [dict(c_a=0), dict(c_a=float("nan")), dict(horizon=0), dict(a_bound=-1), dict(c_a="x")])
@pytest.mark.parametrize("make", [Congestion, Evacuation])
def test_bad_numbers_are_named(make, bad):
    with pytest.raises((TypeError, ValueError), match=next(iter(bad))):
        make(**bad)
