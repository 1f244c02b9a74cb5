"""Kills at random moments lose nothing: what is made afterwards is, bit for bit, what is made without them.

`make test` kills three times, `make test-faults` twenty: trainings, notebooks, and the pipeline.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbformat import v4
from safetensors.torch import load_file

from mfglib.runs import read_table

ROOT = Path(__file__).resolve().parents[1]
ALL = bool(os.environ.get("MFGLIB_ALL_KILLS"))
COPIED = (
    "mfglib",
    "deda_fp",
    "notebooks",
    "benchmarks",
    "profiles",
    "Snakefile",
    "requirements.lock",
    "pyproject.toml",
)
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONPATH": str(ROOT)}
ENVIRONMENT.pop("MFGLIB_PRESET", None)


def start(command, cwd=ROOT):
    """In a process group of its own, so that a kill can take one process or all."""
    options = dict(cwd=cwd, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    return subprocess.Popen([sys.executable, *map(str, command)], **options)


def finish(command, cwd=ROOT):
    process = start(command, cwd)
    error = process.communicate(timeout=300)[1].decode()
    assert process.returncode == 0, error


def killed(command, seconds, moment, cwd=ROOT, group=False):
    """Start, and kill at a random share of the time that it takes; whether it was still running."""
    process, share = start(command, cwd), random.Random(moment).uniform(0.1, 0.95)
    time.sleep(share * seconds)
    alive = process.poll() is None
    if alive:
        os.killpg(process.pid, signal.SIGKILL) if group else process.kill()
    process.communicate()
    return alive


def results(directory):
    """What a run has learned and measured, without wall times."""
    table = read_table(directory / "history.csv")
    weights = {file.name: load_file(file) for file in sorted(directory.glob("learners-*"))}
    return table[[name for name in table if not name.startswith("seconds_")]], weights


def assert_equal(one, other):
    pd.testing.assert_frame_equal(one[0], other[0], check_exact=True)
    assert one[1].keys() == other[1].keys()
    for name, tensors in one[1].items():
        assert tensors.keys() == other[1][name].keys() and all((tensors[n] == other[1][name][n]).all() for n in tensors)


# --- trainings

TRAIN = ["-m", "mfglib", "train", "beach-bar", "--preset", "smoke", "--iterations", "6", "--directory"]


@cache
def straight(temporary):
    begin = time.perf_counter()
    finish([*TRAIN, temporary / "straight"])
    return results(temporary / "straight"), time.perf_counter() - begin


@pytest.mark.parametrize("moment", range(12 if ALL else 1))
def test_a_training_goes_on(moment, tmp_path, tmp_path_factory):
    wanted, seconds = straight(tmp_path_factory.getbasetemp())
    command = [*TRAIN, tmp_path / "run"]
    killed(command, seconds, moment)
    finish(command)
    assert_equal(results(tmp_path / "run"), wanted)


# --- notebooks

CELLS = """from pathlib import Path
from mfglib import solve
from mfglib.games import BeachBar
solution = solve(BeachBar(horizon=3), iterations=4, preset="smoke", directory=directory, progress=False)
history = solution.history.drop(columns=[name for name in solution.history if name.startswith("seconds_")])
print(history.to_string())
if figures_dir:
    (Path(figures_dir) / "data").mkdir()
    for file in ("plot.svg", "plot.png", "data/plot.csv", "data/plot.json"):
        (Path(figures_dir) / file).write_text(history.to_csv())"""


def notebook(folder):
    """A notebook that trains and draws, and the command that executes it."""
    folder.mkdir()
    cells = [
        v4.new_code_cell(f"directory = {str(folder / 'run')!r}\nfigures_dir = None", id="a"),
        v4.new_code_cell(CELLS, id="b"),
    ]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernel, "mfglib": {"figures": ["plot"]}}
    nbformat.write(v4.new_notebook(cells=cells, metadata=metadata), folder / "tiny.ipynb")
    command = ["-m", "deda_fp.execute", folder / "tiny.ipynb", folder / "out/tiny.ipynb"]
    return [*command, "--figures", folder / "figures"]


def drawn(folder):
    """What is left in the folder: names, figures, and the outputs of the notebook."""
    outputs = [cell.outputs for cell in nbformat.read(folder / "out/tiny.ipynb", as_version=4).cells]
    figures = {f.relative_to(folder).as_posix(): f.read_bytes() for f in (folder / "figures").rglob("*") if f.is_file()}
    return sorted(file.name for file in (folder / "out").iterdir()), figures, outputs


@cache
def executed(temporary):
    begin = time.perf_counter()
    finish(notebook(temporary / "straight notebook"))
    return drawn(temporary / "straight notebook"), time.perf_counter() - begin


@pytest.mark.parametrize("moment", range(4 if ALL else 1))
def test_a_notebook_is_whole_or_not_there(moment, tmp_path, tmp_path_factory):
    wanted, seconds = executed(tmp_path_factory.getbasetemp())
    command = notebook(tmp_path / "one")
    killed(command, seconds, 100 + moment, group=True)
    if (tmp_path / "one/out/tiny.ipynb").exists():  # killed once all was done, or not at all
        nbformat.validate(nbformat.read(tmp_path / "one/out/tiny.ipynb", as_version=4))
        assert drawn(tmp_path / "one")[1:] == wanted[1:]
    finish(command)
    assert drawn(tmp_path / "one") == wanted


# --- the pipeline

TARGETS = [f"results/smoke/{run}/seed-0/history.csv" for run in ("lq/uniform", "beach-bar/deda-fp")]
PIPELINE = ["-m", "snakemake", "--config", "preset=smoke", "--cores", "1"]


def project(folder):
    """A copy that the pipeline runs in, with a folder of results of its own."""
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        folder.mkdir(exist_ok=True)
        copy(ROOT / name, folder / name)
    return folder


@cache
def made(temporary):
    folder = project(temporary / "straight project")
    begin = time.perf_counter()
    finish([*PIPELINE, *TARGETS], folder)
    return [results((folder / target).parent) for target in TARGETS], time.perf_counter() - begin


@pytest.mark.parametrize("moment", range(4 if ALL else 1))
def test_the_pipeline_goes_on(moment, tmp_path, tmp_path_factory):
    """Snakemake alone is killed: its trainings must end too, or the next ones would find their directories locked."""
    wanted, seconds = made(tmp_path_factory.getbasetemp())
    folder = project(tmp_path / "project")
    if killed([*PIPELINE, *TARGETS], seconds, 200 + moment, folder):
        time.sleep(2)  # for its jobs to notice
        finish([*PIPELINE, "--unlock"], folder)
        finish([*PIPELINE, *TARGETS], folder)
    for target, run in zip(TARGETS, wanted, strict=True):
        assert_equal(results((folder / target).parent), run)
        assert json.loads((folder / target).with_name("settings.json").read_text(encoding="utf-8"))["seed"] == 0
