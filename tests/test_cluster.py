"""What `tests/slurm/run.sh`, which no test runs, relies on: resources, profiles, its comparison, and its care."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from slurm.compare import compare

ROOT = Path(__file__).resolve().parents[1]
LOCAL = {"all", "summary", "errors_summary", "sweep_table"}  # of a second


def test_jobs_of_a_cluster_say_their_memory_and_minutes(tmp_path):
    (tmp_path / "figures/data").mkdir(parents=True)
    for name in ("profiles", "notebooks", "mfglib", "deda_fp", "benchmarks", "figures/data/paper_curves.csv"):
        (tmp_path / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--dry-run", "--cores", "1"]
    run = subprocess.run(
        [*command, "--config", "preset=smoke"], cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=60
    )
    assert run.returncode == 0, run.stderr
    jobs = re.findall(r"^(?:local)?rule (\w+):\n(?:    .*\n)*?    resources: (.*)$", run.stdout + run.stderr, re.M)
    assert {"train", "errors", "inference", "notebook_02_deda_fp_on_lq", *LOCAL} <= {rule for rule, _ in jobs}
    for rule, resources in jobs:
        for name in ("mem_mb", "runtime"):
            assert (f"{name}=" in resources) == (rule not in LOCAL), f"{rule}: {resources}"


def test_profiles_of_slurm_differ_in_accounting_only():
    one, other = (
        yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text(encoding="utf-8"))
        for name in ("slurm", "slurm-no-accounting")
    )
    assert other == one | {"slurm-status-command": "squeue", "slurm-no-account": True}
    assert one["executor"] == "slurm" and one["set-threads"].startswith("inference=")


@pytest.fixture
def results(tmp_path):
    """Two folders with the same results, whose wall seconds differ."""
    for name, seconds in (("one", 1.5), ("other", 2.5)):
        run, data = tmp_path / name / "lq/uniform/seed-0", tmp_path / name / "figures/data"
        run.mkdir(parents=True)
        data.mkdir(parents=True)
        save_file({"w": torch.tensor([1.0, 2.0])}, run / "learners-0001.safetensors")
        (run / "history.csv").write_text(
            f"iteration,exploitability,seconds_judge\n1,0.25,{seconds}\n", encoding="utf-8"
        )
        (data / "drawn.csv").write_text(f"x,minutes\n1,{seconds}\n", encoding="utf-8")
        (data / "lq_seconds.csv").write_text(f"seconds_judge\n{seconds}\n", encoding="utf-8")
        (data / "inference.csv").write_text(f"n,seconds\n1,{seconds}\n", encoding="utf-8")
    return tmp_path / "one", tmp_path / "other"


def test_wall_seconds_are_no_difference(results, capsys):
    assert compare(*results)
    assert capsys.readouterr().out.endswith("not compared, as a clock makes them: 2 tables of figures\nthe same\n")


@pytest.mark.parametrize(
    "file, text, named",
    [
        (
            "lq/uniform/seed-0/history.csv",
            "iteration,exploitability,seconds_judge\n1,0.25000000000000006,1.5\n",
            "differs: {} (exploitability)",
        ),
        ("figures/data/drawn.csv", "x,minutes\n2,1.5\n", "differs: {} (x)"),
        ("figures/data/drawn.csv", "x,minutes,y\n1,1.5,2\n", "differs: {} (y)"),
        ("figures/data/other.csv", "x\n1\n", "in one only: {}"),
        ("figures/data/lq-bounded_seconds.csv", "seconds_judge\n1\n", "in one only: {}"),
    ],
)
def test_what_differs_is_named(results, capsys, file, text, named):
    (results[1] / file).write_text(text, encoding="utf-8")
    assert not compare(*results)
    assert named.format(file) in capsys.readouterr().out


def test_other_weights_and_nothing_at_all_are_differences(results, tmp_path):
    save_file({"w": torch.tensor([1.0, 2.0000002])}, results[1] / "lq/uniform/seed-0/learners-0001.safetensors")
    assert not compare(*results)
    (tmp_path / "empty").mkdir()
    assert not compare(tmp_path / "empty", tmp_path / "empty")


def test_a_slurm_that_is_there_is_left_alone(tmp_path):
    """Its jobs above all: the script cancels all jobs of the user at the end."""
    for name in ("scancel", "apt-get", "munged", "slurmctld", "slurmd"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/called-$(basename $0)\nexit 1\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_CONF": "/somewhere/slurm.conf"}
    run = subprocess.run(["bash", ROOT / "tests/slurm/run.sh"], env=environment, capture_output=True, encoding="utf-8")
    assert run.returncode == 1 and run.stderr.startswith("error: expected ")
    assert not list(tmp_path.glob("called-*"))
