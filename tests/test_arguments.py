"""Arguments are checked by their annotations (`mfglib.arguments`); tests/test_fuzz.py tries all public names."""

import inspect
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mfglib.arguments import checked, require_game
from mfglib.games import BeachBar, Domain
from mfglib.policies import EpisodeMixture, NoisePolicy
from mfglib.populations import MeanPath
from mfglib.protocols import Game, Policy, Population

STILL, PATH = NoisePolicy(torch.zeros(1)), MeanPath(torch.zeros(3, 1))


@checked
def call(
    n: int = 1,
    x: float | None = None,
    flag: bool = True,
    a: Tensor | int = 0,
    b: np.ndarray | None = None,
    game: Game | None = None,
    policy: Policy = STILL,
    population: Population | None = None,
    domain: Domain | None = None,
    free: Any = None,
    names: list[str] | None = None,
) -> int:
    """A function."""
    return n


RIGHT = [
    dict(n=np.int64(3)),
    dict(x=3, flag=np.bool_(False)),
    dict(x=np.float32(0.5)),
    dict(a=torch.ones(2)),
    dict(a=7, b=np.ones(2)),
    dict(policy=EpisodeMixture([STILL]), population=PATH, domain=Domain(0.0, 1.0)),
    dict(free=object(), names=3),  # what is not told by a class is not checked
]
WRONG = [
    (dict(n=1.5), "n: expected an integer, got 1.5"),
    (dict(n=True), "n: expected an integer, got True"),
    (dict(x=math.nan), "x: expected a finite number or None, got nan"),
    (dict(x="1"), "x: expected a finite number or None, got '1'"),
    (dict(flag=1), "flag: expected True or False, got 1"),
    (
        dict(a=np.ones(3)),
        r"a: expected a tensor of real numbers or an integer, got a ndarray of shape \(3,\) and float64",
    ),
    (dict(a=torch.ones(1, dtype=torch.complex64)), "a: expected a tensor of real numbers"),
    (dict(b=np.full(3, math.nan)), "b: expected a numpy array of finite numbers or None, got .*not all finite"),
    (dict(b=[1.0]), "b: expected a numpy array"),
    (dict(policy=3), "policy: expected a policy, with a member sample or episode, got 3"),
    (dict(policy=NoisePolicy), "policy: expected a policy"),  # the class
    (dict(population=torch.ones(3)), "population: expected a population, with a member mean or None, got a Tensor"),
    (dict(domain=(0, 1)), r"domain: expected a Domain or None, got \(0, 1\)"),
]


@pytest.mark.parametrize("options", RIGHT)
def test_what_is_annotated_is_taken(options):
    assert call(**options) == options.get("n", 1)


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_what_is_not_is_named(options, message):
    with pytest.raises(TypeError, match=f"^{message}"):
        call(**options)


def test_arguments_by_place_are_named_too():
    with pytest.raises(TypeError, match="^x: expected"):
        call(1, "x")
    with pytest.raises(TypeError, match="unexpected keyword argument 'unheard'"):
        call(unheard=1)


def test_a_checked_function_looks_as_before():
    assert call.__doc__ == "A function." and "policy" in inspect.signature(call).parameters


def test_methods_and_long_values():
    class Own:
        @checked
        def double(self, n: int) -> int:
            return 2 * n

    assert Own().double(4) == 8
    with pytest.raises(TypeError, match=r"^n: expected an integer, got '1{70,}\.\.\.$"):
        Own().double("1" * 200)


def test_games_are_known_by_members_and_signatures():
    require_game(BeachBar())
    assert call(game=BeachBar()) == 1
    with pytest.raises(TypeError, match="game: expected an object, got the class BeachBar"):
        call(game=BeachBar)
