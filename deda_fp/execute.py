"""Run a notebook; keep its copy and figures only if it succeeds; say whether the stored copies are fresh.

    python -m deda_fp.execute NOTEBOOK DESTINATION --figures FOLDER -p preset paper -p seed 3
    python -m deda_fp.execute --store [EXECUTED ...]    put executed copies back in notebooks/
    python -m deda_fp.execute --check                   do the stored copies belong to the code as it is now?

papermill executes; this adds what a batch needs on top: an unknown parameter is an error, a failure names its cell and
leaves nothing that looks finished, and the copy holds neither clock times nor this machine's paths.
"""

import argparse
import ast
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from deda_fp.freshness import (
    MEND,
    STORED_PRESET,
    NotebookFailed,
    figure_files,
    fingerprint,
    is_injected,
    problems,
    read,
    sources_hash,
)
from mfglib.files import replacing

ROOT = Path(__file__).resolve().parents[1]


def execute(notebook: Path, destination: Path, *, figures: Path | None = None, parameters: dict[str, Any]) -> None:
    """Run `notebook` with `parameters`, write the executed copy to `destination` and its figures into `figures`.

    Both appear only on success, the copy last. A relative `figures` counts from the project's root; without it the
    notebook draws but saves nothing.
    Raises NotebookFailed for an unknown parameter, a failing cell, or figures other than those that
    nb.metadata.mfglib.figures declares.
    """
    import papermill  # slow to import, and not needed to check or to hash

    from deda_fp.batch import end_with_pipeline

    end_with_pipeline()
    source = read(notebook)
    made_from = fingerprint(source)  # before the run: an edit to mfglib/ while it lasts makes its outputs stale
    defaults = {name: entry["default"] for name, entry in papermill.inspect_notebook(notebook).items()}
    if unknown := sorted(set(parameters) - set(defaults)):
        known = ", ".join(sorted(defaults)) or "none: no cell is tagged `parameters`"
        raise NotebookFailed(f"{notebook}: unknown parameter {', '.join(unknown)}; known parameters: {known}")
    for name, value in parameters.items():
        _check_parameter(notebook, name, value, ast.literal_eval(defaults[name]))
    if "preset" in parameters:
        os.environ["MFGLIB_PRESET"] = str(parameters["preset"])  # else an exported one would win over what was asked

    destination.unlink(missing_ok=True)  # an older success must not look like this run's
    destination.parent.mkdir(parents=True, exist_ok=True)
    for left in destination.parent.glob(f".{destination.stem}-*"):  # of a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=f".{destination.stem}-") as temporary:
        drawn, copy = Path(temporary).resolve() / "figures", Path(temporary).resolve() / "executed.ipynb"
        drawn.mkdir()
        passed = parameters | ({"figures_dir": str(drawn)} if figures else {})
        try:
            papermill.execute_notebook(notebook, copy, passed, cwd=notebook.parent, progress_bar=False)
        except papermill.PapermillExecutionError as error:
            index = error.cell_index - bool(passed)  # papermill adds a cell for the parameters, near the top
            trace = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))  # without terminal colours
            raise NotebookFailed(
                f"{trace}\n\n{notebook}: cell {index} failed with {error.ename}: {error.evalue}"
            ) from None
        except Exception as error:  # a kernel that dies or does not start
            where = _running_cell(copy, bool(passed))
            raise NotebookFailed(f"{notebook}{where}: {type(error).__name__}: {error}") from error

        declared = sorted(source.metadata.get("mfglib", {}).get("figures", []))
        _check_figures(notebook, declared if figures else [], drawn)
        executed = _clean(read(copy), {name: ast.literal_eval(value) for name, value in defaults.items()}, parameters)
        declared = {n: v for n, v in source.metadata.get("mfglib", {}).items() if n in ("figures", "runs")}
        made = {"fingerprint": made_from, "preset": parameters.get("preset", STORED_PRESET)}
        executed.metadata["mfglib"] = {"figures": []} | declared | made
        nbformat.write(executed, copy)
        for file in sorted(path for path in drawn.rglob("*") if path.is_file()):
            target = ROOT / figures / file.relative_to(drawn)  # an absolute folder stays as it is
            target.parent.mkdir(parents=True, exist_ok=True)
            _publish(file, target)
        _publish(copy, destination)


def _check_parameter(notebook: Path, name: str, value: Any, default: Any) -> None:
    """Raise NotebookFailed for a value of another kind than the parameters cell has, and for an unknown preset."""
    from mfglib.presets import PRESETS

    kinds = (int, float) if type(default) is float else type(default)
    alike = isinstance(value, kinds) and isinstance(value, bool) == isinstance(default, bool)
    if not (alike or default is None) or (name == "preset" and value not in PRESETS):
        expected = f"one of {', '.join(PRESETS)}" if name == "preset" else f"a value like {default!r}"
        raise NotebookFailed(f"{notebook}: parameter {name}: expected {expected}, got {value!r}")


def _running_cell(copy: Path, injected: bool) -> str:
    """The cell that was running when the kernel died, as papermill has noted it in the copy."""
    cells = read(copy).cells if copy.exists() else []
    begun = [i for i, cell in enumerate(cells) if cell.metadata.get("papermill", {}).get("start_time")]
    return f": cell {begun[-1] - injected}" if begun else ""


def file_of_figure(name: str, preset: str) -> str:
    """A file of the figure of that name, which some notebook draws; NotebookFailed if none does."""
    notebooks = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    drawn = [stem for path in notebooks for stem in read(path).metadata.get("mfglib", {}).get("figures", [])]
    found = [stem for stem in drawn if name in (stem, stem.rpartition(".")[0])]
    if not found:
        raise NotebookFailed(f"NAME: expected the name of a figure, got {name!r}; the figures are {', '.join(drawn)}")
    folder = "figures" if preset == STORED_PRESET else f"results/{preset}/figures"
    return f"{folder}/{figure_files(found[0])[0]}"


def _check_figures(notebook: Path, declared: list[str], drawn: Path) -> None:
    wanted = {file for stem in declared for file in figure_files(stem)}
    found = {path.relative_to(drawn).as_posix() for path in drawn.rglob("*") if path.is_file()}
    if wanted != found:
        raise NotebookFailed(
            f"{notebook}: metadata.mfglib.figures and the figures that were saved differ; "
            f"declared only: {sorted(wanted - found)}, saved only: {sorted(found - wanted)}"
        )


def _clean(notebook: NotebookNode, defaults: dict[str, Any], parameters: dict[str, Any]) -> NotebookNode:
    """Without clock times, paths and papermill's cell, except for the parameters that are not at their defaults."""
    changed = {name: value for name, value in parameters.items() if value != defaults[name]}
    cells = []
    for cell in notebook.cells:
        if is_injected(cell):
            if not changed:
                continue
            cell.source = "\n".join(["# Parameters", *(f"{name} = {value!r}" for name, value in changed.items())])
            cell.id = "parameters"  # papermill's is random
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]  # papermill gives every cell an empty list
        cells.append(cell)
    notebook.cells = cells
    _describe_pictures(cells)
    executed = [cell for cell in cells if cell.get("execution_count")]
    for count, cell in enumerate(executed, start=1):
        cell.execution_count = count  # no gap where papermill's cell was
        cell.outputs = _merged(cell.outputs)
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count
            data = output.get("data", {})
            data.pop("application/vnd.jupyter.widget-view+json", None)  # of a kernel that is gone
            if "text/html" in data:  # a styled table's random name
                data["text/html"] = re.sub(r"\bT_[0-9a-f]{5}", f"T_{count:05d}", data["text/html"])
            if "text/plain" in data:  # an address
                data["text/plain"] = re.sub(r" at 0x[0-9a-f]+", "", data["text/plain"])
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("widgets", None)  # its random names would make every execution another file
    notebook.metadata["language_info"] = {"name": "python"}  # no Python version: a new patch release changes nothing
    return notebook


ITALICS = re.compile(r"(?<!\*)\*(?!\*)([^*]{20,})\*(?!\*)")


def _describe_pictures(cells: list[NotebookNode]) -> None:
    """Give each picture its caption, in italics at the top of the text below it or else in the text above, as the text
    that stands for it."""
    for i, cell in enumerate(cells):
        pictures = [output for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
        if not pictures:
            continue
        below = next((c.source for c in cells[i + 1 :] if c.cell_type == "markdown"), "")
        above = next((c.source for c in reversed(cells[:i]) if c.cell_type == "markdown"), "")
        nearest = [*ITALICS.finditer(above)][-1:]
        if caption := ITALICS.match(below) or (nearest[0] if nearest else ITALICS.search(below)):
            words = re.sub(r"[$\\`*]", "", " ".join(caption[1].split()))[:250]
            for output in pictures:
                output.metadata["image/png"] = {**output.metadata.get("image/png", {}), "alt": words}


def _merged(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Outputs with neighbouring pieces of one stream put together: where a stream is cut is a matter of time. Without
    progress bars, which stand still where nothing runs."""
    merged: list[NotebookNode] = []
    for output in outputs:
        if re.match(r"[^\n|]*\d+%\|", output.get("data", {}).get("text/plain", "")):
            continue
        last = merged[-1] if merged else {}
        if output.output_type == "stream" and last.get("name") == output.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged


def _publish(file: Path, target: Path) -> None:
    """Copy beside the target, then rename: a target is always whole, on another file system too."""
    with replacing(target) as part:
        shutil.copyfile(file, part)


# --- store


def store(executed: list[Path], folder: Path) -> None:
    """Put executed copies back in `folder`. Raises NotebookFailed if one is of another preset or of older sources."""
    for path in executed:
        notebook, target = read(path), folder / path.name
        preset = notebook.metadata.get("mfglib", {}).get("preset")
        if preset != STORED_PRESET:
            raise NotebookFailed(f"{path}: stored notebooks hold the {STORED_PRESET} preset, this is {preset!r}")
        if sources_hash(path) != sources_hash(target):
            raise NotebookFailed(f"{target}: its cells changed since {path} was executed; {MEND} again")
        _publish(path, target)
        print(f"stored {target}")


# --- command line


def _literal(text: str) -> Any:
    """3 is a number, None is None, and whatever is no Python literal is text: lecture."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, help="NOTEBOOK DESTINATION; with --store or --check: notebooks")
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="where figures go; without it, nowhere")
    parser.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--store", action="store_true", help="put executed copies (default: all) back in notebooks/")
    mode.add_argument("--check", action="store_true", help="fail if a stored notebook (default: any) is stale")
    mode.add_argument("--figure", metavar="NAME", help="print the file of a figure, which Snakemake makes")
    parser.add_argument("--preset", default=STORED_PRESET, help="of that figure")
    options = parser.parse_args(arguments)
    try:
        if options.store:
            results = ROOT / "results" / STORED_PRESET / "notebooks"
            store(options.paths or sorted(results.glob("*.ipynb")), ROOT / "notebooks")
        elif options.check:
            paths = options.paths or sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
            if found := [f"{path}: {problem}" for path in paths for problem in problems(path)]:
                raise NotebookFailed("\n".join([*found, f"To mend: {MEND}."]))
            print(f"{len(paths)} stored notebooks belong to the code")
        elif options.figure is not None:
            print(file_of_figure(options.figure, options.preset))
        elif len(options.paths) != 2:
            parser.error("expected NOTEBOOK DESTINATION, or one of --store, --check, --figure")
        else:
            parameters = {name: _literal(value) for name, value in options.parameter}
            execute(*options.paths, figures=options.figures, parameters=parameters)
    except NotebookFailed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
