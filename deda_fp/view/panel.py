"""Interactive panels for notebooks: labelled dials above a picture whose axes keep still.

A move changes the artists of one figure and draws it again, in less than a tenth of a second; what is expensive to
compute is kept. Moves that come in faster than pictures are answered together. In a stored notebook, where nothing
runs, a panel is the picture of its first position.
"""

import asyncio
import io
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

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


def row_of_axes(columns: int, width: float = 4.6, height: float = 3.3) -> tuple[Figure, list[Axes]]:
    """A figure with so many axes side by side, each of this size in inches."""
    fig = Figure(figsize=(width * columns, height), layout="constrained")
    return fig, list(np.atleast_1d(fig.subplots(1, columns)))
