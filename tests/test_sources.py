"""What depends on what in the package (`mfglib.sources`)."""

import ast
import subprocess
import sys

import pytest

from mfglib.sources import ROOT, imports, sources


def names(paths, root):
    return [path.relative_to(root / "mfglib").as_posix() for path in paths]


@pytest.fixture
def package(tmp_path):
    files = {
        "__init__.py": "from mfglib.a import f",
        "a.py": "import json\nfrom mfglib import b",
        "b.py": "x = 1",
        "c.py": "import mfglib.part.d",
        "part/__init__.py": "",
        "part/d.py": "from mfglib.part import e, g\nfrom .. import sideways",
        "part/e.py": "def f():\n    from mfglib.late import h",
        "late.py": "from mfglib.c import x",  # a circle
        "alone.py": "",
    }
    for name, text in files.items():
        (tmp_path / "mfglib" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mfglib" / name).write_text(text)
    return tmp_path


def test_imports_are_followed_to_the_end(package):
    assert names(sources(["mfglib.a"], package), package) == ["__init__.py", "a.py", "b.py"]
    everything = ["__init__.py", "a.py", "b.py", "c.py", "late.py", "part/__init__.py", "part/d.py", "part/e.py"]
    assert names(sources(["mfglib.c"], package), package) == everything
    assert names(sources(["mfglib.alone"], package), package) == ["__init__.py", "a.py", "alone.py", "b.py"]
    assert sources(["numpy", "mfglib.nothing"], package) == []


def test_names_in_import_statements():
    text = "import mfglib.a as z, numpy\nfrom mfglib import b\nfrom mfglib.c import d, e\nfrom . import f"
    found = ["mfglib.a", "numpy", "mfglib", "mfglib.b", "mfglib.c", "mfglib.c.d", "mfglib.c.e"]
    assert list(imports(ast.parse(text))) == found


def test_no_module_is_missed_that_python_loads():
    """Against what a fresh interpreter has loaded, with what is only loaded when Stable-Baselines3 is asked for."""
    code = "import sys, mfglib.fictitious_play, mfglib.adapters.sb3_env\n"
    code += "print(*[m for m in sys.modules if m.split('.')[0] == 'mfglib'])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert sources(["mfglib.fictitious_play"], ROOT) == sources(loaded.split(), ROOT)
    own = names(sources(["mfglib.fictitious_play"], ROOT), ROOT)
    assert "loop.py" in own and "theory.py" not in own and "plots.py" not in own
