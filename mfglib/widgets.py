"""Interactive views for notebooks: sliders beside a picture that is drawn anew at every move."""

import io
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.figure import Figure

from mfglib import plots
from mfglib.exact import LQEquilibrium, lq_equilibrium
from mfglib.exploitability import Exploitability, exploitability
from mfglib.games import LinearQuadratic
from mfglib.policy import AffinePolicy

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
    out = io.BytesIO()
    fig.savefig(out, format="png", dpi=90)
    return out.getvalue()
