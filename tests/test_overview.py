"""One call draws a solution in one, two and more dimensions."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from tiny import tiny

from deda_fp.examples.congestion import Congestion
from deda_fp.examples.evacuation import Evacuation
from deda_fp.view.overview import overview
from mfglib.exact.equilibrium import grid_equilibrium
from mfglib.games import BeachBar, FourRooms, LinearQuadratic, Market


@pytest.mark.parametrize(
    "game, panels",
    [
        (BeachBar(horizon=3), 3),
        (Market(horizon=3), 3),
        (LinearQuadratic(horizon=3), 3),
        (FourRooms(horizon=3), 5),
        (LinearQuadratic(A=np.eye(4), B=np.eye(4), horizon=3), 4),
    ],
    ids=["bar", "market", "lq", "rooms", "d4"],
)
def test_every_panel_is_drawn_and_named(game, panels, tmp_path):
    cells = {"certify": dict(cells=40)} if isinstance(game, FourRooms) else {}
    fig = overview(tiny(game, sizes=cells), game)
    fig.savefig(tmp_path / "overview.png")
    named = [ax for ax in fig.axes if ax.get_title()]
    assert len(named) == panels
    assert all(ax.get_xlabel() and ax.get_ylabel() and ax.has_data() for ax in named)
    assert named[-1].get_title() == "exploitability" and len(named[-1].lines) == 1
    plt.close(fig)


@pytest.mark.parametrize("game, cells, panels", [(Congestion(), 40, 3), (Evacuation(), 20, 5)])
def test_an_exact_equilibrium_is_drawn_too(game, cells, panels):
    found = grid_equilibrium(game, cells=cells, tolerance=0.05, iterations=50, progress=False)
    fig = overview(found, game)
    assert len([ax for ax in fig.axes if ax.get_title()]) == panels
    plt.close(fig)
