"""Interactive panels for notebooks: labelled dials above a picture whose axes keep still.

A move changes the artists of one figure and draws it again, in less than a tenth of a second; what is expensive to
compute is kept. Moves that come in faster than pictures are answered together. In a stored notebook, where nothing
runs, a panel is the picture of its first position.
"""

import asyncio
import copy
import io
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

import ipywidgets
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from deda_fp.finite import lq_gain
from deda_fp.theory.bounds import Constants, beach_constants, lq_constants
from deda_fp.theory.laboratory import Dials, experiment
from deda_fp.view import plots, rooms
from mfglib.exact import LQEquilibrium, lq_equilibrium, lq_fictitious_play
from mfglib.exact.dynamic_programming import grid_evaluate
from mfglib.exact.grid import Grid
from mfglib.exact.grid_learners import GridResponse
from mfglib.games import BeachBar, FourRooms, LinearQuadratic
from mfglib.judge import exploitability
from mfglib.judge import of as judge_of
from mfglib.policies import AffinePolicy
from mfglib.populations import CellPopulation, Particles
from mfglib.protocols import Exploitability, Population
from mfglib.rollout import rollout
from mfglib.schedules import constant
from mfglib.seeds import Random, generator

DPI, SHARPER = 96, 2  # a picture has more pixels than it shows, for screens that can show them
WAIT = 0.02  # seconds in which later moves replace earlier ones


class Panel(ipywidgets.VBox):
    """`dials` by name, in rows of three, above a picture of `figure`, which `draw(**values)` changes.

    The layout of the figure is settled once, so that axes keep still: `draw` changes data, colours and titles.
    """

    def __init__(self, figure: Figure, draw: Callable[..., None], dials: dict[str, ipywidgets.Widget]) -> None:
        self.figure, self.canvas, self._draw, self.dials = figure, FigureCanvasAgg(figure), draw, dials
        figure.set_dpi(DPI * SHARPER)
        width = ipywidgets.Layout(width=f"{figure.get_figwidth() * DPI:.0f}px", max_width="100%")
        self.picture = ipywidgets.Image(format="png", layout=width)
        controls, self._waiting = list(dials.values()), False
        rows = [ipywidgets.HBox(controls[i : i + 3]) for i in range(0, len(controls), 3)]
        super().__init__([*rows, self.picture])
        self.redraw()
        figure.set_layout_engine("none")
        for control in controls:
            control.observe(self._moved, names="value")

    def redraw(self) -> None:
        """Draw what the dials say now."""
        self._waiting = False
        self._draw(**{name: dial.value for name, dial in self.dials.items()})
        self.canvas.draw()
        out = io.BytesIO()
        Image.fromarray(np.asarray(self.canvas.buffer_rgba())).convert("RGB").save(out, "png", compress_level=1)
        self.picture.value = out.getvalue()

    def _moved(self, _: Any) -> None:
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:  # no kernel: at once
            self.redraw()
            return
        if not self._waiting:
            self._waiting = True
            running.call_later(WAIT, self.redraw)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """With the picture, for viewers that run nothing."""
        bundle = super()._repr_mimebundle_(**options)
        data = dict(bundle[0] if isinstance(bundle, tuple) else bundle)
        return {**data, "image/png": bytes(self.picture.value)}


def slider(label: str, value: float, low: float, high: float, step: float) -> ipywidgets.FloatSlider:
    """A labelled slider of numbers, whose range includes its first value."""
    ends = {"min": min(low, value), "max": max(high, value)}
    return ipywidgets.FloatSlider(value=value, step=step, description=label, **ends, **_LOOKS)


def whole(label: str, value: int, low: int, high: int) -> ipywidgets.IntSlider:
    """A labelled slider of whole numbers."""
    return ipywidgets.IntSlider(value=value, min=low, max=high, description=label, **_LOOKS)


def choice(label: str, options: Sequence[Any], value: Any) -> ipywidgets.SelectionSlider:
    """A labelled slider over given values."""
    return ipywidgets.SelectionSlider(options=list(options), value=value, description=label, **_LOOKS)


_LOOKS: dict[str, Any] = {"style": {"description_width": "170px"}, "layout": ipywidgets.Layout(width="370px")}


def _axes(columns: int, width: float = 4.6, height: float = 3.3) -> tuple[Figure, list[Axes]]:
    fig = Figure(figsize=(width * columns, height), layout="constrained")
    return fig, list(np.atleast_1d(fig.subplots(1, columns)))


# --- 00: the equilibrium

SLIDERS = {  # name: label, start, end, step
    "c_m": ("attraction c_m", 0.0, 20.0, 0.5),
    "c_a": ("cost of moving c_a", 1.0, 40.0, 1.0),
    "A_bar": ("drag of the crowd Ā", -0.5, 0.5, 0.02),
    "x_target": ("target (state)", -1.0, 1.0, 0.1),
    "share": ("share of its actions", 0.0, 1.5, 0.05),
}


def equilibrium_explorer(share: float = 0.5, **parameters: Any) -> Panel:
    """Sliders for c_m, c_a, Ā, target and `share`, beside the equilibrium and the population of a chosen policy.

    The chosen policy plays a = share · (K_t x + k_t): 0 does nothing, 1 is the equilibrium.
    `parameters`: those of a one-dimensional, unbounded `LinearQuadratic`; scalars.
    """
    start = {"c_m": 1.0, "c_a": 0.1, "A_bar": 0.06, "x_target": 0.6, "share": share} | parameters
    dials = {n: slider(label, start[n], low, high, step) for n, (label, low, high, step) in SLIDERS.items()}
    t = np.arange(LinearQuadratic(**parameters).horizon + 1)
    fig, (ax,) = _axes(1, 8.4)
    spread = ax.fill_between(t, 0 * t, 0 * t, color=plots.EXACT, alpha=0.18, linewidth=0)
    (mean,) = ax.plot(t, 0 * t, color=plots.EXACT, label="equilibrium, mean ± std")
    (other,) = ax.plot(t, 0 * t, color=plots.LEARNED, linestyle="--", label="mean if all play the share")
    target = ax.axhline(0.0, color=plots.GREY, linewidth=1, linestyle=":", label="target")
    ax.set(xlim=(0, t[-1]), ylim=(-1.6, 1.6), xlabel="time t", ylabel="state x", title=" ")
    ax.legend(loc="lower right", ncols=3)
    plots.whole_numbers(fig)

    def draw(share: float, **chosen: float) -> None:
        eq, judged = scaled_equilibrium(LinearQuadratic(**{**parameters, **chosen}), share)
        middle, std = eq.mean[:, 0].numpy(), eq.cov[:, 0, 0].sqrt().numpy()
        _refill(spread, t, middle - std, middle + std)
        mean.set_ydata(middle)
        other.set_ydata(judged.mean[:, 0])
        target.set_ydata([chosen["x_target"]] * 2)
        ax.set_title(f"exploitability of the chosen policy: {judged.value:.4f}")

    return Panel(fig, draw, dials)


def scaled_equilibrium(game: LinearQuadratic, share: float) -> tuple[LQEquilibrium, Exploitability]:
    """The equilibrium, and the exact exploitability of a = share · (K_t x + k_t) in its own population."""
    eq = lq_equilibrium(game)
    return eq, exploitability(game, AffinePolicy(share * eq.K, share * eq.k))


def _refill(filled: Any, x: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """New edges of a `fill_between`."""
    filled.set_verts([np.column_stack([np.r_[x, x[::-1]], np.r_[low, high[::-1]]])])


# --- 01: steps of fictitious play


def schedule_explorer(iterations: int = 20, **parameters: Any) -> Panel:
    """Dials for the constant step η and for c_m, beside the exploitability of exact fictitious play with that step and
    with the paper's 1/k, in % of the equilibrium's value. `parameters`: of a `LinearQuadratic`, c_m excepted."""

    @cache
    def curve(c_m: float, step: float | None) -> np.ndarray:
        game = LinearQuadratic(**parameters, c_m=c_m)
        play = lq_fictitious_play(game, iterations, "uniform" if step is None else constant(step))
        return 100 * play.exploitability / abs(lq_equilibrium(game).value)

    k = np.arange(iterations + 1)
    fig, (ax,) = _axes(1, 8.4)
    (uniform,) = ax.plot(k, k + 1.0, color=plots.OTHER, marker=".", label="uniform: step 1/k")
    (stepped,) = ax.plot(k, k + 1.0, color=plots.PALETTE[0], marker=".", label="constant step η")
    ax.set(yscale="log", ylim=(1e-8, 1e4), xlabel="iteration k", ylabel="exploitability, % of the value", title=" ")
    ax.legend(loc="lower left")
    plots.whole_numbers(fig)

    def draw(step: float, c_m: float) -> None:
        uniform.set_ydata(curve(c_m, None))
        stepped.set_ydata(np.maximum(curve(c_m, step), 1e-14))
        ax.set_title(f"after {iterations} iterations: 1/k {curve(c_m, None)[-1]:.3g}%, η {curve(c_m, step)[-1]:.3g}%")

    dials = {"step": slider("step η", 0.5, 0.05, 1.0, 0.05), "c_m": slider("attraction c_m", 10.0, 0.0, 20.0, 1.0)}
    return Panel(fig, draw, dials)


# --- 02: iterations of a run


def iterations_explorer(
    x: np.ndarray,
    density: np.ndarray,
    action: np.ndarray,
    exploitability: np.ndarray,
    exact_density: np.ndarray,
    exact_action: np.ndarray,
    times: Sequence[int],
) -> Panel:
    """A run, iteration by iteration: density of the flow (K+1, len(times), n) and mean action of the average policy of
    the same shape at states x (n,), beside the exact ones (len(times), n), and exploitability (K+1,) so far."""
    K = len(exploitability) - 1
    fig, (left, middle, right) = _axes(3, 3.9, 3.3)
    (crowd,) = left.plot(x, density[0, 0], color=plots.LEARNED, label="flow")
    (truth,) = left.plot(x, exact_density[0], label="exact", **plots.EXACT_LINE)
    (act,) = middle.plot(x, action[0, 0], color=plots.LEARNED, label="average policy")
    (law,) = middle.plot(x, exact_action[0], label="exact", **plots.EXACT_LINE)
    right.plot(range(K + 1), exploitability, color="0.85", marker=".")
    (way,) = right.plot([0], exploitability[:1], color=plots.LEARNED, marker=".")
    left.set(xlabel="state x", ylabel="density", ylim=(0, 1.1 * np.nanmax(exact_density)), title=" ")
    middle.set(xlabel="state x", ylabel="mean action", ylim=1.1 * np.array([exact_action.min(), exact_action.max()]))
    right.set(yscale="log", xlabel="iteration k", ylabel="exploitability", title=" ")
    plots.legends(left, middle)
    plots.whole_numbers(fig)

    def draw(k: int, time: int) -> None:
        i = list(times).index(time)
        crowd.set_ydata(density[k, i])
        truth.set_ydata(exact_density[i])
        act.set_ydata(action[k, i])
        law.set_ydata(exact_action[i])
        way.set_data(range(k + 1), exploitability[: k + 1])
        left.set_title(f"iteration {k}, time {time}")
        right.set_title(f"exploitability {exploitability[k]:.3g}")

    return Panel(fig, draw, {"k": whole("iteration k", K, 0, K), "time": choice("time t", times, times[-1])})


# --- 03: errors

DIALS = {  # name: label
    "br": "best response (reward)",
    "sl": "clone (action)",
    "cnf": "flow (state)",
}
SIZES = [0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3]
ITERATIONS = {"linear-quadratic": 200, "beach bar": 60}  # as many as a panel computes within a second (decision V1)


def error_laboratory(**start: float) -> Panel:
    """Dials for the three errors of `deda_fp.theory.laboratory`, beside the exploitability that they lead to, the bound
    that the theorem prints for them, and the mean error of the best responses.

    `start`: first values, br, sl and cnf out of `SIZES`, decay in [0, 2].
    """
    for name, value in start.items():
        if name not in (*DIALS, "decay"):
            raise ValueError(f"start: expected one of {(*DIALS, 'decay')}, got {name!r}")
        if name in DIALS and value not in SIZES:
            raise ValueError(f"{name}: expected one of {SIZES}, got {value!r}")
    dials: dict[str, ipywidgets.Widget] = {"game": ipywidgets.Dropdown(options=list(ITERATIONS), description="game")}
    dials |= {name: choice(label, SIZES, start.get(name, 0.0)) for name, label in DIALS.items()}
    dials["decay"] = slider("decay p of errors", start.get("decay", 0.0), 0.0, 2.0, 0.25)
    dials["random"] = ipywidgets.Checkbox(value=False, description="random signs")
    fig, (ax,) = _axes(1, 8.4, 3.6)
    labels = {
        "printed bound": dict(color=plots.PALETTE[3]),
        "its term of best responses": dict(color=plots.PALETTE[3], linestyle=":"),
        "with these errors": dict(color=plots.LEARNED),
        "exact learners": plots.EXACT_LINE,
    }
    drawn = {label: ax.plot([1, 2], [1, 1], label=label, **style)[0] for label, style in labels.items()}
    ax.set(xscale="log", yscale="log", xlim=(1, 300), ylim=(1e-4, 1e12), xlabel="iteration k", title=" ")
    ax.set(ylabel="exploitability")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))

    def draw(game: str, **chosen: Any) -> None:
        table, bound, term = laboratory_curves(game, Dials(**chosen))
        k, exact = table["iteration"], laboratory_curves(game, Dials())[0]
        for label, y in zip(labels, (bound, term, table["e_true"], exact["e_true"]), strict=True):
            drawn[label].set_data(k, y)
        after = f"{table['e_true'].iloc[-1]:.4g}; the printed bound {bound[-1]:.2g}"
        ax.set_title(f"exploitability after {ITERATIONS[game]} iterations: {after}")

    return Panel(fig, draw, dials)


@lru_cache(maxsize=500)
def laboratory_curves(name: str, dials: Dials) -> tuple[Any, np.ndarray, np.ndarray]:
    """The laboratory's table without k = 0, and at each k >= 1 the theorem's printed bound with our constants, and the
    part of it that best responses have; `name`: a key of `ITERATIONS`. NaN where the bound sums nothing (k = 1)."""
    game, iterations = (LinearQuadratic() if name == "linear-quadratic" else BeachBar()), ITERATIONS[name]
    table, constants = experiment(game, iterations, dials).iloc[1:], _constants(name)
    i = np.arange(1, iterations)
    size = (i + 1.0) ** -dials.decay  # of the errors in iteration i + 1
    length = 2 * float(np.ptp(judge_of(game).grid.x.numpy())) / 2  # ε_sl is an integral over the states
    ours = (i + 1) * dials.br * size
    bracket = ours + constants.C1 * (dials.sl * length + dials.cnf) * size + constants.C2 / i
    k = i + 1.0
    return table, *(np.r_[np.nan, np.cumsum(part) / k] for part in (bracket, ours))


@cache
def _constants(name: str) -> Constants:
    if name == "linear-quadratic":
        return lq_constants(judge_of(LinearQuadratic()).grid, 0.3, 1.2)
    return beach_constants(judge_of(BeachBar()).grid)


# --- 04: one agent against the crowd of the beach


def beach_explorer(crowd: CellPopulation, game: BeachBar | None = None) -> Panel:
    """What one agent does against a given crowd on the beach, if crowding cost c_m, and with entropy bonus τ: the
    density of agents who best respond to it, and their mean action, at time t."""
    grid, game = crowd.grid, game or BeachBar()
    x = grid.x[:, 0].numpy()

    @cache
    def response(c_m: float, tau: float) -> tuple[np.ndarray, np.ndarray, float]:
        changed = copy.copy(game)
        changed.c_m = c_m
        other = Grid(changed, len(x))
        learner = GridResponse(other, tau)
        learner.fit(CellPopulation(other, crowd.mass), 1, Random(0, 1))
        played = grid_evaluate(other, learner.policy, CellPopulation(other, crowd.mass))
        mean = (learner.policy.shares.double() @ grid.actions)[..., 0].numpy()
        density = np.stack([played.population.density(t) for t in range(game.horizon + 1)])
        return density, np.vstack([mean, np.full(len(x), np.nan)]), played.value

    fig, (left, right) = _axes(2)
    (given,) = left.plot(x, x, label="the crowd", **plots.EXACT_LINE)
    (own,) = left.plot(x, x, color=plots.PALETTE[0], label="agents who best respond to it")
    (act,) = right.plot(x, x, color=plots.PALETTE[0])
    left.set(xlabel="state x", ylabel="density", ylim=(0, 8), title=" ")
    right.set(xlabel="state x", ylabel="mean action", ylim=(-0.35, 0.35), title="their mean action")
    left.legend(loc="upper left")

    def draw(c_m: float, tau: float, time: int) -> None:
        density, mean, value = response(c_m, tau)
        given.set_ydata(crowd.density(time))
        own.set_ydata(density[time])
        act.set_ydata(mean[time])
        left.set_title(f"time {time}; they earn {value:.2f}")

    dials = {
        "c_m": choice("cost of crowding c_m", [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0], 1.0),
        "tau": choice("entropy bonus τ", [0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0], 0.05),
        "time": whole("time t", 2, 0, game.horizon),
    }
    return Panel(fig, draw, dials)


# --- 05: rooms over time


def rooms_explorer(game: FourRooms, exact: CellPopulation, flow: Population, agents: torch.Tensor) -> Panel:
    """The crowd at time t: exact, by the flow, and by a kernel on the first N of `agents` (T+1, n, 2) of the learned
    policy; and the path of one of them so far."""
    domain, points, T = game.domain, 40, game.horizon
    learned = [rooms.on_lattice(flow, domain, t, points) for t in range(T + 1)]

    @cache
    def kernel(n: int, t: int) -> np.ndarray:
        return rooms.on_lattice(Particles(agents[:, :n]), domain, t, points, walls=True)

    fig, axes = _axes(4, 2.9, 3.2)
    rooms.densities(axes[:3], domain, [domain.volume * exact.density(0), learned[0], kernel(100, 0)])
    rooms.plan(axes[3], domain)
    (path,) = axes[3].plot([], [], color=plots.LEARNED, marker=".", linewidth=1)
    (here,) = axes[3].plot([], [], "o", color=plots.LEARNED)
    for ax, title in zip(axes, ("exact", "flow", "kernel", "one agent"), strict=True):
        ax.set_title(title)

    def draw(time: int, n: int, agent: int) -> None:
        for ax, values in zip(
            axes, (domain.volume * exact.density(time), learned[time], kernel(n, time)), strict=False
        ):
            ax.images[0].set_data(np.clip(values, *rooms.RANGE).T)
        axes[2].set_title(f"kernel, N = {n:,}")
        axes[3].set_title(f"agent {agent}, time {time}")
        way = agents[: time + 1, agent].numpy()
        path.set_data(*way.T)
        here.set_data(*way[-1:].T)

    dials = {
        "time": whole("time t", 8, 0, T),
        "n": choice("agents of the kernel N", [10, 100, 1000, agents.shape[1]], 100),
        "agent": whole("agent", 0, 0, min(99, agents.shape[1] - 1)),
    }
    return Panel(fig, draw, dials)


# --- 08: from N agents to the mean field


def crowd_explorer(game: LinearQuadratic, seed: int = 0) -> Panel:
    """N agents of a one-dimensional, unbounded game who play its mean field equilibrium: where they are at time t, and
    what one of them could gain."""
    eq, bins = lq_equilibrium(game), np.linspace(0.3, 0.9, 31)
    x, numbers = torch.linspace(0.3, 0.9, 300)[:, None].double(), [2, 3, 5, 10, 30, 100, 300, 1000, 10_000]

    @cache
    def crowd(n: int) -> np.ndarray:
        return rollout(game, eq.policy, n=n, generator=generator(seed, "panel", n), rewards=False).x[..., 0].numpy()

    gains = [lq_gain(game, eq.policy, n).value for n in numbers]
    fig, (left, right) = _axes(2)
    bars = left.stairs(np.zeros(len(bins) - 1), bins, fill=True, color=plots.PALETTE[0], alpha=0.4, label="N agents")
    (limit,) = left.plot(x, 0 * x, label="mean field", **plots.EXACT_LINE)
    right.loglog(numbers, gains, color="0.8", marker=".")
    (here,) = right.plot(numbers[:1], gains[:1], "o", color=plots.PALETTE[0])
    left.set(xlim=(0.3, 0.9), ylim=(0, 16), xlabel="state x", ylabel="density", title=" ")
    right.set(xlabel="agents N", ylabel="gain of one deviation", title=" ")
    left.legend(loc="upper left")

    def draw(n: int, time: int) -> None:
        inside = np.histogram(crowd(n)[time], bins)[0]
        bars.set_data(inside / (n * np.diff(bins)))
        limit.set_ydata(eq.population.log_prob(time, x).exp())
        here.set_data([n], [gains[numbers.index(n)]])
        left.set_title(f"N = {n:,}, time {time}")
        right.set_title(f"gain {gains[numbers.index(n)]:.2g}")

    return Panel(fig, draw, {"n": choice("agents N", numbers, 30), "time": whole("time t", 10, 1, game.horizon)})
