import json
import os

import numpy as np
import pytest
import torch
from helpers import Congestion

from mfglib import runs
from mfglib.games import FourRooms, LinearQuadratic


def test_description_holds_every_parameter_of_a_game():
    description = runs.describe(LinearQuadratic(c_m=2.5))
    assert description["c_m"] == [[2.5]] and description["x_bound"] is None
    assert json.loads(json.dumps(description)) == description
    assert description == runs.describe(LinearQuadratic(c_m=2.5)) != runs.describe(LinearQuadratic(c_m=2.6))


def test_description_tells_games_apart_by_attributes_of_any_kind():
    described = []
    for value in (1, 1.5, "1", (1, 2), np.float32(1), np.ones(2), torch.ones(2) * 2, {"a": 1}, None):
        game = Congestion()
        game.value = value
        described.append(json.dumps(runs.describe(game)))
    assert len(set(described)) == len(described)


def test_description_does_not_depend_on_where_objects_lie_in_memory():
    """Otherwise no other process could resume the run."""

    def game():
        made = Congestion()
        made.cost = lambda x: x**2
        return made

    first, second = game(), game()
    assert runs.describe(first) == runs.describe(second)


def test_description_of_games_with_members_that_some_of_them_lack():
    """Correlated noise has no law with independent coordinates: `noise` raises, and the game can be solved."""
    games = [LinearQuadratic(noise_std=[[1.0, 0.0], [c, 1.0]]) for c in (0.5, 0.6)]
    descriptions = [runs.describe(game) for game in games]
    assert descriptions[0]["noise"].startswith("ValueError: noise_std: expected independent coordinates")
    assert descriptions[0] != descriptions[1] and descriptions[0]["x_bound"] is None
    json.dumps(descriptions)


def test_domains_and_laws_are_described_by_value():
    same, other = FourRooms(), FourRooms(walls=[((0.1, 0.1), (0.2, 0.2))])
    assert runs.describe(FourRooms()) == runs.describe(same)
    assert runs.describe(same)["domain"] != runs.describe(other)["domain"]
    assert runs.describe(same)["noise"] != runs.describe(FourRooms(noise_bound=0.01))["noise"]


def test_objects_without_a_text_of_their_own_are_described_by_their_attributes():
    class Plain:
        def __init__(self, size):
            self.size = size

    described = []
    for size in (1, 1, 2):
        game = Congestion()
        game.part = Plain(size)
        described.append(runs.describe(game)["part"])
    assert described[0] == described[1] != described[2]


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    (tmp_path / "mfglib" / "games").mkdir(parents=True)
    (tmp_path / "mfglib" / "plots.py").write_text("x = 1")
    (tmp_path / "mfglib" / "fictitious_play.py").write_text("from mfglib.games.own import f")
    file = tmp_path / "mfglib" / "games" / "own.py"
    file.write_text('"""What."""\n\n\ndef f(x):\n    """Doc."""\n    return x + 1\n')
    return file


def test_fingerprint_follows_code_and_not_words(source):
    first = runs.code_fingerprint()
    source.write_text('"""Other."""\n\ndef f( x ):  # why\n    return x + 1\n')
    assert runs.code_fingerprint() == first
    (source.parents[1] / "plots.py").write_text("x = 2")
    assert runs.code_fingerprint() == first
    source.write_text("def f(x):\n    return x + 2\n")
    assert runs.code_fingerprint() != first


def test_fingerprint_follows_the_names_of_files(source):
    first = runs.code_fingerprint()
    source.rename(source.with_name("another.py"))
    (source.parents[1] / "fictitious_play.py").write_text("from mfglib.games.another import f")
    assert runs.code_fingerprint() != first


def test_a_run_of_other_code_is_refused(tmp_path, monkeypatch):
    runs.RunDirectory(tmp_path / "run", {"seed": 0})
    runs.RunDirectory(tmp_path / "run", {"seed": 0})
    monkeypatch.setattr(runs, "CODE", "changed")
    with pytest.raises(ValueError, match=r"other settings \(code\)"):
        runs.RunDirectory(tmp_path / "run", {"seed": 0})


def test_write_makes_folders_and_leaves_no_half_file(tmp_path):
    file = tmp_path / "a" / "b.txt"
    runs.write(file, "one")
    runs.write(file, "two")
    assert file.read_text() == "two" and [f.name for f in file.parent.iterdir()] == ["b.txt"]


def test_an_unchanged_file_keeps_its_time(tmp_path):
    file = tmp_path / "history.csv"
    runs.write(file, "text")
    os.utime(file, (1, 1))
    runs.write(file, "text")
    assert file.stat().st_mtime == 1
    runs.write(file, "other")
    assert file.read_text() == "other" and file.stat().st_mtime > 1


def test_latest_is_the_newest_whole_checkpoint(tmp_path):
    run = runs.RunDirectory(tmp_path, {})
    assert run.latest() is None
    for name in ("checkpoint-0002.safetensors", "checkpoint-0010.safetensors", "checkpoint-0011.part"):
        (tmp_path / name).touch()
    assert run.latest().name == "checkpoint-0010.safetensors"
