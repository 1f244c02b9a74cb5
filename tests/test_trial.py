"""The trial of a game (`mfglib.trial`): what is wrong with it is named, and games are told apart by what they do."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mfglib import check_game, exploitability, solve
from mfglib.games import BeachBar, BoundedGame, Domain, FourRooms, Law, LinearQuadratic
from mfglib.policies import NoisePolicy
from mfglib.trial import behaviour, same_behaviour

STILL = NoisePolicy(torch.zeros(1))


class Walk:
    horizon, state_dim, action_dim = 3, 1, 1

    def initial(self, n, generator):
        return torch.rand(n, 1, generator=generator)

    def step(self, t, x, a, population, generator):
        return x + a + 0.05 * torch.randn(x.shape, generator=generator)

    def reward(self, t, x, a, population):
        return -(x[:, 0] ** 2) - a[:, 0] ** 2


class Box(BoundedGame):
    horizon, action_dim, a_bound, k = 3, 1, 0.3, 1.0
    domain, start, noise = Domain(0.0, 1.0), Law.box(0.0, 1.0), Law.box(-0.05, 0.05)

    def reward(self, t, x, a, population):
        return -self.k * (x[:, 0] - 0.5) ** 2 - a[:, 0] ** 2


def walk(**members):
    return type("Own", (Walk,), members)()


def box(**members):
    return type("Own", (Box,), members)()


GOOD = [
    LinearQuadratic(),
    LinearQuadratic(A=[1.0, 0.9], A_bar=0.3),
    LinearQuadratic(initial_std=0.0, noise_std=0.0),
    LinearQuadratic(horizon=1, x_target=6e-9, initial_std=1e-8, noise_std=1e-9),
    LinearQuadratic.paper(),
    BeachBar(),
    FourRooms(),
    FourRooms.fast(),
    Walk(),
    Box(),
    walk(initial=lambda self, n, generator: torch.rand(n, 1, generator=generator, dtype=torch.float64)),
    walk(reward=lambda self, t, x, a, population: -(x[:, 0] > population.mean(t)[0]).long()),  # whole numbers
    walk(step=lambda self, t, x, a, population, generator: x + a),  # without noise
    walk(initial=lambda self, n, generator: torch.zeros(n, 1)),  # all in one place
]


@pytest.mark.parametrize("game", GOOD, ids=lambda game: type(game).__name__)
def test_a_game_is_tried_and_nothing_is_found(game):
    state = torch.get_rng_state(), copy.deepcopy(vars(game)).keys()
    check_game(game)
    assert torch.equal(torch.get_rng_state(), state[0]) and vars(game).keys() == state[1]


def alone(self, t, x, a, population, generator):
    """Noise for those who move: another number of draws if one of them stops."""
    moving = x[:, 0] > 0.3
    x = x + a
    x[moving] += torch.randn(int(moving.sum()), 1, generator=generator)
    return x


def test_noise_that_is_drawn_for_some_agents_only_is_each_agents_own():
    check_game(walk(step=alone))


def rolling(self, t, x, a, population, generator):
    return x + a + torch.randn(x.shape, generator=torch.Generator().manual_seed(3))


def unseeded(self, t, x, a, population, generator):
    return x + a + torch.randn(x.shape)


def shocked(self, t, x, a, population, generator):
    return x + a + 0.1 * torch.randn(1, 1, generator=generator) + 0.1 * torch.randn(x.shape, generator=generator)


def in_place(self, t, x, a, population, generator):
    x += 1.0
    return x


def crowded(self, t, x, a, population):
    return -((x - x.mean(0)) ** 2).sum(1)


def herd(self, t, x, a, population, generator):
    return x + 0.5 * (x.mean(0) - x) + 0.1 * torch.randn(x.shape, generator=generator)


def grown(self, t, x, a, population):
    a *= 2
    return -a[:, 0]


def reward_of(function):
    return walk(reward=lambda self, t, x, a, population: function(x, a))


def initial_of(function):
    return walk(initial=lambda self, n, generator: function(n, generator))


def step_of(function):
    return walk(step=lambda self, t, x, a, population, generator: function(x, a, generator))


BAD = {  # what is given: the error, and what it says
    "class": (Walk, TypeError, r"game: expected an object, got the class Walk; make one, Walk\(\.\.\.\)"),
    "number": (3, TypeError, "the member `horizon`, got int without it"),
    "no reward": (
        walk(reward=None),
        TypeError,
        r"game.reward: expected a method reward\(t, x, a, population\), got None",
    ),
    "horizon 0": (walk(horizon=0), ValueError, "game.horizon: expected an integer >= 1, got 0"),
    "horizon 1.5": (walk(horizon=1.5), ValueError, "game.horizon: expected an integer >= 1, got 1.5"),
    "signature": (
        walk(step=lambda self, t, x, a, population: x),
        TypeError,
        r"game.step: expected step\(t, x, a, population, generator\), got step\(t, x, a, population\)",
    ),
    "initial (n,)": (
        initial_of(lambda n, g: torch.rand(n, generator=g)),
        ValueError,
        r"game.initial: expected shape \(64, 1\), got \(64,\); keep the coordinates",
    ),
    "initial (n, 2)": (initial_of(lambda n, g: torch.rand(n, 2, generator=g)), ValueError, r"got \(64, 2\)"),
    "initial numpy": (initial_of(lambda n, g: np.zeros((n, 1))), TypeError, "game.initial: .* got ndarray"),
    "initial unseeded": (initial_of(lambda n, g: torch.rand(n, 1)), ValueError, "game.initial: .*same generator"),
    "initial fixed": (
        initial_of(lambda n, g: torch.linspace(0, 1, n)[:, None]),
        ValueError,
        "game.initial: .*another gen",
    ),
    "step (n,)": (
        step_of(lambda x, a, g: x[:, 0]),
        ValueError,
        r"game.step at t = 0: expected shape \(64, 1\), got \(64,\)",
    ),
    "step (n, n)": (step_of(lambda x, a, g: x + a[:, 0]), ValueError, r"got \(64, 64\)"),
    "step root": (
        step_of(lambda x, a, g: (x - 0.5).sqrt()),
        ValueError,
        "game.step at t = 0: expected finite .*got nan",
    ),
    "step unseeded": (walk(step=unseeded), ValueError, "game.step at t = 0: expected the same states from the same"),
    "step own seed": (walk(step=rolling), ValueError, "game.step: expected other noise from another generator"),
    "step in place": (walk(step=in_place), ValueError, "game.step at t = 0: expected `x` as it was, .*in place"),
    "step of batch": (walk(step=herd), ValueError, "game.step at t = 0: .*goes through `population`"),
    "common noise": (walk(step=shocked), ValueError, "game.step: .*noise that is common to all in coordinate 0"),
    "reward number": (
        reward_of(lambda x, a: -(x**2).sum()),
        ValueError,
        r"shape \(64,\), got \(\); sum over the coord",
    ),
    "reward (n, 1)": (
        reward_of(lambda x, a: -(x**2)),
        ValueError,
        r"shape \(64,\), got \(64, 1\); one number for each",
    ),
    "reward bool": (reward_of(lambda x, a: x[:, 0] > 0), TypeError, "expected numbers, got torch.bool"),
    "reward inf": (reward_of(lambda x, a: 1 / (x[:, 0] * 0)), ValueError, "game.reward at t = 0: expected finite"),
    "reward noisy": (reward_of(lambda x, a: torch.randn(len(x))), ValueError, "the same rewards when asked again"),
    "reward of batch": (walk(reward=crowded), ValueError, "game.reward at t = 0: .*other agents"),
    "reward in place": (walk(reward=grown), ValueError, "game.reward at t = 0: expected `a` as it was"),
    "bound 0": (box(a_bound=0.0), ValueError, "game.a_bound: expected None, or a number or 1 of them > 0, got 0.0"),
    "bound nan": (box(a_bound=math.nan), ValueError, "game.a_bound: expected finite"),
    "bounds": (box(a_bound=(1.0, 2.0)), ValueError, "game.a_bound: "),
    "noise": (box(noise=0.02), TypeError, r"game.noise: expected a Law, such as Law.box\(.*, got 0.02"),
    "start": (box(start=None), TypeError, "game.start: expected a Law, .*, got None"),
    "domain": (
        walk(domain=(0.0, 1.0)),
        TypeError,
        r"game.domain: expected None or a mfglib.games.Domain, got \(0.0, 1.0\)",
    ),
    "domain of plane": (walk(domain=Domain([0.0, 0.0], [1.0, 1.0])), ValueError, "game.domain: expected 1 dimensions"),
    "left domain": (walk(domain=Domain(0.0, 1.0)), ValueError, "game.step at t = 0: expected states in game.domain"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_with_a_game_is_named_before_anything_is_built(name):
    game, kind, message = BAD[name]
    with pytest.raises(kind, match=message):
        check_game(game)
    with pytest.raises(kind, match=message):
        solve(game, iterations=1, preset="smoke", progress=False)
    with pytest.raises(kind, match=message):
        exploitability(game, STILL)


def test_an_error_in_a_games_own_code_is_its_own_and_says_where():
    with pytest.raises(ZeroDivisionError) as error:
        check_game(reward_of(lambda x, a: 1 / 0))
    assert "game.reward at t = 0: raised in the trial" in error.value.__notes__[0]


@pytest.mark.parametrize(
    "start",
    [
        lambda n, g: (torch.rand(n, 1, generator=g) > 0.5).float() * 2 - 1,  # a type in {−1, 1}
        lambda n, g: 1e6 + torch.randn(n, 1, generator=g),  # float32 has one number in 0.06 there
    ],
)
def test_coordinates_with_few_values_are_warned_of(start):
    with pytest.warns(UserWarning, match="coordinate 0 takes .* values among 256 agents"):
        check_game(initial_of(start))


def test_float64_of_a_game_is_cast():
    class Double(Walk):
        def initial(self, n, generator):
            return super().initial(n, generator).double()

        def reward(self, t, x, a, population):
            return super().reward(t, x, a, population).double()

    one, other = (solve(game, iterations=1, preset="smoke", progress=False) for game in (Double(), Walk()))
    losses = ["policy_loss", "cloning_loss", "flow_loss"]
    np.testing.assert_allclose(one.history[losses][1:], other.history[losses][1:], rtol=1e-3)

    class Bar(BeachBar):
        def reward(self, t, x, a, population):
            return super().reward(t, x, a, population).double()

    one, other = (solve(game, iterations=1, preset="smoke", progress=False) for game in (Bar(), BeachBar()))
    np.testing.assert_allclose(one.history.critic_loss[1:], other.history.critic_loss[1:], rtol=1e-3)


# --- games are told apart by what they do


def hidden(c):
    def reward(self, t, x, a, population):
        return -c * (x[:, 0] - 0.5) ** 2

    return walk(reward=reward)


def late(c):
    return walk(reward=lambda self, t, x, a, population: -(1 + c * (t == 2)) * x[:, 0] ** 2)


def test_what_a_game_does_tells_it_from_another():
    games = [
        LinearQuadratic(),
        LinearQuadratic(c_m=1.001),
        LinearQuadratic(horizon=19),
        BeachBar(),
        BeachBar(c_m=1.001),
    ]
    games += [hidden(1.0), hidden(1.001), late(0.0), late(0.001), Walk()]
    found = [behaviour(game) for game in games]
    for i, one in enumerate(found):
        assert [same_behaviour(one, other) for other in found] == [j == i for j in range(len(found))]
    assert same_behaviour(behaviour(LinearQuadratic()), behaviour(LinearQuadratic()))


def test_rounding_on_another_processor_is_no_other_game():
    one = behaviour(FourRooms(horizon=3))
    assert same_behaviour(one, {name: [a * (1 + 1e-7), b * (1 - 1e-7)] for name, (a, b) in one.items()})


def test_a_certificate_is_that_of_the_game_that_is_given():
    one, other = Box(), Box()
    other.k = 100.0
    certificate = dict(cells=20, error=False)
    before = exploitability(one, STILL, **certificate).value
    assert exploitability(other, STILL, **certificate).value == pytest.approx(23.9458, abs=1e-3)
    one.k = 100.0  # in place
    assert exploitability(one, STILL, **certificate).value == pytest.approx(23.9458, abs=1e-3)
    one.k = 1.0
    assert exploitability(one, STILL, **certificate).value == before == pytest.approx(0.1936, abs=1e-3)


class Table(Box):
    def __init__(self, weights: Tensor) -> None:
        self.weights = weights

    def reward(self, t, x, a, population):
        return self.weights[(x[:, 0] * 4999).long()] - a[:, 0] ** 2


def test_games_with_large_tables_are_told_apart():
    """Their reprs are the same: torch leaves out the middle."""
    weights = torch.zeros(5000)
    other = weights.clone()
    other[2300:2700] = 1.0
    assert repr(Table(weights)) == repr(Table(other))
    values = [exploitability(Table(w), STILL, cells=20, error=False).value for w in (weights, other)]
    assert values[0] == pytest.approx(0.0, abs=1e-9) and values[1] > 1.0
