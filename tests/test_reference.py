"""Results against those that are stored, so that a silent change fails: exact ones to 1e-9 on any machine, learned ones
as means over seeds, within what their spread allows on any processor."""

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent / "reference"
SPEC = importlib.util.spec_from_file_location("make_reference", FOLDER / "make.py")
make = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(make)


def stored(name):
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def test_exact_results_are_those_stored():
    found, wanted = make.exact(), stored("exact.json")
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.fixture(scope="module")
def learned():
    return make.learned(range(4))


@pytest.mark.parametrize("name", make.LEARNED)
def test_what_is_learned_is_as_good_as_it_was(learned, name):
    """Four standard errors of the difference of two means of independent seeds, each wrong once in 15,000."""
    was, now = stored("learned.json")[name], learned[name]
    error = was["std"] * math.sqrt(1 / was["seeds"] + 1 / len(now))
    assert abs(np.mean(now) - was["mean"]) < 4 * error


def test_a_change_of_a_percent_would_be_seen():
    """The bound is worth something: a game of one percent more crowding is another one."""
    changed = make.exploitability(
        make.BeachBar(c_x=25.25), make.NoisePolicy(make.torch.zeros(1)), cells=50, error=False
    )
    assert abs(changed.value - stored("exact.json")["BeachBar: never acting"][0]) > 1e-4
