"""The worked games that are not in the paper: what they claim to teach, on the exact solver's grid."""

import pytest
import torch

from deda_fp.examples.congestion import Congestion
from deda_fp.examples.evacuation import EXIT, Evacuation
from deda_fp.examples.flocking import Flocking
from mfglib import check_game, exploitability
from mfglib.exact.dynamic_programming import grid_best_response
from mfglib.exact.equilibrium import grid_equilibrium
from mfglib.exact.lq import lq_equilibrium
from mfglib.policies import NoisePolicy
from mfglib.populations import MeanPath
from mfglib.rollout import rollout

GRID = dict(tolerance=0.01, iterations=100, progress=False)  # coarse grids: their lattice of actions costs up to 0.6%


def left(game, equilibrium, t):
    """Mean distance to the exit at t."""
    cells, mass = equilibrium.policy.grid.x, equilibrium.population.mass[t]
    distance = (torch.as_tensor(cells) - torch.tensor(EXIT)).norm(dim=-1)
    return float((torch.as_tensor(mass).double() * distance).sum())


@pytest.mark.parametrize("game", [Congestion(), Congestion(power=0), Evacuation(), Evacuation(c_m=0), Flocking()])
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
    assert few < many < 0.5 * left(games[0], stay, 12)


@pytest.mark.parametrize("bad", [dict(c_a=0), dict(c_a=float("nan")), dict(horizon=0), dict(c_a="x")])
@pytest.mark.parametrize("make", [Congestion, Evacuation, Flocking])
def test_bad_numbers_are_named(make, bad):
    with pytest.raises((TypeError, ValueError), match=next(iter(bad))):
        make(**bad)


@pytest.mark.parametrize("make", [Congestion, Evacuation])
def test_bounds_on_speed_are_positive(make):
    with pytest.raises(ValueError, match="a_bound"):
        make(a_bound=-1)


# --- flocking: no grid, but a closed form where nobody wishes for a speed


def test_flocking_without_a_wish_for_speed_is_the_linear_quadratic_game():
    """Both agree on every reward and, but for the noise, on every step."""
    game = Flocking(c_s=0.0, noise_std=0.0, c_v=0.7, c_p=0.3, dt=0.2)
    other, random = game.linear_quadratic(), torch.Generator().manual_seed(0)
    x, a = torch.randn(20, 4, generator=random), torch.randn(20, 2, generator=random)
    crowd = MeanPath(torch.randn(game.horizon + 1, 4, generator=random))
    torch.testing.assert_close(game.reward(2, x, a, crowd), other.reward(2, x, a, crowd))
    torch.testing.assert_close(game.step(2, x, a, crowd, random), other.step(2, x, a, crowd, random))


def test_flocking_has_the_start_and_the_noise_of_the_closed_form():
    game, n = Flocking(c_s=0.0), 40_000
    other = game.linear_quadratic()
    still = NoisePolicy(torch.zeros(2))
    ours, theirs = (
        rollout(g, still, n=n, generator=torch.Generator().manual_seed(seed), rewards=False).x[[0, -1]]
        for seed, g in enumerate((game, other))
    )
    assert (ours.mean(1) - theirs.mean(1)).abs().max() < 6 * theirs.std(1).max() * (2 / n) ** 0.5
    assert (ours.std(1) / theirs.std(1) - 1).abs().max() < 6 / n**0.5


def test_alignment_narrows_the_flock_and_does_not_move_it():
    found = [lq_equilibrium(Flocking(c_s=0.0, c_v=c_v).linear_quadratic()) for c_v in (0.0, 1.0, 10.0)]
    spreads = [e.cov[-1, 2, 2].sqrt().item() for e in found]
    assert all(torch.allclose(e.mean[:, 2], torch.full_like(e.mean[:, 2], 0.5)) for e in found)
    assert spreads[2] < 0.8 * spreads[1] < 0.5 * spreads[0]


def test_flocking_with_a_wish_for_speed_has_no_certificate_and_says_so():
    with pytest.raises(ValueError, match="c_s"):
        Flocking().linear_quadratic()
    with pytest.raises((TypeError, ValueError)):
        exploitability(Flocking(), NoisePolicy(torch.zeros(2)))
