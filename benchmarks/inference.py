"""The population at scale: DEDA-FP's flow and its table against vectorised roll-outs and per-agent loops.

One trained 4-rooms game and one beach bar: seed 0 of each algorithm, the stored run, else
trained here, some minutes each. Four questions: the whole population at all t; the population at one t; the log-density
at n points of each t; one reward of n agents, whose density is their own. Everybody simulates and draws in batches of
20,000 agents. Medians, methods interleaved; the column `repeats` says of how many runs. A method stops at the n that
would take it longer than the limit. Memory is that of a process of its own for each method and n.

Policies: what was trained, which is a mixture density network, and untrained Gaussian ones, as the paper's, 2 x 64 and
2 x 256: of these only the time is used. Accuracy is that of what was trained. Loops over agents are measured on 20 of
them and scaled, as the column `scaled_from` says.

Default: some minutes on 2 cores. `--preset smoke`: half a minute. `--full`, about 20 minutes: methods may take three
times as long before they stop, medians are of more runs, and equal times are 3 s.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import pandas as pd
import torch
from _inference import (
    coarsened,
    count_in_processes,
    count_stream,
    density,
    distance,
    draw,
    equal_time,
    machine,
    peak_memory,
    play,
    sampling_noise,
    timings,
)
from _inference_game import AGENTS, FLOW, FULL, PRESETS, QUESTIONS, RANDN, SMALL, TABLE, WIDE, Calls, Trained
from _table import report, row
from torch import Tensor

from deda_fp.distances import cell_masses
from mfglib import runs
from mfglib.exact.dynamic_programming import grid_evaluate
from mfglib.learn.flow import FlowConfig, TimeFlow, fit_flow
from mfglib.populations import CellPopulation, Particles
from mfglib.seeds import generator, isolated
from mfglib.sources import ROOT

FEW, LOOPS_UP_TO = 20, 100_000  # agents of a loop that is timed; for how many this is scaled
MOST = {"density": 1_000_000}  # the points of all t have to fit in memory
COLUMNS = ["game", "query", "method", "policy", "n", "seconds", "repeats", "scaled_from", "memory_mb", "tv", "tv_floor"]


def sweep(one: Trained, query: str, question: Callable[[Trained, int], Calls]) -> list[dict]:
    """Time and memory of each method, for n as large as the limit admits."""
    rows, last, small, sizes = [], {}, question(one, 100), one.sizes
    for n in [n for n in sizes.agents if n <= MOST.get(query, n)]:
        expected = {key: seconds * n / m for key, (m, seconds) in last.items()}
        calls = {key: call for key, call in question(one, n).items() if expected.get(key, 0.0) <= sizes.limit}
        least = sizes.least if n <= AGENTS else 0
        for key, (seconds, repeats) in timings(calls, least=least, enough=sizes.enough).items():
            last[key] = n, seconds
            memory = peak_memory(calls[key], small[key])
            rows.append(one.row(query, key[0], n, seconds, key[1], repeats=repeats, memory_mb=memory))
    return rows


def loops(one: Trained) -> list[dict]:
    """One agent after the other, which is what the paper timed, as far as it is known."""
    calls = {key: partial(play, one.game, p, FEW, batch=1) for key, p in one.policies.items() if SMALL not in key}
    measured = timings(calls, least=one.sizes.least, enough=one.sizes.enough)
    return [
        one.row("all t", f"{method}, loop", n, s * n / FEW, policy, repeats=repeats, scaled_from=FEW)
        for (method, policy), (s, repeats) in measured.items()
        for n in one.sizes.agents
        if n <= LOOPS_UP_TO
    ]


def at_equal_time(one: Trained) -> list[dict]:
    """What is drawn in so many seconds, counted in the judge's cells, against the equilibrium."""
    own = {method: policy for (method, kind), policy in one.policies.items() if kind == one.trained}
    methods = {name: partial(draw, population, one.times) for name, population in one.drawn.items()}
    methods |= {name: partial(play, one.game, policy) for name, policy in own.items()}
    methods["DEDA-FP, policy simulated"] = partial(play, one.game, one.policy)
    methods |= {f"{name}, loop": partial(play, one.game, policy, batch=1) for name, policy in own.items()}
    first = {name: 1 if name.endswith("loop") else 1000 for name in methods}
    return [
        one.row("equal time", name, n, s, tv=tv, tv_floor=sampling_noise(one.coarse, n), repeats=1)
        for name, sample in methods.items()
        for s, n, tv in equal_time(sample, one.judge, one.coarse, one.sizes.budget, first[name])
    ]


def add_accuracy(one: Trained, rows: list[dict]) -> None:
    """To the rows of the density: how far it is from the equilibrium's, whatever n."""
    for name, population in one.densities.items():
        tv = distance(torch.stack([cell_masses(population, one.judge, t) for t in one.times]), one.coarse)
        for r in rows:
            if r["query"] == "density" and r["method"] == name:
                r["tv"] = tv


# --- sizes of flows and tables


def sizes(one: Trained) -> list[dict]:
    """Flows of several sizes, fitted to the same agents of the average policy, and tables of the one that was trained:
    seconds for 5,000 agents at all t, negative log-likelihood of other agents (nats), distances to the policy's own
    population and to the equilibrium; means over t >= 1."""
    game, domain, T, d = one.game, one.game.domain, one.game.horizon, one.game.state_dim
    shown, held = (play(game, one.policy, one.sizes.shown, seed) for seed in (1, 2))
    own = grid_evaluate(one.grid, one.policy).population.mass
    populations, fitting = {("flow", "as trained"): one.flow}, {}
    for bins, width in one.sizes.flows:
        config, start = FlowConfig(bins=bins, hidden=(width, width), batch=512), time.perf_counter()
        with isolated(0, "sizes", bins, width):
            flow = TimeFlow(T, d, config, domain)
        fit_flow(flow, shown, config, generator(0, "sizes"), steps=one.sizes.steps)
        key = "flow", f"{bins} bins, 2x{width}"
        populations[key], fitting[key] = flow.requires_grad_(False), time.perf_counter() - start
    for cells in one.sizes.tables[d - 1]:
        start, key = time.perf_counter(), ("table", f"{cells} cells a side")
        populations[key] = CellPopulation.tabulate(one.flow, domain, T, cells)
        fitting[key] = time.perf_counter() - start
    label = "Algo 2's kernels in the usual cells"  # not DEDA-FP's privilege: any density can be tabulated
    start = time.perf_counter()
    populations["table", label] = CellPopulation.tabulate(one.kept, domain, T)
    fitting["table", label] = time.perf_counter() - start
    calls = {key: partial(draw, population, one.times, AGENTS) for key, population in populations.items()}
    seconds, rows = timings(calls, least=one.sizes.least, enough=one.sizes.enough), []
    for (kind, size), population in populations.items():
        many = sum(p.numel() for p in population.parameters()) if kind == "flow" else population.mass.numel()
        nll = -torch.stack([population.log_prob(t, held[t]).mean() for t in one.times[1:]]).mean().item()
        mass = in_cells(one, population)
        s, repeats = seconds[kind, size]
        r = dict(game=one.name, kind=kind, size=size, numbers=many, fit_seconds=fitting.get((kind, size)), n=AGENTS)
        rows.append(
            r | dict(seconds=s, repeats=repeats, nll=nll, tv_own=distance(mass, own), tv=distance(mass, one.exact))
        )
    return rows


def in_cells(one: Trained, population: TimeFlow | CellPopulation) -> Tensor:
    """Its mass in the equilibrium's cells (T+1, cells); a table's is summed, exact if the lines of its cells include
    all of the equilibrium's."""
    if isinstance(population, CellPopulation):
        return coarsened(one.grid, population.grid.x.float(), population.mass)
    return torch.stack([cell_masses(population, one.grid, t) for t in one.times])


# --- the rows with targets


def targets(one: Trained, found: list[dict], compared: list[dict]) -> list[dict]:
    """What was asked of the table; and, in the same units, where the flow does not win."""
    own = [r for r in found if r["game"] == one.name]
    seconds = {(r["query"], r["method"], r["policy"]): r["seconds"] for r in own if r["n"] == AGENTS}
    every, last, flow = seconds["all t", TABLE, ""], seconds["one t", TABLE, ""], seconds["all t", FLOW, ""]
    wide, small = (min(seconds["all t", m, p] for m in ("Algo 1", "Algo 2")) for p in (WIDE, SMALL))
    loop = min(seconds["all t", f"{m}, loop", WIDE] for m in ("Algo 1", "Algo 2"))
    label = f"{one.name}, all t, {AGENTS} agents"
    rows = [row(f"{one.name}: tabulating the flow, once", one.seconds_table, "s")]
    rows += [row(f"{label}: {m}{p and f', {p}'}", s, "s") for (q, m, p), s in seconds.items() if q == "all t"]
    rows += [
        row(f"{label}: simulation by 2 x 256 networks / table of the flow", wide / every, "x", ">= 10"),
        row(f"{one.name}, one t: that simulation, which runs through all times / table", wide / last, "x", ">= 50"),
        row(f"{label}: simulation one agent after the other / table", loop / every, "x", ">= 200"),
        row(f"{label}: simulation by 2 x 64 networks / table", small / every, "x"),
        row(f"{label}: simulation by 2 x 256 networks / flow without a table", wide / flow, "x"),
        row(f"{label}: simulation by 2 x 64 networks / flow without a table", small / flow, "x"),
    ]
    label = f"{one.name}, drawing for {one.sizes.budget:g} s: TV to the equilibrium"
    ends = {r["method"]: r["tv"] for r in own if r["query"] == "equal time"}  # the last row of each
    rows += [row(f"{label}, {name}", tv) for name, tv in ends.items()]
    tv = {(r["kind"], r["size"]): r["tv"] for r in compared if r["game"] == one.name}
    usual = tv["table", f"{one.table.grid.shape.max()} cells a side"]
    return [
        *rows,
        row(f"{one.name}: TV to the equilibrium, table / flow", usual / tv["flow", "as trained"], "x", "<= 1.02"),
    ]


def kernels(one: Trained) -> dict:
    """The density at n points of one t by kernels on n agents against the table's."""
    t, n = one.game.horizon, one.sizes.kernels
    x = torch.stack(draw(one.table, [t], n))
    calls = {"table": partial(one.table.log_prob, t, x[0]), "kernels": partial(density, Particles(x), x)}
    seconds = {name: s for name, (s, _) in timings(calls, least=one.sizes.least).items()}
    ratio = seconds["kernels"] / seconds["table"]
    label = f"{one.name}, density of {n:.0e} points"
    return row(f"{label}: kernels on as many agents / table of the flow", ratio, "x", ">= 100")


def large(one: Trained) -> list[dict]:
    """Very many agents at one t in one call; the counts of a stream, and the same by two processes."""
    table, t, n, d = one.table, one.game.horizon, one.sizes.counted, one.game.state_dim
    calls = {TABLE: partial(table.sample, t, n), RANDN: partial(torch.randn, n, d)}
    seconds = {name: s for name, (s, _) in timings(calls, least=one.sizes.least).items()}
    memory, label = peak_memory(calls[TABLE], partial(table.sample, t, 100)), f"{one.name}, {n:.0e} agents at one t"
    rows = [
        row(f"{label}: table, one call", seconds[TABLE], "s"),
        row(f"{label}: table / torch.randn of that size", seconds[TABLE] / seconds[RANDN], "x", "<= 20"),
        row(f"{label}: memory of that call", memory / 1000, "GB", "<= 1"),
    ]
    n *= 10  # more than would be wise to hold
    label = f"{one.name}, {n:.0e} agents at one t, counted"
    memory = peak_memory(partial(count_stream, table, t, n), partial(count_stream, table, t, 100))
    start = time.perf_counter()
    counts = count_stream(table, t, n)
    alone = time.perf_counter() - start
    split = count_in_processes(table, t, n, 2)
    elsewhere = (counts - split).abs().sum().item()
    off = 0.5 * float((counts / counts.sum() - table.mass[t]).abs().sum())
    return rows + [
        row(f"{label}: one process", alone, "s"),
        row(f"{label}: two processes, their start included", time.perf_counter() - start - alone, "s"),
        row(f"{label}: agents that two processes place elsewhere than one", elsewhere, "", "<= 0"),
        row(f"{label}: memory", memory / 1000, "GB"),
        row(f"{label}: TV of the counts to the table", off),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="lecture")
    parser.add_argument("--results", default="results", help="the folder of the runs")
    parser.add_argument("--full", action="store_true", help="more runs, larger n, longer equal times")
    parser.add_argument("--csv", help="write every measurement to this file")
    parser.add_argument("--sizes", help="write the comparison of sizes of flows and tables to this file")
    parser.add_argument("--json", help="write the table's rows to this file")
    arguments = parser.parse_args()
    if arguments.preset == "smoke":
        torch.set_num_threads(1)  # two threads on a busy machine wait for each other
    found, compared, table = [], [], []
    for name in ("four-rooms", "beach-bar"):
        one = Trained(name, arguments.preset, FULL if arguments.full else PRESETS[arguments.preset], arguments.results)
        rows = [r for query, question in QUESTIONS.items() for r in sweep(one, query, question)] + loops(one)
        rows += [r | {"query": "one t"} for r in rows if r["query"] == "all t" and r["policy"]]  # the same roll-outs
        add_accuracy(one, rows)
        found += rows + at_equal_time(one)
        compared += sizes(one)
        table += [*targets(one, found, compared), kernels(one), *large(one)]
    for file, rows, columns in ((arguments.csv, found, COLUMNS), (arguments.sizes, compared, None)):
        if file:
            frame = pd.DataFrame(rows, columns=columns).assign(machine=machine())
            runs.write(ROOT / file, frame.to_csv(index=False, float_format="%.5g"))
    report(table, arguments.json)


if __name__ == "__main__":
    main()
