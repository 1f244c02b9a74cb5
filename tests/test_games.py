import math

import numpy as np
import pytest
import torch
from helpers import gen

from mfglib.games import LinearQuadratic
from mfglib.populations import MeanPath

EYE = np.eye(2)


@pytest.mark.parametrize(
    ("given", "name", "expected"),
    [
        (dict(A=math.nan), "A", "finite"),
        (dict(A="fast"), "A", "a number"),
        (dict(A=EYE, A_bar=np.eye(3)), "A_bar", r"shape \(2, 2\)"),
        (dict(A=EYE, B=[[1.0, 0.0, 1.0]]), "B", r"shape \(2, 3\)"),
        (dict(A=EYE, B=np.ones((2, 2, 2))), "B", "20 times"),
        (dict(c_x=-1.0), "c_x", ">= 0"),
        (dict(c_x=math.inf), "c_x", "finite"),
        (dict(c_x=[[1.0, 0.5], [0.0, 1.0]]), "c_x", "symmetric"),
        (dict(c_m=[[1.0, 2.0], [2.0, 1.0]]), "c_m", ">= 0"),
        (dict(c_a=0.0), "c_a", "> 0"),
        (dict(A=EYE, c_a=[[1.0, 1.0], [1.0, 1.0]]), "c_a", "> 0"),
        (dict(A=EYE, x_target=[1.0, 2.0, 3.0]), "x_target", r"shape \(2,\)"),
        (dict(A=EYE, initial_mean=[[0.0, 0.0]]), "initial_mean", r"shape \(2,\)"),
        (dict(horizon=0), "horizon", ">= 1"),
        (dict(horizon=2.0), "horizon", "integer"),
        (dict(horizon=True), "horizon", "integer"),
        (dict(initial_std=-0.1), "initial_std", ">= 0"),
        (dict(noise_std=[0.1, -0.1]), "noise_std", ">= 0"),
        (dict(noise_std=None), "noise_std", "finite"),
        (dict(x_bound=0.0), "x_bound", "> 0"),
        (dict(a_bound=[1.0, 1.0]), "a_bound", r"shape \(1,\)"),
        (dict(a_bound=math.inf), "a_bound", "finite"),
        (dict(initial_law="cauchy"), "initial_law", "uniform"),
        (dict(noise_law=3), "noise_law", "gaussian"),
    ],
    ids=str,
)
def test_bad_parameter_is_named_with_what_was_expected_and_given(given, name, expected):
    with pytest.raises(ValueError, match=rf"^{name}: expected .*{expected}.*, got .") as error:
        LinearQuadratic(**given)
    shape_or_value = np.shape(given[name]) or given[name]
    assert str(shape_or_value) in str(error.value) or repr(given[name]) in str(error.value)


def test_symmetric_up_to_rounding_is_symmetric():
    for angle in np.linspace(0.1, 3, 30):
        R = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        LinearQuadratic(c_x=R @ np.diag([5.0, 5.0]) @ R.T)


SCALARS = dict(A=0.9, B=0.5, A_bar=0.1, c_x=2.0, c_a=0.3, c_m=0.7, x_target=0.6, initial_mean=-0.2)
SCALARS |= dict(initial_std=0.4, noise_std=0.1, horizon=3)
VECTORS = ("x_target", "initial_mean")


@pytest.mark.parametrize("bounds", [{}, dict(x_bound=0.8, a_bound=0.3)])
def test_scalars_arrays_and_matrices_are_the_same_game(bounds):
    arrays = {n: v if n == "horizon" else np.full(2, v) for n, v in (SCALARS | bounds).items()}
    matrices = {n: v if n in (*VECTORS, "horizon", *bounds) else np.diag(v) for n, v in arrays.items()}
    d2 = SCALARS | bounds | dict(initial_mean=arrays["initial_mean"])  # something has to say d = 2
    games = [LinearQuadratic(**values) for values in (d2, arrays, matrices)]
    population = MeanPath(torch.rand(4, 2, generator=gen(1)))
    for game in games:
        game.x = game.initial(50, gen(2))
        game.y = game.step(1, game.x, game.x.flip(0), population, gen(3))
        game.r = game.reward(1, game.x, game.x.flip(0), population)
    for name in ("x", "y", "r"):
        first, *others = (getattr(game, name) for game in games)
        assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize("shape", [(2, 1), (2, 3), (1, 2)])
def test_step_and_reward_are_the_formulas(shape):
    d, k = shape
    rng = np.random.default_rng(0)
    A, A_bar, B = rng.normal(size=(d, d)), rng.normal(size=(d, d)), rng.normal(size=shape)
    c_x, c_m, c_a = np.diag(rng.random(d)), np.diag(rng.random(d)), np.eye(k) + 0.1
    target, m, x, a = rng.normal(size=d), rng.normal(size=d), rng.normal(size=(5, d)), rng.normal(size=(5, k))
    game = LinearQuadratic(A, B, A_bar, c_x, c_a, c_m, target, horizon=2, noise_std=0.0)
    assert (game.state_dim, game.action_dim, game.horizon) == (d, k, 2)
    population = MeanPath(torch.as_tensor(m).expand(3, d))
    step = game.step(0, torch.as_tensor(x), torch.as_tensor(a), population, gen())
    reward = game.reward(0, torch.as_tensor(x), torch.as_tensor(a), population)
    for i in range(5):
        np.testing.assert_allclose(step[i], A @ x[i] + B @ a[i] + A_bar @ m, rtol=1e-12)
        off, gap = x[i] - target, x[i] - m
        np.testing.assert_allclose(reward[i], -off @ c_x @ off - a[i] @ c_a @ a[i] - gap @ c_m @ gap, rtol=1e-12)


@pytest.mark.parametrize("law", ["gaussian", "uniform"])
def test_laws_have_the_stated_mean_and_covariance(law):
    L, N = np.array([[0.5, 0.0], [0.3, 0.2]]), np.array([[0.1, 0.0], [-0.3, 0.4]])
    game = LinearQuadratic(
        A=EYE, A_bar=0.0, initial_mean=[1.0, -2.0], initial_std=L, noise_std=N, initial_law=law, noise_law=law
    )
    n = 200_000
    x = game.initial(n, gen())
    noise = game.step(0, torch.zeros(n, 2), torch.zeros(n, 2), None, gen(1))
    for sample, mean, factor in ((x, [1, -2], L), (noise, [0, 0], N)):
        np.testing.assert_allclose(sample.mean(0), mean, atol=5 * 0.5 / math.sqrt(n))
        np.testing.assert_allclose(np.cov(sample.T), factor @ factor.T, atol=0.01 * np.trace(factor @ factor.T))
    beyond = noise[:, 0].abs() > 0.1 * math.sqrt(3) + 1e-6
    assert beyond.any() == (law == "gaussian")


def test_actions_are_clipped_before_they_act_and_are_paid_for_and_states_are_reflected_after_the_step():
    game = LinearQuadratic(A_bar=0.0, c_m=0.0, c_x=0.0, c_a=2.0, noise_std=0.0, x_bound=1.0, a_bound=0.25)
    x, a = torch.tensor([[0.0], [0.9], [-0.9]]), torch.tensor([[3.0], [0.2], [-7.0]])
    torch.testing.assert_close(game.step(0, x, a, None, gen()), torch.tensor([[0.25], [0.9], [-0.85]]))
    torch.testing.assert_close(game.reward(0, x, a, None), -2 * torch.tensor([0.0625, 0.04, 0.0625]))
    start = LinearQuadratic(initial_std=5.0, x_bound=0.3).initial(1000, gen()).abs()
    assert start.max() <= 0.3 and (start < 0.3).all()  # nobody is put on the edge
    assert start.mean().item() == pytest.approx(0.15, abs=5 * 0.3 / math.sqrt(12 * 1000))  # folded so often: uniform
    assert game.bounded and not LinearQuadratic().bounded and LinearQuadratic(a_bound=1.0).bounded


def test_each_coordinate_has_its_own_bound():
    game = LinearQuadratic(A=EYE, A_bar=0.0, noise_std=0.0, x_bound=[1.0, 2.0])
    x, a = torch.tensor([[0.5, 0.5], [0.5, -1.5]]), torch.tensor([[1.25, 1.25], [9.0, -1.0]])
    # 1.75 and 9.5 go between −1 and 1, 1.75 and −2.5 between −2 and 2.
    torch.testing.assert_close(game.step(0, x, a, None, gen()), torch.tensor([[0.25, 1.75], [0.5, -1.5]]))


def test_paper_game():
    game = LinearQuadratic.paper()
    for name, value in dict(A=1, B=1, A_bar=0.06, c_x=5, c_a=0.1, c_m=1, x_target=0.6, horizon=20).items():
        assert np.squeeze(getattr(game, name)) == value, name
    assert (game.x_bound, game.a_bound) == (1.0, 0.1)
    x = game.initial(100_000, gen())
    assert x.abs().max() <= 1 and x.std().item() == pytest.approx(1 / math.sqrt(3), rel=0.01)
    noise = game.step(0, torch.zeros(100_000, 1), torch.zeros(100_000, 1), MeanPath(torch.zeros(21, 1)), gen())
    assert 0.0999 < noise.abs().max() <= 0.1 + 1e-6
    assert noise.std().item() == pytest.approx(0.1 / math.sqrt(3), rel=0.01)


def test_population_may_be_none_exactly_where_it_is_not_used():
    x, a = torch.zeros(3, 1), torch.zeros(3, 1)
    game = LinearQuadratic(A_bar=0.0, c_m=0.0)
    assert game.step(0, x, a, None, gen()).shape == (3, 1) and game.reward(0, x, a, None).shape == (3,)
    with pytest.raises((AttributeError, TypeError, ValueError)):
        LinearQuadratic(A_bar=0.1).step(0, x, a, None, gen())
    with pytest.raises((AttributeError, TypeError, ValueError)):
        LinearQuadratic(c_m=0.1).reward(0, x, a, None)


def test_repr_shows_the_parameters():
    assert "c_x=5.0" in repr(LinearQuadratic()) and "a_bound=None" in repr(LinearQuadratic())
