"""Whatever the caller has set in torch, the same is learned and certified."""

import contextlib

import pytest
import torch
from helpers import gen
from tiny import BAR, GAME, assert_same, tiny

from deda_fp.distances import wasserstein
from mfglib import exploitability, replay, solve
from mfglib.exact import grid_equilibrium, lq_equilibrium
from mfglib.games import FourRooms
from mfglib.policies import NoisePolicy
from mfglib.rollout import rollout


@contextlib.contextmanager
def double():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


SETTINGS = {"float64": double, "no_grad": torch.no_grad, "inference_mode": torch.inference_mode}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(
    ("game", "algorithm"), [(GAME, "deda-fp"), (BAR, "algo-1"), (BAR, "deda-fp"), (GAME, "algo-2")]
)
def test_the_same_is_learned(setting, game, algorithm, tmp_path):
    plain = tiny(game, algorithm)
    with SETTINGS[setting]():
        other = tiny(game, algorithm, directory=tmp_path)
        assert_same(other, plain)
        assert_same(tiny(game, algorithm, directory=tmp_path), plain)
        *_, last = replay(game, tmp_path)
        play = rollout(game, last.policy, last.population, n=10, generator=gen())
        assert play.x.dtype == play.reward.dtype == torch.float32
        x = other.population.sample(1, 5, gen())
        assert x.dtype == torch.float32 and other.population.log_prob(1, x).dtype == torch.float32
    assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled()


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_same_is_certified(setting):
    games = [(BAR, dict(cells=20)), (FourRooms(horizon=2), dict(cells=40, error=False)), (GAME, dict(n=200))]
    policies = [NoisePolicy(torch.full((game.action_dim,), 0.02)) for game, _ in games]
    plain = [
        exploitability(game, policy, **options).value for (game, options), policy in zip(games, policies, strict=True)
    ]
    exact = grid_equilibrium(BAR, 40, 0.1, progress=False).value, lq_equilibrium(GAME).value
    x = torch.rand(20, 2, generator=gen()), torch.rand(30, 2, generator=gen(1))
    distance = wasserstein(*x)
    with SETTINGS[setting]():
        for (game, options), policy, value in zip(games, policies, plain, strict=True):
            assert exploitability(game, policy, **options).value == value
        assert (grid_equilibrium(BAR, 40, 0.1, progress=False).value, lq_equilibrium(GAME).value) == exact
        assert wasserstein(*x) == distance


@pytest.mark.parametrize("device", ["gpu", "cpu:3", "meta", None, "cuda:99", 1.5])
def test_a_device_that_is_not_here_is_named(device):
    for call in (
        lambda: solve(GAME, device=device),
        lambda: exploitability(GAME, lq_equilibrium(GAME).policy, device=device),
    ):
        with pytest.raises((TypeError, ValueError), match="device: expected a (device that torch has here|str), got"):
            call()


@pytest.mark.parametrize("seed", [1.9, "1", -5, True, None])
def test_seeds_are_integers(seed):
    for call in (lambda: solve(GAME, seed=seed), lambda: exploitability(GAME, lq_equilibrium(GAME).policy, seed=seed)):
        with pytest.raises((TypeError, ValueError), match="seed: expected an integer.* got"):
            call()
