"""Pictures of two-dimensional domains with walls: plans, densities, velocities, surfaces and animations.

As in `deda_fp.view.plots`, a drawing function takes the axes first. Values on a domain are arrays
(n_1, n_2), first axis to the right and second up, NaN in walls, as from `CellPopulation.density` and `on_lattice`.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from deda_fp.view import plots
from mfglib.files import replacing
from mfglib.games.domain import Domain
from mfglib.protocols import Population

WALL = "0.3"
RANGE = (0.03, 30.0)  # of densities in colour, in units of the uniform law: a start in one corner exceeds it


def lattice(domain: Domain, points: int) -> np.ndarray:
    """Centres (points, points, 2) of equal cells of the whole box, walls included."""
    share = (np.arange(points) + 0.5) / points
    axes = [low + share * (high - low) for low, high in zip(domain.lower, domain.upper, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1)


@torch.no_grad()
def on_lattice(population: Population, domain: Domain, t: int, points: int, *, walls: bool = False) -> np.ndarray:
    """The population's density at `lattice(domain, points)`, in units of the uniform law: (points, points).

    1 everywhere is a crowd spread evenly. NaN in walls, unless `walls` asks for what a kernel puts there.
    """
    x = torch.from_numpy(lattice(domain, points)).flatten(0, 1).float()
    asked = torch.ones(len(x), dtype=torch.bool) if walls else domain.contains(x)
    values = np.full(len(x), np.nan)
    values[asked.numpy()] = domain.volume * population.log_prob(t, x[asked]).double().exp().cpu().numpy()
    return values.reshape(points, points)


def plan(ax: Axes, domain: Domain, *, ticks: bool = False, filled: bool = True) -> None:
    """The box and its walls, filled or as outlines, at true proportions; `ticks` of three coordinates a side."""
    for low, high in domain.walls:
        style = {"facecolor": WALL, "edgecolor": WALL} if filled else {"facecolor": "none", "edgecolor": "black"}
        ax.add_patch(Rectangle(low, *(high - low), linewidth=0.8, zorder=2, **style))
    (left, bottom), (right, top) = domain.lower, domain.upper
    ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    ax.set_xticks([left, (left + right) / 2, right] if ticks else [])
    ax.set_yticks([bottom, (bottom + top) / 2, top] if ticks else [])
    ax.spines[["right", "top"]].set_visible(True)
    for sides, around in zip((["left", "right"], ["bottom", "top"]), domain.periodic, strict=True):
        ax.spines[sides].set_linestyle((0, (4, 4)) if around else "-")  # no wall: a seam
    ax.grid(False)


def difference(ax: Axes, domain: Domain, values: ArrayLike, limit: float) -> Any:
    """A signed picture of values (n, n), white at zero and cut off at ± limit; returns its colours, for a bar."""
    extent = (domain.lower[0], domain.upper[0], domain.lower[1], domain.upper[1])
    style = {"origin": "lower", "extent": extent, "cmap": "RdBu_r", "interpolation": "nearest", "zorder": 1}
    image = ax.imshow(np.asarray(values, dtype=float).T, vmin=-limit, vmax=limit, **style)
    plan(ax, domain)
    return image


def densities(
    axes: Sequence[Axes],
    domain: Domain,
    values: Sequence[ArrayLike],
    *,
    bar: bool = True,
    limits: tuple[float, float] = RANGE,
) -> None:
    """One picture of values (n, n) on each of the axes, all on one logarithmic scale, with one colour bar.

    `values` are densities in units of the uniform law; walls are outlined where values are known in them too.
    """
    norm = LogNorm(*limits, clip=True)
    extent = (domain.lower[0], domain.upper[0], domain.lower[1], domain.upper[1])
    for ax, v in zip(axes, values, strict=True):
        v = np.asarray(v, dtype=float)
        shown = np.where(np.isnan(v), np.nan, np.clip(v, *limits))  # 0 has no logarithm
        image = ax.imshow(
            shown.T, origin="lower", extent=extent, norm=norm, cmap="viridis", interpolation="nearest", zorder=1
        )
        plan(ax, domain, filled=bool(np.isnan(v).any()))
    if bar:
        label = "density / uniform"
        axes[0].figure.colorbar(image, ax=list(axes), label=label, extend="both", pad=0.01, format="%g", aspect=12)


def arrows(
    ax: Axes, x: ArrayLike, v: ArrayLike, *, color: Any = plots.LEARNED, length: float = 1.0, dots: bool = False
) -> None:
    """Arrows from x: (n, 2) along v: (n, 2), `length` times as long as v in the units of the plan."""
    x, v = np.asarray(x, dtype=float), np.asarray(v, dtype=float)
    style = {"angles": "xy", "scale_units": "xy", "scale": 1 / length, "width": 0.006, "zorder": 3}
    ax.quiver(*x.T, *v.T, color=color, headwidth=4, headlength=4, headaxislength=3.5, **style)
    if dots:
        ax.plot(*x.T, ".", color="black", markersize=3, zorder=4)


def discs(ax: Axes, x: ArrayLike, radius: float, color: Any) -> None:
    """Discs at x: (n, 2), true to scale in the units of the plan."""
    size = np.full(len(x), 2 * radius)
    style = {"color": color, "zorder": 3, "rasterized": True}
    ax.add_collection(
        EllipseCollection(size, size, 0 * size, units="x", offsets=x, offset_transform=ax.transData, **style)
    )


def path(ax: Axes, domain: Domain, start: Sequence[float], displacement: Sequence[float], color: Any) -> None:
    """One step of an agent from `start` along `displacement`, reflected by the domain, with an arrow at its end.

    A move is a reflected segment, so the steps to all shorter displacements are its path.
    """
    share = torch.linspace(0, 1, 400, dtype=torch.float64)[:, None]
    step = torch.tensor([displacement], dtype=torch.float64)
    x = domain.move(torch.tensor([start], dtype=torch.float64).expand(len(share), -1), share * step).numpy()
    ax.plot(*x.T, color=color, linewidth=1.5, zorder=3, clip_on=False)
    ax.plot(*x[0], "o", color=color, markersize=5, zorder=4)
    ax.annotate("", x[-1], x[-12], arrowprops={"arrowstyle": "-|>", "color": color, "linewidth": 1.5}, zorder=4)


def surface(ax: Any, domain: Domain, values: ArrayLike, top: float) -> None:
    """A density (n, n) as a surface over the plan, heights up to `top`; walls are flat and grey. `ax` is 3-D.

    `values` are in units of the uniform law, and the colours those of `densities`.
    """
    values = np.asarray(values, dtype=float)
    x = lattice(domain, len(values))
    colours = mpl.colormaps["viridis"](LogNorm(*RANGE, clip=True)(np.nan_to_num(values).clip(*RANGE)))
    colours[np.isnan(values)] = mpl.colors.to_rgba("0.75")
    height = np.nan_to_num(values).clip(max=top)
    options = {"rstride": 1, "cstride": 1, "linewidth": 0, "antialiased": False, "shade": False, "rasterized": True}
    ax.plot_surface(x[..., 0], x[..., 1], height, facecolors=colours, **options)
    middle = (domain.lower + domain.upper) / 2
    ax.set(zlim=(0, top), xlabel="x₁", ylabel="x₂", zlabel="density")
    ax.set(xticks=[domain.lower[0], middle[0], domain.upper[0]], yticks=[domain.lower[1], middle[1], domain.upper[1]])
    ax.view_init(elev=42, azim=-60)


def save_animation(
    fig: Figure,
    draw: Callable[[int], Any],
    frames: Sequence[int],
    name: str,
    *,
    figures_dir: str | Path | None,
    per_second: float = 4.0,
    dpi: int = 80,
) -> None:
    """Write NAME.gif in `figures_dir`: `draw(frame)` changes the figure, once for each of the frames, in a loop.

    Nothing is drawn or written if `figures_dir` is None; a relative directory counts as in `plots.figures_folder`.
    Raises ValueError for a name that is not a plain file name.
    """
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise ValueError(f"name: expected lower-case letters, digits and underscores, got {name!r}")
    if figures_dir is None:
        return
    moving = FuncAnimation(fig, draw, frames=list(frames), init_func=lambda: [])
    with replacing(plots.figures_folder(figures_dir) / f"{name}.gif") as part:
        film = part.with_suffix(".gif")  # the writer knows its format by the suffix
        moving.save(film, writer=PillowWriter(fps=per_second), dpi=dpi)
        film.rename(part)
