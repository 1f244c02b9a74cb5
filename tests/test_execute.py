"""deda_fp/execute.py and freshness.py on tiny notebooks: what is kept, what is refused, what makes a copy stale."""

import json
import subprocess
import sys

import nbformat
import pytest
from nbformat import v4

from deda_fp import execute, freshness

PARAMETERS = 'preset = "lecture"\nseed = 0\nfigures_dir = None'
SAVE = """from pathlib import Path
if figures_dir is not None:
    (Path(figures_dir) / "data").mkdir()
    for file in ("plot.svg", "plot.png", "data/plot.csv", "data/plot.json"):
        (Path(figures_dir) / file).write_text(preset)"""


@pytest.fixture
def write(tmp_path):
    def write(*sources, figures=()):
        cells = [v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})]
        cells += [v4.new_code_cell(source) for source in sources]
        for index, cell in enumerate(cells):
            cell["id"] = f"cell-{index}"
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, "mfglib": {"figures": list(figures)}})
        nbformat.write(notebook, tmp_path / "tiny.ipynb")
        return tmp_path / "tiny.ipynb"

    return write


def run(*arguments):
    """The command line in a process of its own, where third-party warnings of kernel and event loop stay."""
    command = [sys.executable, execute.__file__, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120)


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_success_keeps_a_clean_copy_and_its_figures(write, tmp_path):
    notebook = write(SAVE, "print(preset, seed)\nseed", figures=["plot"])
    done = run(notebook, tmp_path / "out/tiny.ipynb", "--figures", tmp_path / "figures", "-p", "seed", "3")
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "figures") == sorted(freshness.figure_files("plot"))
    assert freshness.figure_files("film.gif") == ["film.gif"]
    assert files(tmp_path / "out") == ["tiny.ipynb"]

    text = (tmp_path / "out/tiny.ipynb").read_text(encoding="utf-8")
    assert str(tmp_path) not in text and "papermill" not in text and "iopub" not in text and "duration" not in text
    copy = freshness.read(tmp_path / "out/tiny.ipynb")
    nbformat.validate(copy)
    assert (
        copy.cells[1].id == "parameters" and copy.cells[1].source == "# Parameters\nseed = 3"
    )  # not at its default, so the reader has to see it
    assert [cell.execution_count for cell in copy.cells] == [1, 2, 3, 4]
    assert copy.cells[3].outputs[0].text == "lecture 3\n"
    assert copy.metadata.mfglib.preset == "lecture"


def test_default_parameters_leave_the_cells_as_they_were_and_runs_are_equal(write, tmp_path):
    notebook, copies = write("preset"), []
    for name in ("one", "two"):
        assert run(notebook, tmp_path / name / "tiny.ipynb", "-p", "preset", "lecture").returncode == 0
        copies.append(json.loads((tmp_path / name / "tiny.ipynb").read_text(encoding="utf-8")))
    assert copies[0] == copies[1]
    assert [cell["source"] for cell in copies[0]["cells"]] == [
        cell["source"] for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    ]
    assert freshness.sources_hash(tmp_path / "one/tiny.ipynb") == freshness.sources_hash(notebook)


def test_failing_cell_is_named_and_nothing_is_left(write, tmp_path):
    notebook = write(SAVE, "1 / 0", figures=["plot"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out/tiny.ipynb").write_text("an older success", encoding="utf-8")
    failed = run(notebook, tmp_path / "out/tiny.ipynb", "--figures", tmp_path / "figures", "-p", "preset", "smoke")
    assert failed.returncode == 1
    last = failed.stderr.strip().splitlines()[-1]
    assert last == f"{notebook}: cell 2 failed with ZeroDivisionError: division by zero"
    assert files(tmp_path / "out") == [] and not (tmp_path / "figures").exists()


def test_unknown_parameter_is_an_error_that_lists_the_known_ones(write, tmp_path):
    failed = run(write("1"), tmp_path / "out/tiny.ipynb", "-p", "sed", "1")
    assert failed.returncode == 1
    assert "unknown parameter sed; known parameters: figures_dir, preset, seed" in failed.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("seed", "1.5", "parameter seed: expected a value like 0, got 1.5"),
        ("seed", "True", "parameter seed: expected a value like 0, got True"),
        ("preset", "zero", "parameter preset: expected one of smoke, lecture, paper, got 'zero'"),
    ],
)
def test_a_parameter_of_another_kind_is_refused_before_anything_runs(write, tmp_path, name, value, message):
    failed = run(write("1"), tmp_path / "out/tiny.ipynb", "-p", name, value)
    assert failed.returncode == 1 and message in failed.stderr and len(failed.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [None, "no json", "[]", '{"a": 1}'])
def test_what_is_no_notebook_is_named_in_one_line(tmp_path, content):
    file = tmp_path / "tiny.ipynb"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    failed = run(file, tmp_path / "out/tiny.ipynb")
    assert failed.returncode == 1 and failed.stderr.startswith(f"{file}: expected a notebook")
    assert len(failed.stderr.splitlines()) == 1


def test_a_kernel_that_dies_names_notebook_and_cell(write, tmp_path):
    notebook = write("1", "import os\nos._exit(1)")
    failed = run(notebook, tmp_path / "out/tiny.ipynb")
    assert failed.returncode == 1 and f"{notebook}: cell 2: DeadKernelError" in failed.stderr


def test_what_a_killed_run_left_is_cleared_by_the_next(write, tmp_path):
    (tmp_path / "out/.tiny-abc").mkdir(parents=True)
    (tmp_path / "out/.tiny-abc/executed.ipynb").write_text("{half", encoding="utf-8")
    assert run(write("1"), tmp_path / "out/tiny.ipynb").returncode == 0
    assert files(tmp_path / "out") == ["tiny.ipynb"]


def test_executed_twice_is_the_same_file(write, tmp_path):
    notebook, copies = write("import pandas as pd\npd.DataFrame({'a': [1]}).style.format('{:.1f}')"), []
    for name in ("one", "two"):
        assert run(notebook, tmp_path / name / "tiny.ipynb", "-p", "seed", "3").returncode == 0
        copies.append((tmp_path / name / "tiny.ipynb").read_bytes())
    assert copies[0] == copies[1] and b"T_00003" in copies[0]


def test_the_pieces_of_a_stream_are_put_together(write, tmp_path):
    """How a kernel cuts a stream is a matter of time."""
    cell = "import sys, time\nfor i in range(4):\n    print(i, flush=True)\n    time.sleep(0.3)\n"
    cell += "print('x', file=sys.stderr)"
    assert run(write(cell), tmp_path / "out/tiny.ipynb").returncode == 0
    outputs = freshness.read(tmp_path / "out/tiny.ipynb").cells[-1].outputs
    assert [(o.name, o.text) for o in outputs] == [("stdout", "0\n1\n2\n3\n"), ("stderr", "x\n")]


def test_figures_must_be_those_declared(write, tmp_path):
    failed = run(write(SAVE, figures=["other"]), tmp_path / "out/tiny.ipynb", "--figures", tmp_path / "figures")
    assert failed.returncode == 1 and "other.svg" in failed.stderr and "plot.svg" in failed.stderr
    assert files(tmp_path / "out") == [] and not (tmp_path / "figures").exists()


MODULE = '"""Module."""\n\n\ndef f(x):\n    """Doubles."""\n    return 2 * x  # why\n'
SAME = [
    MODULE.replace("Doubles", "Twice x"),
    MODULE.replace("# why", "# another reason"),
    MODULE.replace('    """Doubles."""\n', ""),
]
OTHER = [MODULE.replace("2 * x", "3 * x"), MODULE.replace("def f", "def g"), MODULE.replace("2 * x", "x * 2")]


@pytest.fixture
def project(tmp_path):
    (tmp_path / "mfglib/sub").mkdir(parents=True)
    (tmp_path / "mfglib/sub/module.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "requirements.lock").write_text("# a comment\nnumpy==2.0.0\n", encoding="utf-8")
    return tmp_path


USE = "from mfglib.sub.module import f"


@pytest.mark.parametrize("cell", [USE, f"{USE}\n%matplotlib inline", "%run anything"])
def test_fingerprint_follows_code_and_not_words(project, write, cell):
    notebook = freshness.read(write(cell))
    first = freshness.fingerprint(notebook, project)
    for text in SAME:
        (project / "mfglib/sub/module.py").write_text(text, encoding="utf-8")
        assert freshness.fingerprint(notebook, project) == first, text
    for text in OTHER:
        (project / "mfglib/sub/module.py").write_text(text, encoding="utf-8")
        assert freshness.fingerprint(notebook, project) != first, text


def test_fingerprint_does_not_follow_what_is_not_imported(project, write):
    notebook = freshness.read(write("import numpy"))
    first = freshness.fingerprint(notebook, project)
    (project / "mfglib/sub/module.py").write_text(OTHER[0], encoding="utf-8")
    assert freshness.fingerprint(notebook, project) == first


def test_fingerprint_follows_cells_and_lock(project, write):
    notebook = freshness.read(write("import numpy"))
    first = freshness.fingerprint(notebook, project)
    notebook.cells.insert(0, v4.new_markdown_cell("prose"))
    assert freshness.fingerprint(notebook, project) == first
    notebook.cells[-1].source = "x = 2"
    assert freshness.fingerprint(notebook, project) != first
    notebook.cells[-1].source = "import numpy"
    (project / "requirements.lock").write_text("numpy==2.0.0\nsphinx==9.0\n", encoding="utf-8")
    assert freshness.fingerprint(notebook, project) == first  # no cell uses it
    (project / "requirements.lock").write_text("numpy==2.0.1\n", encoding="utf-8")
    assert freshness.fingerprint(notebook, project) != first


def test_stored_copy_is_checked(project, write):
    path = write(USE)
    notebook = freshness.read(path)
    for count, cell in enumerate(notebook.cells, start=1):
        cell.execution_count = count
    notebook.metadata["mfglib"] = {"preset": "lecture", "figures": []}
    notebook.metadata.mfglib["fingerprint"] = freshness.fingerprint(notebook, project)
    nbformat.write(notebook, path)
    assert freshness.problems(path, project) == []

    notebook.metadata.mfglib["figures"] = ["plot"]
    notebook.cells[1].execution_count = None
    notebook.cells[1].outputs = [v4.new_output("stream", name="stderr", text=f"{project}: UserWarning: odd\n")]
    nbformat.write(notebook, path)
    (project / "mfglib/sub/module.py").write_text(OTHER[0], encoding="utf-8")
    found = "\n".join(freshness.problems(path, project))
    for part in ("changed since", "figures/plot.svg", "never executed", "a warning", "a path of this machine"):
        assert part in found


def test_store_refuses_another_preset_and_older_cells(project, write, tmp_path):
    path = write("x = 1")
    (tmp_path / "results").mkdir()
    executed = freshness.read(path)
    executed.metadata["mfglib"] = {"preset": "smoke"}
    nbformat.write(executed, tmp_path / "results/tiny.ipynb")
    with pytest.raises(freshness.NotebookFailed, match="lecture preset"):
        execute.store([tmp_path / "results/tiny.ipynb"], tmp_path)
    executed.metadata["mfglib"] = {"preset": "lecture"}
    nbformat.write(executed, tmp_path / "results/tiny.ipynb")
    execute.store([tmp_path / "results/tiny.ipynb"], tmp_path)
    assert freshness.read(path).metadata.mfglib.preset == "lecture"
    executed.cells[1].source = "x = 2"
    nbformat.write(executed, tmp_path / "results/tiny.ipynb")
    with pytest.raises(freshness.NotebookFailed, match="changed since"):
        execute.store([tmp_path / "results/tiny.ipynb"], tmp_path)
