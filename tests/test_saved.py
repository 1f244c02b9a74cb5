"""Results in and out: `Solution.save` and `load`, `GridEquilibrium.save` and `load`."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import gen
from tiny import BAR, GAME, assert_same, tiny

from mfglib import exploitability
from mfglib.exact import GridEquilibrium, grid_equilibrium
from mfglib.exact.tables import TablePolicy
from mfglib.games import BeachBar, FourRooms, LinearQuadratic, Market
from mfglib.recipes import recipe_of
from mfglib.solver import Solution

KINDS = [(game, algorithm, {}) for game in (GAME, BAR) for algorithm in ("deda-fp", "algo-2", "algo-1")]
KINDS += [(BAR, "deda-fp", {"averaging": name}) for name in ("corrective", "mirror", "linear")]
KINDS += [(BAR, "algo-1", {"averaging": "corrective"}), (Market(horizon=3), "algo-2", {})]


@pytest.mark.parametrize(("game", "algorithm", "options"), KINDS, ids=str)
def test_a_solution_comes_back(game, algorithm, options, tmp_path):
    solution = tiny(game, algorithm, certify=False, **options)
    solution.save(tmp_path / "one")
    loaded = Solution.load(game, tmp_path / "one")
    assert_same(solution, loaded)
    loaded.save(str(tmp_path / "two"))  # and goes out again
    assert_same(solution, Solution.load(game, tmp_path / "two"))
    if game is not GAME:
        found = [exploitability(game, s.policy, cells=20, error=False).value for s in (solution, loaded)]
        assert found[0] == found[1]


def test_files_are_data_and_few(tmp_path):
    tiny(BAR, "algo-1").save(tmp_path)
    names = sorted(file.name for file in tmp_path.iterdir())
    learners = ["learners-0001.safetensors", "learners-0002.safetensors"]
    assert names == ["history.csv", "history.csv.digest", *learners, "settings.json"]


def test_a_folder_of_something_else_stays_as_it_is(tmp_path):
    solution = tiny(BAR, certify=False)
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match="folder: expected a new one, or one of a solution, got .*something else"):
        solution.save(tmp_path)
    solution.save(tmp_path / "mine")
    tiny(BAR, certify=False, iterations=3).save(tmp_path / "mine")  # in the place of the first
    assert len(Solution.load(BAR, tmp_path / "mine").history) == 4


def test_what_is_not_there_or_of_another_game_is_named(tmp_path):
    tiny(BAR, certify=False).save(tmp_path)
    with pytest.raises(ValueError, match="directory: expected a finished run, got .*no history.csv"):
        Solution.load(BAR, tmp_path / "none")
    with pytest.raises(ValueError, match="directory: expected a run of BeachBar.*got one of BeachBar"):
        Solution.load(BeachBar(horizon=3, c_m=2.0), tmp_path)
    file = next(tmp_path.glob("learners-0002*"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="learners-0002.*damaged"):
        Solution.load(BAR, tmp_path)


def test_objects_of_ones_own_are_asked_for(tmp_path):
    own = recipe_of(BAR, preset="smoke").build()["population"]
    tiny(BAR, certify=False, population=own).save(tmp_path)
    with pytest.raises(ValueError, match="population: expected the object that the run was made with"):
        Solution.load(BAR, tmp_path)
    fresh = recipe_of(BAR, preset="smoke", seed=3).build()["population"]
    loaded, x = Solution.load(BAR, tmp_path, population=fresh), BAR.initial(20, gen())
    assert torch.equal(loaded.population.log_prob(1, x), own.log_prob(1, x))


def test_one_that_was_cut_short_says_where_its_folder_is(tmp_path):
    tiny(BAR, certify=False, iterations=3, directory=tmp_path)
    with pytest.raises(ValueError, match="solution: expected one whose learners are at hand"):
        tiny(BAR, certify=False, iterations=2, directory=tmp_path).save(tmp_path / "new")


@pytest.mark.parametrize(
    ("game", "cells"), [(BAR, 40), (FourRooms(horizon=3), 20), (Market(horizon=3), 30), (LinearQuadratic.paper(), 20)]
)
def test_an_equilibrium_comes_back(game, cells, tmp_path):
    found = grid_equilibrium(game, cells, 0.05, progress=False)
    found.save(tmp_path / "exact.npz")
    again = GridEquilibrium.load(game, tmp_path / "exact.npz")
    torch.testing.assert_close(again.population.mass, found.population.mass, atol=1e-12, rtol=0)
    assert torch.equal(again.policy.shares, found.policy.shares)
    for name in ("value", "exploitability", "first"):
        assert getattr(again, name) == getattr(found, name)
    pd.testing.assert_frame_equal(again.history, found.history)
    if game.uses_actions if hasattr(game, "uses_actions") else False:
        torch.testing.assert_close(again.population.actions, found.population.actions)


def test_any_software_can_read_an_equilibrium_and_give_a_policy_back(tmp_path):
    """From the documented arrays alone: the mean path, and a table that is judged like any policy."""
    found = grid_equilibrium(BAR, 40, 0.05, progress=False)
    found.save(tmp_path / "exact.npz")
    with np.load(tmp_path / "exact.npz") as arrays:
        x, mass, actions, shares = (arrays[name] for name in ("cells", "mass", "actions", "shares"))
    assert x.shape == (40, 1) and mass.shape == (4, 40) and shares.shape == (3, 40, len(actions))
    np.testing.assert_allclose(mass @ x, [found.population.mean(t).numpy() for t in range(4)])
    grid = found.policy.grid
    tables = torch.from_numpy(actions).expand(*shares.shape, -1), torch.from_numpy(shares)
    judged = exploitability(BAR, TablePolicy(grid, *tables), cells=40, error=False)
    assert judged.value == pytest.approx(found.exploitability, abs=1e-9)


def test_another_games_equilibrium_is_refused(tmp_path):
    found = grid_equilibrium(BAR, 40, 0.05, progress=False)
    found.save(tmp_path / "exact.npz")
    with pytest.raises(ValueError, match="file: expected an equilibrium of BeachBar.*4 decisions.*got one with 40, 3"):
        GridEquilibrium.load(BeachBar(horizon=4), tmp_path / "exact.npz")
    with pytest.raises(ValueError, match="file: expected an equilibrium of LinearQuadratic"):
        GridEquilibrium.load(LinearQuadratic(x_bound=1.0, a_bound=0.3, horizon=3), tmp_path / "exact.npz")
    assert dataclasses.is_dataclass(found)
