"""Deep learning for mean field games: pose a game, solve it, and certify what was learned.

Distributed as `deda-fp`; an unrelated distribution on the public index is called `mfglib`, as is its import name.
Names are imported when they are asked for, so that the games alone do not load the learners.
"""

from importlib import metadata as _metadata

if any(True for _ in _metadata.distributions(name="mfglib")):
    raise ImportError(
        "the unrelated package `mfglib` (finite-state games) is installed beside `deda-fp`, and both are imported as "
        "mfglib. Remove it with `pip uninstall mfglib` and install deda-fp again, or use a fresh environment"
    )

from mfglib.sources import on_demand  # noqa: E402 (only once the name is known to be ours)

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = on_demand(
    __name__,
    {
        "mfglib.judge": "best_response_gap exploitability",
        "mfglib.runs.replay": "replay",
        "mfglib.solver": "Solution solve",
        "mfglib.trial": "check_game",
    },
)
