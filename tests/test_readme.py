"""What the README says is what the results files say, and its code runs."""

import re
import subprocess
import sys
from pathlib import Path

import torch

from mfglib import solve

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_tables_are_those_of_the_results_files():
    run = subprocess.run(
        [sys.executable, ROOT / "benchmarks/_readme.py", "--check"], capture_output=True, encoding="utf-8"
    )
    assert run.returncode == 0, run.stderr


def test_the_readers_own_game_is_solved():
    block = next(b for b in blocks(README) if "class Crowded" in b)
    names: dict = {}
    exec(block, names)
    game = names["Crowded"]()
    solution = solve(game, iterations=1, preset="smoke", progress=False)
    density = solution.population.log_prob(5, torch.linspace(0, 1, 5)[:, None])
    assert density.isfinite().all() and solution.history["exploitability"].isna().all()


def blocks(text):
    return re.findall(r"```python\n(.*?)```", text, re.S)


def test_the_first_example_runs(monkeypatch, tmp_path):
    monkeypatch.setenv("MFGLIB_PRESET", "smoke")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(
        next(block for block in blocks(README) if "solve(game" in block).replace("iterations=20", "iterations=1"), names
    )
    assert list(names["solution"].history["iteration"]) == [0, 1] and (tmp_path / "results/my-run/history.csv").exists()


def test_the_examples_of_the_how_to_run_in_their_order(monkeypatch):
    monkeypatch.setenv("MFGLIB_PRESET", "smoke")
    names: dict = {}
    for block in blocks((ROOT / "docs/howto/use.md").read_text(encoding="utf-8")):
        exec(block.replace("iterations=5", "iterations=1"), names)
    assert names["x"].shape == (1_000_000, 2)
    game = names["LinearQuadratic"]()
    assert f"{names['lq_gain'](game, names['lq_equilibrium'](game).policy, n=10).value:.2g}" == "0.00056"


def test_every_notebook_is_in_the_table():
    for notebook in (ROOT / "notebooks").glob("[0-9]*.ipynb"):
        assert f"](notebooks/{notebook.name})" in README
