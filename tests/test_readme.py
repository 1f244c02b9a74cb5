"""What the README says is what the results files say, and its code runs."""

import re
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from mfglib import exploitability

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_tables_are_those_of_the_results_files():
    run = subprocess.run(
        [sys.executable, ROOT / "benchmarks/_readme.py", "--check"], capture_output=True, encoding="utf-8"
    )
    assert run.returncode == 0, run.stderr


def test_the_front_page_is_one_that_one_reads():
    assert len(README.split()) < 1000


def blocks(text):
    return re.findall(r"```python\n(.*?)```", text, re.S)


@pytest.fixture(
    scope="module", params=["README.md", "docs/howto/own_game.md", "docs/howto/use.md", "docs/howto/exact.md"]
)
def page(request, tmp_path_factory):
    """A page with the names that its code blocks define, run in their order in an empty folder."""
    names: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MFGLIB_PRESET", "smoke")
        patch.chdir(tmp_path_factory.mktemp("page"))
        for block in blocks((ROOT / request.param).read_text(encoding="utf-8")):
            exec(compile(block.replace("iterations=5", "iterations=1"), request.param, "exec"), names)  # noqa: S102
        names["folder"] = Path.cwd()
    return request.param, names


def test_all_code_runs_in_its_order(page):
    name, names = page
    if name == "README.md":
        assert list(names["solution"].history["iteration"]) == [0, 1] and (names["folder"] / "results/my-run").is_dir()
        assert names["own"].history["exploitability"].isna().all()  # solved, not certified
    elif name == "docs/howto/own_game.md":
        game, truth = names["TwoStalls"](), names["truth"]
        assert (
            truth.exploitability < 0.05 * truth.first and exploitability(game, truth.policy).value < 0.1 * truth.first
        )
        density = truth.population.density(game.horizon)
        assert density[:25].argmax() in range(7, 13) and density[25:].argmax() in range(12, 18)  # at the stalls
        assert (names["folder"] / "two_stalls.png").is_file() and len(names["bound"].gains) == 2
        plt.close(names["picture"])
    elif name == "docs/howto/exact.md":
        assert names["fine"].history["iteration"].iloc[0] == 20 and len(names["steps"]) == 21
        assert names["solution"].history["exploitability"][0] < 0.01 * names["fine"].first
        whole = names["grid_fictitious_play"](names["bar"], 20, cells=50, every=20)
        assert names["rest"].exploitability == whole.exploitability
    else:
        assert names["x"].shape == (1_000_000, 2)
        game = names["LinearQuadratic"]()
        assert f"{names['lq_gain'](game, names['lq_equilibrium'](game).policy, n=10).value:.2g}" == "0.00056"


def test_links_lead_somewhere_and_pictures_have_a_text():
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for file in pages:
        for mark, text, target in re.findall(r"(!?)\[([^\]]*)\]\(([^)#]+)", file.read_text(encoding="utf-8")):
            assert target.startswith("http") or (file.parent / target).exists(), f"{file.name}: {target}"
            assert not mark or len(text) > 20, f"{file.name}: {target} has no text that stands for it"


def test_every_notebook_is_in_the_table():
    for notebook in (ROOT / "notebooks").glob("[0-9]*.ipynb"):
        assert f"](notebooks/{notebook.name})" in README
