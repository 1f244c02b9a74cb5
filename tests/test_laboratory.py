"""The error laboratory (`deda_fp.theory.laboratory`): exact fictitious play with dials at 0, and the effect of each."""

import itertools

import numpy as np
import pytest
import torch
from helpers import ROUNDING

from deda_fp.theory.laboratory import Dials, decay_exponent, error_floors, experiment, log_log_slope
from deda_fp.theory.learners import learners_of, transitions
from mfglib.exact import grid_fictitious_play, lq_fictitious_play
from mfglib.exact.dynamic_programming import grid_evaluate
from mfglib.exact.grid import Grid
from mfglib.exact.tables import TablePolicy
from mfglib.fictitious_play import fictitious_play
from mfglib.games import BeachBar, FourRooms, LinearQuadratic

LQ, BAR = LinearQuadratic(horizon=6), BeachBar(horizon=5)
GAMES = {"LQ": LQ, "beach bar": BAR}
each_game = pytest.mark.parametrize("name", GAMES)


@pytest.mark.parametrize("game", [LQ, LinearQuadratic(A=0.95, B=0.7, A_bar=0.1, c_a=1.4, c_m=10.0, horizon=15)])
def test_without_errors_it_is_exact_fictitious_play_on_lq(game):
    table, exact = experiment(game, 30), lq_fictitious_play(game, 30)
    np.testing.assert_allclose(table["e_true"][1:], exact.exploitability[1:], rtol=1e-8)
    np.testing.assert_array_equal(table["e_true"], table["e_average"])


def test_without_errors_it_is_exact_fictitious_play_on_the_beach():
    """Up to the refinement of actions, which the laboratory leaves out."""
    table, exact = experiment(BAR, 6), grid_fictitious_play(BAR, 6, cells=40).history
    np.testing.assert_allclose(table["e_true"], exact["exploitability"], rtol=5e-3)


def learners(name, **dials):
    """The learners of a game whose errors are those numbers at every iteration."""
    return learners_of(GAMES[name], lambda dial, k: dials.get(dial, 0.0))


@each_game
def test_one_best_response_loses_exactly_what_the_dial_says(name):
    """Against the population that it was trained against: the first iteration's."""
    for br in (0.05, 0.5):
        response, average, crowd = learners(name, br=br)
        first, step = itertools.islice(fictitious_play(response, average, crowd), 2)
        if name == "LQ":
            gap = crowd._gap(average, 0.0, step.faced.seen)
        else:
            gap = crowd.shared.gap(average.policy, step.faced.seen)
        assert gap == pytest.approx(br, rel=1e-9) and first.k == 0


@each_game
def test_a_model_that_is_shifted_is_off_by_the_dial(name):
    response, average, crowd = learners(name, cnf=0.03)
    step = list(itertools.islice(fictitious_play(response, average, crowd), 2))[1]
    if name == "LQ":
        np.testing.assert_allclose(average.policy, crowd.shared.best(step.faced.seen + 0.03), **ROUNDING)
    else:
        w1 = (crowd.model - crowd.seen).cumsum(1).abs().sum(1) * crowd.shared.h
        assert w1[0].item() == pytest.approx(0.03, rel=0.05) and (w1 <= 0.03 + 1e-9).all()  # nobody leaves the beach
        np.testing.assert_allclose(crowd.model.sum(1), 1.0, **ROUNDING)


def test_occupancies_are_those_of_the_grid():
    (_, average, crowd), grid = learners_of(BAR, lambda *_: 0.0), Grid(BAR, 40)
    tables = crowd.shared
    still = tables.states(average.policy)
    V, best = tables.best(still)
    rho = tables.occupancy(best)
    actions = grid.actions[best][:, :, None]
    play = grid_evaluate(grid, TablePolicy(grid, actions, torch.ones(actions.shape[:3])))
    np.testing.assert_allclose(tables.states(rho), play.population.mass, atol=1e-12)
    assert tables.value(rho, tables.states(rho)) == pytest.approx(play.value, rel=1e-12)
    assert tables.value(rho, still) == pytest.approx(V, rel=1e-12)
    P = transitions(grid)
    np.testing.assert_allclose(P.sum(2), 1.0, **ROUNDING)


@each_game
@pytest.mark.parametrize("dial", ["br", "sl", "cnf"])
def test_every_dial_leaves_a_floor_and_a_decaying_one_does_not(name, dial):
    game, K = GAMES[name], 60
    exact = experiment(game, K)["e_true"].iloc[-1]
    constant = experiment(game, K, Dials(**{dial: 0.2}))["e_true"].iloc[-1]
    decaying = experiment(game, K, Dials(**{dial: 0.2}, decay=2.0))["e_true"].iloc[-1]
    assert constant > 1.5 * exact and abs(decaying - exact) < 0.3 * (constant - exact)


def test_constant_best_response_errors_do_not_pile_up():
    """The printed bound grows like k ε / 2; the truth stays at ε."""
    table = experiment(LQ, 2000, Dials(br=0.01))
    assert table["e_true"].iloc[-1] == pytest.approx(0.01, rel=0.1)


def test_systematic_clone_errors_cost_little_where_replies_can_make_up_for_them():
    same, changing = (experiment(BAR, 60, Dials(sl=0.01, random=r))["e_true"].iloc[-15:].mean() for r in (False, True))
    assert same < 0.5 * changing


def test_random_signs_are_those_of_the_seed():
    first, again, other = (experiment(LQ, 20, Dials(cnf=0.1, random=True, seed=s)) for s in (1, 1, 2))
    assert first.equals(again) and not first.equals(other)


def test_slope_and_its_confidence():
    x = np.array([0.01, 0.03, 0.1, 0.3])
    b, half = log_log_slope(x, 5 * x**1.5)
    assert b == pytest.approx(1.5) and half < 1e-6
    noisy = 5 * x**1.5 * np.array([1.1, 0.9, 1.05, 0.97])
    b, half = log_log_slope(x, noisy)
    assert half > 0.01 and abs(b - 1.5) < half


def test_floors_and_falls_on_lq():
    """Known exponents: gaps of best responses add, to a crowd that is off they are squares, mixtures fall like 1/k."""
    sizes = [0.1, 0.2, 0.4]
    for dial, exponent in (("br", 1.0), ("cnf", 2.0)):
        table = error_floors(LQ, 1500, dial, sizes, random=True, seeds=2)
        assert len(table) == 6 and log_log_slope(table["size"], table["floor"])[0] == pytest.approx(exponent, abs=0.05)
    assert len(error_floors(LQ, 10, "sl", sizes)) == 3
    assert decay_exponent(experiment(LQ, 1500))[0] == pytest.approx(-1.0, abs=0.05)


def test_bad_arguments():
    with pytest.raises(ValueError, match="Dials.br: expected a number >= 0, got -1"):
        Dials(br=-1)
    with pytest.raises(ValueError, match="Dials.br: expected at most"):
        experiment(BAR, 2, Dials(br=1e4))
    with pytest.raises(ValueError, match="iterations: expected an integer >= 1, got 0"):
        experiment(LQ, 0)
    with pytest.raises(TypeError, match="LinearQuadratic or a BeachBar, got FourRooms"):
        experiment(FourRooms(), 2)
    with pytest.raises(ValueError, match="unbounded"):
        experiment(LinearQuadratic.paper(), 2)
