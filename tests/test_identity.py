"""What makes a run the same run (`mfglib.runs.identity`)."""

import importlib.util
import json
import sys

import numpy as np
import pytest
import torch
from helpers import Congestion
from tiny import tiny
from torch import nn

from mfglib.games import FourRooms, LinearQuadratic
from mfglib.protocols import ModuleState
from mfglib.recipes import recipe_of
from mfglib.runs.identity import describe, describe_learner, modules_of
from mfglib.schedules import Steps


class Plain:
    def __init__(self, size):
        self.size = size


VALUES = (1, 1.5, "1", (1, 2), np.float32(1), np.ones(2), torch.ones(2) * 2, {"a": 1}, None, Plain(1), Plain(2))


def test_games_are_told_apart_by_their_parameters_and_by_attributes_of_any_kind():
    def described(value):
        game = Congestion()
        game.value = value
        return json.dumps(describe(game))

    assert len(set(map(described, VALUES))) == len(VALUES) and described(Plain(1)) == described(Plain(1))
    makers = (lambda: LinearQuadratic(c_m=2.5), lambda: LinearQuadratic(c_m=2.6), FourRooms,
              lambda: FourRooms(walls=[((0.1, 0.1), (0.2, 0.2))]), lambda: FourRooms(noise_bound=0.01))  # fmt: skip
    games = [json.dumps(describe(make())) for make in makers]
    assert games == [json.dumps(describe(make())) for make in makers] and len(set(games)) == len(games)
    assert describe(LinearQuadratic(c_m=2.5))["c_m"] == [[2.5]]


def test_description_does_not_depend_on_where_objects_lie_in_memory():
    """Otherwise no other process could resume the run."""

    def game():
        made = Congestion()
        made.cost = lambda x: x**2
        return made

    first, second = game(), game()
    assert describe(first) == describe(second)


def test_description_of_games_with_members_that_some_of_them_lack():
    """Correlated noise has no law with independent coordinates: `noise` raises, and the game can be solved."""
    games = [LinearQuadratic(noise_std=[[1.0, 0.0], [c, 1.0]]) for c in (0.5, 0.6)]
    descriptions = [describe(game) for game in games]
    assert descriptions[0]["noise"].startswith("ValueError: noise_std: expected independent coordinates")
    assert descriptions[0] != descriptions[1] and descriptions[0]["x_bound"] is None
    json.dumps(descriptions)


def test_game_whose_code_changed_is_another_run(tmp_path, monkeypatch):
    """The student edits the reward and runs again: the old checkpoint belongs to another game."""

    def load(target):
        file = tmp_path / target / "own.py"
        file.parent.mkdir()
        reward = f"    def reward(self, t, x, a, population):\n        return -(x - {target}).square().sum(-1)\n"
        file.write_text(f"import helpers\n\n\nclass Own(helpers.Congestion):\n{reward}", encoding="utf-8")
        spec = importlib.util.spec_from_file_location("own", file)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "own", module)
        spec.loader.exec_module(module)
        return module.Own()

    game = load("1")
    tiny(game, iterations=1, directory=tmp_path / "run")
    tiny(game, iterations=2, directory=tmp_path / "run")  # the same game goes on
    with pytest.raises(ValueError, match=r"other settings \(behaviour, game\)"):
        tiny(load("2"), iterations=3, directory=tmp_path / "run")


# --- learners


class Own(ModuleState, nn.Module):
    def __init__(self, rate=0.1):
        super().__init__()
        self.rate, self._cache, self.layer = rate, 3, nn.Linear(1, 1)

    @property
    def policy(self):
        return self.layer


def test_a_learner_of_the_library_is_its_class_and_configuration():
    learners = recipe_of(LinearQuadratic(horizon=2), preset="smoke").build()
    described = {part: describe_learner(learner) for part, learner in learners.items()}
    assert described["best_response"]["class"] == "mfglib.learn.ppo:PPO"
    assert described["best_response"]["config"]["agents"] == 64
    assert json.loads(json.dumps(described)) == json.loads(json.dumps(described, sort_keys=True))
    assert describe_learner(Steps("linear"))["attributes"] == dict(name="linear", step=0.5)
    no_methods = describe_learner(Steps())["methods"]
    assert {d["methods"] for d in described.values()} == {no_methods}  # their code counts as a file


def test_a_learner_of_ones_own_is_its_plain_attributes_and_the_source_of_its_methods():
    one = describe_learner(Own())
    assert one == describe_learner(Own()) and one["attributes"] == dict(rate=0.1)
    assert describe_learner(Own(0.2))["methods"] == one["methods"] != describe_learner(Steps())["methods"]

    class Other(Own):
        @property
        def policy(self):
            return None

    assert describe_learner(Other())["methods"] != one["methods"]


def test_modules_are_those_of_classes_and_their_bases():
    assert modules_of(FourRooms(), Congestion(), Own()) == [
        "mfglib.games.bounded", "mfglib.games.four_rooms", "mfglib.protocols",
    ]  # fmt: skip


# --- what a game says beside its public attributes

SCALE = 2.0


def helper(x):
    return SCALE * x


class Saying:
    def __init__(self, private, closed):
        self._private, self._cache = private, {"of": object()}
        self.reward = lambda t, x, a, population: helper(x[:, 0]) * closed


def test_private_numbers_closures_globals_and_helpers_are_part_of_a_game(monkeypatch):
    one = describe(Saying(1.0, 2.0))
    assert one == describe(Saying(1.0, 2.0)) and json.dumps(one)
    assert one != describe(Saying(1.5, 2.0)) and one != describe(Saying(1.0, 2.5))
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert one != describe(Saying(1.0, 2.0))


def test_what_libraries_and_this_project_do_is_known_by_their_versions_and_code():
    class Own(LinearQuadratic):
        def step(self, t, x, a, population, generator):
            return torch.where(x > 0, x, super().step(t, x, a, population, generator))

    assert describe(Own()) == describe(Own()) != describe(LinearQuadratic())


def test_large_arrays_are_hashed():
    class Own:
        def __init__(self, table):
            self.table = table

    table = torch.zeros(100, 100)
    one = describe(Own(table))
    table[50, 50] = 1.0
    assert describe(Own(table)) != one and len(json.dumps(one)) < 1000
