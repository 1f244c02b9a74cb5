"""Arguments of public functions, checked by their annotations: an error names the argument, or the member of a game."""

import functools
import inspect
import math
import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch

from mfglib.checks import integer, is_finite_array, shown

Function = TypeVar("Function", bound=Callable[..., Any])
Test = tuple[Callable[[Any], bool], str]  # of a value, and what is expected

NUMBERS = int, float, np.integer, np.floating
KINDS: dict[Any, Test] = {
    bool: (lambda v: isinstance(v, (bool, np.bool_)), "True or False"),
    int: (lambda v: isinstance(v, (int, np.integer)) and not isinstance(v, bool), "an integer"),
    float: (lambda v: isinstance(v, NUMBERS) and not isinstance(v, bool) and math.isfinite(v), "a finite number"),
    torch.Tensor: (lambda v: isinstance(v, torch.Tensor) and not v.is_complex(), "a tensor of real numbers"),
    np.ndarray: (is_finite_array, "a numpy array of finite numbers"),
    types.NoneType: (lambda v: v is None, "None"),
}
PROTOCOLS = {"Policy": ("sample", "episode"), "Population": ("mean",)}  # known by one of these members
SIGNATURES = {  # of a game's methods
    "initial": ("n", "generator"),
    "step": ("t", "x", "a", "population", "generator"),
    "reward": ("t", "x", "a", "population"),
}


def checked(function: Function) -> Function:
    """A function that refuses arguments of another kind than annotated before it starts: a TypeError names the
    argument, what was expected and what was given. Numbers are finite, and those of numpy will do."""
    names = list(inspect.signature(function).parameters)

    @functools.cache
    def tests() -> dict[str, list[Test]]:
        hints = typing.get_type_hints(function)
        kinds = {n: h.__args__ if isinstance(h, types.UnionType) else (h,) for n, h in hints.items() if n != "return"}
        found = {name: [_test(kind) for kind in several] for name, several in kinds.items()}
        return {name: several for name, several in found.items() if None not in several}

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        for name, value in [*zip(names, args, strict=False), *options.items()]:
            several = tests().get(name, ())
            if several and not any(right(value) for right, _ in several):
                raise TypeError(f"{name}: expected {' or '.join(what for _, what in several)}, got {shown(value)}")
        return function(*args, **options)

    return call


def _test(kind: Any) -> Test | None:
    """How values of an annotation are told; None where nothing is, as of generics and other protocols."""
    name = getattr(kind, "__name__", "")
    if kind in KINDS:
        return KINDS[kind]
    if name == "Game":
        return lambda v: require_game(v) is None, "a game"
    if name in PROTOCOLS:
        members, other = PROTOCOLS[name], (type, torch.Tensor, np.ndarray, np.generic)  # which have a mean too
        what = f"a {name.lower()}, with a member {' or '.join(members)}"
        return lambda v: not isinstance(v, other) and any(hasattr(v, m) for m in members), what
    if isinstance(kind, type) and kind is not Any and not getattr(kind, "_is_protocol", False):
        return lambda v: isinstance(v, kind), f"a {name}"
    return None


def require_game(game: Any) -> None:
    """Raise TypeError or ValueError, naming the member, unless it has those of a game, with the arguments of one."""
    if isinstance(game, type):
        raise TypeError(f"game: expected an object, got the class {game.__name__}; make one, {game.__name__}(...)")
    for member in ("horizon", "state_dim", "action_dim", *SIGNATURES):
        try:
            getattr(game, member)
        except AttributeError as error:
            name = type(game).__name__
            message = f"game: expected an object with the member `{member}`, got {name} without it ({error})"
            raise TypeError(message) from None
    for member in ("horizon", "state_dim", "action_dim"):
        integer(f"game.{member}", getattr(game, member), at_least=1)
    for member, names in SIGNATURES.items():
        function, expected = getattr(game, member), f"{member}({', '.join(names)})"
        if not callable(function):
            raise TypeError(f"game.{member}: expected a method {expected}, got {function!r}")
        try:
            inspect.signature(function).bind(*names)
        except ValueError:  # builtins may have no signature
            continue
        except TypeError as error:
            got = f"{member}{inspect.signature(function)}"
            raise TypeError(f"game.{member}: expected {expected}, got {got}: {error}") from None
