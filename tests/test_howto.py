"""The how-tos: their code blocks run in order, and what they promise holds."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from mfglib import replay, solve
from mfglib.exact.methods import METHODS
from mfglib.games import BeachBar, LinearQuadratic

HOWTO = Path(__file__).resolve().parents[1] / "docs/howto"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)


def blocks(name: str) -> list[str]:
    return BLOCK.findall((HOWTO / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def new():
    """What the page on new learners defines, and its last solutions."""
    names: dict = {}
    for block in blocks("new_learner.md"):
        exec(compile(block, "new_learner.md", "exec"), names)  # noqa: S102
    return names


def test_each_learner_is_under_thirty_lines():
    for block in blocks("new_learner.md")[:3]:
        code = block[block.index("class ") :]
        assert len([line for line in code.splitlines() if line.strip()]) < 30


@pytest.fixture(params=["LQ", "beach bar"])
def case(request, new):
    game, low, high = (
        (LinearQuadratic(horizon=3), -3.0, 3.0) if request.param == "LQ" else (BeachBar(horizon=3), 0.0, 1.0)
    )

    def learners(tries=60):
        return dict(
            best_response=new["RandomSearch"](game, tries=tries),
            average=new["SlidingWindow"](game),
            population=new["Histogram"](game, low, high),
        )

    return game, learners


def test_certified_and_better_than_doing_nothing(case):
    game, learners = case
    history = solve(game, iterations=3, preset="smoke", progress=False, **learners(200)).history
    assert (history["exploitability"] > 0).all() and (history["best_response_gap"][1:] > 0).all()
    assert history["exploitability"].iloc[1:].min() < 0.5 * history["exploitability"].iloc[0]


def test_resumes_bit_for_bit_and_is_replayed(case, tmp_path):
    game, learners = case
    options = dict(preset="smoke", progress=False)
    whole = solve(game, iterations=2, **options, **learners())
    solve(game, iterations=1, directory=tmp_path / "run", **options, **learners())
    resumed = solve(game, iterations=2, directory=tmp_path / "run", **options, **learners())
    results = [c for c in whole.history if not c.startswith("seconds_")]
    np.testing.assert_array_equal(whole.history[results], resumed.history[results])
    assert all((a.K == b.K).all() for a, b in zip(whole.policy.policies, resumed.policy.policies, strict=True))
    assert (whole.population.mass == resumed.population.mass).all()
    *_, last = replay(game, tmp_path / "run", **learners())
    assert (last.population.mass == whole.population.mass).all() and (
        last.best_response.K == whole.best_response.K
    ).all()


def test_another_learner_does_not_go_on_with_a_run(case, tmp_path):
    game, learners = case
    options = dict(preset="smoke", progress=False, directory=tmp_path / "run")
    solve(game, iterations=1, **options, **learners())
    with pytest.raises(ValueError, match="other settings .learners."):
        solve(game, iterations=2, **options, **learners(tries=61))
    with pytest.raises(ValueError, match="best_response: expected the object that the run was made with"):
        replay(game, tmp_path / "run")


def test_the_table_of_exact_methods_is_that_of_the_benchmark():
    file = HOWTO.parents[1] / "figures/data/exact_methods_benchmark.json"
    value = {row["measure"]: row["value"] for row in json.loads(file.read_text(encoding="utf-8"))}
    head, _, *lines = re.findall(r"^\|(.*)\|$", (HOWTO / "exact.md").read_text(encoding="utf-8"), re.M)
    games = [name.strip() for name in head.split("|")[1:]]
    assert [line.split("|")[0].strip(' `"') for line in lines] == list(METHODS)
    for method, line in zip(METHODS, lines, strict=True):
        for game, cell in zip(games, line.split("|")[1:], strict=True):
            names = (
                f"{game}, {method}: {what}"
                for what in ("after 25 iterations", "after 100 iterations", "100 iterations")
            )
            short, long, seconds = (value.get(name, math.nan) for name in names)
            wanted = "does not apply" if math.isnan(long) else f"{short:.2g} / {long:.2g} ({seconds:.2g} s)"
            assert cell.strip() == wanted, (game, method)
