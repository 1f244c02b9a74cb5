"""Ground truth in float64: closed forms, exact recursions and grids."""

from mfglib.sources import on_demand

__getattr__, __dir__, __all__ = on_demand(
    __name__,
    {
        "GridEquilibrium": "mfglib.exact.equilibrium",
        "LQEquilibrium": "mfglib.exact.lq",
        "grid_equilibrium": "mfglib.exact.equilibrium",
        "grid_fictitious_play": "mfglib.exact.equilibrium",
        "lq_best_response": "mfglib.exact.lq",
        "lq_equilibrium": "mfglib.exact.lq",
        "lq_fictitious_play": "mfglib.exact.lq_learners",
        "lq_gap": "mfglib.exact.lq",
        "lq_moments": "mfglib.exact.lq",
    },
)
