"""Which exact method converges where: exploitability on a grid after 25 and 100 iterations, over that of never acting.

Beach bar, bounded LQ and the market on 100 cells, 4-rooms on 20 and on 40 cells a side, every method of
`mfglib.exact.methods` with its defaults; and the CPU seconds of an iteration, without certificates, of one thread.
Some ten minutes. `--full`: 100 iterations of 4-rooms on 40 cells too, which are many times slower.
docs/howto/exact.md quotes the rows that are stored in figures/data/exact_methods_benchmark.json.
"""

import argparse
import time

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
SLOW = "4-rooms, 40 cells"
SHORT, LONG = 25, 100


def of_method(name: str, method: str, iterations: int) -> list[dict]:
    """The rows of one method in one game; none if it is not for such games."""
    game, cells = CASES[name]
    if method == "corrective" and not separable(game):
        return []
    clock = {}
    play = grid_fictitious_play(
        game, iterations, method=method, cells=cells, every=SHORT,
        callback=lambda step: clock.setdefault(step.k, time.process_time()),
    )  # fmt: skip
    shares = play.history.set_index("iteration")["exploitability"] / play.first
    label = f"{name}, {method}"
    rows = [row(f"{label}: after {k} iterations", 100 * shares[k], "%") for k in (SHORT, LONG) if k <= iterations]
    return [*rows, row(f"{label}: an iteration", (clock[SHORT] - clock[1]) / (SHORT - 1), "s")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="100 iterations everywhere")
    parser.add_argument("--json", help="write the table's rows to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in CASES:
        for method in METHODS:
            rows += of_method(name, method, SHORT if name == SLOW and not options.full else LONG)
    report(rows, options.json)


if __name__ == "__main__":
    main()
