"""Write the reference results: `python tests/reference/make.py [exact] [learned]`; tests/test_reference.py compares.

exact.json: float64 results, to be met to 1e-9 on any machine. learned.json: where short runs of the smoke preset end,
as means over SEEDS seeds, to be met within half the standard deviation over SPREAD seeds.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from mfglib import exploitability, solve
from mfglib.exact import grid_equilibrium, grid_fictitious_play, lq_best_response, lq_equilibrium, lq_fictitious_play
from mfglib.games import BeachBar, FourRooms, LinearQuadratic
from mfglib.policies import NoisePolicy

FOLDER = Path(__file__).parent
SEEDS, SPREAD = 4, 32
PLANE = LinearQuadratic(
    A=[[0.9, 0.1], [0.0, 1.0]],
    B=[[1.0], [0.5]],
    A_bar=0.1,
    c_x=[2.0, 1.0],
    c_m=[0.5, 1.0],
    c_a=0.3,
    x_target=[0.5, -0.5],
    horizon=6,
    initial_mean=[1.0, 0.0],
    initial_std=[0.3, 0.2],
    noise_std=0.1,
)
LEARNED = {  # game, algorithm, iterations: long enough that a learner that does nothing is found out
    "LQ, DEDA-FP": (LinearQuadratic(), "deda-fp", 3),
    "LQ, Algo. 2": (LinearQuadratic(), "algo-2", 3),
    "beach bar, DEDA-FP": (BeachBar(horizon=4), "deda-fp", 6),
    "beach bar, Algo. 1": (BeachBar(horizon=4), "algo-1", 6),
}
COLUMNS = ["exploitability", "best_response_gap", "policy_value", "flow_loss", "critic_loss", "cloning_loss"]


def exact() -> dict[str, list[float]]:
    """Results of the exact solvers, by name."""
    found: dict[str, list[float]] = {}
    for name, game in (("LQ", LinearQuadratic()), ("LQ in the plane", PLANE)):
        e = lq_equilibrium(game)
        found[f"{name}: value"] = [e.value]
        found |= {f"{name}: {part}": getattr(e, part).flatten().tolist() for part in ("K", "k", "mean", "cov")}
        still = np.tile(game.initial_mean, (game.horizon + 1, 1))
        found[f"{name}: best response to a crowd that stays"] = [lq_best_response(game, still).value]
        found[f"{name}: fictitious play"] = lq_fictitious_play(game, 5).exploitability.tolist()
    bar = grid_equilibrium(BeachBar(), 50, 0.02, progress=False)
    found["beach bar: value, exploitability, first"] = [bar.value, bar.exploitability, bar.first]
    found["beach bar: mean path"] = [bar.population.mean(t).item() for t in range(11)]
    for game, cells in ((BeachBar(), 50), (FourRooms(horizon=5), 40), (LinearQuadratic.paper(), 50)):
        still = NoisePolicy(torch.zeros(game.action_dim))
        e = exploitability(game, still, cells=cells, error=False)
        found[f"{type(game).__name__}: never acting"] = [e.value, e.best_response_value, e.policy_value]
    rooms = grid_fictitious_play(FourRooms(horizon=5), 3, cells=20)
    found["four rooms: fictitious play"] = rooms.history["exploitability"].tolist()
    return found


def learned(name: str, seeds: int, **options: Any) -> pd.DataFrame:
    """The last row of the history of a run of LEARNED for each of the seeds 0, 1, ...; options as for `solve`."""
    game, algorithm, K = LEARNED[name]
    options = dict(iterations=K, preset="smoke", progress=False) | options
    rows = [solve(game, algorithm, seed=seed, **options).history.iloc[-1] for seed in range(seeds)]
    return pd.DataFrame(rows).reindex(columns=COLUMNS).dropna(axis=1).astype(float)  # Algo. 1 and 2 have no flow


def main() -> None:
    wanted = sys.argv[1:] or ["exact", "learned"]
    if "exact" in wanted:
        (FOLDER / "exact.json").write_text(json.dumps(exact(), indent=1) + "\n", encoding="utf-8")
    if "learned" in wanted:
        found = {name: learned(name, SPREAD) for name in LEARNED}
        table = {name: {"mean": f[:SEEDS].mean().to_dict(), "std": f.std().to_dict()} for name, f in found.items()}
        (FOLDER / "learned.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
