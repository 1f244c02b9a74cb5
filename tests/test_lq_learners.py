import numpy as np
import pytest
import torch
from helpers import gen, moments_and_value, random_game

from mfglib import exploitability
from mfglib.exact import lq_equilibrium, lq_fictitious_play
from mfglib.games import LinearQuadratic
from mfglib.policies import AffinePolicy
from mfglib.populations import MeanPath
from mfglib.schedules import AVERAGING, averaging_of

GAME = LinearQuadratic(A=0.95, B=0.7, A_bar=0.1, c_a=1.4, c_x=5.0, c_m=5.0, horizon=15)


@pytest.mark.parametrize("averaging", AVERAGING)
@pytest.mark.parametrize("game", [GAME, random_game(2, 3, 5)], ids=["d = 1", "d = 2"])
def test_exploitability_falls_to_zero_at_the_equilibrium(averaging, game):
    play = lq_fictitious_play(game, 40, averaging)
    eq = lq_equilibrium(game)
    e = play.exploitability
    assert len(e) == 41 and len(play.best_responses) == 40
    assert (e >= 0).all() and (np.diff(e[1:]) < 1e-12 * e[0]).all()  # monotone from the first best response on
    assert e[-1] < 0.05 * abs(eq.value)
    np.testing.assert_allclose(play.mean[-1], eq.mean, atol=0.1)
    if averaging == "geometric":
        assert e[-1] < 1e-9 * e[0]
        np.testing.assert_allclose(play.mean[-1], eq.mean, atol=1e-6)
        np.testing.assert_allclose(play.cov[-1], eq.cov, atol=1e-6)
        np.testing.assert_allclose(play.value[-1], eq.value, rtol=1e-6)


@pytest.mark.parametrize(("averaging", "percent"), [("uniform", 5.9), ("linear", 0.9), ("geometric", 0.0)])
def test_speed_is_that_of_another_implementation(averaging, percent):
    """Exploitability / |value| after 20 iterations at c_m / c_x = 1, measured elsewhere from another first policy."""
    play = lq_fictitious_play(GAME, 20, averaging)
    assert 100 * play.exploitability[-1] / abs(lq_equilibrium(GAME).value) == pytest.approx(percent, abs=0.3)


def test_first_row_is_the_policy_that_never_acts():
    T = GAME.horizon
    still = exploitability(GAME, AffinePolicy(torch.zeros(T, 1, 1), torch.zeros(T, 1)))
    play = lq_fictitious_play(GAME, 1)
    assert play.exploitability[0] == pytest.approx(still.value, rel=1e-12)
    assert play.value[0] == pytest.approx(still.policy_value, rel=1e-12)
    only = exploitability(GAME, play.best_responses[0].policy)  # an average of one policy is that policy
    assert play.exploitability[1] == pytest.approx(only.value, rel=1e-9)


@pytest.mark.parametrize("averaging", AVERAGING)
def test_mixture_is_the_population_of_agents_who_each_draw_one_best_response(averaging):
    # little noise and much cohesion: the groups lie apart, and their distances are most of the covariance
    game = random_game(2, 1, 4, seed=5, c_m=10.0, initial_std=0.05, noise_std=0.02)
    n, g = 200_000, gen()
    play = lq_fictitious_play(game, 4, averaging)
    weights = averaging_of(averaging).weights(4)
    group = torch.multinomial(torch.as_tensor(weights), n, replacement=True, generator=g)
    K, k = (torch.stack([torch.as_tensor(getattr(r, v)) for r in play.best_responses]) for v in "Kk")
    x, total = game.initial(n, g).double(), torch.zeros(n).double()
    for t in range(game.horizon + 1):
        np.testing.assert_allclose(x.mean(0), play.mean[-1][t], atol=5 * x.std(0).max() / np.sqrt(n))
        np.testing.assert_allclose(np.cov(x.T), play.cov[-1][t], atol=0.02 * x.var(0).sum())
        last = t == game.horizon
        a = torch.zeros(n, 1).double() if last else torch.einsum("nkd,nd->nk", K[group, t], x) + k[group, t]
        crowd = MeanPath(x.mean(0).expand(game.horizon + 1, 2))
        total += game.reward(t, x, a, crowd)
        x = x if last else game.step(t, x, a, crowd, g)
    assert abs(total.mean() - play.value[-1]) < 5 * total.std() / np.sqrt(n)


def test_value_and_gap_add_up_to_the_best_response():
    play = lq_fictitious_play(GAME, 3)
    response = play.best_responses[2]  # the answer to the population of row 2
    best = moments_and_value(GAME, response.K, response.k, play.mean[2])[2]
    assert play.value[2] + play.exploitability[2] == pytest.approx(best, rel=1e-10)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (dict(iterations=0), "iterations"),
        (dict(iterations=2.5), "iterations"),
        (dict(averaging="median"), "averaging"),
    ],
)
def test_bad_arguments_are_named(arguments, match):
    with pytest.raises((TypeError, ValueError), match=match):
        lq_fictitious_play(GAME, **arguments)


def test_bounded_games_are_refused():
    with pytest.raises(ValueError, match="unbounded"):
        lq_fictitious_play(LinearQuadratic.paper(), 2)
