"""Ground truth: closed forms, exact recursions and grids, in float64."""

from mfglib.exact.grid_equilibrium import GridEquilibrium, grid_equilibrium, grid_fictitious_play
from mfglib.exact.lq import LQEquilibrium, lq_best_response, lq_equilibrium, lq_gap, lq_moments
from mfglib.exact.lq_fictitious_play import lq_fictitious_play

__all__ = [
    "GridEquilibrium",
    "LQEquilibrium",
    "grid_equilibrium",
    "grid_fictitious_play",
    "lq_best_response",
    "lq_equilibrium",
    "lq_fictitious_play",
    "lq_gap",
    "lq_moments",
]
