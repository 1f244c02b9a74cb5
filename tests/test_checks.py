import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from mfglib.checks import DivergenceError, require_finite, require_positive, require_time


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_a_divergence_of_the_learner_named(bad):
    module = torch.nn.Linear(2, 1)
    require_finite("flow", 1.0, torch.ones(3), module)
    with torch.no_grad():
        module.bias.fill_(bad)
    for value in (bad, torch.tensor([0.0, bad]), module):
        with pytest.raises(DivergenceError, match="^flow: "):
            require_finite("flow", 1.0, value)
    assert issubclass(DivergenceError, ArithmeticError)


@dataclass
class Sizes:
    rate: float = 1.5
    widths: tuple[int, ...] = (1, 2)


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf, None, "3", True, [1], (1,)])
def test_what_is_not_positive_is_named_and_shown(bad):
    require_positive(Sizes(), "rate", "widths")
    for name, value in (("rate", bad), ("widths", (1, bad)), ("widths", ()), ("widths", 8), ("widths", (8, 8.5))):
        with pytest.raises(ValueError) as error:
            require_positive(Sizes(**{name: value}), "rate", "widths")
        what = {"rate": "a number", "widths": "a tuple of integers"}[name]
        assert str(error.value) == f"Sizes.{name}: expected {what} > 0, got {value!r}"


def test_numbers_of_numpy_are_taken_as_python_has_them():
    sizes = Sizes(np.float32(0.5))
    require_positive(sizes, "rate")
    assert json.dumps(sizes.rate) == "0.5"


def test_numbers_that_count_things_are_whole():
    @dataclass
    class Counts:
        n: int = 1
        most: int | None = None

    require_positive(Counts(), "n")
    require_positive(Counts(2, 3), "n", "most")
    for given in (dict(n=1.5), dict(most=2.0)):
        with pytest.raises(ValueError, match=rf"Counts.{next(iter(given))}: expected an integer > 0, got "):
            require_positive(Counts(**given), "n", *given)


def test_times_do_not_count_from_the_end():
    assert [require_time(t, 2) for t in range(3)] == [0, 1, 2]
    for t in (-1, 3):
        with pytest.raises(ValueError, match=rf"t: expected an integer in 0\.\.2, got {t}"):
            require_time(t, 2)
