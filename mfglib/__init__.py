"""Deep learning for mean field games: an open implementation of DEDA-FP, with exact solvers as judges.

Distributed as `deda-fp`; an unrelated distribution on the public index is called `mfglib`, as is its import name.
"""

from importlib import metadata as _metadata

if any(True for _ in _metadata.distributions(name="mfglib")):
    raise ImportError(
        "the unrelated package `mfglib` (finite-state games) is installed beside `deda-fp`, and both are imported as "
        "mfglib. Remove it with `pip uninstall mfglib` and install deda-fp again, or use a fresh environment"
    )

from mfglib.exploitability import exploitability  # noqa: E402 (only once the name is known to be ours)
from mfglib.fictitious_play import Solution, solve  # noqa: E402

__all__ = ["Solution", "exploitability", "solve"]
__version__ = "0.1.0"
