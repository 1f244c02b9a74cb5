"""Pictures of rooms show what they are given, where it is, and files appear only when asked for."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.transforms import Affine2D
from PIL import Image

from deda_fp.view import plots, rooms
from mfglib.exact.grid import Grid
from mfglib.games import FourRooms
from mfglib.games.domain import Domain
from mfglib.populations import CellPopulation, Particles

GAME = FourRooms()
DOMAIN = GAME.domain


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def uniform():
    grid = Grid(GAME, 20)
    return CellPopulation(grid, torch.full((1, len(grid.x)), 1 / len(grid.x), dtype=torch.float64))


def test_the_uniform_law_is_1_where_agents_can_be_and_nan_in_walls(uniform):
    values = rooms.on_lattice(uniform, DOMAIN, 0, 40)
    walls = np.isnan(values)
    np.testing.assert_allclose(values[~walls], 1.0, rtol=1e-6)
    np.testing.assert_allclose(0.25 * (1 - walls.mean()), DOMAIN.volume)


def test_density_in_walls_is_shown_where_asked():
    agents = Particles(torch.tensor([[[0.19, 0.03], [0.22, 0.09]]]), bandwidth=1.0)  # beside a wall
    assert np.isnan(rooms.on_lattice(agents, DOMAIN, 0, 20)[9, 2])
    values = rooms.on_lattice(agents, DOMAIN, 0, 20, walls=True)
    assert not np.isnan(values).any() and values[9, 2] > 1


def test_pictures_have_the_first_axis_to_the_right(uniform):
    values = np.ones((20, 20))
    values[0, 19] = 10.0  # x₁ least, x₂ most: top left, where the game starts
    fig, axes = plots.panels(1, 2)
    rooms.densities(axes[0], DOMAIN, [values, np.zeros((20, 20))])
    image = axes[0, 0].images[0]
    assert image.origin == "lower" and tuple(image.get_extent()) == (0, 0.5, 0, 0.5)
    assert image.get_array()[19, 0] == 10.0 and (image.get_array() == 10.0).sum() == 1
    assert (axes[0, 1].images[0].get_array() == rooms.RANGE[0]).all()  # 0 on a logarithmic scale
    assert len(axes[0, 0].patches) == len(DOMAIN.walls)


def test_a_path_runs_from_its_start_to_where_the_domain_takes_it():
    start, step = [0.05, 0.3], [0.1, -0.15]  # down, against a wall
    fig, axes = plots.panels(1, 1)
    rooms.path(axes[0, 0], DOMAIN, start, step, "black")
    x = np.stack(axes[0, 0].lines[0].get_data(), -1)
    end = DOMAIN.move(torch.tensor([start]), torch.tensor([step]))[0].numpy()
    np.testing.assert_allclose(x[0], start)
    np.testing.assert_allclose(x[-1], end, atol=1e-6)
    assert end[1] > 0.275 and DOMAIN.contains(torch.from_numpy(x)).all()
    np.testing.assert_allclose(np.linalg.norm(np.diff(x, axis=0), axis=1).sum(), np.linalg.norm(step), rtol=0.01)


def test_arrows_have_their_length_in_the_units_of_the_plan():
    fig, axes = plots.panels(1, 1)
    rooms.arrows(axes[0, 0], [[0.1, 0.1]], [[0.05, 0.0]], length=2.0, dots=True)
    quiver = axes[0, 0].collections[0]
    assert quiver.scale == 0.5 and quiver.U == 0.05 and quiver.scale_units == "xy"


def test_discs_are_true_to_scale():
    fig, axes = plots.panels(1, 1)
    axes[0, 0].set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    rooms.discs(axes[0, 0], np.array([[0.2, 0.3], [0.7, 0.5]]), 0.05, "red")
    fig.canvas.draw()
    drawn = axes[0, 0].collections[0]
    box = drawn.get_paths()[0].get_extents(Affine2D(drawn.get_transforms()[0]))  # pixels
    wide = axes[0, 0].transData.transform([[0, 0], [0.1, 0]])
    assert len(drawn.get_offsets()) == 2
    np.testing.assert_allclose([box.width, box.height], wide[1, 0] - wide[0, 0], rtol=1e-3)


def test_a_surface_is_drawn_and_saved(tmp_path, uniform):
    fig, axes = plots.panels(1, 1, subplot_kw={"projection": "3d"})
    rooms.surface(axes[0, 0], DOMAIN, rooms.on_lattice(uniform, DOMAIN, 0, 20), top=2.0)
    assert axes[0, 0].get_zlim() == (0, 2.0)
    fig.savefig(tmp_path / "surface.png")


def animation(values, folder, name="rooms"):
    fig, axes = plots.panels(1, 1, width=2, height=2)

    def draw(frame):
        axes[0, 0].clear()
        rooms.densities(axes[0], DOMAIN, [values[frame]], bar=False)

    rooms.save_animation(fig, draw, range(len(values)), name, figures_dir=folder)


def test_an_animation_has_its_frames_and_is_the_same_file_twice(tmp_path):
    values = np.linspace(0.1, 10, 3)[:, None, None] * np.ones((20, 20))
    for folder in ("a", "b"):
        animation(values, tmp_path / folder)
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["rooms.gif"]
    assert (tmp_path / "a/rooms.gif").read_bytes() == (tmp_path / "b/rooms.gif").read_bytes()
    with Image.open(tmp_path / "a/rooms.gif") as image:
        assert image.n_frames == 3 and image.info["duration"] == 250


def test_an_animation_of_an_installed_copy_goes_to_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "ROOT", tmp_path / "site-packages")
    monkeypatch.chdir(tmp_path)
    animation(np.ones((2, 20, 20)), "figures")
    assert [str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.*")] == ["figures/rooms.gif"]


def test_no_animation_without_a_directory_or_under_a_bad_name(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "ROOT", tmp_path)
    animation(np.ones((2, 20, 20)), None)
    with pytest.raises(ValueError, match="name: expected lower-case"):
        animation(np.ones((2, 20, 20)), tmp_path, "../rooms")
    assert not list(tmp_path.iterdir())


def test_seams_are_dashed_and_walls_are_not():
    _, ax = plt.subplots()
    rooms.plan(ax, Domain([0.0, 0.0], [1.0, 1.0], periodic=(True, False)))
    dashed = {side: spine.get_linestyle() != "-" for side, spine in ax.spines.items()}
    assert dashed == dict(left=True, right=True, bottom=False, top=False)
