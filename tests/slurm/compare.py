"""Compare two folders of results: `python compare.py ONE OTHER`. Prints a table; the status is 1 where they differ.

Weights and tables must be equal to the bit. What a clock makes is no result: columns of seconds, and tables that follow
from what was done within some. Such tables are counted, and not compared.
"""

import sys
from pathlib import Path

import pandas as pd
from safetensors.torch import load_file

KINDS = {
    "weights": "*/*/seed-*/*.safetensors",
    "histories": "*/*/seed-*/history.csv",
    "error terms": "*/*/seed-*/errors.csv",
    "tables of figures": "figures/data/*.csv",
}
CLOCK = ("seconds", "fit_seconds", "minutes", "memory_mb")  # columns; those of a run's parts begin with seconds_
CLOCKED = {f"inference{part}" for part in ("", "_accuracy", "_flows", "_memory", "_sizes", "_time")}
CLOCKED |= {"rooms_budget"}  # agents that each method draws in so many seconds (notebook 05, Section 6)


def clocked(file: Path) -> bool:
    return file.stem in CLOCKED or file.stem.endswith("_seconds")


def difference(one: Path, other: Path) -> list[str]:
    """Names of the tensors or columns that are not the same."""
    if one.suffix == ".safetensors":
        a, b = load_file(one), load_file(other)
        equal = [name for name in a.keys() & b.keys() if a[name].dtype == b[name].dtype and a[name].equal(b[name])]
    else:
        a, b = (pd.read_csv(file, dtype=str) for file in (one, other))  # as they are written
        equal = [name for name in a if name in b and a[name].equals(b[name])]
        equal += [name for name in [*a, *b] if name in CLOCK or name.startswith("seconds_")]
    return sorted({*a.keys(), *b.keys()} - set(equal))


def compare(one: Path, other: Path) -> bool:
    """Print what is equal and what is not; return whether all is, and that is anything at all."""
    total, left_out, differ = 0, 0, []
    print(f"{'':20}{'files':>7}{'equal':>7}{'differ':>8}{'in one only':>13}")
    for kind, pattern in KINDS.items():
        a, b = ({file.relative_to(folder) for file in folder.glob(pattern)} for folder in (one, other))
        compared = sorted(file for file in a & b if not clocked(file))
        wrong = {file: names for file in compared if (names := difference(one / file, other / file))}
        results = len(compared) + len(a ^ b)
        print(f"{kind:20}{results:7}{len(compared) - len(wrong):7}{len(wrong):8}{len(a ^ b):13}")
        differ += [f"differs: {file} ({', '.join(names)})" for file, names in wrong.items()]
        differ += [f"in one only: {file}" for file in sorted(a ^ b)]
        total, left_out = total + results, left_out + len(a & b) - len(compared)
    print(f"not compared, as a clock makes them: {left_out} tables of figures")
    print("\n".join(differ or ["the same" if total else "nothing to compare"]))
    return bool(total and not differ)


if __name__ == "__main__":
    sys.exit(not compare(*map(Path, sys.argv[1:])))
