"""The panel of notebook 03: the theorem's errors, put in by hand, and the exploitability that they lead to."""

from functools import cache, lru_cache
from typing import Any

import ipywidgets
import numpy as np

from deda_fp.theory.bounds import Constants, beach_constants, lq_constants
from deda_fp.theory.laboratory import Dials, experiment
from deda_fp.view import plots
from deda_fp.view.panel import Panel, choice, row_of_axes, slider
from mfglib.games import BeachBar, LinearQuadratic
from mfglib.judge import of as judge_of

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
    fig, (ax,) = row_of_axes(1, 8.4, 3.6)
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
