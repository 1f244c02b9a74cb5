"""Ground truth: closed forms and exact recursions, in float64."""

from mfglib.exact.lq import LQEquilibrium, lq_best_response, lq_equilibrium, lq_gap, lq_moments
from mfglib.exact.lq_fictitious_play import lq_fictitious_play

__all__ = ["LQEquilibrium", "lq_best_response", "lq_equilibrium", "lq_fictitious_play", "lq_gap", "lq_moments"]
