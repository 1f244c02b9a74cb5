"""Results against those that are stored, so that a silent change fails: exact ones to 1e-9, learned ones as means over
seeds, within a part of the spread over seeds.

Measured with the instructions of other processors (SSE 4.2, AVX2): exact results change by 1e-14, learned ones by 3e-6
of their mean, as runs are too short for rounding to grow. Half a standard deviation, 7% of most means, is far above.
"""

import importlib.util
import json
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
        np.testing.assert_allclose(found[name], values, rtol=1e-9, atol=1e-12, err_msg=name)


def changed(name, found):
    """The columns whose mean over seeds is not the one stored."""
    was = stored("learned.json")[name]
    assert set(found) == set(was["mean"])
    return [c for c in found if not abs(found[c].mean() - was["mean"][c]) < was["std"][c] / 2]


@pytest.mark.parametrize("name", make.LEARNED)
def test_what_is_learned_is_as_good_as_it_was(name):
    found = make.learned(name, make.SEEDS)
    assert not changed(name, found), f"\n{found.mean()}\nstored: {stored('learned.json')[name]}"


def test_a_smaller_learning_rate_would_be_seen():
    found = make.learned("LQ, Algo. 2", make.SEEDS, sizes={"ppo": {"learning_rate": 7e-4}})  # by default 1e-3
    assert "exploitability" in changed("LQ, Algo. 2", found)


def test_a_change_of_a_percent_would_be_seen():
    """The bound is worth something: a game of one percent more crowding is another one."""
    changed = make.exploitability(
        make.BeachBar(c_x=25.25), make.NoisePolicy(make.torch.zeros(1)), cells=50, error=False
    )
    assert abs(changed.value - stored("exact.json")["BeachBar: never acting"][0]) > 1e-4
