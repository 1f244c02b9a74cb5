"""Small functions that games share."""

import functools
import inspect
from typing import Any

import numpy as np
import torch
from torch import Tensor


def squared_norm(v: Tensor) -> Tensor:
    """|v|² of v: (n, d) -> (n,). Coordinates are added one by one: torch's own sum is slow for so few (decision G1)."""
    return sum(v.square().unbind(-1))


def clip(x: Tensor, bound: Any) -> Tensor:
    """x: (n, k) coordinate-wise in [−bound, bound], bound a number or (k,); as it is where the bound is None."""
    if bound is None:
        return x
    bound = constant(bound, x)
    return torch.clamp(x, -bound, bound)


def constant(value: Any, like: Tensor) -> Tensor:
    """A number or an array with the dtype and on the device of `like`, not to be changed in place. A GPU gets it once:
    it would wait for each copy."""
    if like.device.type == "cpu":
        return torch.as_tensor(value, dtype=like.dtype)
    value = np.asarray(value, dtype=float)
    return _copied(value.tobytes(), value.shape, like.dtype, like.device)


@functools.lru_cache(maxsize=1024)
def _copied(value: bytes, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(np.frombuffer(value).reshape(shape), dtype=dtype, device=device)


def uses_actions(game: Any) -> bool:
    """Whether a game asks what the crowd does, `population.mean_action(t)`, and not only where it is."""
    return bool(getattr(game, "uses_actions", False))


def game_repr(game: Any) -> str:
    """The class of a game and the attributes named as its parameters, as far as it has them: its repr."""
    names = inspect.signature(type(game)).parameters
    values = {name: getattr(game, name) for name in names if hasattr(game, name)}
    for name, v in values.items():
        if isinstance(v, np.ndarray):
            values[name] = v.item() if v.size == 1 else v.tolist()
    return f"{type(game).__name__}({', '.join(f'{name}={v!r}' for name, v in values.items())})"


def known_moves(game: object) -> bool:
    """Whether a learner can look one step ahead in a game: bounded states, at most two bounded actions, and steps by
    the common rule (`mfglib.games.bounded.BoundedGame`)."""
    bounded = getattr(game, "domain", None) is not None and getattr(game, "a_bound", None) is not None
    common = getattr(getattr(type(game), "step", None), "noise_after_move", False)
    if not (bounded and common and game.action_dim <= 2):
        return False
    try:
        game.noise  # noqa: B018 (a law with correlated coordinates is refused)
    except ValueError:
        return False
    return True
