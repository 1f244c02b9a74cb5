"""Pictures from arrays and data frames: one style, small functions that draw on axes, and `save`.

A drawing function takes the axes first; it adds labelled lines, and `legends` shows the labels.
`save` writes a figure beside the numbers that it shows and what made them.
"""

import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from deda_fp.view.provenance import as_list, provenance
from mfglib.files import replacing
from mfglib.sources import ROOT

PALETTE = sns.color_palette("colorblind")  # told apart with every common colour blindness
# One colour a role in all figures: the exact solution black, and dashed beside learned ones; each algorithm its own,
# told apart in grey too (they are 62, 40 and 22% light); the paper's numbers open grey circles.
EXACT, GREY = "black", "0.45"
ALGORITHMS = {"DEDA-FP": PALETTE[1], "Algo 2": PALETTE[0], "Algo 1": (0.416, 0.122, 0.302)}
LEARNED, OTHER = ALGORITHMS["DEDA-FP"], PALETTE[2]
EXACT_LINE: dict[str, Any] = {"color": EXACT, "linestyle": "--", "linewidth": 1.5, "zorder": 5}
PAPER: dict[str, Any] = {"fmt": "o", "color": GREY, "markerfacecolor": "white", "markersize": 5, "elinewidth": 1}
STYLE = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture on every machine
    "grid.color": "0.9",
    "legend.frameon": False,
    "legend.fontsize": "small",
    "lines.linewidth": 2.0,
}
REPRODUCIBLE = {"svg.hashsalt": "mfglib", "savefig.dpi": 150}  # unsalted names inside an SVG differ at every save


def use_style() -> None:
    """The project's style for every later figure; call it once at the top of a notebook."""
    sns.set_theme(context="notebook", style="ticks", palette=PALETTE, rc=STYLE)


def panels(rows: int, columns: int, width: float = 4.2, height: float = 3.3, **options: Any) -> tuple[Figure, Any]:
    """A figure and its axes, an array (rows, columns), each width x height inches; options as for plt.subplots."""
    return plt.subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False, **options)


def whole_numbers(fig: Figure) -> None:
    """Ticks at whole numbers on every linear axis of times or iterations, known by its label, that has not its own."""
    for ax in fig.axes:
        for axis in (ax.xaxis, ax.yaxis):
            own = isinstance(axis.get_major_locator(), mpl.ticker.FixedLocator)
            counts = axis.get_label_text().startswith(("iteration", "time t"))
            if counts and not own and axis.get_scale() == "linear":
                axis.set_major_locator(mpl.ticker.MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))


def end_labels(ax: Axes, x: float, ends: Mapping[str, tuple[Any, float]], apart: float) -> None:
    """Names beside the ends of lines, label -> (colour, height), on a logarithmic axis: at least the factor `apart`
    from each other, the lowest in its place."""
    lowest = 0.0
    for label, (colour, height) in sorted(ends.items(), key=lambda end: end[1][1]):
        lowest = max(height, apart * lowest)
        ax.annotate(label, (x, lowest), (6, 0), textcoords="offset points", color=colour, va="center")


def legends(*axes: Axes) -> None:
    """A legend on each of the axes."""
    for ax in axes:
        ax.legend()


def lines(
    ax: Axes, x: ArrayLike, columns: Mapping[Any, ArrayLike], prefix: str = "", ordered: bool = False, **line: Any
) -> None:
    """One line per entry of `columns`, labelled by prefix and key; `ordered` keys run from dark to light."""
    colours = dark_to_light(len(columns)) if ordered else PALETTE
    for (key, y), colour in zip(columns.items(), colours, strict=False):
        ax.plot(np.asarray(x), np.asarray(y), color=colour, label=f"{prefix}{key}", **line)


def power(
    ax: Axes, x: ArrayLike, through: tuple[float, float], exponent: float, label: str, style: str = ":", **line: Any
) -> None:
    """A thin line x^exponent through one point: what to compare a slope on logarithmic axes with."""
    x = np.asarray(x, dtype=float)
    y = through[1] * (x / through[0]) ** exponent
    ax.plot(x, y, style, label=label, **{"color": GREY, "linewidth": 1.3} | line)


def band(ax: Axes, x: ArrayLike, mean: ArrayLike, std: ArrayLike, label: str | None = None, **line: Any) -> None:
    """A line mean: (n,) with a shaded mean ± std. `line` is passed to the line."""
    x, mean, std = (np.asarray(v, dtype=float) for v in (x, mean, std))
    (drawn,) = ax.plot(x, mean, label=label, **line)
    ax.fill_between(x, mean - std, mean + std, color=drawn.get_color(), alpha=0.18, linewidth=0)


def over_seeds(ax: Axes, frame: pd.DataFrame, x: str, y: str, hue: str | None = None, *, log: bool = True) -> None:
    """Mean of column y over the rows that share x (the seeds), with a band ± std; one line per value of `hue`.

    On a log axis the band's lower edge stays above a tenth of the mean, since mean − std may be negative.
    """
    for name, part in [(None, frame)] if hue is None else frame.groupby(hue, sort=False):
        stats = part.groupby(x)[y].agg(["mean", "std"]).fillna(0.0)  # one seed has no spread
        low, high = stats["mean"] - stats["std"], stats["mean"] + stats["std"]
        (drawn,) = ax.plot(stats.index, stats["mean"], label=name)
        low = np.maximum(low, 0.1 * stats["mean"]) if log else low
        ax.fill_between(stats.index, low, high, color=drawn.get_color(), alpha=0.18, linewidth=0)
    ax.set(xlabel=x, ylabel=y, yscale="log" if log else "linear")


def population_paths(ax: Axes, x: ArrayLike, mean: ArrayLike, limit: ArrayLike | None = None) -> None:
    """Trajectories x: (T+1, n) of n agents as thin lines, their mean path (T+1,), and the mean path in the limit."""
    thin = ax.plot(np.asarray(x), color=GREY, alpha=0.35, linewidth=0.7)
    thin[0].set_label("agents")
    ax.plot(np.asarray(mean), color=LEARNED, label="their mean")
    if limit is not None:
        ax.plot(np.asarray(limit), color=EXACT, linestyle="--", label="mean, N → ∞")
    ax.set(xlabel="time t", ylabel="state x")


def histogram(
    ax: Axes, samples: ArrayLike, x: ArrayLike, density: ArrayLike, names: Sequence[str] = ("agents", "exact"), bins=40
) -> None:
    """Samples (n,) as a histogram over the range of x, with a density (m,) at points x: (m,) on top."""
    x = np.asarray(x)
    edges = np.linspace(x.min(), x.max(), bins + 1)
    ax.hist(np.asarray(samples), edges, density=True, color=GREY, alpha=0.4, label=names[0])
    ax.plot(x, np.asarray(density), color=EXACT, label=names[1])


def density_over_time(
    ax: Axes,
    x: ArrayLike,
    density: ArrayLike,
    times: Sequence[int],
    reference: ArrayLike | None = None,
    names: Sequence[str] = ("learned", "exact"),
    colours: Any = None,
) -> None:
    """A ridge of densities, one above the other: density (len(times), n) at points x: (n,), all on one scale.

    `reference`: a second density of the same shape, drawn as dashed lines; `names` label the two. `colours`: one for
    each time, from dark to light by default.
    """
    x, first = np.asarray(x, dtype=float), np.asarray(density, dtype=float)
    second = None if reference is None else np.asarray(reference, dtype=float)
    unit = 1.6 / max(first.max(), 0.0 if second is None else second.max())
    for i, colour in enumerate(dark_to_light(len(times)) if colours is None else colours):
        style = {"zorder": 3 + 2 * (len(times) - i)}  # early times in front: they stand lower on the page
        label = names[0] if i == len(times) // 2 and second is not None else None
        ax.fill_between(x, i, i + unit * first[i], facecolor=colour, edgecolor="white", alpha=0.7, label=label, **style)
        if second is not None:
            label = names[1] if i == 0 else None
            ax.plot(x, i + unit * second[i], color="black", linewidth=1.2, linestyle="--", label=label, **style)
    ax.set(yticks=np.arange(len(times)), yticklabels=[f"t = {t}" for t in times], xlim=(x[0], x[-1]))
    ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5))
    ax.grid(False)


def density_3d(
    ax: Axes, x: ArrayLike, density: ArrayLike, times: Sequence[int], *, top: float | None = None, title: str = ""
) -> None:
    """One filled curve for each time, density (len(times), n) at points x: (n,), on axes with projection="3d".

    `top`: the highest density of the vertical axis, for panels that are to be compared; None for this one's own. Gaps
    (NaN) count as 0. Raises ValueError for axes without a third dimension.
    """
    if ax.name != "3d":
        raise ValueError(f'ax: expected axes with projection="3d", got {ax.name}')
    x, values = np.asarray(x, dtype=float), np.nan_to_num(np.asarray(density, dtype=float))
    ax.computed_zorder = False  # its guess puts late times in front
    for i, (t, value, colour) in enumerate(zip(times, values, dark_to_light(len(times)), strict=True)):
        outline = np.column_stack([np.r_[x[0], x, x[-1]], np.r_[0.0, value, 0.0]])
        face = PolyCollection([outline], facecolor=(*colour[:3], 0.8), edgecolor="white", linewidth=0.6)
        face.set_zorder(1 + len(times) - i)
        ax.add_collection3d(face, zs=t, zdir="y")
    ax.set(xlim=(x[0], x[-1]), ylim=(min(times), max(times)), zlim=(0, top or 1.05 * values.max()))
    ax.set_xlabel("state x", labelpad=6)
    ax.set_ylabel("time t", labelpad=6)
    ax.set_zlabel("density", labelpad=2)
    ax.set_title(title, y=0.97)
    ax.tick_params(labelsize="small", pad=1)
    ax.set_box_aspect((1, 1.25, 0.75), zoom=1.0)
    ax.view_init(elev=28, azim=-58)
    ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(4))
    ax.yaxis.set_major_locator(mpl.ticker.MaxNLocator(5, integer=True))
    ax.zaxis.set_major_locator(mpl.ticker.MaxNLocator(4))


def heatmap(
    ax: Axes,
    times: ArrayLike,
    x: ArrayLike,
    values: ArrayLike,
    label: str | None,
    *,
    centred: bool = False,
    limit: float | None = None,
) -> Any:
    """values (len(times), n) at points x: (n,), as colours over time and space, with a colour bar unless the label is
    None; returns the colours, for a bar that several axes share (`shared_bar`).

    `centred`: a diverging scale with white at zero, for signed values such as actions; `limit`: its end.
    """
    values = np.asarray(values, dtype=float)
    low, high = np.nanmin(values), np.nanmax(values)
    if centred:
        limit = max(-low, high) if limit is None else limit
        low, high = -limit, limit
    style = {"vmin": low, "vmax": high, "cmap": "RdBu_r" if centred else "viridis"}
    mesh = ax.pcolormesh(times, x, values.T, shading="nearest", rasterized=True, **style)  # vector cells: huge files
    if label is not None:
        ax.figure.colorbar(mesh, ax=ax, label=label, pad=0.02)
    ax.grid(False)
    return mesh


def shared_bar(axes: Sequence[Axes], colours: Any, label: str, location: str = "right") -> None:
    """One colour bar for several axes, at the right of the last or at their "bottom"."""
    style = dict(pad=0.015, aspect=25) if location == "right" else dict(pad=0.03, aspect=40)
    axes[0].figure.colorbar(colours, ax=list(axes), label=label, location=location, shrink=0.95, **style)


def ellipses(ax: Axes, mean: ArrayLike, cov: ArrayLike, times: Sequence[int], deviations: float = 2.0) -> None:
    """The mean path (T+1, 2) in the plane, with ellipses of `deviations` standard deviations from cov (T+1, 2, 2)."""
    mean, cov = np.asarray(mean), np.asarray(cov)
    angle = np.linspace(0, 2 * np.pi, 100)
    circle = deviations * np.stack([np.cos(angle), np.sin(angle)])  # (2, 100)
    ax.plot(mean[:, 0], mean[:, 1], color=GREY, marker=".", markersize=5, linewidth=1)
    for t, colour in zip(times, dark_to_light(len(times)), strict=True):
        values, vectors = np.linalg.eigh(cov[t])
        ring = mean[t][:, None] + vectors @ (np.sqrt(values.clip(0))[:, None] * circle)
        ax.plot(*ring, color=colour, label=f"t = {t}")


def save(
    fig: Figure,
    name: str,
    data: pd.DataFrame,
    *,
    figures_dir: str | Path | None,
    seed: int,
    preset: str,
    game: Any = None,
    parameters: Mapping[str, Any] | None = None,
) -> None:
    """Write NAME.svg and NAME.png, data/NAME.csv (what is drawn) and data/NAME.json (what made it) in `figures_dir`.

    Nothing is written if `figures_dir` is None: a reader who runs a notebook overwrites nothing. A relative directory
    counts as in `figures_folder`. An unchanged figure is an unchanged file: nothing written depends on the clock.
    Raises ValueError for a name that is not a plain file name.
    """
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise ValueError(f"name: expected lower-case letters, digits and underscores, got {name!r}")
    whole_numbers(fig)
    if figures_dir is None:
        return
    made_by = provenance(game=game, parameters=parameters, seed=seed, preset=preset)
    files = {
        f"data/{name}.csv": data.to_csv(index=False, float_format="%.8g", lineterminator="\n").encode(),
        f"data/{name}.json": (json.dumps(made_by, indent=2, sort_keys=True, default=as_list) + "\n").encode(),
    }
    for suffix, metadata in (("svg", {"Date": None}), ("png", {})):
        picture = io.BytesIO()
        with mpl.rc_context(REPRODUCIBLE):
            fig.savefig(picture, format=suffix, metadata=metadata, bbox_inches="tight")
        files[f"{name}.{suffix}"] = picture.getvalue()
    folder = figures_folder(figures_dir)
    for file, content in files.items():
        with replacing(folder / file) as part:
            part.write_bytes(content)


def figures_folder(figures_dir: str | Path) -> Path:
    """Where figures go: an absolute directory as it is, a relative one from the root of the checkout or of the unpacked
    source distribution, or from the working directory where the project is installed."""
    project = ROOT / "pyproject.toml"
    ours = project.is_file() and 'name = "deda-fp"' in project.read_text(encoding="utf-8")
    return (ROOT if ours else Path.cwd()) / figures_dir


def dark_to_light(n: int) -> np.ndarray:
    return mpl.colormaps["viridis"](np.linspace(0.05, 0.85, n))
