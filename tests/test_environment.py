"""Where the project runs: any locale, a wheel, a source distribution."""

import ast
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
ASCII = dict(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")


def python(*arguments, cwd=ROOT, **environment):
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode()


RUN = """
import contextlib, importlib, pathlib, sys, warnings
warnings.filterwarnings("error", category=EncodingWarning, module="mfglib|deda_fp|notebooks|paper")
sys.path[:0] = [".", "tests"]
for module in sys.argv[2:]:
    importlib.import_module(module)
from tiny import BAR, tiny
tiny(BAR, iterations=1, directory=sys.argv[1])
tiny(BAR, iterations=2, directory=sys.argv[1])
from deda_fp.view import provenance
provenance.provenance(seed=0, preset="smoke")
import deda_fp.__main__ as companion, deda_fp.execute as execute, deda_fp.freshness as freshness, paper.build
freshness.problems(pathlib.Path("notebooks/00_mean_field_games.ipynb"))
for command in ([], ["train"], ["errors"], ["summary"]):
    for main in [companion.main] + [execute.main] * (not command):
        sys.argv = ["command", *command, "--help"]
        with contextlib.suppress(SystemExit):
            main()
"""


def test_without_a_utf_8_locale_and_without_a_file_opened_in_the_locales(tmp_path):
    """Every module, a run and its resumption, and all help; Python warns of each file opened without an encoding."""
    files = [path.relative_to(ROOT) for package in ("mfglib", "deda_fp") for path in (ROOT / package).rglob("*.py")]
    modules = [
        ".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files if "__main__" not in file.name
    ]
    assert "mfglib.learn.ppo" in modules
    said = python("-X", "warn_default_encoding", "-c", RUN, tmp_path / "run", *modules, **ASCII)
    assert said.count("usage: ") == 5 and "--preset" in said


def opened_in_the_locale(source: str) -> list[str]:
    """Calls that open text without an encoding: what they read and write would depend on the machine."""
    found = []
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        given = {keyword.arg for keyword in call.keywords}
        binary = any(
            isinstance(a, ast.Constant) and "b" in str(a.value) for a in [*call.args, *(k.value for k in call.keywords)]
        )
        text = name in ("read_text", "write_text") or ("text" in given and name in ("run", "Popen", "check_output"))
        text = text or ast.unparse(call.func) in ("open", "io.open", "os.fdopen") or (name == "open" and not call.args)
        first = name == "read_text" and bool(call.args)  # its encoding, by position
        if text and not binary and not first and "encoding" not in given:
            found.append(f"line {call.lineno}: {ast.unparse(call)}")
    return found


def test_every_text_is_opened_with_its_encoding():
    folders = ("mfglib", "deda_fp", "notebooks", "paper", "benchmarks", "tests")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 100
    for file in files:
        assert not (found := opened_in_the_locale(file.read_text(encoding="utf-8"))), f"{file}: {found}"
    for file in (ROOT / "notebooks").rglob("[0-9]*.ipynb"):
        cells = [cell.source for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"]
        assert not (found := opened_in_the_locale("\n".join(cells))), f"{file}: {found}"


@pytest.mark.parametrize(
    "call", ["p.read_text()", "p.write_text(x)", "open(f)", "p.open()", "open(f, 'w')", "run(c, text=True)"]
)
def test_a_text_opened_without_its_encoding_is_found(call):
    assert opened_in_the_locale(call)
    assert not opened_in_the_locale(f'{call[:-1]}{", " * (call[-2] != "(")}encoding="utf-8")')


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
    assert missing <= {".gitignore"}


def test_a_source_distribution_runs_its_tests(built, tmp_path):
    """Those of the files around the code; what the others need is there too, as the test before this one knows."""
    with tarfile.open(built[0]) as archive:
        archive.extractall(tmp_path, filter="data")
    (root,) = tmp_path.iterdir()
    run = ["tests/test_setup.py", "-k", "not dry_run"]  # the pipeline has its own test
    said = python("-m", "pytest", "-q", *run, cwd=root, PYTHONPATH="")
    assert " passed" in said and "failed" not in said


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
from deda_fp.view import plots, provenance
from mfglib import solve
from mfglib.games import BeachBar
solution = solve(BeachBar(horizon=2), iterations=1, preset="smoke", progress=False, directory="run")
fig, axes = plots.panels(1, 1)
plots.save(fig, "one", pd.DataFrame({"a": [1]}), figures_dir="figs", seed=0, preset="smoke")
print(provenance.provenance(seed=0, preset="smoke")["git"])
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
