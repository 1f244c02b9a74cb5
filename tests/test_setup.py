"""The files that set the project up agree with each other."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mfglib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK_LINES = [
    line for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines() if not line.startswith("#")
]
LOCK = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in LOCK_LINES)}
EXTRAS = PROJECT["optional-dependencies"]


def test_lock_pins_every_version_and_nothing_else():
    for line in LOCK_LINES:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", line), f"{line!r} is no plain pin; run `make lock`"


def test_lock_holds_torch_without_gpu_packages():
    assert LOCK["torch"] == "2.13.0"
    assert not [name for name in LOCK if name.startswith(("nvidia", "triton"))]


@pytest.mark.parametrize("wanted", [*PROJECT["dependencies"], *EXTRAS["notebooks"], *EXTRAS["rl"], *EXTRAS["dev"]])
def test_pyproject_admits_the_locked_version(wanted):
    requirement = Requirement(wanted)
    locked = LOCK[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(locked), f"{wanted} does not admit the locked {locked}"


def test_the_package_knows_its_version():
    assert mfglib.__version__ == PROJECT["version"]  # a checkout that is not installed has no other source


def test_lock_can_build_the_project_offline():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    assert all(Requirement(r).specifier.contains(LOCK[canonicalize_name(Requirement(r).name)]) for r in build)


def test_environment_yml_is_the_lock_through_pip():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, pip, by_pip = environment["dependencies"]
    assert by_pip == {"pip": ["-r requirements.lock", "-e ."]}, "versions belong in requirements.lock only"
    assert pip == "pip" and environment["channels"] == ["conda-forge", "nodefaults"]
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(python.removeprefix("python="))


def test_every_make_target_has_a_line_of_help():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.M)[1].split()
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, encoding="utf-8", check=True).stdout
    assert re.findall(r"^  ([\w-]+) +\S", shown, re.M) == targets
    assert {"setup", "figures", "test", "lab", "report", "bench", "help"} <= set(targets)


def test_old_python_is_refused_by_name(tmp_path):
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2" || exit 1\n', encoding="utf-8")
    old.chmod(0o755)
    run = subprocess.run(["make", "setup", f"PYTHON={old}"], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert run.returncode != 0
    assert "Python 3.11 or newer is needed" in run.stderr and "Python 3.9.2" in run.stderr


def test_ci_runs_the_test_command_of_the_readme():
    commands = [
        line
        for line in (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert commands[0] == "set -euo pipefail" and commands[1].startswith("cd ")
    assert commands[2:] == ["make test"]
    assert "make test" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_dry_run_lists_training_then_notebooks(tmp_path):
    (tmp_path / "figures/data").mkdir(parents=True)
    paper = "figures/data/paper_curves.csv"
    for name in ("Snakefile", "profiles", "notebooks", "mfglib", "deda_fp", "requirements.lock", paper):
        (tmp_path / name).symlink_to(ROOT / name)  # a folder of its own: this one may be locked by a run of the user's
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "1", "--config", "preset=smoke"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=60)
    assert run.returncode == 0, run.stderr
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", run.stdout + run.stderr, re.M))
    notebooks = {f"notebook_{path.stem}": "1" for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")}
    # 2 seeds: 2 schedules, 3 games x 3 algorithms, these with corrective weights, and 2 games x 2 by mirror descent
    expected = {"all": "1", "train": "42", "summary": "5", **notebooks}
    expected |= {"errors": "4", "errors_summary": "2"}  # 2 games
    expected |= {"sweep": "6", "sweep_table": "1"}  # 3 learners, 2 rates
    assert {name: jobs.get(name) for name in expected} == expected

    # What each job depends on, beside the code that it uses.
    blocks = re.findall(r"^rule (\w+):\n    input: (.+)\n    output: (.+)$", run.stdout + run.stderr, re.M)
    needed = {(rule, output.split(", ")[0]): set(inputs.split(", ")) for rule, inputs, output in blocks}
    results = "results/smoke"
    for (rule, _), inputs in needed.items():
        if rule == "train":
            assert {"deda_fp/catalogue.py", "mfglib/games/domain.py", "mfglib/certificates.py"} <= inputs
        if "summary" in rule:
            assert "deda_fp/__main__.py" in inputs
    inputs = {rule: paths for (rule, _), paths in needed.items() if rule.startswith("notebook_")}
    for stem in ("02_deda_fp_on_lq", "04_beach_bar", "05_four_rooms", "06_bounded_lq"):
        assert paper in inputs[f"notebook_{stem}"]
    finite = {
        f"{results}/{run}/seed-0/history.csv" for run in ("lq/uniform", "beach-bar/deda-fp", "four-rooms/deda-fp")
    }
    assert finite <= inputs["notebook_08_finite_populations"]


def test_notebooks_declare_the_runs_that_they_open():
    """So that the pipeline trains them first, and no notebook does."""
    for file in (ROOT / "notebooks").glob("[0-9]*.ipynb"):
        notebook = nbformat.read(file, as_version=4)
        code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
        declared = notebook.metadata["mfglib"].get("runs", [])
        assert bool(declared) == ("stored_run(" in code), file.name
        for run in declared:
            assert all(part in code for part in run.split("/")) or "for algorithm" in code or "for name" in code
