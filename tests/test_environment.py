"""Where the project runs: any locale, a wheel, a source distribution."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ASCII = dict(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")


def python(*arguments, cwd=ROOT, **environment):
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode()


RUN = """
import sys
sys.path[:0] = ["tests"]
from tiny import BAR, tiny
tiny(BAR, iterations=1, directory=sys.argv[1])
tiny(BAR, iterations=2, directory=sys.argv[1])
"""


def test_without_a_utf_8_locale(tmp_path):
    python("-c", RUN, tmp_path / "run", **ASCII)
    assert "seed" in python("-m", "mfglib", "train", "--help", **ASCII)


def test_every_file_is_opened_with_its_encoding(tmp_path):
    """Python warns of each that is not; of ours that is an error."""
    code = "import warnings\n"
    code += "warnings.filterwarnings('error', category=EncodingWarning, module='mfglib|deda_fp|notebooks')\n"
    code += "import deda_fp.view.plots as plots, deda_fp.__main__, notebooks.execute as execute, pathlib\n" + RUN
    code += "plots.provenance(seed=0, preset='smoke')\n"
    code += "execute.problems(pathlib.Path('notebooks/00_mean_field_games.ipynb'))\n"
    python("-X", "warn_default_encoding", "-c", code, tmp_path / "run")


# --- distributions


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The source distribution and the wheel, of a copy of what git knows."""
    folder = tmp_path_factory.mktemp("built")
    known = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, encoding="utf-8")
    if known.returncode:
        pytest.skip("not a checkout")
    for name in filter(None, known.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / name).write_bytes((ROOT / name).read_bytes())
    code = "import sys\nfrom setuptools.build_meta import build_sdist, build_wheel\n"
    code += "folder = sys.argv[1]\nbuild_sdist(folder)\nbuild_wheel(folder)"
    python("-W", "ignore", "-c", code, folder, cwd=folder / "source")
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def test_a_source_distribution_has_what_its_tests_need(built):
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    known = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, encoding="utf-8", check=True
    ).stdout.split()
    missing = {name for name in known if name not in names and (ROOT / name).is_file()}
    assert {name for name in missing if name[0] != "."} == set()  # all but .gitignore and the like


def test_a_wheel_has_the_packages_and_their_types(built):
    with zipfile.ZipFile(built[1]) as archive:
        names = archive.namelist()
    assert {"mfglib/py.typed", "deda_fp/py.typed"} <= set(names)
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {"mfglib", "deda_fp"}
    with zipfile.ZipFile(built[1]) as archive:
        (entry,) = (name for name in names if name.endswith("entry_points.txt"))
        assert "deda-fp = deda_fp.__main__:main" in archive.read(entry).decode()


SAVE = """
import mfglib, pandas as pd, pathlib, sys
assert pathlib.Path(mfglib.__file__).is_relative_to(pathlib.Path.cwd()), mfglib.__file__
from deda_fp.view import plots
from mfglib import solve
from mfglib.games import BeachBar
solution = solve(BeachBar(horizon=2), iterations=1, preset="smoke", progress=False, directory="run")
fig, axes = plots.panels(1, 1)
plots.save(fig, "one", pd.DataFrame({"a": [1]}), figures_dir="figs", seed=0, preset="smoke")
print(plots.provenance(seed=0, preset="smoke")["git"])
"""


def test_an_installed_copy_writes_to_the_working_directory_and_knows_no_commit(built, tmp_path):
    """Even inside somebody's checkout, where a virtual environment often lies."""
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "x"], cwd=tmp_path, check=True)
    with zipfile.ZipFile(built[1]) as archive:
        archive.extractall(tmp_path / "site-packages")
    said = python("-c", SAVE, cwd=tmp_path, PYTHONPATH=str(tmp_path / "site-packages"))
    assert said.splitlines()[-1] == "None"
    assert (tmp_path / "figs/one.svg").exists() and (tmp_path / "run/history.csv").exists()
    assert not list((tmp_path / "site-packages").rglob("*.svg"))
