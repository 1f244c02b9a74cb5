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
    block = next(b for b in re.findall(r"```python\n(.*?)```", README, re.S) if "class Crowded" in b)
    names: dict = {}
    exec(block, names)
    game = names["Crowded"]()
    solution = solve(game, iterations=1, preset="smoke", progress=False)
    density = solution.population.log_prob(5, torch.linspace(0, 1, 5)[:, None])
    assert density.isfinite().all() and solution.history["exploitability"].isna().all()


def test_every_notebook_is_in_the_table():
    for notebook in (ROOT / "notebooks").glob("[0-9]*.ipynb"):
        assert f"](notebooks/{notebook.name})" in README
