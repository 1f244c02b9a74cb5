"""Whether `take` has nothing to do: the stored runs were placed by the code that is here. Needs no torch, to be quick.

python -m deda_fp.taken || python -m mfglib take
"""

import hashlib
import json
import sys
from pathlib import Path

from deda_fp.batch import RUNS, SEEDS, modules_of_run
from mfglib.sources import ROOT, fingerprint, libraries, sources

STAMP = "lecture/.taken"  # in the folder of the results


def stamp() -> str:
    """What placing runs follows from: the code of all runs, of the judge and the store, versions, and the store."""
    modules = {m for game, variants in RUNS.items() for variant in variants for m in modules_of_run(game, variant)}
    modules |= {"mfglib.certificates", "mfglib.solver", "deda_fp.store", "deda_fp.theory.errors"}
    files = sources(modules, ROOT)
    stored = sorted((ROOT / "runs").rglob("*"))
    digests = [
        (f.relative_to(ROOT).as_posix(), f.read_text(encoding="utf-8"))
        for f in stored
        if f.suffix in (".digest", ".json")
    ]
    scripts = [f.read_text(encoding="utf-8") for f in sorted((ROOT / "benchmarks").glob("*inference*.py"))]
    what = [fingerprint(modules, ROOT), libraries(files), digests, scripts]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def taken(results: Path) -> bool:
    """Whether the stamp is that of today, and every run is there."""
    file = results / STAMP
    runs = [(game, variant, seed) for game, names in RUNS.items() for variant in names for seed in SEEDS["lecture"]]
    histories = (results / f"lecture/{game}/{variant}/seed-{seed}/history.csv" for game, variant, seed in runs)
    return file.exists() and file.read_text(encoding="utf-8") == stamp() and all(map(Path.exists, histories))


if __name__ == "__main__":
    sys.exit(not taken(ROOT / "results"))
