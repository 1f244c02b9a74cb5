import numpy as np
import pytest
import torch
from helpers import LQ_GAMES, ROUNDING, BlackBox, Congestion, dense_best_response, gen, moments_and_value, random_game

from mfglib import exploitability
from mfglib.exact import lq_best_response, lq_equilibrium
from mfglib.games import LinearQuadratic
from mfglib.judge import best_response_gap, certifiable
from mfglib.policies import AffinePolicy
from mfglib.populations import MeanPath
from mfglib.rollout import rollout


def perturbed(game, seed=0, size=0.1, std=0.0):
    """The equilibrium policy with random changes of its gains."""
    eq, g = lq_equilibrium(game), gen(seed)
    K, k = (v + size * torch.randn(v.shape, generator=g).double() for v in (eq.K, eq.k))
    return AffinePolicy(K, k, std)


def analytic(game, policy):
    """Best-response value and own value of an affine policy, by the references of helpers.py alone."""
    mean, _, value = moments_and_value(game, policy.K.numpy(), policy.k.numpy(), std=policy.std[0].item())
    return moments_and_value(game, *dense_best_response(game, mean), mean)[2], value


@pytest.mark.parametrize("game", LQ_GAMES.values(), ids=LQ_GAMES)
@pytest.mark.parametrize("std", [0.0, 0.2])
def test_affine_policy_is_judged_exactly(game, std):
    policy = perturbed(game, std=std)
    e, (best, value) = exploitability(game, policy), analytic(game, policy)
    judged = [e.best_response_value, e.policy_value, e.value]
    np.testing.assert_allclose(judged, [best, value, best - value], **ROUNDING)
    assert e.error == 0 and e.value > 0 and "exact" in e.method
    assert e.mean.shape == (game.horizon + 1, game.state_dim)


@pytest.mark.parametrize("game", LQ_GAMES.values(), ids=LQ_GAMES)
def test_equilibrium_cannot_be_exploited(game):
    eq = lq_equilibrium(game)
    e = exploitability(game, eq.policy)
    assert 0 <= e.value < 1e-12 * (1 + abs(eq.value))
    assert e.policy_value == pytest.approx(eq.value, rel=1e-10)


def test_one_step_by_hand():
    """T = 1, c_m = 0: only D = c_a + B² c_x prices the action, and E = D E[(δK x + δk)²]."""
    game = LinearQuadratic(B=0.5, c_m=0.0, c_x=2.0, c_a=0.3, horizon=1, initial_mean=0.4, initial_std=0.7)
    eq, dK, dk = lq_equilibrium(game), 0.2, -0.3
    e = exploitability(game, AffinePolicy(eq.K + dK, eq.k + dk))
    by_hand = (0.3 + 0.25 * 2.0) * (dK**2 * (0.7**2 + 0.4**2) + 2 * dK * dk * 0.4 + dk**2)
    assert e.value == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("name", ["paper's constants", "strong cohesion", "d = 2, k = 3", "T = 1"])
@pytest.mark.parametrize("size", [0.1, 0.01])
def test_black_box_agrees_within_its_error_bar(name, size):
    game = LQ_GAMES[name]
    policy = perturbed(game, size=size)
    e, (best, value) = exploitability(game, BlackBox(policy)), analytic(game, policy)
    assert 0 < e.error < 0.1 * e.value
    assert abs(e.value - (best - value)) < 4 * e.error
    assert e.best_response_value - e.policy_value == pytest.approx(e.value, rel=1e-9)
    assert e.policy_value == pytest.approx(value, rel=0.03)


@pytest.mark.parametrize("seed", range(4))
def test_error_bar_is_honest(seed):
    game = LinearQuadratic(horizon=6, c_m=4.0)
    policy = perturbed(game, seed, std=0.1)
    values = [exploitability(game, BlackBox(policy, s), n=2000, seed=s) for s in range(30)]
    spread = np.std([e.value for e in values], ddof=1)
    assert 0.6 < np.sqrt(np.mean([e.error**2 for e in values])) / spread < 1.7
    best, value = analytic(game, policy)
    assert abs(np.mean([e.value for e in values]) - (best - value)) < 4 * spread / np.sqrt(30)


def test_noise_of_the_actions_is_paid_for():
    game = LinearQuadratic(horizon=5)
    eq = lq_equilibrium(game)
    D = lq_best_response(game, eq.mean.numpy()).D[:, 0, 0]
    e = exploitability(game, AffinePolicy(eq.K, eq.k, std=0.3))  # sampled, as it acts, not its mean
    assert e.value == pytest.approx(0.09 * D.sum(), rel=1e-10)


def test_black_box_equilibrium_is_zero_to_rounding_of_single_precision():
    game = LQ_GAMES["d = 2"]
    e = exploitability(game, BlackBox(lq_equilibrium(game).policy))
    assert 0 <= e.value < 1e-3 and e.error < 1e-3  # only the simulated mean path is off, by its sampling noise
    assert e.value < 5 * e.error or e.value < 1e-9


def test_policy_value_is_what_agents_earn():
    game, n = random_game(2, 2, 4, seed=8), 100_000
    policy = perturbed(game, std=0.2)
    total = rollout(game, policy, None, n=n, generator=gen(3)).reward.sum(0)
    assert abs(exploitability(game, policy).policy_value - total.mean()) < 4.5 * total.std() / np.sqrt(n)


def test_same_seed_same_judgement():
    game = LinearQuadratic(horizon=4)
    first, again, other = (exploitability(game, BlackBox(perturbed(game)), n=1000, seed=s) for s in (1, 1, 2))
    assert (first.value, first.error) == (again.value, again.error) and first.value != other.value


class Crowded(LinearQuadratic):
    """A student's change to the LQ game: the closed form no longer solves it."""

    def reward(self, t, x, a, population):
        return super().reward(t, x, a, population) - 10 * x.square().sum(-1)


@pytest.mark.parametrize(
    ("game", "error"),
    [
        (LinearQuadratic(x_bound=1.0), ValueError),
        (Congestion(), TypeError),
        (object(), TypeError),
        (Crowded(), TypeError),
    ],
    ids=["half bounded", "another game", "no game", "a subclass with another reward"],
)
def test_what_no_exact_solver_knows_is_refused(game, error):
    assert not certifiable(game)
    with pytest.raises(error, match="game: expected|has its own `reward`"):
        exploitability(game, lq_equilibrium(LinearQuadratic()).policy)
    assert certifiable(LinearQuadratic())


def test_policy_that_diverges_is_an_error():
    game = LinearQuadratic(horizon=3)
    policy = AffinePolicy(torch.full((3, 1, 1), torch.nan), torch.zeros(3, 1))
    with pytest.raises(ArithmeticError):
        exploitability(game, BlackBox(policy), n=200)
    with pytest.raises(ArithmeticError):
        exploitability(game, policy)


def test_bad_arguments_are_named():
    game, policy = LinearQuadratic(horizon=3), lq_equilibrium(LinearQuadratic(horizon=4)).policy
    with pytest.raises(ValueError, match=r"policy\.K: expected shape \(3, 1, 1\), got \(4, 1, 1\)"):
        exploitability(game, policy)
    with pytest.raises(ValueError, match="n: expected an integer >= 100, got 50"):
        exploitability(game, BlackBox(policy), n=50)


def test_best_response_gap_against_a_given_population():
    game = random_game(2, 2, 5, seed=9)
    path = torch.randn(6, 2, generator=gen(2)).double()
    response = lq_best_response(game, path.numpy())
    assert best_response_gap(game, response.policy, MeanPath(path), gen()) < 1e-8
    policy = AffinePolicy(torch.as_tensor(response.K) + 0.1, torch.as_tensor(response.k) - 0.2)
    exact = response.value - moments_and_value(game, policy.K.numpy(), policy.k.numpy(), path.numpy())[2]
    assert best_response_gap(game, policy, MeanPath(path), gen(), n=50_000) == pytest.approx(exact, rel=0.02)
    with pytest.raises(TypeError):
        best_response_gap(Congestion(), policy, MeanPath(path), gen())
