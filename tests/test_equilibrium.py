"""Equilibria on grids (`mfglib.exact.equilibrium`)."""

import numpy as np
import pytest
import torch

from mfglib.exact import grid_equilibrium, grid_fictitious_play, lq_equilibrium
from mfglib.exact.dynamic_programming import grid_best_response, grid_evaluate
from mfglib.exact.grid import Grid
from mfglib.exact.methods import FictitiousPlay
from mfglib.games import BeachBar, FourRooms, LinearQuadratic

GAMES = {
    "beach bar": (BeachBar(horizon=5), 60),
    "four rooms": (FourRooms(horizon=4), 20),
    "LQ, paper": (LinearQuadratic(x_bound=1.0, a_bound=0.2, initial_law="uniform", horizon=6), 60),
}
each_game = pytest.mark.parametrize(("game", "cells"), GAMES.values(), ids=GAMES.keys())


@each_game
def test_equilibrium_is_what_it_says(game, cells):
    eq = grid_equilibrium(game, cells, 0.01)
    assert 0 <= eq.exploitability <= 0.01 * eq.first
    play = grid_evaluate(Grid(game, cells), eq.policy)  # judged here anew
    best = grid_best_response(Grid(game, cells), play.population).value
    assert (eq.value, eq.exploitability) == pytest.approx((play.value, best - play.value), rel=1e-9, abs=1e-9)
    torch.testing.assert_close(eq.population.mass, play.population.mass)
    last = eq.history.iloc[-1]
    assert (last["exploitability"], last["value"], last["cells"]) == (eq.exploitability, eq.value, cells)


@each_game
def test_first_is_the_exploitability_of_never_acting(game, cells):
    class NoAction:
        def sample(self, t, x):
            return torch.zeros(len(x), game.action_dim)

    play = grid_evaluate(Grid(game, cells), NoAction())
    first = grid_best_response(Grid(game, cells), play.population).value - play.value
    assert grid_fictitious_play(game, 1, cells=cells).first == pytest.approx(first, rel=1e-12)


def test_without_a_crowd_one_best_response_is_the_equilibrium():
    game = BeachBar(c_m=0.0, horizon=5)
    play = grid_fictitious_play(game, 1, cells=100)
    assert play.exploitability < 1e-4 * play.first  # of actions on the lattice: within half a step of the best ones
    assert grid_equilibrium(game, 100, 1e-4).history["iteration"].max() <= 20


def test_a_game_in_which_nothing_pays_is_solved_by_never_acting():
    eq = grid_equilibrium(BeachBar(c_x=0.0, c_m=0.0, horizon=2), 20)
    assert eq.exploitability == eq.first == 0 and (eq.policy.mean(0, torch.rand(9, 1)).abs() < 1e-12).all()


@pytest.mark.parametrize("A_bar", [0.0, 0.3])
def test_far_from_the_bounds_the_lq_equilibrium_is_the_closed_form(A_bar):
    constants = dict(A_bar=A_bar, c_x=1.0, c_a=0.3, c_m=0.5, horizon=6, initial_mean=-0.4, initial_std=0.2)
    exact = lq_equilibrium(LinearQuadratic(**constants))
    game = LinearQuadratic(**constants, x_bound=2.0, a_bound=1.5)
    errors = []
    for cells in (40, 80, 160):
        eq = grid_fictitious_play(game, 12, method="search", cells=cells, every=12)
        mean = torch.stack([eq.population.mean(t) for t in range(7)])
        errors.append([(mean - exact.mean).abs().max().item(), abs(eq.value - exact.value)])
    errors = np.array(errors)
    assert (errors[-1] < 0.005).all()
    assert (errors[-1] < errors[0] / 8).all()  # second order would be 16


def test_search_finds_what_small_steps_miss_where_agents_follow_each_other():
    game = LinearQuadratic(c_x=1.0, c_a=1.0, c_m=2.0, horizon=6, initial_mean=-0.4, x_bound=3.0, a_bound=1.5)
    search, uniform = (grid_fictitious_play(game, 12, method=m, cells=60, every=12) for m in ("search", "uniform"))
    assert search.exploitability < 0.2 * uniform.exploitability


METHODS = [("LQ, paper", "linear"), *(("beach bar", m) for m in ("uniform", "linear", "smoothed", "mirror descent"))]


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_all_methods_find_the_one_equilibrium(name, method):
    game, cells = GAMES[name]
    ours = grid_equilibrium(game, cells, 0.002)
    other = grid_fictitious_play(game, 100, method=method, cells=cells, every=50)
    assert other.exploitability < 0.03 * other.first
    apart = (ours.population.mass - other.population.mass).abs().sum(1).amax() / 2  # total variation
    assert apart < 0.06
    assert apart < 0.25 * (ours.population.mass[-1] - ours.population.mass[0]).abs().sum() / 2


def test_equilibrium_of_symmetric_rooms_is_symmetric():
    game = FourRooms(horizon=6)
    eq = grid_fictitious_play(game, 15, method="smoothed", cells=20, every=15)
    density = np.nan_to_num(np.stack([eq.population.density(t) for t in range(7)]))
    mirrored = density[:, ::-1, ::-1].transpose(0, 2, 1)  # (x, y) -> (0.5 − y, 0.5 − x) keeps walls and start
    np.testing.assert_allclose(density, mirrored, atol=1e-6 * density.max())
    assert abs(density - density.transpose(0, 2, 1)).max() > 1  # while another reflection does not


def test_history_has_the_iterations_asked_for():
    game, cells = GAMES["beach bar"]
    play = grid_fictitious_play(game, 7, cells=cells, every=3)
    assert play.history["iteration"].tolist() == [0, 3, 6, 7]
    assert play.history["exploitability"].iloc[0] == play.first
    assert play.history["exploitability"].iloc[-1] == play.exploitability < 0.5 * play.first
    again = grid_fictitious_play(game, 7, cells=cells)
    assert again.history["exploitability"].tolist()[::3] == play.history["exploitability"].tolist()[:3]


def test_average_is_in_occupancy():
    """After two steps: each cell's mixture of the two best responses, by the mass that each brings."""
    game, cells = BeachBar(horizon=4), 40
    one, two = (grid_fictitious_play(game, k, cells=cells) for k in (1, 2))
    p = two.policy.shares
    assert ((p > 0).sum(2) <= 2).all() and ((p > 0).sum(2) == 2).any()
    np.testing.assert_allclose(p.sum(2), 1)
    first = one.policy.shares.argmax(2, keepdim=True)
    split = p.gather(2, first)[..., 0]
    mixed = (split > 0) & (split < 1)
    share = one.population.mass[:-1] / two.population.mass[:-1] / 2  # half of all agents follow the first
    np.testing.assert_allclose(split[mixed], share[mixed], rtol=1e-9)


# --- from a given policy, and every iterate


@pytest.mark.parametrize("method", ["uniform", "linear", "search", "smoothed", "damped fixed point"])
def test_going_on_from_an_iterate_is_never_having_stopped(method):
    game, cells = GAMES["beach bar"]
    scheme = dict(method=FictitiousPlay(temperature=0.1) if method == "smoothed" else method, cells=cells)
    whole, half = (grid_fictitious_play(game, k, **scheme) for k in (6, 3))
    rest = grid_fictitious_play(game, 3, initial_policy=half.policy, start=3, **scheme)
    assert torch.equal(rest.policy.shares, whole.policy.shares) and rest.exploitability == whole.exploitability
    assert rest.history["iteration"].tolist() == [3, 4, 5, 6] and rest.first == whole.first


@each_game
def test_an_equilibrium_is_found_at_once_from_itself_and_sooner_from_a_coarser_one(game, cells):
    fine_cells = 2 * cells
    coarse, fine = (grid_equilibrium(game, c, 0.01, progress=False) for c in (cells, fine_cells))
    again = grid_equilibrium(game, fine_cells, 0.01, initial_policy=fine.policy, progress=False)
    assert again.history["iteration"].tolist() == [20] and again.exploitability == fine.exploitability
    assert torch.equal(again.policy.shares, fine.policy.shares) and again.first == fine.first
    near = grid_equilibrium(game, fine_cells, 0.01, initial_policy=coarse.policy, progress=False)
    assert near.exploitability <= 0.01 * near.first
    assert near.history["cells"].unique().tolist() == [fine_cells]
    assert near.history["exploitability"].iloc[0] < 0.2 * near.first


def test_callback_is_given_every_iterate_with_tables_of_its_own():
    game, cells = GAMES["beach bar"]
    steps = []
    play = grid_fictitious_play(game, 5, cells=cells, every=5, callback=steps.append)
    assert [step.k for step in steps] == [0, 1, 2, 3, 4, 5] and {step.cells for step in steps} == {cells}
    assert torch.equal(steps[-1].policy.shares, play.policy.shares) and steps[-1].value == play.value
    for k, step in enumerate(steps):
        alone = grid_fictitious_play(game, k, cells=cells, every=5)
        assert torch.equal(step.policy.shares, alone.policy.shares)
        assert torch.equal(step.population.mass, alone.population.mass)
    steps.clear()
    eq = grid_equilibrium(game, cells, 0.01, callback=steps.append, progress=False)
    assert steps[-1].k == eq.history["iteration"].iloc[-1]
    assert torch.equal(steps[-1].policy.shares, eq.policy.shares)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: grid_fictitious_play(g, 3, start=3), "start: expected 0 without an initial_policy, got 3"),
        (lambda g: grid_fictitious_play(g, 3, start=-1), "start: expected an integer >= 0"),
        (lambda g: grid_fictitious_play(g, 3, initial_policy=3), "initial_policy: expected a policy"),
        (lambda g: grid_fictitious_play(g, 3, callback=3), "callback: expected None or a function, got 3"),
        (lambda g: grid_equilibrium(g, 20, callback="print"), "callback: expected None or a function"),
        (lambda g: grid_equilibrium(g, 20, method="newton"), "method: expected one of"),
        (lambda g: grid_fictitious_play(g, 3, method="newton"), "method: expected one of"),
        (lambda g: grid_fictitious_play(g, -1), "iterations: expected an integer >= 0"),
        (lambda g: grid_fictitious_play(g, 3, every=0), "every: expected an integer >= 1"),
        (lambda g: grid_fictitious_play(g, 3, temperature=1.0), "temperature: expected None for method 'uniform'"),
        (lambda g: grid_fictitious_play(g, 3, method="smoothed", temperature=0), "temperature: expected a number > 0"),
        (lambda g: grid_equilibrium(g, 40, 0.0), "tolerance: expected a share"),
        (lambda g: grid_equilibrium(g, 40, iterations=0), "iterations: expected an integer >= 1"),
        (lambda g: grid_equilibrium(LinearQuadratic()), "game: expected bounded states and actions"),
        (lambda g: grid_equilibrium(object()), "game: expected a bounded game with the member `domain`"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(BeachBar(horizon=2))


def test_an_equilibrium_out_of_reach_is_an_error_with_its_number():
    with pytest.raises(ArithmeticError, match=r"no equilibrium within 2 iterations: exploitability [\d.]+, [\d.]+% of"):
        grid_equilibrium(BeachBar(horizon=4), 40, 1e-4, iterations=2)
