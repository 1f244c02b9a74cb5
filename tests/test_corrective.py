"""Weights of best responses that solve the game restricted to them (`mfglib.learn.corrective`)."""

import numpy as np
import pytest
import torch
from helpers import Jam

from mfglib import solve
from mfglib.exact import grid_equilibrium
from mfglib.exact.dynamic_programming import grid_evaluate
from mfglib.games import BeachBar, FourRooms, LinearQuadratic
from mfglib.learn.corrective import Corrective, RestrictedGame, equilibrium_weights, project
from mfglib.policies import NoisePolicy
from mfglib.rollout import rollout
from mfglib.seeds import generator
from mfglib.trial import separable

BAR = BeachBar(horizon=3)


class Towards:
    """Everybody walks to a place."""

    def __init__(self, place, speed=0.6):
        self.place, self.speed = place, speed

    def sample(self, t, x, generator=None):
        return (self.speed * (self.place - x)).clamp(-0.3, 0.3)


def restricted(policies, n=20_000, game=BAR):
    found = RestrictedGame(game)
    for i, policy in enumerate(policies):
        play = rollout(game, policy, n=n, generator=generator(0, "play", i), rewards=False)
        found.add(play.x, play.a, generator(0, "steps", i))
    return found


def test_payoffs_are_what_a_policy_earns_in_the_crowd_of_all():
    """Against simulation: J(π_i, μ^w), where the crowd is simulated by shares w of agents."""
    policies, w = [Towards(0.5), Towards(0.2), NoisePolicy(torch.zeros(1))], torch.tensor([0.5, 0.2, 0.3]).double()
    found = restricted(policies)
    n = 200_000
    plays = [rollout(BAR, p, n=n, generator=generator(1, "play", i), rewards=False) for i, p in enumerate(policies)]

    class Crowd:
        def log_prob(self, t, x):  # a fine histogram
            cell = (x[:, 0] * 100).long().clamp(0, 99)
            counts = [torch.bincount((p.x[t, :, 0] * 100).long().clamp(0, 99), minlength=100) for p in plays]
            return sum(share * c / n * 100 for share, c in zip(w, counts, strict=True))[cell].log()

    for i, play in enumerate(plays):
        earned = sum(BAR.reward(t, play.x[t], a, Crowd()).mean() for t, a in enumerate(play.a))
        earned += BAR.reward(3, play.x[3], torch.zeros(n, 1), Crowd()).mean()
        assert float(found.payoffs(w)[i]) == pytest.approx(float(earned), rel=0.01)


def test_one_best_response_has_all_the_weight_and_a_worse_one_gets_none():
    assert restricted([Towards(0.5)]).solution.tolist() == [1.0]
    game = BeachBar(c_m=0.0, horizon=3)
    found = restricted([Towards(0.0), Towards(0.5), Towards(1.0)], game=game)
    torch.testing.assert_close(found.solution, torch.tensor([0.0, 1.0, 0.0]).double())
    assert found.weights(3) is not None
    with pytest.raises(ValueError, match="k: expected 3, the number of best responses, got 2"):
        found.weights(2)


def test_nobody_gains_by_another_of_the_best_responses():
    found = restricted([Towards(p) for p in (0.5, 0.1, 0.3, 0.7, 0.9, 0.5)])
    U, w = found.payoffs(found.solution), found.solution
    assert float(U.max() - w @ U) <= 1e-3 * float(U.max() - U.min())
    assert float(w.sum()) == pytest.approx(1) and (w >= 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_weights_of_a_known_population_game(seed):
    """Rock, paper, scissors with a price of crowding, whatever the start: a third each; and the logit-free game of
    independent prices U_i = b_i − w_i, whose equilibrium is the projection of b on the simplex."""
    start = torch.rand(3, generator=generator(seed, "start"), dtype=torch.float64)
    wheel = torch.tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]).double() - 0.1 * torch.eye(3)
    w = equilibrium_weights(lambda w: wheel @ w, start / start.sum(), tolerance=1e-8)
    torch.testing.assert_close(w, torch.full((3,), 1 / 3, dtype=torch.float64), atol=1e-6, rtol=0)
    b = torch.randn(7, generator=generator(seed, "b"), dtype=torch.float64)
    w = equilibrium_weights(lambda w: b - w, torch.full((7,), 1 / 7, dtype=torch.float64), tolerance=1e-10)
    torch.testing.assert_close(w, project(b), atol=1e-6, rtol=0)


def test_the_nearest_point_of_the_simplex():
    v = torch.randn(50, 6, generator=generator(0, "v"), dtype=torch.float64)
    for row in v:
        p = project(row)
        assert (p >= 0).all() and float(p.sum()) == pytest.approx(1)
        shifted = row - p  # optimality: equal where p > 0, not larger elsewhere
        assert (shifted[p > 0] - shifted[p > 0].mean()).abs().max() < 1e-12
        assert (shifted[p == 0] <= shifted[p > 0].mean() + 1e-12).all()
    assert project(torch.tensor([0.2, 0.8])).tolist() == pytest.approx([0.2, 0.8])


@pytest.mark.parametrize(
    ("game", "splits"),
    [
        (BeachBar(), True),
        (FourRooms(), True),
        (LinearQuadratic(A_bar=0.0), True),
        (LinearQuadratic(), False),  # the mean moves agents
        (LinearQuadratic.paper(), False),
    ],
    ids=["beach", "rooms", "LQ without A_bar", "LQ", "bounded LQ"],
)
def test_which_games_split(game, splits):
    assert separable(game) is splits


class Said(BeachBar):
    separable = False


@pytest.mark.parametrize(
    ("game", "message"),
    [
        (Jam(), "needs a game whose moves ignore the population"),
        (Said(), "needs a game whose moves ignore the population"),
        (LinearQuadratic.paper(), "needs a game whose moves ignore the population"),
        (LinearQuadratic(A_bar=0.0), "needs a game with a `domain` of one or two dimensions"),
    ],
    ids=["jam", "said", "bounded LQ", "LQ"],
)
def test_games_that_it_does_not_suit_are_refused(game, message):
    with pytest.raises(ValueError, match=f"averaging: 'corrective' {message}.*try 'linear' or 'geometric'"):
        solve(game, averaging="corrective", preset="smoke", iterations=1, progress=False)


def test_without_learners_it_has_no_weights():
    with pytest.raises(TypeError, match="'corrective' is for the learners of"):
        Corrective().weights(3)


def test_lattices_fit_the_walls():
    assert RestrictedGame(FourRooms()).grid.shape.tolist() == [20, 20]
    assert RestrictedGame(BAR, cells=30).grid.shape.tolist() == [30]


def test_a_blunder_is_forgiven():
    """The first of three is far from the equilibrium, the others lie on both sides of it: uniform weights keep a third
    of the blunder, and are more exploitable."""
    policies = [Towards(0.0, 1.0), Towards(0.65), Towards(0.35)]
    w = restricted(policies).solution
    assert w[0] < 0.01
    truth = grid_equilibrium(BAR, 50, 0.02, progress=False).population
    crowds = torch.stack([grid_evaluate(truth.grid, p).population.mass for p in policies])
    off = {
        name: float((torch.einsum("i,itm->tm", v.double(), crowds) - truth.mass).abs().sum(1).max() / 2)
        for name, v in (("corrective", w), ("uniform", torch.full((3,), 1 / 3)))
    }
    assert off["corrective"] < 0.7 * off["uniform"]


def test_history_has_the_weights():
    run = solve(BAR, averaging="corrective", preset="smoke", iterations=3, progress=False)
    weights = run.history.filter(like="weight_").to_numpy()
    assert weights.shape == (4, 3) and np.isnan(weights[0]).all() and np.isnan(weights[1, 1:]).all()
    np.testing.assert_allclose(np.nansum(weights[1:], 1), 1)
