"""The theorem's terms, its bound and ours, and the error laboratory: what notebook 03 must reach.

Default: the error terms that `make figures` has stored (figures/data/*_errors.csv), the laboratory, and notebook 03
executed at the `smoke` and `lecture` presets (about 4 minutes on 2 cores). `--full` also trains one run of the game
with the strongest attraction, and takes its average apart (2 minutes more).
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _table import report, row

from deda_fp.catalogue import GAMES
from deda_fp.theory.bounds import beach_constants, bounds, check, lq_constants, point_flows, random_policies
from deda_fp.theory.errors import PARTS as NAMES
from deda_fp.theory.errors import errors
from deda_fp.theory.laboratory import Dials, decay_exponent, error_floors, experiment, log_log_slope
from deda_fp.view.error_panel import ITERATIONS, SIZES, error_laboratory
from mfglib import replay, solve
from mfglib.exact import lq_fictitious_play
from mfglib.games import BeachBar, LinearQuadratic
from mfglib.judge import of as judge_of
from mfglib.sources import ROOT

PARTS = [f"part_{name}" for name in NAMES]
KAPPA = {"responses": 0.3, "clones": 1.2}
ATTRACTION = "lq-cohesion-2"


def of_runs(name: str, table: pd.DataFrame, game: object) -> list[dict]:
    """Truth, parts, bounds and constants of one game's stored runs."""
    judge = judge_of(game)
    lq = isinstance(game, LinearQuadratic)
    constants = lq_constants(judge.grid, **KAPPA) if lq else beach_constants(judge.grid)
    parts = [bounds(run, constants, None if lq else game.c_m) for _, run in table.groupby("seed")]
    later, all_bounds = table.query("iteration > 0"), pd.concat(parts)
    off = (later[PARTS].sum(axis=1) / later["e_true"] - 1).abs().max()
    rows = [
        row(f"{name}: seeds", table["seed"].nunique(), "", ">= 4"),
        row(f"{name}: iterations with e_true >= 0", 100 * (table["e_true"] >= 0).mean(), "%", ">= 100"),
        row(f"{name}: parts add up to e_true, largest deviation", 100 * off, "%", "<= 0.1"),
    ]
    for bound in ("constants", "measured") if lq else ("constants", "policies", "measured", "span"):
        held = 100 * (all_bounds[bound] >= all_bounds["e_true"]).mean()
        rows.append(row(f"{name}: proved bound ({bound}) >= e_true", held, "%", ">= 100"))
    held = 100 * (all_bounds["printed"] >= all_bounds["e_true"]).mean()
    rows.append(row(f"{name}: printed bound, with derived constants, >= e_true", held, "%"))
    last = all_bounds[all_bounds["iteration"] == all_bounds["iteration"].max()]
    for bound in ("measured", "constants", "policies", "printed"):
        if bound in last:
            ratio = (last[bound] / last["e_true"]).mean()
            rows.append(row(f"{name}: {bound} bound / e_true, last iteration", ratio, "x"))
    end = later[later["iteration"] == later["iteration"].max()].mean(numeric_only=True)
    rows += [row(f"{name}: {part} at the last iteration", end[part]) for part in ["e_true", *PARTS]]
    replies, clones = (random_policies(judge, 12, 0, kappa if lq else None) for kappa in KAPPA.values())
    seen = check(judge, constants, replies, point_flows(judge, 6, 0), clones)
    rows.append(row(f"{name}: largest share of a derived constant in random pairs", seen["share"].max(), "", "<= 1"))
    if lq:
        largest = table["contraction_reply"].max()
        rows.append(row(f"{name}: contraction of all best responses", largest, "", f"<= {KAPPA['responses']}"))
    return rows


def of_laboratory() -> list[dict]:
    """Exponents with half their 95% confidence intervals."""
    games = {"LQ": (LinearQuadratic(), 2000), "beach bar": (BeachBar(), 200)}
    sizes = {"LQ": dict(br=[0.01, 0.03, 0.1, 0.3], sl=[0.01, 0.03, 0.1, 0.3], cnf=[0.03, 0.1, 0.3, 1.0])}
    sizes["beach bar"] = dict(br=[0.03, 0.1, 0.3, 1.0], sl=[0.003, 0.01, 0.03, 0.1], cnf=[0.003, 0.01, 0.03, 0.1])
    falling = {"LQ": dict(br=0.3, sl=0.3, cnf=1.0), "beach bar": dict(br=3.0, sl=0.03, cnf=0.03)}
    rows = []
    for name, (game, many) in games.items():
        for dial, values in sizes[name].items():
            left = error_floors(game, many, dial, values, random=True, seeds=3)
            found = log_log_slope(left["size"].to_numpy(), left["floor"].clip(lower=1e-12).to_numpy())
            rows += _exponent(f"laboratory, {name}: floor against the dial {dial}, random signs", found)
            table = experiment(game, many, Dials(**{dial: falling[name][dial]}, decay=0.25))
            rows += _exponent(
                f"laboratory, {name}: exploitability against k, {dial} falling like i^-0.25", decay_exponent(table)
            )
    for name in ITERATIONS:
        panel, new, again = error_laboratory(br=0.03, sl=0.01, cnf=0.01), [], []
        panel.dials["game"].value = name
        for size in SIZES[:5]:
            for times in (new, again):  # the second time only draws
                start = time.process_time()
                panel.dials["sl"].value = size
                panel.redraw()
                times.append(time.process_time() - start)
                panel.dials["sl"].value = 0.3
        label = f"laboratory panel, {name}: seconds of CPU"
        rows.append(row(f"{label} for a new position, median of 5", np.median(new), "s", "<= 2"))
        rows.append(row(f"{label} for a known one, two pictures, median of 5", np.median(again), "s", "<= 0.2"))
    start = time.perf_counter()
    experiment(BeachBar(), 200, Dials(br=0.1))
    rows.append(row("laboratory, beach bar: seconds for 200 iterations", time.perf_counter() - start, "s", "<= 10"))
    return rows


def _exponent(label: str, found: tuple[float, float]) -> list[dict]:
    return [row(label, found[0]), row(f"{label}, half of the 95% interval", found[1])]


def of_notebook() -> list[dict]:
    rows = []
    for preset, most in (("smoke", 60), ("lecture", 180)):
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "notebook.ipynb"
            command = [sys.executable, "-m", "deda_fp.execute", "notebooks/03_error_propagation.ipynb", str(copy)]
            start = time.perf_counter()
            subprocess.run([*command, "-p", "preset", preset], cwd=ROOT, check=True)
            seconds = time.perf_counter() - start
        rows.append(row(f"notebook 03 at the {preset} preset, once its run exists", seconds, "s", f"<= {most}"))
    return rows


def of_attraction() -> list[dict]:
    """Why learned fictitious play is less exploitable than exact fictitious play where agents attract each other."""
    game, directory = GAMES[ATTRACTION], ROOT / "results/lecture" / ATTRACTION / "uniform/seed-0"
    solve(game, iterations=20, seed=0, preset="lecture", directory=directory, overwrite=True, progress=False)
    end = errors(judge_of(game), replay(game, directory), progress=False).iloc[-1]
    names = {
        "e_average": "mixture of the learned replies",
        "e_weighted": "their average weighted by state",
        "e_true": "clone of that",
    }
    exact = lq_fictitious_play(game, 20).exploitability[-1]
    return [row(f"{ATTRACTION}, seed 0, k = 20: exploitability, exact fictitious play", exact)] + [
        row(f"{ATTRACTION}, seed 0, k = 20: exploitability, {label}", end[column]) for column, label in names.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="also train a game of strong attraction, and take it apart")
    parser.add_argument("--json", help="write the table's rows to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, file, game in (("LQ", "lq", LinearQuadratic()), ("beach bar", "beach-bar", BeachBar())):
        rows += of_runs(name, pd.read_csv(ROOT / f"figures/data/{file}_errors.csv"), game)
    rows += of_laboratory() + of_notebook()
    if arguments.full:
        rows += of_attraction()
    report(rows, arguments.json)


if __name__ == "__main__":
    main()
