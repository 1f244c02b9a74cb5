"""Imports run one way (contracts in pyproject.toml); `mfglib.__main__` is the one file that hands on upwards."""

import subprocess
import sys
from pathlib import Path

from mfglib.sources import ROOT


def test_imports_run_one_way():
    lint = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert run.returncode == 0, run.stdout + run.stderr


def test_only_main_names_the_companion():
    naming = {path.name for path in (ROOT / "mfglib").rglob("*.py") if '"deda_fp"' in path.read_text(encoding="utf-8")}
    assert naming == {"__main__.py", "sources.py"}  # what `python -m mfglib` runs, and whose files count
