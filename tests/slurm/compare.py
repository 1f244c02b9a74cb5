"""Compare two folders of results: `python compare.py ONE OTHER`. Prints a table; the status is 1 where they differ.

Weights and tables must be equal to the bit. Wall seconds and memory are no results, and tables that follow from them
are left out.
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
MEASURED = ("seconds", "fit_seconds", "minutes", "memory_mb")  # columns; those of a run's parts begin with seconds_
SPEED = ["inference", "inference_accuracy", "inference_flows", "inference_memory", "inference_sizes", "inference_time"]


def files(folder: Path, pattern: str) -> set[Path]:
    found = {file.relative_to(folder) for file in folder.glob(pattern)}
    return {file for file in found if file.stem not in SPEED and not file.stem.endswith("_seconds")}


def same(one: Path, other: Path) -> bool:
    if one.suffix == ".safetensors":
        a, b = load_file(one), load_file(other)
        return a.keys() == b.keys() and all(a[name].dtype == b[name].dtype and a[name].equal(b[name]) for name in a)
    a, b = (pd.read_csv(file, dtype=str) for file in (one, other))  # as they are written
    a, b = (t[[c for c in t if c not in MEASURED and not c.startswith("seconds_")]] for t in (a, b))
    return a.equals(b)


def compare(one: Path, other: Path) -> bool:
    """Print what is equal and what is not; return whether all is, and that is anything at all."""
    total, differ = 0, []
    print(f"{'':20}{'files':>7}{'equal':>7}{'differ':>8}{'in one only':>13}")
    for kind, pattern in KINDS.items():
        a, b = files(one, pattern), files(other, pattern)
        wrong = sorted(file for file in a & b if not same(one / file, other / file))
        print(f"{kind:20}{len(a | b):7}{len(a & b) - len(wrong):7}{len(wrong):8}{len(a ^ b):13}")
        differ += [f"differs: {file}" for file in wrong] + [f"in one only: {file}" for file in sorted(a ^ b)]
        total += len(a | b)
    print("\n".join(differ or ["the same" if total else "nothing to compare"]))
    return bool(total and not differ)


if __name__ == "__main__":
    sys.exit(not compare(*map(Path, sys.argv[1:])))
