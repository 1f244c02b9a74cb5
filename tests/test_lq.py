"""mfglib/exact/lq.py against references written from scratch in helpers.py."""

import numpy as np
import pytest
import torch
from helpers import (
    LQ_GAMES,
    ROUNDING,
    Congestion,
    dense_best_response,
    dense_equilibrium_mean,
    gen,
    moments_and_value,
    random_game,
)
from scipy.integrate import solve_ivp

from mfglib.exact import lq_best_response, lq_equilibrium, lq_gap, lq_moments
from mfglib.games import LinearQuadratic
from mfglib.rollout import rollout

every_game = pytest.mark.parametrize("game", LQ_GAMES.values(), ids=LQ_GAMES)


@every_game
def test_equilibrium_agrees_with_a_dense_quadratic_program(game):
    eq = lq_equilibrium(game)
    T, d, k = game.horizon, game.state_dim, game.action_dim
    assert [v.shape for v in (eq.K, eq.k, eq.mean, eq.cov)] == [(T, k, d), (T, k), (T + 1, d), (T + 1, d, d)]
    assert {v.dtype for v in (eq.K, eq.k, eq.mean, eq.cov)} == {torch.float64} and isinstance(eq.value, float)
    mean = dense_equilibrium_mean(game)
    np.testing.assert_allclose(eq.mean, mean, **ROUNDING)
    K, k_t = dense_best_response(game, mean)
    np.testing.assert_allclose(eq.K, K, **ROUNDING)
    np.testing.assert_allclose(eq.k, k_t, **ROUNDING)
    own, cov, value = moments_and_value(game, K, k_t)  # as the whole population: no mean path given
    np.testing.assert_allclose(own, mean, **ROUNDING)
    np.testing.assert_allclose(eq.cov, cov, **ROUNDING)
    np.testing.assert_allclose(eq.value, value, **ROUNDING)


@pytest.mark.parametrize("name", ["paper's constants", "T = 1", "A_bar = 0", "d = 2", "d = 2, k = 3", "d = 4, k = 2"])
def test_iterated_exact_best_responses_converge_to_it(name):
    game = LQ_GAMES[name]
    mean = np.tile(game.initial_mean, (game.horizon + 1, 1))
    for _ in range(300):
        response = lq_best_response(game, mean)
        own, _ = lq_moments(game, response.K, response.k, mean)
        mean = 0.7 * mean + 0.3 * own
    np.testing.assert_allclose(lq_equilibrium(game).mean, mean, **ROUNDING)


@every_game
def test_best_response_to_any_mean_path(game):
    mean = np.random.default_rng(0).normal(size=(game.horizon + 1, game.state_dim))
    response = lq_best_response(game, mean)
    K, k = dense_best_response(game, mean)
    np.testing.assert_allclose(response.K, K, **ROUNDING)
    np.testing.assert_allclose(response.k, k, **ROUNDING)
    np.testing.assert_allclose(response.value, moments_and_value(game, K, k, mean)[2], **ROUNDING)


@every_game
def test_gap_is_the_difference_of_two_values(game):
    """The performance-difference identity, for a random affine policy with noise against a random mean path."""
    rng = np.random.default_rng(1)
    mean = rng.normal(size=(game.horizon + 1, game.state_dim))
    response = lq_best_response(game, mean)
    K, k = response.K + 0.1 * rng.normal(size=response.K.shape), response.k + 0.1 * rng.normal(size=response.k.shape)
    own, cov, value = moments_and_value(game, K, k, mean, std=0.3)
    gap = lq_gap(response, K, k, *lq_moments(game, K, k, mean, std=0.3), std=0.3)
    np.testing.assert_allclose(gap, response.value - value, **ROUNDING)
    for ours, reference in zip(lq_moments(game, K, k, mean, std=0.3), (own, cov), strict=True):
        np.testing.assert_allclose(ours, reference, **ROUNDING)


@pytest.mark.parametrize("name", ["paper's constants", "d = 2, k = 1", "d = 4, k = 2"])
@pytest.mark.parametrize("laws", ["gaussian", "uniform"])
def test_monte_carlo_agrees_within_its_error_bar(name, laws):
    game, n = LQ_GAMES[name], 40_000
    eq = lq_equilibrium(game)
    game = LinearQuadratic(
        **{v: getattr(game, v) for v in ("A", "B", "A_bar", "c_x", "c_a", "c_m", "x_target", "horizon")},
        **{v: getattr(game, v) for v in ("initial_mean", "initial_std", "noise_std")},
        initial_law=laws,
        noise_law=laws,
    )  # mean, covariance and value do not need the laws to be Gaussian
    for population in (None, eq.population):
        play = rollout(game, eq.policy, population, n=n, generator=gen(7))
        total = play.reward.sum(0)
        assert abs(total.mean() - eq.value) < 4.5 * total.std() / np.sqrt(n)
        std = eq.cov.diagonal(dim1=1, dim2=2).sqrt()
        assert ((play.x.mean(1) - eq.mean).abs() < 4.5 * std / np.sqrt(n) + 1e-5).all()
        for t in (1, game.horizon):
            np.testing.assert_allclose(np.cov(play.x[t].T), eq.cov[t].squeeze(), atol=0.03 * eq.cov[t].trace())


@every_game
def test_mean_path_does_not_depend_on_the_weight_of_the_crowd(game):
    values = {v: getattr(game, v) for v in ("A", "B", "A_bar", "c_x", "c_a", "x_target", "horizon", "initial_mean")}
    for c_m in (0.0, 0.37, 12.0):
        np.testing.assert_allclose(
            lq_equilibrium(LinearQuadratic(c_m=c_m, **values)).mean, lq_equilibrium(game).mean, **ROUNDING
        )


def test_noise_moves_covariance_and_value_and_nothing_else():
    calm, noisy = (lq_equilibrium(random_game(2, 2, 5, noise_std=s)) for s in (0.0, 0.4))
    for name in ("K", "k", "mean"):
        assert torch.equal(getattr(calm, name), getattr(noisy, name))
    assert noisy.value < calm.value and (noisy.cov[1:] != calm.cov[1:]).any()


def test_two_copies_of_a_game_side_by_side_are_the_game_in_two_dimensions():
    one = lq_equilibrium(LinearQuadratic(horizon=5))
    two = lq_equilibrium(LinearQuadratic(horizon=5, initial_mean=[0.0, 0.0]))
    assert two.value == pytest.approx(2 * one.value, rel=1e-12)
    np.testing.assert_allclose(two.mean, one.mean.expand(6, 2), **ROUNDING)
    np.testing.assert_allclose(two.K, one.K * torch.eye(2), **ROUNDING)


# With T = 2 the equations of the mean path are singular, whatever c_m and the unit of money; with T = 3 they are not.
FRACTIONS = dict(A=1.0, B=1.0, c_x=1.0, c_a=1.0, A_bar=-5.0, x_target=0.6)


@pytest.mark.parametrize("c_m", [0.0, 0.05, 0.3, 0.7, 1.0, 1.5, 2.4, 3.7, 4.9, 100.0])
@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_no_unique_equilibrium_is_an_error(c_m, unit):
    costs = dict(c_x=unit, c_a=unit, c_m=c_m * unit)
    with pytest.raises(ArithmeticError):
        lq_equilibrium(LinearQuadratic(**(FRACTIONS | costs), horizon=2))


@pytest.mark.parametrize("c_m", [0.0, 0.05, 0.3, 0.7, 1.0, 1.5, 2.4, 3.7, 4.9, 100.0])
@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_equilibrium_is_found_where_only_a_shorter_game_has_none(c_m, unit):
    costs = dict(c_x=unit, c_a=unit, c_m=c_m * unit)
    eq = lq_equilibrium(LinearQuadratic(**(FRACTIONS | costs), horizon=3))
    np.testing.assert_allclose(eq.mean[:, 0], [0, 0.225, -1.05, 2.4], **ROUNDING)


def test_long_and_unstable_games_keep_their_digits():
    for game in (LinearQuadratic(horizon=200), LinearQuadratic(A=1.5, A_bar=0.3, horizon=40, c_x=1.0)):
        np.testing.assert_allclose(lq_equilibrium(game).mean, dense_equilibrium_mean(game), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("bounds", [dict(x_bound=1.0), dict(a_bound=0.1)])
def test_bounded_games_are_refused_with_the_reason(bounds):
    with pytest.raises(ValueError, match="no closed form"):
        lq_equilibrium(LinearQuadratic(**bounds))


def test_other_games_are_refused():
    with pytest.raises(TypeError, match="expected a LinearQuadratic, got Congestion"):
        lq_equilibrium(Congestion())


def test_gains_approach_the_riccati_equation_at_first_order():
    """dx = (a x + b u + ā m) dt, cost c_x |x − x*|² + c_a u² + c_m |x − m|²: −P' = c_x + c_m + 2aP − b²P²/c_a."""
    a, b, a_bar, c_x, c_a, c_m, length = 0.3, 0.8, 0.2, 2.0, 0.5, 1.0, 1.0

    def riccati(s, P):
        return c_x + c_m + 2 * a * P - b**2 * P**2 / c_a

    ode = solve_ivp(riccati, (0, length), [0.0], rtol=1e-11, atol=1e-12, dense_output=True)
    errors = []
    for T in (100, 200, 400):
        dt = length / T
        game = LinearQuadratic(1 + a * dt, b * dt, a_bar * dt, c_x * dt, c_a * dt, c_m * dt, horizon=T)
        exact = -b / c_a * ode.sol(length - dt * np.arange(T))[0]
        errors.append(np.abs(lq_equilibrium(game).K[:, 0, 0].numpy() - exact).max())
    order = np.log2(np.divide(errors[:-1], errors[1:]))
    assert errors[-1] < 0.02 and (np.abs(order - 1) < 0.05).all()


def test_equilibrium_hands_out_its_policy_and_population():
    eq = lq_equilibrium(LinearQuadratic())
    x = torch.linspace(-1, 1, 5)[:, None]
    torch.testing.assert_close(eq.policy.mean(2, x), (x.double() * eq.K[2] + eq.k[2]).float())
    assert torch.equal(eq.population.mean(3), eq.mean[3])


@pytest.mark.parametrize("coupling", [0.0, 0.5, 2.0, 4.0, 8.0, 16.0])
def test_what_is_called_an_equilibrium_is_one(coupling):
    """Strong couplings through the dynamics let rounding grow from step to step: an error, or the truth."""
    game = LinearQuadratic(A_bar=coupling)
    try:
        e = lq_equilibrium(game)
    except ArithmeticError as error:
        assert coupling >= 8 and "no certain equilibrium" in str(error)
    else:
        K, k = e.K.numpy(), e.k.numpy()
        own, cov = lq_moments(game, K, k)
        assert lq_gap(lq_best_response(game, own), K, k, own, cov) < 1e-6 * abs(e.value)


@pytest.mark.parametrize("name", ["A", "B", "A_bar", "x_target", "noise_std", "initial_mean"])
def test_numbers_beyond_float64_are_an_error(name):
    with pytest.raises(ArithmeticError, match="float64|no certain|no unique"):
        lq_equilibrium(LinearQuadratic(**{name: 1e200}))
