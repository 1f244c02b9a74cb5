"""Deep learning for mean field games: an open implementation of DEDA-FP, with exact solvers as judges.

Distributed as `deda-fp`. Another package on the public index has the import name `mfglib` too (finite-state games);
if `import mfglib` has no `solve`, that one shadows this one: uninstall it, or install this one in a fresh environment.
"""

from mfglib.exploitability import exploitability
from mfglib.fictitious_play import Solution, solve

__all__ = ["Solution", "exploitability", "solve"]
__version__ = "0.1.0"
