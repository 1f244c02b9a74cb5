"""The notebooks that are committed are what the code makes now."""

from pathlib import Path

import pytest

from notebooks import execute

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("[0-9]*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_belong_to_the_code(path):
    found = execute.problems(path)
    assert not found, f"{path.name}: {'; '.join(found)}. To mend: {execute.MEND}."


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_parameters_cell_comes_first_and_holds_the_three_literals(path):
    first = next(cell for cell in execute.read(path).cells if cell.cell_type == "code")
    assert first.metadata.get("tags") == ["parameters"]
    assert first.source.splitlines()[:3] == ['preset = "lecture"', "seed = 0", "figures_dir = None"]
