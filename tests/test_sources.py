"""What depends on what (`mfglib.sources`), and what each kind of run depends on."""

import ast
import hashlib
import shutil
import subprocess
import sys

import pytest

from mfglib.games import BeachBar, FourRooms, LinearQuadratic
from mfglib.recipes import recipe_of
from mfglib.runs.identity import modules_of
from mfglib.sources import ROOT, fingerprint, imports, libraries, sources, stripped


def names(paths, root):
    return [path.relative_to(root / "mfglib").as_posix() for path in paths]


# --- a small package


@pytest.fixture
def package(tmp_path):
    lazy = "from mfglib.sources import on_demand\n__getattr__, __dir__, __all__ = on_demand(__name__, {table})"
    files = {
        "__init__.py": lazy.format(table={"mfglib.a": "f", "mfglib.late": "h"}),
        "a.py": "import json\nfrom mfglib import b",
        "b.py": "x = 1",
        "c.py": "import mfglib.part.d",
        "part/__init__.py": "from mfglib.part import e",
        "part/d.py": "from mfglib.part import e, g\nfrom .. import sideways",
        "part/e.py": "def f():\n    from mfglib.late import h",
        "late.py": "from mfglib.c import x",  # a circle
        "user.py": "from mfglib import f",
        "whole.py": "import mfglib",
        "alone.py": "",
    }
    for name, text in files.items():
        (tmp_path / "mfglib" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mfglib" / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_imports_are_followed_to_the_end_and_through_packages_that_load_on_demand(package):
    def found(*modules):
        return names(sources(modules, package), package)

    circle = ["c.py", "late.py", "part/__init__.py", "part/d.py", "part/e.py"]
    assert found("mfglib.a") == ["a.py", "b.py"]
    assert found("mfglib.c") == found("mfglib.late") == found("mfglib.part.e") == circle
    assert found("mfglib.alone") == ["alone.py"] and found("numpy", "mfglib.nothing") == []
    assert found("mfglib.user") == ["a.py", "b.py", "user.py"]  # where the name comes from, not the package
    assert found("mfglib.f") == ["a.py", "b.py"]
    assert found("mfglib.whole") == ["a.py", "b.py", *circle, "whole.py"]  # what is asked of it cannot be seen


def test_names_in_import_statements():
    text = "import mfglib.a as z, numpy\nfrom mfglib import b\nfrom mfglib.c import d, e\nfrom . import f"
    found = ["mfglib.a.*", "numpy.*", "mfglib", "mfglib.b", "mfglib.c", "mfglib.c.d", "mfglib.c.e"]
    assert list(imports(ast.parse(text))) == found


def test_libraries_are_the_distributions_that_are_imported(package):
    (package / "mfglib/alone.py").write_text(
        "import json, torch\nfrom PIL import Image\nimport mfglib.a, nowhere", encoding="utf-8"
    )
    found = libraries([package / "mfglib/alone.py"], [ast.parse("import numpy")])
    assert set(found) == {"numpy", "pillow", "torch"} and found["torch"].startswith("2.")


def test_a_fingerprint_follows_code_and_names_and_not_words(package):
    def now(*texts):
        return fingerprint(["mfglib.a"], package, texts)

    first, b = now(), package / "mfglib/b.py"
    b.write_text('"""What."""\n\n\nx = 1  # why\n"""On x."""\n', encoding="utf-8")
    (package / "mfglib/alone.py").write_text("y = 2", encoding="utf-8")
    assert now() == first
    b.write_text("x = 2", encoding="utf-8")
    assert now() != first != now("x = 1") != now("x = 2")
    b.write_text("x = 1", encoding="utf-8")
    assert now() == first
    b.rename(b.with_name("another.py"))
    (package / "mfglib/a.py").write_text("import json\nfrom mfglib import another", encoding="utf-8")
    assert now() != first


TEXT = '''"""A docstring with a # and 'quotes'."""

import math  # a comment with "quotes"


def f(x):  # é
    """Another."""
    y = "not # a comment"
    """A bare string
    # over two lines"""; z = 1
    return f"{x!r:>{10}} # {y + '#'} {{}}" + f'{"é" if z else f"{x}"}' + """
        # kept
    """


class C:
    size: int = 1
    """on a field"""
'''
STRIPPED = '''import math
def f(x):
    y = "not # a comment"
    ; z = 1
    return f"{x!r:>{10}} # {y + '#'} {{}}" + f'{"é" if z else f"{x}"}' + """
        # kept
    """
class C:
    size: int = 1'''


def test_comments_and_bare_strings_are_cut_out_by_position_under_every_python():
    assert stripped(TEXT) == STRIPPED
    assert hashlib.blake2b(stripped(TEXT).encode(), digest_size=8).hexdigest() == "8522412df66e67a5"


# --- this project


def test_no_module_is_missed_that_python_loads():
    """Against what a fresh interpreter has loaded; packages that load on demand are seen through."""
    code = "import sys, mfglib.learn.lookahead, mfglib.learn.flow, mfglib.runs.directory, mfglib.exact.grid\n"
    code += "print(*[m for m in sys.modules if m.split('.')[0] == 'mfglib'])"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True, cwd=ROOT
    ).stdout
    ours = ["mfglib.learn.lookahead", "mfglib.learn.flow", "mfglib.runs.directory", "mfglib.exact.grid"]
    found = sources(ours)
    lazy = {ROOT / "mfglib/sources.py"}  # loaded by packages which load on demand
    assert set(sources(loaded.split())) - lazy == set(found) - lazy
    assert not {"judge.py", "solver.py"} & set(names(found, ROOT))


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import mfglib.sources", ["torch", "numpy"]),
        ("import mfglib.presets", ["torch", "numpy"]),
        ("from mfglib.games import *", ["mfglib.learn", "mfglib.exact", "mfglib.solver", "mfglib.runs", "pandas"]),
        ("import mfglib", ["torch", "mfglib.solver"]),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_nothing_is_loaded_that_is_not_used(code, absent):
    code += f"\nimport sys\nprint([m for m in {absent} if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", cwd=ROOT).stdout == "[]\n"
    )


RUNS = {
    "LQ": recipe_of(LinearQuadratic(horizon=2), preset="smoke"),
    "LQ, algo-2": recipe_of(LinearQuadratic(horizon=2), "algo-2", preset="smoke"),
    "bar": recipe_of(BeachBar(horizon=2), preset="smoke"),
    "bar, algo-1": recipe_of(BeachBar(horizon=2), "algo-1", preset="smoke"),
    "rooms, PPO": recipe_of(FourRooms(horizon=2), "algo-2", preset="smoke", best_response="ppo"),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "mfglib", root / "mfglib", ignore=shutil.ignore_patterns("__pycache__"))
    return root


@pytest.fixture(scope="module")
def modules():
    return {
        n: ["mfglib.fictitious_play", *modules_of(r.game, *r.build().values(), r.averaging)] for n, r in RUNS.items()
    }


@pytest.mark.parametrize(
    ("file", "stale"),
    [
        ("adapters/gym.py", []),
        ("adapters/sb3.py", []),
        ("judge.py", []),
        ("certificates.py", []),
        ("exact/grid.py", []),
        ("exact/lq.py", []),
        ("solver.py", []),
        ("runs/directory.py", []),
        ("presets.py", []),
        ("learn/ppo.py", ["LQ", "LQ, algo-2", "rooms, PPO"]),
        ("learn/lookahead.py", ["bar", "bar, algo-1"]),
        ("learn/flow.py", ["LQ", "bar"]),
        ("learn/episodes.py", ["bar, algo-1"]),
        ("games/beach_bar.py", ["bar", "bar, algo-1"]),
        ("games/four_rooms.py", ["rooms, PPO"]),
        ("rollout.py", list(RUNS)),
        ("fictitious_play.py", list(RUNS)),
    ],
)
def test_a_changed_line_makes_those_runs_stale_that_it_runs_in(copy, modules, file, stale):
    def fingerprints():
        return {name: fingerprint(found, copy) for name, found in modules.items()}

    path, before = copy / "mfglib" / file, fingerprints()
    text = path.read_text(encoding="utf-8")
    try:
        path.write_text(f'"""Another docstring."""  # and a comment\n{text}\n# the end\n', encoding="utf-8")
        assert fingerprints() == before
        path.write_text(f"{text}\nchanged = True\n", encoding="utf-8")
        assert [name for name, now in fingerprints().items() if now != before[name]] == stale
    finally:
        path.write_text(text, encoding="utf-8")
