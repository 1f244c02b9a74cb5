"""Ground truth in float64: closed forms, exact recursions and grids."""

from mfglib.sources import on_demand

__getattr__, __dir__, __all__ = on_demand(
    __name__,
    {
        "mfglib.exact.equilibrium": "GridEquilibrium grid_equilibrium grid_fictitious_play",
        "mfglib.exact.lq": "LQEquilibrium lq_best_response lq_equilibrium lq_gap lq_moments",
        "mfglib.exact.lq_learners": "lq_fictitious_play",
    },
)
