"""Write the reference results: `python tests/reference/make.py [exact] [learned]`; tests/test_reference.py compares.

exact.json: float64 results, to be met to 1e-9 on any machine. learned.json: what the smoke preset learns, as mean and
standard deviation over SEEDS seeds; on another processor the same seed gives other numbers, so only means are compared.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from mfglib import exploitability, solve
from mfglib.exact import grid_equilibrium, grid_fictitious_play, lq_best_response, lq_equilibrium, lq_fictitious_play
from mfglib.games import BeachBar, FourRooms, LinearQuadratic
from mfglib.policies import NoisePolicy

FOLDER = Path(__file__).parent
SEEDS = 8
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
LEARNED = {
    "LQ, DEDA-FP": (LinearQuadratic(), "deda-fp"),
    "LQ, Algo. 2": (LinearQuadratic(), "algo-2"),
    "beach bar, DEDA-FP": (BeachBar(horizon=4), "deda-fp"),
    "beach bar, Algo. 1": (BeachBar(horizon=4), "algo-1"),
}


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


def learned(seeds: range) -> dict[str, list[float]]:
    """The last exploitability of runs at the smoke preset, one a seed."""
    options = dict(iterations=2, preset="smoke", progress=False)
    return {
        name: [float(solve(game, algorithm, seed=s, **options).history["exploitability"].iloc[-1]) for s in seeds]
        for name, (game, algorithm) in LEARNED.items()
    }


def main() -> None:
    wanted = sys.argv[1:] or ["exact", "learned"]
    if "exact" in wanted:
        (FOLDER / "exact.json").write_text(json.dumps(exact(), indent=1) + "\n", encoding="utf-8")
    if "learned" in wanted:
        found = learned(range(SEEDS))
        table = {name: {"mean": np.mean(v), "std": np.std(v, ddof=1), "seeds": len(v)} for name, v in found.items()}
        (FOLDER / "learned.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
