"""Time to a certified exploitability: three algorithms, and the same loop with Stable-Baselines3's PPO and SAC; where
the time goes; larger budgets; and several seeds at once.

The three algorithms' clocks are those of the runs of `make figures` (figures/data/*_runs.csv, four seeds, two runs at a
time on 2 cores). All else is trained here, two at a time, one thread each, and its clock is the processor's: another
process on the machine costs it nothing. Default: one seed, 6 iterations (about 5
minutes). `--full`: three seeds, 12 iterations, and 4-rooms with larger budgets, two seeds (about 30 minutes).
On a machine with a GPU, `--device cuda` adds its times. Needs the extra `rl` (the lock file has it).
"""

import argparse
import itertools
import multiprocessing
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
from _table import report, row
from torch import nn

from deda_fp.batch import read_runs
from deda_fp.catalogue import GAMES, iterations
from mfglib import fictitious_play, solve
from mfglib.exact import lq_equilibrium
from mfglib.learn.networks import head, mlp
from mfglib.presets import sizes
from mfglib.recipes import recipe_of
from mfglib.seeds import Random, generator, isolated
from mfglib.sources import ROOT

STEPS = ("best_response", "cloning", "population")
GOAL = {"lq": 0.02, "beach-bar": 0.05, "four-rooms": 0.1}  # of |value| in LQ, else of the first exploitability
LEARNERS = {"lq": (None, "sb3-ppo", "sb3-sac"), "beach-bar": (None, "ppo", "sb3-ppo", "sb3-sac")}
OURS = {"lq": "PPO, ours", "beach-bar": "looking ahead, ours"}  # None above: the preset's
BUDGETS = ("twice the steps, states and batch", "twice the states and batch", "as it is")
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
        table = read_runs(ROOT / f"figures/data/{game}_runs.csv")
        for (algorithm, averaging), rows in table.groupby(["algorithm", "averaging"], sort=False):
            label = f"{game}, {algorithm}" + (f", {averaging}" if game == "lq" or averaging != "uniform" else "")
            yield from rows_of(label, [reached(h, game) for _, h in rows.groupby("seed")])
            seconds = rows.filter(like="seconds_").sum()
            for step in (*STEPS, "judge"):
                yield row(f"{label}: share of time, {step}", 100 * seconds[f"seconds_{step}"] / seconds.sum(), "%")


def budget(kind: str) -> dict[str, dict[str, Any]]:
    """4-rooms with more work in a best response."""
    response = sizes("lecture", GAMES["four-rooms"])["look-ahead"]
    names = ("first_steps", "steps", "states", "batch") if "steps" in kind else ("states", "batch")
    return {"look-ahead": {name: 2 * response[name] for name in names if kind != "as it is"}}


def train(job: tuple[str, str | None, str, int, int, str]) -> tuple[float, float, float]:
    game, learner, kind, seed, K, device = job
    torch.set_num_threads(1)
    if device == "cpu":
        fictitious_play.time = SimpleNamespace(perf_counter=time.process_time)
    changes = budget(kind) if game == "four-rooms" else {"certify": dict(every=1)} if game == "beach-bar" else {}
    options = dict(iterations=K, seed=seed, preset="lecture", sizes=changes, progress=False, device=device)
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


def inside() -> Iterator[dict]:
    """What a later best response in 4-rooms, the largest cost there, spends its time on: operations' own shares."""
    torch.set_num_threads(1)
    response, average, population = recipe_of(GAMES["four-rooms"], preset="lecture").build().values()
    for _ in itertools.islice(fictitious_play.fictitious_play(response, average, population), 2):
        pass
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        response.fit(population, 10, Random(0, 10))
    own = {event.key: event.self_cpu_time_total for event in profile.key_averages()}
    groups = {"matrix products": ("aten::addmm", "aten::mm"), "activations": ("aten::silu", "aten::silu_backward")}
    for name, keys in groups.items():
        share = sum(time for key, time in own.items() if key.rstrip("_") in keys) / sum(own.values())
        yield row(f"four-rooms, a later best response: {name}", 100 * share, "%")


SIZES, BATCH = (46, 64, 64), 1024  # of the costliest inner loop, regression of W_t in 4-rooms


def regressions(S: int) -> tuple[list[nn.Module], torch.Tensor, torch.Tensor]:
    """Networks, inputs and targets of S seeds."""
    with isolated(0, "stacked"):
        nets = [nn.Sequential(*mlp(SIZES[0], SIZES[1:]), head(SIZES[-1], 1)) for _ in range(S)]
    x = torch.randn(S, BATCH, SIZES[0], generator=generator(0, "features"))
    return nets, x, x.square().mean(-1)


def in_turn(nets: list[nn.Module], x: torch.Tensor, y: torch.Tensor, steps: int) -> None:
    for net, features, target in zip(nets, x, y, strict=True):
        optimizer = torch.optim.Adam(net.parameters(), fused=True)
        for _ in range(steps):
            optimizer.zero_grad()
            (net(features).squeeze(-1) - target).square().mean().backward()
            optimizer.step()


def rate(seconds: float) -> float:
    """Steps a second of one seed after the other, on one thread."""
    torch.set_num_threads(1)
    problem, done, start = regressions(1), 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        in_turn(*problem, 10)
        done += 10
    return done / (time.perf_counter() - start)


def seeds_at_once(repeats: int = 7, steps: int = 30) -> Iterator[dict]:
    """Some seeds one after the other, stacked in one process, and in two processes."""
    nets, x, y = regressions(SEEDS_AT_ONCE)
    stacked, _ = torch.func.stack_module_state(nets)
    stacked = {name: value.detach().requires_grad_() for name, value in stacked.items()}

    def one(weights: dict[str, torch.Tensor], features: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(nets[0], weights, features)

    def together() -> None:
        optimizer = torch.optim.Adam(stacked.values(), fused=True)
        for _ in range(steps):
            optimizer.zero_grad()
            (torch.func.vmap(one)(stacked, x).squeeze(-1) - y).square().mean(1).sum().backward()
            optimizer.step()

    times: dict[str, list[float]] = {"in turn, 1 thread": [], "stacked, 1 thread": [], "stacked, 2 threads": []}
    for _ in range(repeats + 1):
        for name, seconds in times.items():
            torch.set_num_threads(2 if "2 threads" in name else 1)
            start = time.perf_counter()
            in_turn(nets, x, y, steps) if "in turn" in name else together()
            seconds.append(time.perf_counter() - start)
    medians = {name: float(np.median(seconds[1:])) for name, seconds in times.items()}
    alone = medians.pop("in turn, 1 thread")
    for name, seconds in medians.items():
        yield row(f"{SEEDS_AT_ONCE} seeds at once: in turn on 1 thread / {name}", alone / seconds, "x")
    torch.set_num_threads(1)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(rate, [0.1, 0.1])  # imports
        both = sum(pool.map(rate, [5.0, 5.0], chunksize=1))
    yield row(
        f"{SEEDS_AT_ONCE} seeds at once: two processes, 1 thread each / in turn on 1 thread", both / rate(5.0), "x"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="three seeds, 12 iterations, larger budgets in 4-rooms")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the learners are trained")
    parser.add_argument("--json", help="write the table's rows to this file")
    arguments = parser.parse_args()
    table = [
        row(f"{game}: goal, of {'|value|' if game == 'lq' else 'the first'}", 100 * g, "%") for game, g in GOAL.items()
    ]
    parts = algorithms(), inside(), seeds_at_once(), learners(arguments.full, arguments.device)
    report(table + list(itertools.chain(*parts)), arguments.json)


if __name__ == "__main__":
    main()
