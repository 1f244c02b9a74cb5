import asyncio
import json
import subprocess

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import gen

from deda_fp.view import error_panel, panels, plots, provenance
from deda_fp.view.panel import WAIT
from mfglib.exact import lq_equilibrium
from mfglib.exact.dynamic_programming import grid_evaluate
from mfglib.exact.grid import Grid
from mfglib.games import BeachBar, FourRooms, LinearQuadratic
from mfglib.policies import NoisePolicy
from mfglib.rollout import rollout

MADE = {"seed": 3, "preset": "smoke"}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def picture(scale: float = 1.0):
    fig, axes = plots.panels(1, 2)
    x = np.linspace(-1, 1, 30)
    plots.band(axes[0, 0], x, scale * x, 0.1 + 0 * x, "line")
    plots.heatmap(axes[0, 1], [0, 1, 2], x, scale * np.outer([1, -2, 3], x), "action", centred=True)
    plots.legends(axes[0, 0])
    return fig, pd.DataFrame({"x": x, "y": scale * x})


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_unchanged_figure_is_an_unchanged_file(tmp_path):
    for folder in ("a", "b"):
        plots.save(*_named(picture()), figures_dir=tmp_path / folder, game=LinearQuadratic(), **MADE)
    first, second = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert set(first) == {"one.svg", "one.png", "data/one.csv", "data/one.json"}
    assert first == second
    plots.save(*_named(picture(2.0)), figures_dir=tmp_path / "b", game=LinearQuadratic(), **MADE)
    changed = contents(tmp_path / "b")
    assert all(changed[file] != first[file] for file in ("one.svg", "one.png", "data/one.csv"))
    assert changed["data/one.json"] == first["data/one.json"]


def _named(made):
    fig, data = made
    return fig, "one", data


def test_the_data_and_the_provenance_can_be_read_back(tmp_path):
    fig, data = picture()
    game = LinearQuadratic(A=[[1.0, 0.1], [0.0, 1.0]], horizon=7)
    plots.save(fig, "one", data, figures_dir=tmp_path, game=game, parameters={"steps": np.arange(3)}, **MADE)
    back = pd.read_csv(tmp_path / "data" / "one.csv")
    np.testing.assert_allclose(back, data, rtol=1e-7)
    made_by = json.loads((tmp_path / "data" / "one.json").read_text(encoding="utf-8"))
    assert made_by["game"]["class"] == "LinearQuadratic" and made_by["game"]["A"] == [[1.0, 0.1], [0.0, 1.0]]
    assert made_by["game"]["horizon"] == 7 and made_by["parameters"] == {"steps": [0, 1, 2]}
    assert (made_by["seed"], made_by["preset"]) == (3, "smoke")
    assert set(made_by["versions"]) == {"python", "torch", "numpy", "matplotlib", "mfglib"}
    assert made_by["git"] is None or set(made_by["git"]) == {"commit", "dirty"}
    assert str(plots.ROOT) not in json.dumps(made_by)  # nothing of this machine


def test_a_bounded_game_says_where_it_is_played(tmp_path):
    fig, data = picture()
    plots.save(fig, "one", data, figures_dir=tmp_path, game=BeachBar(), **MADE)
    game = json.loads((tmp_path / "data" / "one.json").read_text(encoding="utf-8"))["game"]
    assert game["c_x"] == 25 and game["domain"]["upper"] == [1.0] and game["start"]["name"] == "uniform"


def test_nothing_is_written_without_a_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plots, "ROOT", tmp_path)
    fig, data = picture()
    plots.save(fig, "one", data, figures_dir=None, **MADE)
    assert not list(tmp_path.iterdir())


def test_a_relative_directory_counts_from_the_project(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "ROOT", tmp_path / "project")
    for folder in ("project", "elsewhere"):
        (tmp_path / folder).mkdir()
    project = tmp_path / "project/pyproject.toml"
    project.write_text('[project]\nname = "deda-fp"\n', encoding="utf-8")  # of a checkout or a source distribution
    monkeypatch.chdir(tmp_path / "elsewhere")
    fig, data = picture()
    plots.save(fig, "one", data, figures_dir="figures", **MADE)
    assert (tmp_path / "project" / "figures" / "data" / "one.csv").exists()
    assert not list((tmp_path / "elsewhere").iterdir())
    assert plots.figures_folder(tmp_path) == tmp_path

    project.write_text('[project]\nname = "theirs"\n', encoding="utf-8")  # the project is installed
    assert plots.figures_folder("figures") == tmp_path / "elsewhere" / "figures"
    project.unlink()
    assert plots.figures_folder("figures") == tmp_path / "elsewhere" / "figures"


# --- provenance


def notebook(code: str, output: str = "") -> str:
    outputs = [{"output_type": "stream", "name": "stdout", "text": output}]
    cells = [{"cell_type": "code", "source": code, "outputs": outputs}, {"cell_type": "markdown", "source": output}]
    return json.dumps({"cells": cells, "metadata": {"of": output}})


FILES = {"mfglib/__init__.py": "", "deda_fp/view/plots.py": "x = 1", "notebooks/a.ipynb": notebook("x = 1")}


def git(folder, *command):
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    command = ["git", "-C", folder, *identity, *command]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout.strip()


def write(folder, **files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


@pytest.fixture(params=["", "a folder of theirs"])
def checkout(tmp_path, request):
    git(tmp_path, "init", "-q")
    root = tmp_path / request.param
    write(root, **FILES)
    git(root, "add", ".")
    git(root, "commit", "-qm", "x")
    return root


def test_what_is_written_during_a_run_leaves_the_code_clean(checkout):
    head = git(checkout, "rev-parse", "HEAD")
    write(checkout, **{"figures/data/one.json": "{}", "results/run/history.csv": "", "mfglib/.DS_Store": ""})
    write(checkout, **{"notebooks/a.ipynb": notebook("x = 1", output="1"), "tests/test_new.py": ""})
    assert provenance.commit(checkout) == {"commit": head, "dirty": False}


@pytest.mark.parametrize(
    "file, text",
    {
        "deda_fp/view/plots.py": "x = 2",
        "mfglib/games/new.py": "",
        "notebooks/tool.py": "",
        "notebooks/a.ipynb": notebook("x = 2"),
        "notebooks/new.ipynb": notebook("x = 1"),
        "notebooks/näher.ipynb": "no notebook",
    }.items(),
)
def test_other_code_is_said(checkout, file, text):
    write(checkout, **{file: text})
    assert provenance.commit(checkout)["dirty"]
    git(checkout, "add", ".")
    assert provenance.commit(checkout)["dirty"]
    git(checkout, "commit", "-qm", "y")
    assert provenance.commit(checkout) == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False}


@pytest.mark.parametrize("file", ["deda_fp/view/plots.py", "notebooks/a.ipynb"])
def test_code_that_is_gone_is_said(checkout, file):
    (checkout / file).unlink()
    assert provenance.commit(checkout)["dirty"]


def test_no_commit_of_another_repository(checkout, tmp_path, monkeypatch):
    write(checkout / ".venv/site-packages", **FILES)
    assert provenance.commit(checkout / ".venv/site-packages") is None  # inside somebody's checkout
    (tmp_path / "other").mkdir()
    git(tmp_path / "other", "init", "-q")
    git(tmp_path / "other", "commit", "-q", "--allow-empty", "-m", "other")
    head = git(checkout, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other/.git"))  # as in a hook
    assert provenance.commit(checkout) == {"commit": head, "dirty": False}


def test_no_commit_without_git(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance.commit(checkout) is None


@pytest.mark.parametrize("name", ["", "../one", "a/b", "One", "one.png"])
def test_a_name_that_is_not_plain_is_refused(tmp_path, name):
    fig, data = picture()
    with pytest.raises(ValueError, match="name: expected lower-case"):
        plots.save(fig, name, data, figures_dir=tmp_path, **MADE)
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_nothing_that_looks_finished(tmp_path):
    fig, data = picture()
    with pytest.raises(TypeError, match="parameters: expected numbers"):
        plots.save(fig, "one", data, figures_dir=tmp_path, parameters={"what": object()}, **MADE)
    assert not list(tmp_path.iterdir())


def test_over_seeds_draws_mean_and_spread():
    frame = pd.DataFrame({"iteration": [0, 1] * 3, "gap": [1.0, 0.1, 2.0, 0.2, 3.0, 0.3], "seed": [0, 0, 1, 1, 2, 2]})
    fig, axes = plots.panels(1, 2)
    plots.over_seeds(axes[0, 0], frame, "iteration", "gap")
    np.testing.assert_allclose(axes[0, 0].lines[0].get_ydata(), [2.0, 0.2])
    low, high = axes[0, 0].collections[0].get_datalim(axes[0, 0].transData).intervaly
    np.testing.assert_allclose((low, high), (0.1, 3.0))  # 0.2 − 0.1 and 2 + 1
    assert axes[0, 0].get_yscale() == "log"
    plots.over_seeds(axes[0, 1], frame[frame["seed"] == 0].assign(game="a"), "iteration", "gap", hue="game", log=False)
    assert [line.get_label() for line in axes[0, 1].lines] == ["a"]  # one seed: a line and no spread


def test_ellipses_have_the_right_size():
    fig, axes = plots.panels(1, 1)
    cov = np.diag([4.0, 0.25])[None]
    plots.ellipses(axes[0, 0], np.array([[1.0, 2.0]]), cov, times=[0])
    x, y = axes[0, 0].lines[1].get_data()
    np.testing.assert_allclose([(x - 1).max(), (y - 2).max()], [4.0, 1.0], rtol=1e-2)  # 2 standard deviations
    np.testing.assert_allclose((x - 1) ** 2 / 4 + (y - 2) ** 2 / 0.25, 4.0)


def test_every_drawing_function_draws(tmp_path):
    x, t = np.linspace(-1, 1, 50), np.arange(4)
    density = np.exp(-((x - 0.1 * t[:, None]) ** 2))
    fig, axes = plots.panels(2, 3)
    plots.density_over_time(axes[0, 0], x, density, t, reference=1.1 * density)
    plots.heatmap(axes[0, 1], t, x, density, "density")
    plots.histogram(axes[0, 2], x, x, np.full(50, 0.5))
    plots.population_paths(axes[1, 0], density, density.mean(1), density.mean(1))
    plots.lines(axes[1, 1], x, dict(enumerate(density)), prefix="t = ", ordered=True)
    plots.power(axes[1, 2], [1, 10], (1, 2.0), -0.5, "guide", "--", color="black")
    np.testing.assert_allclose(axes[1, 2].lines[0].get_ydata(), [2.0, 2.0 / np.sqrt(10)])
    plots.power(axes[1, 2], [2, 8, 32], (2, 3.0), -0.5, "line")
    np.testing.assert_allclose(axes[1, 2].lines[1].get_ydata(), [3.0, 1.5, 0.75])
    plots.legends(axes[0, 0], axes[1, 1])
    assert [text.get_text() for text in axes[0, 0].get_legend().get_texts()] == ["exact", "learned"]
    plots.save(fig, "all", pd.DataFrame({"x": x}), figures_dir=tmp_path, **MADE)


def test_density_in_three_dimensions_draws_one_curve_for_each_time():
    x, times = np.linspace(0, 1, 50), [0, 2, 5]
    density = np.outer([1.0, 2.0, 4.0], np.ones(50))
    density[1, 3] = np.nan
    fig, axes = plots.panels(1, 2, subplot_kw={"projection": "3d"})
    plots.density_3d(axes[0, 0], x, density, times, title="learned")
    assert len(axes[0, 0].collections) == 3
    assert axes[0, 0].get_ylim() == pytest.approx((0, 5)) and axes[0, 0].get_zlim() == pytest.approx((0, 4.2))
    plots.density_3d(axes[0, 1], x, density, times, top=10)
    assert axes[0, 1].get_zlim() == pytest.approx((0, 10))
    fig.canvas.draw()


def test_density_in_three_dimensions_refuses_flat_axes():
    fig, axes = plots.panels(1, 1)
    with pytest.raises(ValueError, match='ax: expected axes with projection="3d", got rectilinear'):
        plots.density_3d(axes[0, 0], [0, 1], [[1, 1]], [0])


def answers(panel, changes):
    """Each dial, moved, changes the picture and leaves the axes where they were."""
    assert bytes(panel.picture.value).startswith(b"\x89PNG")
    for name, value in changes.items():
        before, place = bytes(panel.picture.value), [ax.get_position().bounds for ax in panel.figure.axes]
        limits = [(ax.get_xlim(), ax.get_ylim()) for ax in panel.figure.axes]
        panel.dials[name].value = value
        assert bytes(panel.picture.value) != before, name
        assert [ax.get_position().bounds for ax in panel.figure.axes] == place, name
        assert [(ax.get_xlim(), ax.get_ylim()) for ax in panel.figure.axes] == limits, name
    assert all(len(dial.description) > 3 for dial in panel.dials.values())


def test_the_explorers_answer_to_their_dials():
    answers(
        panels.equilibrium_explorer(c_a=10.0, horizon=5), dict(c_m=7.0, c_a=3.0, A_bar=0.3, x_target=-0.4, share=1.2)
    )
    answers(panels.schedule_explorer(iterations=3, horizon=3), dict(step=0.9, c_m=2.0))
    bar = BeachBar(horizon=3)
    crowd = grid_evaluate(Grid(bar, 20), NoisePolicy(torch.tensor([0.1]))).population
    answers(panels.beach_explorer(crowd, bar), dict(c_m=3.0, tau=0.5, time=1))
    answers(panels.crowd_explorer(LinearQuadratic(horizon=3)), dict(n=100, time=2))


def test_the_panel_of_rooms_answers_to_its_dials():
    game = FourRooms(horizon=3)
    crowd = grid_evaluate(Grid(game, 20), NoisePolicy(torch.full((2,), 0.02)), samples=1).population
    agents = rollout(game, NoisePolicy(torch.full((2,), 0.02)), n=200, generator=gen(), rewards=False).x
    answers(panels.rooms_explorer(game, crowd, crowd, agents), dict(time=1, n=10, agent=5))


def test_the_panel_of_iterations_answers_to_its_dials():
    shape, x = (4, 2, 50), np.linspace(0, 1, 50)
    density, action = np.random.default_rng(0).uniform(0.1, 1, (2, *shape))
    panel = panels.iterations_explorer(x, density, action, np.array([9, 3, 1, 0.3]), density[0], action[0], [0, 5])
    answers(panel, dict(k=1, time=0))


def test_a_panel_is_a_picture_where_nothing_runs():
    panel = panels.crowd_explorer(LinearQuadratic(horizon=3))
    bundle = panel._repr_mimebundle_()
    assert bundle["image/png"] == bytes(panel.picture.value) and "application/vnd.jupyter.widget-view+json" in bundle


def test_moves_that_come_faster_than_pictures_are_answered_together():
    panel, drawn = panels.crowd_explorer(LinearQuadratic(horizon=3)), []
    draw, panel._draw = panel._draw, lambda **values: drawn.append(values) or draw(**values)

    async def move():
        for n in (2, 10, 100, 1000):
            panel.dials["n"].value = n
        await asyncio.sleep(5 * WAIT)

    asyncio.run(move())
    assert [values["n"] for values in drawn] == [1000]


def test_scaled_equilibrium_is_the_equilibrium_at_one():
    game = LinearQuadratic(c_a=10.0, horizon=5)
    eq, judged = panels.scaled_equilibrium(game, 1.0)
    assert abs(judged.value) < 1e-10 and abs(judged.policy_value - lq_equilibrium(game).value) < 1e-10
    assert panels.scaled_equilibrium(game, 0.5)[1].value > 0


def test_the_laboratory_answers_to_its_dials():
    panel = error_panel.error_laboratory(br=0.01)
    assert panel.dials["br"].value == 0.01
    changes = dict(br=0.1, sl=0.03, cnf=0.1, decay=1.0, random=True)
    answers(panel, changes | dict(game="beach bar"))
    with pytest.raises(ValueError, match="br: expected one of"):
        error_panel.error_laboratory(br=0.02)
    with pytest.raises(ValueError, match="got 'foo'"):
        error_panel.error_laboratory(foo=1)
