"""Time to a certified exploitability: three algorithms, and the same loop with Stable-Baselines3's PPO and SAC; where
the time goes; smaller budgets; and several seeds at once in one process.

The three algorithms' clocks are those of the runs of `make figures` (figures/data/*_runs.csv, four seeds, two runs at a
time on 2 cores). All else is trained here, two at a time, one thread each, and its clock is the processor's: another
process on the machine costs it nothing. Default: one seed, 6 iterations (about 5
minutes). `--full`: three seeds, 12 iterations, and 4-rooms with smaller budgets, two seeds (about 30 minutes).
On a machine with a GPU, `--device cuda` adds its times. Needs the extra `rl` (the lock file has it).
"""

import argparse
import dataclasses
import itertools
import multiprocessing
import time
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from _table import report, row
from torch import nn

from mfglib import loop, runs, solve
from mfglib.catalogue import GAMES, iterations
from mfglib.exact import lq_equilibrium
from mfglib.policy import head, mlp
from mfglib.presets import Config, preset_config
from mfglib.seeds import generator, isolated

STEPS = ("best_response", "cloning", "population")
GOAL = {"lq": 0.02, "beach-bar": 0.05, "four-rooms": 0.1}  # of |value| in LQ, else of the first exploitability
LEARNERS = {"lq": (None, "sb3-ppo", "sb3-sac"), "beach-bar": (None, "ppo", "sb3-ppo", "sb3-sac")}
OURS = {"lq": "PPO, ours", "beach-bar": "looking ahead, ours"}  # None above: the preset's
BUDGETS = ("as it is", "half of the steps", "half of the steps, states and batch")
SEEDS_AT_ONCE = 4


def goal(game: str) -> float:
    return GOAL[game] * (abs(lq_equilibrium(GAMES[game]).value) if game == "lq" else 1.0)


def reached(history: pd.DataFrame, game: str) -> tuple[float, float, float]:
    """Of one run: seconds of training until the first certificate below the goal (inf if there is none), seconds of all
    of it, and the last exploitability, in the goal's unit."""
    clock = history[[f"seconds_{step}" for step in STEPS]].sum(axis=1).cumsum()
    e = history["exploitability"] / (1.0 if game == "lq" else history["exploitability"].iloc[0])
    below = clock[e <= goal(game)]
    unit = abs(lq_equilibrium(GAMES[game]).value) if game == "lq" else 1.0
    return (below.iloc[0] if len(below) else np.inf), clock.iloc[-1], e.dropna().iloc[-1] / unit


def rows_of(label: str, results: list[tuple[float, float, float]]) -> Iterator[dict]:
    times, total, last = (np.array(part) for part in zip(*results, strict=True))
    there = np.isfinite(times)
    if there.any():
        yield row(f"{label}: seconds to the goal, mean", times[there].mean(), "s")
        yield row(f"{label}: seconds to the goal, std over seeds", times[there].std(ddof=min(1, there.sum() - 1)), "s")
    yield row(f"{label}: share of {len(times)} seeds that reached it", 100 * there.mean(), "%")
    yield row(f"{label}: seconds in all, mean", total.mean(), "s")
    yield row(f"{label}: last exploitability, mean", 100 * last.mean(), "%")


def algorithms() -> Iterator[dict]:
    """The three algorithms, and where their time goes, from the runs of `make figures`."""
    for game in GOAL:
        table = pd.read_csv(runs.ROOT / f"figures/data/{game}_runs.csv")
        for (algorithm, averaging), rows in table.groupby(["algorithm", "averaging"], sort=False):
            label = f"{game}, {algorithm}" + (f", {averaging}" if game == "lq" else "")
            yield from rows_of(label, [reached(h, game) for _, h in rows.groupby("seed")])
            seconds = rows.filter(like="seconds_").sum()
            for step in (*STEPS, "judge"):
                yield row(f"{label}: share of time, {step}", 100 * seconds[f"seconds_{step}"] / seconds.sum(), "%")


def budget(config: Config, kind: str) -> Config:
    """4-rooms with less work in a best response."""
    response = config.best_response
    less = {"as it is": {}, "half of the steps": dict(first_steps=response.first_steps // 2, steps=response.steps // 2)}
    less["half of the steps, states and batch"] = less["half of the steps"] | dict(
        states=response.states // 2, batch=response.batch // 2
    )
    return dataclasses.replace(config, best_response=dataclasses.replace(response, **less[kind]))


def train(job: tuple[str, str | None, str, int, int, str]) -> tuple[float, float, float]:
    game, learner, kind, seed, K, device = job
    torch.set_num_threads(1)
    if device == "cpu":
        loop.time = SimpleNamespace(perf_counter=time.process_time)
    config = preset_config("lecture", GAMES[game])
    config = budget(config, kind) if game == "four-rooms" else config
    options = dict(iterations=K, seed=seed, preset="lecture", config=config, progress=False, device=device)
    if game == "beach-bar":
        options["config"] = dataclasses.replace(config, judge_every=1)
    result = reached(solve(GAMES[game], best_response=learner, **options).history, game)
    print(f"  done: {job}: {result[0]:.0f} s to the goal, {result[1]:.0f} s, last {100 * result[2]:.2g}%", flush=True)
    return result


def learners(full: bool, device: str) -> Iterator[dict]:
    seeds, K = range(3 if full else 1), 12 if full else 6
    jobs = [(g, learner, "", s, K, device) for g, names in LEARNERS.items() for s in seeds for learner in names]
    if full:
        K_rooms = iterations("four-rooms", "lecture")
        jobs += [("four-rooms", None, kind, s, K_rooms, device) for s in range(2) for kind in BUDGETS]
    with multiprocessing.get_context("spawn").Pool(1 if device == "cuda" else 2) as pool:
        results = dict(zip(jobs, pool.map(train, jobs, chunksize=1), strict=True))
    for game, learner, kind, _, _, _ in dict.fromkeys((*job[:3], 0, 0, 0) for job in jobs):
        same = [r for job, r in results.items() if job[:3] == (game, learner, kind)]
        name = f"best response {learner or OURS[game]}" if game in OURS else f"budget {kind}"
        yield from rows_of(f"{game}, {name}{', cuda' if device == 'cuda' else ''}", same)


def seeds_at_once(repeats: int = 7, steps: int = 30) -> Iterator[dict]:
    """The costliest inner loop, regression of W_t in 4-rooms, for some seeds: one after the other, and stacked."""
    sizes, batch, S = (46, 64, 64), 1024, SEEDS_AT_ONCE
    with isolated(0, "stacked"):
        nets = [nn.Sequential(*mlp(sizes[0], sizes[1:]), head(sizes[-1], 1)) for _ in range(S)]
    x = torch.randn(S, batch, sizes[0], generator=generator(0, "features"))
    y = x.square().mean(-1)
    stacked, _ = torch.func.stack_module_state(nets)
    stacked = {name: value.detach().requires_grad_() for name, value in stacked.items()}

    def one(weights: dict[str, torch.Tensor], features: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(nets[0], weights, features)

    def in_turn() -> None:
        for net, features, target in zip(nets, x, y, strict=True):
            optimizer = torch.optim.Adam(net.parameters(), fused=True)
            for _ in range(steps):
                optimizer.zero_grad()
                (net(features).squeeze(-1) - target).square().mean().backward()
                optimizer.step()

    def together() -> None:
        optimizer = torch.optim.Adam(stacked.values(), fused=True)
        for _ in range(steps):
            optimizer.zero_grad()
            (torch.func.vmap(one)(stacked, x).squeeze(-1) - y).square().mean(1).sum().backward()
            optimizer.step()

    for threads in (1, 2):
        torch.set_num_threads(threads)
        ratios = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            in_turn()
            middle = time.perf_counter()
            together()
            ratios.append((middle - start) / (time.perf_counter() - middle))
        median = float(np.median(ratios[1:]))
        yield row(f"{S} seeds: one after the other / stacked in one process, {threads} thread(s)", median, "x")
    torch.set_num_threads(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="three seeds, 12 iterations, smaller budgets in 4-rooms")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the learners are trained")
    parser.add_argument("--json", help="write the table's rows to this file")
    arguments = parser.parse_args()
    table = [
        row(f"{game}: goal, of {'|value|' if game == 'lq' else 'the first'}", 100 * g, "%") for game, g in GOAL.items()
    ]
    parts = algorithms(), seeds_at_once(), learners(arguments.full, arguments.device)
    report(table + list(itertools.chain(*parts)), arguments.json)


if __name__ == "__main__":
    main()
