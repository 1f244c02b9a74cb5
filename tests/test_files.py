"""The files of a run: whole or not there, known by a digest, of one writer, and never more deleted than was written."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import GAME, assert_same, tiny

from mfglib import replay, runs
from mfglib.files import read_parts, write_parts, write_table
from mfglib.runs import DamagedFile, RunDirectory, read_table
from mfglib.schedules import Steps

FILES = ["settings.json", "history.csv", "checkpoint-0001", "learners-0000", "learners-0001"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("finished")
    return directory, tiny(iterations=1, directory=directory)


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished[0], tmp_path / "run")


def damages(data):
    """What may become of a file: cut, emptied, not text, of another kind, and a bit flipped at five places."""
    yield "cut", data[: len(data) // 2]
    yield "cut at its end", data[:-1]
    yield "empty", b""
    yield "no text", b"\xff\xfe" * 50
    yield "a list", b"[1, 2]"
    for place in np.linspace(0, len(data) - 1, 5).astype(int).tolist():
        yield f"bit {place}", data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


@pytest.mark.parametrize("name", FILES)
def test_every_damage_of_every_file_is_refused_by_name_or_harmless(finished, run, name):
    (file,) = (file for file in run.glob(f"{name}*") if file.suffix != ".digest")
    data, refused = file.read_bytes(), []
    for what, damaged in damages(data):
        file.write_bytes(damaged)
        try:
            again = tiny(iterations=1, directory=run)
            list(replay(GAME, run))
        except ValueError as error:
            assert name in str(error) or "other settings" in str(error), f"{what}: {error}"
            assert "overwrite=True" in str(error)
            refused.append(what)
        else:
            assert_same(again, finished[1])
            assert name == "history.csv" or json.loads(file.read_bytes()) == json.loads(data)
        file.write_bytes(data)
    everything = [what for what, _ in damages(data)]
    # A table is written again from the checkpoint; a flip in the white space of JSON says the same.
    assert refused == everything or name in ("history.csv", "settings.json")
    assert_same(tiny(iterations=1, directory=run), finished[1])


@pytest.mark.parametrize("name", FILES)
def test_overwriting_starts_anew_whatever_is_damaged(finished, run, name):
    (file,) = (file for file in run.glob(f"{name}*") if file.suffix != ".digest")
    for _, damaged in damages(file.read_bytes()):
        file.write_bytes(damaged)
        assert_same(tiny(iterations=1, directory=run, overwrite=True), finished[1])
        assert len(list(replay(GAME, run))) == 2


def test_a_damaged_table_is_refused_by_what_reads_it(run):
    file = run / "history.csv"
    data = file.read_bytes()
    assert list(read_table(file).iteration) == [0, 1]
    for what, damaged in damages(data):
        file.write_bytes(damaged)
        with pytest.raises(DamagedFile, match="history.csv"):
            read_table(file), pytest.fail(what)
    file.write_bytes(data)
    (run / "history.csv.digest").unlink()
    with pytest.raises(DamagedFile, match="history.csv.*overwrite=True"):
        replay(GAME, run)


def test_learners_of_another_iteration_or_format_are_refused(run):
    file = run / "learners-0001.safetensors"
    tensors = load_file(file)
    shutil.copy(run / "learners-0000.safetensors", file)
    with pytest.raises(DamagedFile, match="learners-0001.*of iteration 0, not 1"):
        list(replay(GAME, run))
    save_file(tensors, file)  # as versions without digests did
    with pytest.raises(DamagedFile, match="learners-0001.*digest is missing"):
        list(replay(GAME, run))
    file.unlink()
    with pytest.raises(FileNotFoundError, match="learners-0001.*missing"):
        tiny(iterations=1, directory=run)


def test_parts_come_back_bit_for_bit(tmp_path):
    parts = {
        "one": {"a": torch.rand(3, 2).T, "b": torch.tensor(True)},
        "two": {"a.b": torch.arange(3), "none": torch.empty(0, 4)},
    }
    rows = [{"iteration": 0, "value": float("nan")}, {"iteration": 1, "value": 0.1}]
    write_parts(tmp_path / "x.safetensors", parts, 1, rows)
    found, history = read_parts(tmp_path / "x.safetensors", 1)
    pd.testing.assert_frame_equal(pd.DataFrame(history), pd.DataFrame(rows), check_exact=True)
    for part, state in parts.items():
        assert found[part].keys() == state.keys() and all(torch.equal(found[part][n], v) for n, v in state.items())


# --- two writers, other people's files


def test_a_directory_has_one_writer_and_a_kill_lets_go(tmp_path):
    code = "import sys, time\nfrom mfglib.runs import RunDirectory\n"
    code += "run = RunDirectory(sys.argv[1], dict(certificate=None))\nprint('open', flush=True)\ntime.sleep(60)\n"
    other = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]
    )
    assert other.stdout.readline() == b"open\n"
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="no other process writes to"):
            RunDirectory(tmp_path, dict(certificate=None), overwrite=overwrite)
    other.kill()
    other.wait()
    other.stdout.close()
    RunDirectory(tmp_path, dict(certificate=None)).close()


def test_a_run_that_fails_lets_go_of_its_directory(tmp_path):
    class Broken(type(GAME)):
        fails = False

        def step(self, *args):
            if self.fails:
                raise RuntimeError("out of order")
            return super().step(*args)

    game = Broken(horizon=3)
    tiny(game, iterations=1, directory=tmp_path)
    loop = type("Bad", (), dict(policy=None, faced=None, state=dict, load=lambda *_: None))()
    with pytest.raises(ValueError, match="other settings"):
        tiny(game, directory=tmp_path, best_response=loop)
    tiny(game, iterations=1, directory=tmp_path)


def test_overwriting_deletes_what_runs_write_and_nothing_else(run):
    (run / "thesis.tex").write_text("years of work", encoding="utf-8")
    (run / "errors.csv").write_text("of the old run", encoding="utf-8")
    tiny(iterations=2, directory=run, seed=7, overwrite=True)
    names = {file.name for file in run.iterdir() if file.name[0] != "."}
    assert "thesis.tex" in names and "errors.csv" not in names and "checkpoint-0002.safetensors" in names
    assert (run / "thesis.tex").read_text(encoding="utf-8") == "years of work"


def test_overwriting_that_was_killed_half_way_is_done_again(finished, run):
    for file in run.glob("checkpoint*"):
        file.unlink()
    assert_same(tiny(iterations=1, directory=run, overwrite=True), finished[1])
    (run / "settings.json").unlink()
    with pytest.raises(DamagedFile, match="settings.json.*missing"):
        tiny(iterations=1, directory=run)
    assert_same(tiny(iterations=1, directory=run, overwrite=True), finished[1])


def test_hidden_files_are_no_runs_and_in_nobodys_way(tmp_path):
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    tiny(iterations=1, directory=tmp_path)
    assert (tmp_path / ".DS_Store").read_bytes() == b"x"


def test_a_directory_is_named_as_people_name_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    tiny(iterations=1, directory="~/run")
    assert (tmp_path / "run/history.csv").exists() and len(list(replay(GAME, "~/run"))) == 2
    with pytest.raises(ValueError, match="directory: expected a path, got an empty one"):
        tiny(iterations=1, directory="")
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


# --- disks, permissions, numbers of numpy


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_names_the_file_and_loses_nothing(finished, run, monkeypatch, call):
    real, count = getattr(os, call), iter(range(100))

    def full(*args):
        if next(count) >= 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args)

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left on device.*run") as error:
        tiny(iterations=5, directory=run)
    assert error.value.errno == errno.ENOSPC and Path(error.value.filename).parent == run
    monkeypatch.undo()
    assert not list(run.glob(".*.part"))
    assert_same(tiny(iterations=5, directory=run), tiny(iterations=5))


def test_all_files_have_the_permissions_of_any_new_file(run, tmp_path):
    (tmp_path / "plain").touch()
    rule = (tmp_path / "plain").stat().st_mode
    tiny(iterations=2, directory=run)
    assert {
        file.name: file.stat().st_mode for file in run.iterdir() if file.stat().st_mode != rule and file.name[0] != "."
    } == {}


def test_numbers_of_numpy_make_no_other_run(tmp_path):
    tiny(iterations=1, directory=tmp_path, averaging=Steps("geometric", np.float32(0.25)), certify=np.bool_(True))
    tiny(iterations=1, directory=tmp_path, averaging=Steps("geometric", 0.25))
    with pytest.raises(ValueError, match=r"other settings \(averaging\)"):
        tiny(iterations=1, directory=tmp_path, averaging=Steps("geometric", 0.5))


def test_settings_that_no_version_knows_are_named(run):
    settings = json.loads((run / "settings.json").read_text(encoding="utf-8"))
    (run / "settings.json").write_text(json.dumps(settings | {"unheard": 1}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"other settings \(unheard\)"):
        tiny(iterations=1, directory=run)


def test_versions_of_libraries_are_settings(run):
    libraries = json.loads((run / "settings.json").read_text(encoding="utf-8"))["libraries"]
    assert {"torch", "numpy"} <= libraries.keys() and torch.__version__.startswith(libraries["torch"])


def test_a_table_is_nothing_without_its_digest(tmp_path):
    file = tmp_path / "table.csv"
    write_table(file, pd.DataFrame({"a": [0.1, float("nan")], "b": ["x", "ü"]}))
    assert read_table(file).equals(pd.read_csv(file))
    file.write_text(file.read_text(encoding="utf-8").replace("0.1", "0.2"), encoding="utf-8")
    with pytest.raises(DamagedFile, match="table.csv"):
        read_table(file)
    assert runs.read_table is read_table
