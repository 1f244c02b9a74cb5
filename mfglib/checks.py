"""Checks of arguments and of learned numbers: each error names what was expected and what was given."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn


class DivergenceError(ArithmeticError):
    """A learner produced numbers that are not finite."""


def require_finite(learner: str, *values: float | torch.Tensor | nn.Module) -> None:
    """Raise DivergenceError naming the learner if a loss, tensor or parameter is NaN or infinite."""
    for value in values:
        tensors: Iterable[Any] = value.parameters() if isinstance(value, nn.Module) else [torch.as_tensor(value)]
        if not all(torch.isfinite(v).all() for v in tensors):
            raise DivergenceError(f"{learner}: a loss or a parameter is not finite")


def is_finite_array(value: Any) -> bool:
    """Whether it is a numpy array of finite real numbers."""
    return isinstance(value, np.ndarray) and value.dtype.kind in "iuf" and bool(np.isfinite(value).all())


def shown(value: Any) -> str:
    """A value in a message: arrays by their shape."""
    if isinstance(value, (torch.Tensor, np.ndarray)) and math.prod(value.shape) != 1:
        finite = isinstance(value, torch.Tensor) or is_finite_array(value)
        what = f"a {type(value).__name__} of shape {tuple(value.shape)} and {value.dtype}"
        return what if finite else f"{what}, not all finite numbers"
    text = repr(value)
    return text if len(text) < 80 else f"{text[:77]}..."


def require_shape(name: str, value: torch.Tensor | np.ndarray, *shape: int | None) -> None:
    """Raise ValueError, naming the argument, unless it has this shape, None standing for any number > 0."""
    known = len(value.shape) == len(shape)
    if not known or any(n == 0 or m not in (None, n) for n, m in zip(value.shape, shape, strict=True)):
        expected = ", ".join("n" if m is None else str(m) for m in shape)
        raise ValueError(f"{name}: expected shape ({expected}), got {tuple(value.shape)}")


def require_time(t: Any, horizon: int) -> int:
    """t if it is an integer in 0..horizon, else ValueError: a negative time must not count from the end."""
    if isinstance(t, bool) or not isinstance(t, (int, np.integer)) or not 0 <= t <= horizon:
        raise ValueError(f"t: expected an integer in 0..{horizon}, got {t!r}")
    return int(t)


def require_states(name: str, x: Any, size: int | None = None) -> None:
    """Raise TypeError or ValueError, naming the argument, unless x is a tensor (n, size), or (n, any size)."""
    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        raise TypeError(f"{name}: expected a tensor (n, {size or 'd'}) of floating-point numbers, got {shown(x)}")
    if x.ndim != 2 or size not in (None, x.shape[1]):
        raise ValueError(f"{name}: expected shape (n, {size or 'd'}), got {tuple(x.shape)}")


def device_name(name: str, value: Any) -> str:
    """A device that torch can compute on here, by name; raises ValueError that names the argument."""
    try:
        found = torch.device(value)
        if found.type == "cpu" and found.index:
            raise ValueError("there is one CPU")
        torch.zeros(1, device=found).item()
    except (TypeError, ValueError, RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"{name}: expected a device that torch has here, got {value!r} ({reason})") from None
    return str(found)


def require_positive(config: object, *names: str) -> None:
    """Raise ValueError naming each field of a configuration that is not > 0 and finite, not whole where it counts
    things, or not a tuple where there are several. Numbers of numpy become Python's, which JSON knows."""
    for name in names:
        value, kind = getattr(config, name), config.__dataclass_fields__[name].type
        if isinstance(value, np.generic):
            value = value.item()
            object.__setattr__(config, name, value)
        several, whole = kind == tuple[int, ...], kind in (int, int | None, tuple[int, ...])
        values = value if several and isinstance(value, tuple) else (value,)
        known = (int,) if whole else (int, float)
        right = all(isinstance(v, known) and not isinstance(v, bool) and 0 < v < math.inf for v in values)
        if not right or not values or several != isinstance(value, tuple):
            what = "a tuple of integers" if several else "an integer" if whole else "a number"
            raise ValueError(f"{type(config).__name__}.{name}: expected {what} > 0, got {value!r}")


MOST = 10**9  # agents, cells, steps: more fit into no memory


def integer(name: str, value: Any, *, at_least: int, at_most: int | None = MOST) -> int:
    """`value` as an int that is at least `at_least`, and at most `at_most`; raises ValueError that names it."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < at_least:
        raise ValueError(f"{name}: expected an integer >= {at_least}, got {shown(value)}")
    if at_most is not None and value > at_most:
        raise ValueError(f"{name}: expected an integer <= {at_most}, got {value}")
    return int(value)


def array(name: str, value: Any) -> np.ndarray:
    """`value` as a finite float64 array; raises ValueError that names it."""
    try:
        given = np.asarray(value)
        if given.dtype.kind not in "iufO":  # nor booleans, complex numbers or texts, which numpy would cast
            raise TypeError
        result = given.astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected a number or an array of numbers, got {shown(value)}") from None
    if not np.isfinite(result).all():
        raise ValueError(f"{name}: expected finite numbers, got {shown(value)}")
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


def cost_matrix(name: str, value: Any, size: int, *, positive: bool = False) -> np.ndarray:
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


def std_factor(name: str, value: Any, size: int) -> np.ndarray:
    """A standard deviation: scalar or (size,) >= 0, or a factor L of shape (size, size) with covariance L Lᵀ."""
    L = matrix(name, value, size, size)
    if np.ndim(value) < 2 and (L < 0).any():
        raise ValueError(f"{name}: expected >= 0, got {value!r}")
    return L
