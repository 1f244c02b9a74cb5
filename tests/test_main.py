"""`python -m mfglib`, and what importing it does."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mfglib
from deda_fp.__main__ import main
from deda_fp.batch import STARTED_BY, learned_by, read_runs, seconds_file
from deda_fp.catalogue import GAMES, iterations
from mfglib.exact import lq_equilibrium, lq_fictitious_play
from mfglib.presets import PRESETS

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def call(monkeypatch):
    monkeypatch.delenv("MFGLIB_PRESET", raising=False)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["mfglib", *map(str, arguments)])
        main()

    return call


def test_train_and_summary(call, tmp_path):
    histories = []
    for game, averaging, seed in (("lq", "uniform", 0), ("lq-cohesion-2", "geometric", 1)):
        directory = tmp_path / "smoke" / game / averaging / f"seed-{seed}"
        call("train", game, "--averaging", averaging, "--seed", seed, "--preset", "smoke", "--directory", directory)
        histories.append(directory / "history.csv")
        assert list(pd.read_csv(histories[-1])["iteration"]) == [0, 1, 2]
    call("summary", *histories, "--output", tmp_path / "out" / "table.csv")
    table = pd.read_csv(tmp_path / "out" / "table.csv")
    assert len(table) == 6
    for (game, averaging, seed), rows in table.groupby(["game", "averaging", "seed"]):
        exact = lq_fictitious_play(GAMES[game], 2, averaging).exploitability
        np.testing.assert_allclose(rows["exact_exploitability"], exact, rtol=1e-5)
        np.testing.assert_allclose(rows["equilibrium_value"], lq_equilibrium(GAMES[game]).value, rtol=1e-5)
        history = pd.read_csv(tmp_path / "smoke" / game / averaging / f"seed-{seed}" / "history.csv")
        np.testing.assert_allclose(rows["exploitability"], history["exploitability"], rtol=1e-5)


def test_seconds_have_a_table_of_their_own(call, tmp_path):
    """The rest is the same wherever and whenever it is made."""
    for name in ("one", "two"):
        file = tmp_path / name / "lq/uniform/seed-0/history.csv"
        call("train", "lq", "--preset", "smoke", "--directory", file.parent)
        call("summary", file, "--output", tmp_path / name / "lq_runs.csv")
    one, two = (tmp_path / name / "lq_runs.csv" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes() and b"seconds" not in one.read_bytes()
    assert (
        seconds_file(one).name == "lq_seconds.csv" and seconds_file(one).read_bytes() != seconds_file(two).read_bytes()
    )
    table = read_runs(one)
    assert list(table["iteration"]) == [0, 1, 2] and (table["seconds_cloning"][1:] > 0).all()


def test_algorithms_are_variants_like_schedules(call, tmp_path):
    histories = []
    for variant in ("algo-1", "deda-fp", "deda-fp-corrective"):
        directory = tmp_path / "smoke" / "beach-bar" / variant / "seed-3"
        algorithm, averaging = learned_by(variant)
        options = ("--algorithm", algorithm, "--averaging", averaging, "--seed", 3, "--preset", "smoke")
        call("train", "beach-bar", *options, "--directory", directory)
        histories.append(directory / "history.csv")
    call("summary", *histories, "--output", tmp_path / "table.csv")
    table = pd.read_csv(tmp_path / "table.csv")
    assert list(table["algorithm"].unique()) == ["algo-1", "deda-fp"] and set(table["seed"]) == {3}
    assert list(table["averaging"].unique()) == ["uniform", "corrective"] and "exact_exploitability" not in table
    assert np.isfinite(table["exploitability"]).all() and not table.filter(like="weight").size


def test_preset_that_was_asked_for_decides_sizes_and_iterations_alike(call, tmp_path, monkeypatch):
    monkeypatch.setenv("MFGLIB_PRESET", "lecture")
    call("train", "lq", "--preset", "smoke", "--directory", tmp_path / "run")
    settings = json.loads((tmp_path / "run" / "settings.json").read_text(encoding="utf-8"))
    assert settings["networks"]["hidden"] == list(PRESETS["smoke"]["networks"]["hidden"])
    assert len(pd.read_csv(tmp_path / "run" / "history.csv")) == 1 + iterations("lq", "smoke")


def test_more_iterations_go_on_from_a_finished_run(call, tmp_path):
    train = ("train", "lq", "--preset", "smoke", "--directory", tmp_path)
    call(*train)
    before = pd.read_csv(tmp_path / "history.csv")
    call(*train, "--iterations", 3)
    after = pd.read_csv(tmp_path / "history.csv")
    assert list(after["iteration"]) == [0, 1, 2, 3]
    pd.testing.assert_frame_equal(after[:3], before)


def test_iterations_of_the_presets():
    assert {
        iterations(game, "smoke", averaging) for game in GAMES for averaging in ("uniform", "corrective", "mirror")
    } == {2}
    assert iterations("beach-bar", "lecture", "corrective") == 20 < iterations("beach-bar", "lecture")
    for game in GAMES:
        more = iterations(game, "paper") - iterations(game, "lecture")
        assert more > 0 if game == "four-rooms" else more == 0


def test_finished_run_is_not_run_again_and_other_settings_need_overwrite(call, tmp_path):
    train = ("train", "lq", "--preset", "smoke", "--directory", tmp_path)
    call(*train)
    before = (tmp_path / "history.csv").read_text(encoding="utf-8")
    call(*train)
    assert (tmp_path / "history.csv").read_text(encoding="utf-8") == before
    with pytest.raises(SystemExit, match="^error: directory: .*other settings .seed"):
        call(*train, "--seed", 1)
    call(*train, "--seed", 1, "--overwrite")
    assert (tmp_path / "history.csv").read_text(encoding="utf-8") != before


def test_unknown_names_are_refused(call, capsys):
    for arguments in (["train", "chess", "--directory", "x"], ["train", "lq", "--preset", "huge"], []):
        with pytest.raises(SystemExit):
            call(*arguments)
    assert "chess" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "lq", "--seed", "-1", "--directory", "x"], "seed: expected an integer >= 0, got -1"),
        (["train", "lq", "--iterations", "0", "--directory", "x"], "iterations: expected an integer >= 1, got 0"),
        (["errors", "lq", "--directory", "x"], "directory: expected a finished run"),
        (["summary", "x/lq/uniform/seed-0/history.csv", "--output", "y"], "No such file.*history.csv"),
        (["summary", "x/lq/unheard/seed-0/history.csv", "--output", "y"], "VARIANT one of deda-fp"),
        (["summary", "x/lq/uniform/seed-x/history.csv", "--output", "y"], "S a number"),
        (["summary", "history.csv", "--output", "y"], "GAME one of lq"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(call, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=f"^error: .*{message}") as error:
        call(*arguments)
    assert "\n" not in str(error.value) and error.value.code != 0
    with pytest.raises((ValueError, OSError)):
        call("--traceback", *arguments)


def test_a_damaged_history_has_no_summary(call, tmp_path):
    file = tmp_path / "lq/uniform/seed-0/history.csv"
    call("train", "lq", "--preset", "smoke", "--iterations", 1, "--directory", file.parent)
    file.write_text("", encoding="utf-8")
    with pytest.raises(SystemExit, match="history.csv: expected a file as it was written"):
        call("summary", file, "--output", tmp_path / "table.csv")


def test_version(call, capsys):
    with pytest.raises(SystemExit):
        call("--version")
    assert capsys.readouterr().out == f"deda-fp {mfglib.__version__}\n"


def test_a_training_ends_with_the_pipeline_that_started_it(tmp_path):
    command = [sys.executable, "-m", "mfglib", "train", "lq", "--preset", "smoke", "--iterations", "500"]
    code = f"import os, subprocess, sys\nos.environ['{STARTED_BY}'] = str(os.getpid())\n"
    code += "job = subprocess.Popen(sys.argv[1:])\nprint(job.pid, flush=True)\njob.wait()"
    with subprocess.Popen(
        [sys.executable, "-c", code, *command, "--directory", tmp_path / "run"], stdout=subprocess.PIPE, cwd=ROOT
    ) as pipeline:
        job = int(pipeline.stdout.readline())
        while not (tmp_path / "run/checkpoint-0001.safetensors").exists():
            assert pipeline.poll() is None
            time.sleep(0.05)
        pipeline.kill()
    for _ in range(100):
        try:
            os.kill(job, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.kill(job, signal.SIGKILL)
    pytest.fail("the training went on")


def test_import_and_help_raise_no_warning():
    for code in (
        ["-c", "import mfglib, deda_fp.view.plots, deda_fp.view.panels; mfglib.solve"],
        ["-m", "mfglib", "--help"],
    ):
        result = subprocess.run([sys.executable, "-W", "error", *code], cwd=ROOT, capture_output=True, encoding="utf-8")
        assert result.returncode == 0 and not result.stderr, result.stderr


def test_errors_of_a_run_go_beside_it_and_into_a_summary(call, tmp_path):
    directory = tmp_path / "smoke" / "lq" / "uniform" / "seed-0"
    call("train", "lq", "--preset", "smoke", "--directory", directory)
    call("errors", "lq", "--directory", directory, "--cells", 100)
    table = pd.read_csv(directory / "errors.csv")
    assert list(table["iteration"]) == [0, 1, 2] and (table["bound"][1:] >= table["e_true"][1:]).all()
    call("summary", directory / "errors.csv", "--output", tmp_path / "table.csv")
    summary = pd.read_csv(tmp_path / "table.csv")
    np.testing.assert_allclose(summary["e_true"], table["e_true"], rtol=1e-5)
    assert set(summary["game"]) == {"lq"} and "exact_exploitability" not in summary
    with pytest.raises(SystemExit, match="expected a run of BeachBar"):
        call("errors", "beach-bar", "--directory", directory)
    with pytest.raises(SystemExit, match="no history.csv"):
        call("errors", "lq", "--directory", tmp_path)
    other = tmp_path / "geometric"
    call("train", "lq", "--averaging", "geometric", "--preset", "smoke", "--iterations", 1, "--directory", other)
    with pytest.raises(SystemExit, match="uniform averaging, got .*geometric"):
        call("errors", "lq", "--directory", other)
