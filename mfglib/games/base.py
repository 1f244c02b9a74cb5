"""What a game is, and checks that every game uses on its parameters."""

import functools
import inspect
import math
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor


class Population(Protocol):
    """What a game may ask of the population μ. Implemented in `mfglib.populations` and `mfglib.learn.flow`."""

    def sample(self, t: int, n: int, generator: torch.Generator | None = None) -> Tensor: ...  # (n, d)
    def log_prob(self, t: int, x: Tensor) -> Tensor: ...  # (n, d) -> (n,)
    def mean(self, t: int) -> Tensor: ...  # (d,)


@runtime_checkable
class Game(Protocol):
    """A mean field game in discrete time. Any object with these members can be given to `mfglib.solve`.

    States x: (n, d), actions a: (n, k), time t an integer 0..horizon. The last reward, at t = horizon,
    is asked with a = 0. `population` answers `sample(t, n)`, `log_prob(t, x)` and `mean(t)`.
    """

    horizon: int
    state_dim: int
    action_dim: int

    def initial(self, n: int, generator: torch.Generator) -> Tensor: ...  # (n, d), drawn from μ_0
    def step(self, t: int, x: Tensor, a: Tensor, population: Population, generator: torch.Generator) -> Tensor: ...
    def reward(self, t: int, x: Tensor, a: Tensor, population: Population) -> Tensor: ...  # (n,)


def check_game(game: Any) -> None:
    """Raise TypeError, naming the member, if `game` is not a game, and ValueError if its sizes make no sense."""
    for member in ("horizon", "state_dim", "action_dim", "initial", "step", "reward"):
        if not hasattr(game, member):
            raise TypeError(
                f"game: expected an object with the member `{member}`, got {type(game).__name__} without it"
            )
    for member in ("horizon", "state_dim", "action_dim"):
        integer(f"game.{member}", getattr(game, member), at_least=1)


def integer(name: str, value: Any, *, at_least: int) -> int:
    """`value` as an int that is at least `at_least`; raises ValueError that names it."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < at_least:
        raise ValueError(f"{name}: expected an integer >= {at_least}, got {value!r}")
    return int(value)


def array(name: str, value: Any) -> np.ndarray:
    """`value` as a finite float64 array; raises ValueError that names it."""
    try:
        result = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected a number or an array of numbers, got {value!r}") from None
    if not np.isfinite(result).all():
        raise ValueError(f"{name}: expected finite numbers, got {value!r}")
    return result


def number(name: str, value: Any, *, positive: bool = False, at_most: float = math.inf) -> float:
    """`value` as a finite float that is >= 0, or > 0 if `positive`; raises ValueError that names it."""
    v = array(name, value)
    if v.ndim or v < 0 or (positive and v == 0) or v > at_most:
        end = "" if at_most == math.inf else f" and <= {at_most:g}"
        raise ValueError(f"{name}: expected a number {'>' if positive else '>='} 0{end}, got {value!r}")
    return float(v)


def vector(name: str, value: Any, size: int) -> np.ndarray:
    """A scalar repeated, or an array of shape (size,)."""
    v = array(name, value)
    if v.shape not in ((), (size,)):
        raise ValueError(f"{name}: expected a scalar or shape ({size},), got shape {v.shape}")
    return np.broadcast_to(v, (size,)).copy()


def matrix(name: str, value: Any, rows: int, columns: int) -> np.ndarray:
    """A scalar times the identity, a diagonal of shape (rows,) for square matrices, or shape (rows, columns)."""
    v = array(name, value)
    if v.shape == (rows, columns):
        return v.copy()
    if rows == columns and v.shape in ((), (rows,)):
        return np.diag(np.broadcast_to(v, (rows,)))
    square = f"a scalar, shape ({rows},) or " if rows == columns else ""
    raise ValueError(f"{name}: expected {square}shape ({rows}, {columns}), got shape {v.shape}")


def cost(name: str, value: Any, size: int, *, positive: bool = False) -> np.ndarray:
    """A symmetric weight matrix W of a cost vᵀ W v: positive semi-definite, or definite if `positive`."""
    W = matrix(name, value, size, size)
    bound = "> 0" if positive else ">= 0"
    if not np.allclose(W, W.T, rtol=0, atol=1e-10 * np.abs(W).max()):
        raise ValueError(f"{name}: expected a symmetric matrix, got {value!r}")
    W = (W + W.T) / 2
    eigenvalues = np.linalg.eigvalsh(W)
    slack = 1e-12 * np.abs(eigenvalues).max()
    if (eigenvalues[0] <= slack) if positive else (eigenvalues[0] < -slack):
        raise ValueError(f"{name}: expected {bound} (every eigenvalue), got {value!r}")
    return W


def spread(name: str, value: Any, size: int) -> np.ndarray:
    """A standard deviation: scalar or (size,) >= 0, or a factor L of shape (size, size) with covariance L Lᵀ."""
    L = matrix(name, value, size, size)
    if np.ndim(value) < 2 and (L < 0).any():
        raise ValueError(f"{name}: expected >= 0, got {value!r}")
    return L


def squares(v: Tensor) -> Tensor:
    """|v|² of v: (n, d) -> (n,). Coordinates are added one by one: torch's own sum of so few is ten times slower."""
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


def described(game: Any) -> str:
    """The class of a game and the attributes named as its parameters: its repr."""
    values = {name: getattr(game, name) for name in inspect.signature(type(game)).parameters}
    for name, v in values.items():
        if isinstance(v, np.ndarray):
            values[name] = v.item() if v.size == 1 else v.tolist()
    return f"{type(game).__name__}({', '.join(f'{name}={v!r}' for name, v in values.items())})"
