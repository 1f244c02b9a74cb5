"""Interactive views for notebooks: sliders beside a picture that is drawn anew at every move."""

import io
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.figure import Figure

from deda_fp.theory.laboratory import Dials, experiment
from deda_fp.view import plots
from mfglib.exact import LQEquilibrium, lq_equilibrium
from mfglib.games import BeachBar, LinearQuadratic
from mfglib.judge import exploitability
from mfglib.policies import AffinePolicy
from mfglib.protocols import Exploitability

SLIDERS = {  # name: start, end, step
    "c_m": (0.0, 20.0, 0.5),
    "c_a": (1.0, 40.0, 1.0),
    "x_target": (-1.0, 1.0, 0.1),
    "share": (0.0, 1.5, 0.05),
}


def equilibrium_explorer(share: float = 0.5, **parameters: Any) -> ipywidgets.VBox:
    """Sliders for c_m, c_a, x_target and `share`, beside the equilibrium and the population of a chosen policy.

    The chosen policy plays a = share · (K_t x + k_t): 0 does nothing, 1 is the equilibrium.
    `parameters`: those of a one-dimensional, unbounded `LinearQuadratic`; scalars.
    """
    start = {"c_m": 1.0, "c_a": 0.1, "x_target": 0.6, "share": share} | parameters
    sliders = {
        name: ipywidgets.FloatSlider(
            value=start[name], min=min(low, start[name]), max=max(high, start[name]), step=step, description=name
        )
        for name, (low, high, step) in SLIDERS.items()
    }
    picture = ipywidgets.Image(format="png")

    def draw(_: Any = None) -> None:
        chosen = {name: slider.value for name, slider in sliders.items()}
        game_values = {**parameters, **{name: chosen[name] for name in ("c_m", "c_a", "x_target")}}
        picture.value = _picture(LinearQuadratic(**game_values), chosen["share"])

    for slider in sliders.values():
        slider.observe(draw, names="value")
    draw()
    rows = [ipywidgets.HBox(list(sliders.values())[:2]), ipywidgets.HBox(list(sliders.values())[2:])]
    return ipywidgets.VBox([*rows, picture])


def scaled_equilibrium(game: LinearQuadratic, share: float) -> tuple[LQEquilibrium, Exploitability]:
    """The equilibrium, and the exact exploitability of a = share · (K_t x + k_t) in its own population."""
    eq = lq_equilibrium(game)
    return eq, exploitability(game, AffinePolicy(share * eq.K, share * eq.k))


DIALS = ("br", "sl", "cnf")
SIZES = [0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3]
ITERATIONS = {"linear-quadratic": 200, "beach bar": 60}  # as many as a panel computes within a second (decision V1)


def error_laboratory(**start: float) -> ipywidgets.VBox:
    """Dials for the three errors of `deda_fp.theory.laboratory`, beside the exploitability that they lead to.

    `start`: first values, br, sl and cnf out of `SIZES`, decay in [0, 2]. A move is answered in about a second.
    """
    for name, value in start.items():
        if name not in (*DIALS, "decay"):
            raise ValueError(f"start: expected one of {(*DIALS, 'decay')}, got {name!r}")
        if name in DIALS and value not in SIZES:
            raise ValueError(f"{name}: expected one of {SIZES}, got {value!r}")
    dials = {n: ipywidgets.SelectionSlider(options=SIZES, value=start.get(n, 0.0), description=n) for n in DIALS}
    dials["decay"] = ipywidgets.FloatSlider(value=start.get("decay", 0.0), min=0, max=2, step=0.25, description="decay")
    dials["random"] = ipywidgets.Checkbox(value=False, description="random signs")
    game = ipywidgets.Dropdown(options=list(ITERATIONS), description="game")
    picture = ipywidgets.Image(format="png")

    def draw(_: Any = None) -> None:
        chosen = Dials(**{name: dial.value for name, dial in dials.items()})
        picture.value = laboratory_picture(game.value, chosen)

    for control in (game, *dials.values()):
        control.observe(draw, names="value")
    draw()
    controls = [game, *dials.values()]
    return ipywidgets.VBox([ipywidgets.HBox(controls[i : i + 3]) for i in (0, 3)] + [picture])


def laboratory_picture(name: str, dials: Dials) -> bytes:
    """The panel's picture, a PNG; `name`: a key of `ITERATIONS`."""
    game, iterations = (LinearQuadratic() if name == "linear-quadratic" else BeachBar()), ITERATIONS[name]
    fig = Figure(figsize=(7.5, 3.2), layout="constrained")
    ax = fig.add_subplot()
    for label, chosen, style in (("exact learners", Dials(), "--"), ("with these errors", dials, "-")):
        table = experiment(game, iterations, chosen).iloc[1:]
        colour = plots.EXACT if style == "--" else plots.LEARNED
        ax.plot(table["iteration"], table["e_true"], style, color=colour, label=label)
    ax.set(xscale="log", yscale="log", xlabel="iteration k", ylabel="exploitability")
    ax.set_title(f"after {iterations} iterations: {table['e_true'].iloc[-1]:.4g}")
    ax.legend()
    return _png(fig)


def _png(fig: Figure) -> bytes:
    out = io.BytesIO()
    fig.savefig(out, format="png", dpi=90)
    return out.getvalue()


def _picture(game: LinearQuadratic, share: float) -> bytes:
    eq, judged = scaled_equilibrium(game, share)
    fig = Figure(figsize=(7.5, 3.2), layout="constrained")
    ax = fig.add_subplot()
    t = np.arange(game.horizon + 1)
    plots.band(ax, t, eq.mean[:, 0], eq.cov[:, 0, 0].sqrt(), "equilibrium, mean ± std", color=plots.EXACT)
    ax.plot(t, judged.mean[:, 0], color=plots.LEARNED, linestyle="--", label=f"mean if all play {share:g} × its law")
    ax.axhline(game.x_target[0], color=plots.GREY, linewidth=1, linestyle=":", label="target")
    ax.set(ylim=(-1.6, 1.6), xlabel="time t", ylabel="state x")
    ax.set_title(f"exploitability of the chosen policy: {judged.value:.4f}")
    ax.legend(loc="lower right", ncols=3)
    return _png(fig)
