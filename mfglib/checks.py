"""Checks shared by configurations and by the loop."""

from collections.abc import Iterable
from typing import Any

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


def require_time(t: int, horizon: int) -> int:
    """t if it is in 0..horizon, else ValueError: a negative time must not count from the end."""
    if not 0 <= t <= horizon:
        raise ValueError(f"t: expected an integer in 0..{horizon}, got {t}")
    return t


def require_positive(config: object, *names: str) -> None:
    """Raise ValueError naming each field of a configuration that is not > 0, or not whole where it counts things."""
    for name in names:
        value = getattr(config, name)
        values = value if isinstance(value, tuple) else (value,)
        if not values or not all(isinstance(v, (int, float)) and not isinstance(v, bool) and v > 0 for v in values):
            raise ValueError(f"{type(config).__name__}.{name}: expected > 0, got {value!r}")
        if config.__dataclass_fields__[name].type in (int, int | None) and not isinstance(value, int):
            raise ValueError(f"{type(config).__name__}.{name}: expected an integer > 0, got {value!r}")
