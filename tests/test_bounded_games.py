import math

import numpy as np
import pytest
import torch
from helpers import gen

from mfglib.games import Game, LinearQuadratic, check_game
from mfglib.games.beach_bar import BeachBar
from mfglib.games.bounded import Law
from mfglib.games.domain import Domain
from mfglib.games.four_rooms import FourRooms

GAMES = {
    "beach bar": BeachBar(),
    "four rooms": FourRooms(),
    "four rooms, fast": FourRooms.fast(),
    "LQ, paper": LinearQuadratic.paper(),
}
each_game = pytest.mark.parametrize("game", GAMES.values(), ids=GAMES.keys())


class Tilted:
    """A population of density 1 + x_1 (times 2 + t)."""

    def log_prob(self, t, x):
        return ((2 + t) * (1 + x[:, 0].double())).log()

    def mean(self, t):
        return torch.tensor([0.3], dtype=torch.float64)


@each_game
def test_it_is_a_game_with_the_members_that_a_grid_asks_for(game):
    assert isinstance(game, Game)
    check_game(game)
    assert isinstance(game.domain, Domain) and isinstance(game.start, Law) and isinstance(game.noise, Law)
    assert game.state_dim == game.domain.state_dim == len(game.start.mean) == len(game.noise.mean)
    assert not game.noise.mean.any() and np.all(np.asarray(game.a_bound) > 0)


@each_game
def test_agents_stay_in_bounds(game):
    random = gen(1)
    x = game.initial(3000, random)
    for t in range(game.horizon):
        assert game.domain.contains(x).all()
        a = 3 * torch.randn(len(x), game.action_dim, generator=random)
        x = game.step(t, x, a, Tilted(), random)
    assert game.domain.contains(x).all()


@each_game
def test_a_step_is_the_move_and_then_the_noise(game):
    x = game.domain.uniform(2000, gen(1))
    a = 3 * torch.as_tensor(game.a_bound).float() * torch.randn(len(x), game.action_dim, generator=gen(2))
    z = game.moved(1, x, a, Tilted())
    torch.testing.assert_close(z, game.domain.move(x, game.displacement(1, x, a, Tilted())))
    assert game.domain.contains(z).all() and not torch.equal(z, x)
    expected = game.domain.move(z, game.noise.draw(len(x), gen(3)))
    end = game.step(1, x, a, Tilted(), gen(3))
    assert ((end - expected).abs() < 1e-6).all(1).double().mean() > 0.999  # rounding decides which side of a corner


@each_game
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_have_the_dtype_of_the_states(game, dtype):
    x = game.initial(20, gen()).to(dtype)
    a = torch.full((20, game.action_dim), 0.01, dtype=dtype)
    assert game.step(0, x, a, Tilted(), gen()).dtype == game.reward(0, x, a, Tilted()).dtype == dtype


def test_beach_bar_reward_is_the_formula():
    game = BeachBar(c_x=3.0, c_m=0.7, c_a=2.0, bar=0.2, a_bound=0.3)
    x = np.random.default_rng(0).random((50, 1))
    a = np.random.default_rng(1).uniform(-0.6, 0.6, (50, 1))
    reward = game.reward(4, torch.tensor(x), torch.tensor(a), Tilted())
    expected = -3 * (x - 0.2) ** 2 - 2 * np.clip(a, -0.3, 0.3) ** 2 - 0.7 * 6 * (1 + x)
    np.testing.assert_allclose(reward, expected[:, 0], rtol=1e-12)
    without = BeachBar(c_m=0.0, c_x=10.0, c_a=1.0).reward(0, torch.tensor([[0.75]]), torch.tensor([[0.1]]), None)
    assert without.item() == pytest.approx(-10 / 16 - 0.01)


def test_four_rooms_reward_is_the_formula():
    game = FourRooms(c_a=3.0, c_m=0.7, epsilon=0.4, a_bound=0.05)
    x = np.random.default_rng(0).random((50, 2)) / 2
    a = np.random.default_rng(1).uniform(-0.1, 0.1, (50, 2))
    reward = game.reward(3, torch.tensor(x), torch.tensor(a), Tilted())
    paid = (np.clip(a, -0.05, 0.05) ** 2).sum(1)
    np.testing.assert_allclose(reward, -3 * paid - 0.7 * np.log(5 * (1 + x[:, 0]) + 0.4), rtol=1e-12)
    without = FourRooms(c_a=2.0, c_m=0.0).reward(0, torch.zeros(1, 2), torch.tensor([[0.03, -9.0]]), None)
    bound = FourRooms().a_bound
    assert without.item() == pytest.approx(-2 * (0.03**2 + bound**2))


@pytest.mark.parametrize("game", [BeachBar(noise_bound=0.07), FourRooms(noise_bound=0.07)], ids=["bar", "rooms"])
def test_start_and_noise_have_the_stated_laws(game):
    n, d = 100_000, game.state_dim
    x = game.initial(n, gen()).double()
    low, high = game.start.ends
    assert (x >= torch.tensor(low)).all() and (x <= torch.tensor(high)).all()
    middle = torch.full((n, d), 0.5 if d == 1 else 0.1)
    noise = (game.step(0, middle, torch.zeros(n, d), None, gen(1)) - middle).double()
    assert noise.abs().max() <= 0.07 + 1e-6
    for sample, lower, upper in ((x, low, high), (noise, [-0.07] * d, [0.07] * d)):
        for i in range(d):
            uniform = (sample[:, i].sort().values - lower[i]) / (upper[i] - lower[i])
            distance = (uniform - torch.arange(n) / n).abs().max()  # Kolmogorov–Smirnov: 1.95 / √n in 0.1%
            assert distance < 2 / math.sqrt(n)
        if d == 2:
            assert abs(np.corrcoef(sample.T)[0, 1]) < 5 / math.sqrt(n)


def test_actions_move_agents_at_bounded_speed():
    game = FourRooms(noise_bound=0.0, a_bound=0.05)
    x = torch.tensor([[0.1, 0.1], [0.1, 0.1], [0.21, 0.1], [0.01, 0.4]])
    a = torch.tensor([[0.02, -0.01], [1.0, -1.0], [0.04, 0.0], [-0.03, 0.0]])
    expected = torch.tensor([[0.12, 0.09], [0.15, 0.05], [0.2, 0.1], [0.02, 0.4]])  # then a wall, then the edge
    torch.testing.assert_close(game.step(0, x, a, None, gen()), expected)


def test_fast_four_rooms_differ_in_speed_alone():
    slow, fast = FourRooms(), FourRooms.fast()
    assert fast.a_bound == 0.55 and fast.domain.volume == slow.domain.volume
    assert repr(fast) == repr(slow).replace(f"a_bound={slow.a_bound}", "a_bound=0.55")
    assert FourRooms.fast(horizon=3, a_bound=0.2).a_bound == 0.2
    through_a_door = dict(
        x=torch.tensor([[0.05, 0.15]]), a=torch.tensor([[0.4, 0.0]]), population=None, generator=gen()
    )
    torch.testing.assert_close(FourRooms.fast(noise_bound=0.0).step(0, **through_a_door), torch.tensor([[0.45, 0.15]]))


def test_four_rooms_are_four_equal_rooms():
    domain = FourRooms().domain
    assert domain.volume == pytest.approx(4 * 0.225**2 + 4 * 0.05**2)
    x = domain.uniform(2000, gen())
    for mirrored in (x.flip(1), 0.5 - x, 0.5 - x.flip(1)):
        assert domain.contains(mirrored).float().mean() > 0.999  # faces apart


@pytest.mark.parametrize("name", ["gaussian", "uniform"])
def test_laws_agree_with_their_quantiles(name):
    law, n = Law(name, [1.0, -2.0], [0.5, 0.1], 2), 100_000
    x, q = law.draw(n, gen(), torch.float64).sort(0).values, law.quantiles(n)
    assert x.shape == q.shape == (n, 2) and (np.diff(q, axis=0) > 0).all()
    np.testing.assert_allclose(q.mean(0), [1, -2], rtol=1e-9)
    np.testing.assert_allclose(q.std(0), [0.5, 0.1], rtol=1e-4)
    inner = slice(n // 20, -n // 20)
    np.testing.assert_allclose(x[inner], q[inner], atol=0.02 * 0.5)
    assert law.draw(3, gen()).dtype == torch.float32


def test_a_box_is_drawn_within_its_corners_whatever_the_rounding():
    rng = np.random.default_rng(0)
    for _ in range(30):
        low = rng.random(2)
        high = low + 0.1 * rng.random(2)
        x = Law.box(low, high).draw(2000, gen())
        assert (x >= torch.tensor(low).float()).all() and (x <= torch.tensor(high).float()).all()


@pytest.mark.parametrize(
    ("game", "given", "message"),
    [
        (BeachBar, dict(c_x=-1.0), "c_x: expected a number >= 0, got -1.0"),
        (BeachBar, dict(c_m=math.nan), "c_m: expected finite"),
        (BeachBar, dict(c_a=0.0), "c_a: expected a number > 0, got 0.0"),
        (BeachBar, dict(bar=1.5), "bar: expected a number >= 0 and <= 1, got 1.5"),
        (BeachBar, dict(bar=-0.5), "bar: expected"),
        (BeachBar, dict(horizon=0), "horizon: expected an integer >= 1, got 0"),
        (BeachBar, dict(a_bound=None), "a_bound: expected"),
        (BeachBar, dict(noise_bound=[0.1]), "noise_bound: expected a number"),
        (FourRooms, dict(c_a=0), "c_a: expected a number > 0, got 0"),
        (FourRooms, dict(c_m="much"), "c_m: expected a number"),
        (FourRooms, dict(epsilon=0.0), "epsilon: expected a number > 0"),
        (FourRooms, dict(horizon=2.5), "horizon: expected an integer"),
        (FourRooms, dict(a_bound=-0.05), "a_bound: expected a number > 0"),
        (FourRooms, dict(noise_bound=-0.01), "noise_bound: expected a number >= 0"),
        (FourRooms, dict(walls=[((0.4, 0.0), (0.6, 0.1))]), r"walls\[0\]: expected inside"),
        (FourRooms, dict(start=((0.1, 0.1), (0.1, 0.2))), "start: expected corners"),
        (FourRooms, dict(start=0.1), "start: expected corners"),
        (FourRooms, dict(start=((0.4, 0.4), (0.6, 0.5))), "start: expected a box inside"),
        (FourRooms, dict(start=((0.2, 0.05), (0.24, 0.1))), "start: expected a box .* outside the walls"),
    ],
    ids=str,
)
def test_bad_parameters_are_named(game, given, message):
    with pytest.raises(ValueError, match=message):
        game(**given)


def test_bad_laws_are_named():
    with pytest.raises(ValueError, match='law: expected "gaussian" or "uniform"'):
        Law("cauchy", 0.0, 1.0, 1)
    with pytest.raises(ValueError, match=r"std: expected a scalar or shape \(2,\)"):
        Law("uniform", 0.0, [1.0, 1.0, 1.0], 2)


POINTS = {
    "two": ([-0.1, 0.1], None, True),
    "skew": ([-1.0, 2.0], [2, 1], False),
    "cross": ([[1, 0], [-1, 0], [0, 2], [0, -2]], [1, 1, 3, 3], True),
    "triangle": ([[2.0, 0.0], [-1.0, 1.0], [-1.0, -1.0]], None, False),
    "unequal": ([[1, 0], [-1, 0], [0, 1], [0, -1]], [1, 1, 2, 3], False),
    "twice the same": ([-1.0, 1.0, 1.0], [2, 1, 1], True),
    "nowhere": ([[0.0, 0.0]], None, True),
}


@pytest.mark.parametrize(("points", "weights", "symmetric"), POINTS.values(), ids=POINTS)
def test_laws_on_points(points, weights, symmetric):
    law, n = Law.points(points, weights), 200_000
    values = np.array(points, dtype=float).reshape(len(points), -1)
    w = np.ones(len(values)) if weights is None else np.array(weights) / np.sum(weights)
    w = w / w.sum()
    np.testing.assert_allclose(law.mean, w @ values, atol=1e-12)
    np.testing.assert_allclose(law.std, np.sqrt(w @ (values - law.mean) ** 2), rtol=1e-12)
    assert law.symmetric is symmetric
    x = law.draw(n, gen()).numpy()
    assert x.dtype == np.float32 and law.draw(3, gen(), torch.float64).dtype == torch.float64
    for value in np.unique(values, axis=0):
        share, expected = (x == value.astype(np.float32)).all(1).mean(), w[(values == value).all(1)].sum()
        assert abs(share - expected) < 4 / math.sqrt(n)
    for i, q in enumerate(law.quantiles(10_000).T):
        assert (np.diff(q) >= 0).all()
        for value in np.unique(values[:, i]):
            assert (q == value).mean() == pytest.approx(w[values[:, i] == value].sum(), abs=2e-4)
    assert torch.equal(law.draw(20, gen(5)), law.draw(20, gen(5)))
    again = eval(repr(law))  # what identifies a game holds all numbers
    np.testing.assert_array_equal(again.values, law.values)
    np.testing.assert_allclose(again.weights, law.weights, rtol=1e-15)


def test_bad_points_are_named():
    for points, weights, message in (
        ([], None, "points: expected shape"),
        (0.5, None, "points: expected shape"),
        ([[[1.0]]], None, "points: expected shape"),
        ([0.0, math.nan], None, "points: expected finite numbers"),
        ([0.0, 1.0], [1.0], "weights: expected 2 numbers > 0"),
        ([0.0, 1.0], [1.0, 0.0], "weights: expected 2 numbers > 0"),
        ([0.0, 1.0], [2.0, -1.0], "weights: expected 2 numbers > 0"),
    ):
        with pytest.raises(ValueError, match=message):
            Law.points(points, weights)
    with pytest.raises(ValueError, match="Law.points"):
        Law("points", 0.0, 1.0, 1)
    assert Law.points([-1e200, 1e200], [1.7e308, 1.7e308]).std == pytest.approx(1e200)


def test_a_start_on_points_is_refused():
    game = BeachBar()
    game.start = Law.points([0.2, 0.8])
    with pytest.raises(ValueError, match="game.start: expected a law with a density, got Law.points"):
        check_game(game)


def test_repr_tells_games_apart():
    assert repr(BeachBar(bar=0.25)) == repr(BeachBar(bar=0.25)) != repr(BeachBar())
    assert "bar=0.25" in repr(BeachBar(bar=0.25))
    moved = FourRooms(walls=[((0.2, 0.2), (0.3, 0.3 + 1e-9))])
    assert repr(moved) != repr(FourRooms(walls=[((0.2, 0.2), (0.3, 0.3))]))
