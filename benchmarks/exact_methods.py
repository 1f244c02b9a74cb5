"""Which exact method converges where: exploitability on a grid after 25 and 100 iterations, over that of never acting.

Beach bar, bounded LQ and the market on 100 cells, 4-rooms on 20 and on 40 cells a side, every method of
`mfglib.exact.methods` with its defaults; and the CPU seconds of 100 iterations, without certificates, of one thread.
Some five minutes. docs/howto/exact.md quotes the rows that figures/data/exact_methods_benchmark.json stores.
"""

import argparse
import time

import numpy as np
import torch
from _table import report, row

from mfglib.exact import grid_fictitious_play
from mfglib.exact.methods import METHODS
from mfglib.games import BeachBar, FourRooms, LinearQuadratic, Market
from mfglib.trial import separable

CASES = {
    "beach bar, 100 cells": (BeachBar(), 100),
    "bounded LQ, 100 cells": (LinearQuadratic.paper(), 100),
    "market, 100 cells": (Market(), 100),
    "4-rooms, 20 cells": (FourRooms(), 20),
    "4-rooms, 40 cells": (FourRooms(), 40),
}
SHORT, LONG = 25, 100


def of_method(name: str, method: str) -> list[dict]:
    """The rows of one method in one game; none if it is not for such games."""
    game, cells = CASES[name]
    if method == "corrective" and not separable(game):
        return []
    clock: list[float] = []
    play = grid_fictitious_play(
        game, LONG, method=method, cells=cells, every=SHORT, callback=lambda step: clock.append(time.process_time())
    )
    shares = play.history.set_index("iteration")["exploitability"] / play.first
    uncertified = np.delete(np.diff(clock), np.s_[::SHORT])  # no certificate falls between the two ends of these
    label = f"{name}, {method}"
    rows = [row(f"{label}: after {k} iterations", 100 * shares[k], "%") for k in (SHORT, LONG)]
    return [*rows, row(f"{label}: {LONG} iterations", LONG * uncertified.mean(), "s")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="write the table's rows to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    report([r for name in CASES for method in METHODS for r in of_method(name, method)], options.json)


if __name__ == "__main__":
    main()
