"""All games through the same properties: members, shapes, generator, dtype, and the domain."""

import json

import pytest
import torch
from helpers import Congestion, gen, random_game

from mfglib.games import BeachBar, FourRooms, Game, LinearQuadratic, check_game
from mfglib.populations import GaussianPath
from mfglib.runs import describe


class Slotted:
    """A game without a dictionary, whose moves have no noise."""

    __slots__ = ("horizon",)
    state_dim = action_dim = 1

    def __init__(self, horizon=2):
        self.horizon = horizon

    def initial(self, n, generator):
        return torch.randn(n, 1, generator=generator)

    def step(self, t, x, a, population, generator):
        return x + a

    def reward(self, t, x, a, population):
        return -(x.square() + a.square()).sum(-1)


GAMES = {
    "LQ": LinearQuadratic(horizon=2),
    "LQ, d = 2, k = 3": random_game(2, 3, 2),
    "LQ, d = 4, k = 1": random_game(4, 1, 2, seed=1),
    "LQ, paper": LinearQuadratic.paper(),
    "LQ, bounded, d = 2": LinearQuadratic([[0.9, 0.1], [0.0, 0.8]], x_bound=[1.0, 0.5], a_bound=[0.2, 0.3], horizon=2),
    "beach bar": BeachBar(horizon=2),
    "4-rooms": FourRooms(horizon=2),
    "4-rooms, fast": FourRooms.fast(horizon=2),
    "of one's own": Congestion(),
    "without a dictionary": Slotted(),
}
each = pytest.mark.parametrize("game", GAMES.values(), ids=GAMES)


def crowd_of(game):
    """In double precision."""
    T, d = game.horizon + 1, game.state_dim
    return GaussianPath(torch.zeros(T, d).double(), torch.eye(d).double().expand(T, d, d))


def play(game, seed=0, n=300, dtype=torch.float32):
    """States, next states and rewards at t = 0, and rewards at the end."""
    random, crowd = gen(seed), crowd_of(game)
    x = game.initial(n, random).to(dtype)
    a = torch.randn(n, game.action_dim, generator=random).to(dtype)
    y = game.step(0, x, a, crowd, random)
    return x, y, game.reward(0, x, a, crowd), game.reward(game.horizon, y, torch.zeros_like(a), crowd)


@each
def test_members_and_shapes(game):
    check_game(game)
    assert isinstance(game, Game)
    x, y, first, last = play(game)
    assert x.shape == y.shape == (300, game.state_dim) and first.shape == last.shape == (300,)
    assert all(v.isfinite().all() for v in (x, y, first, last))
    json.dumps(describe(game))


@each
def test_the_generator_alone_decides(game):
    before = torch.get_rng_state()
    one, same, other = (play(game, seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True)) and not torch.equal(one[0], other[0])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("game", list(GAMES.values())[:-2], ids=list(GAMES)[:-2])  # the library's
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_have_the_dtype_of_the_states_whatever_that_of_the_population(game, dtype):
    assert {v.dtype for v in play(game, dtype=dtype)} == {dtype}


@each
def test_states_stay_in_the_domain_and_arguments_as_they_were(game):
    random, crowd = gen(), crowd_of(game)
    x, a = game.initial(2000, random), torch.randn(2000, game.action_dim, generator=random)
    before = x.clone(), a.clone()
    y = game.step(0, x, a, crowd, random)
    game.reward(0, x, a, crowd)
    assert torch.equal(x, before[0]) and torch.equal(a, before[1])
    domain = getattr(game, "domain", None)
    assert domain is None or (domain.contains(x).all() and domain.contains(y).all())


def test_what_is_no_game_is_named():
    with pytest.raises(TypeError, match="`horizon`.*got object"):
        check_game(object())
    for name in ("horizon", "state_dim", "action_dim"):
        broken = Congestion()
        setattr(broken, name, 0)
        with pytest.raises(ValueError, match=rf"game\.{name}: expected an integer >= 1, got 0"):
            check_game(broken)
