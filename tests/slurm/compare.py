"""Whether two folders of results are the same: `python compare.py ONE OTHER`; what differs is named, with status 1."""

import sys
from pathlib import Path

import pandas as pd
from safetensors.torch import load_file


def same(one: Path, other: Path) -> bool:
    if one.suffix == ".safetensors":
        a, b = load_file(one), load_file(other)
        return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)
    tables = [pd.read_csv(file) for file in (one, other)]
    a, b = (table[[name for name in table if not name.startswith("seconds")]] for table in tables)
    return a.equals(b)


def main() -> int:
    one, other = map(Path, sys.argv[1:])
    names = [
        sorted(
            file.relative_to(folder)
            for pattern in (
                "*/*/*/learners-*.safetensors",
                "*/*/*/*.csv",
                "figures/data/*_runs.csv",
                "figures/data/*_errors.csv",
            )
            for file in folder.glob(pattern)
        )
        for folder in (one, other)
    ]
    wrong = sorted(set(names[0]) ^ set(names[1]))
    wrong += [name for name in names[0] if name in names[1] and not same(one / name, other / name)]
    for name in wrong:
        print(f"differs: {name}")
    equal = len(names[0]) - len(wrong)
    print(f"{len(names[0])} files of weights, histories and tables: {equal} equal, {len(wrong)} differ")
    return bool(wrong or not names[0])


if __name__ == "__main__":
    sys.exit(main())
