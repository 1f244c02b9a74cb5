"""The tables of README.md and docs/results.md, from the files in figures/data: `python benchmarks/_readme.py`.

`--check` changes nothing and fails if they do not say what the files say.
"""

import argparse
import itertools
import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from deda_fp.batch import read_runs

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- results: written by `python benchmarks/_readme.py` from figures/data -->", "<!-- end of results -->"
ALGORITHMS = {"deda-fp": "DEDA-FP", "algo-2": "Algo 2", "algo-1": "Algo 1"}
GAMES = {"beach-bar": "Beach bar", "lq-bounded": "Bounded LQ", "four-rooms": "4-rooms", "market": "Market"}
PAPER = {"beach-bar": "beach_bar", "lq-bounded": "linear_quadratic", "four-rooms": "four_rooms"}
FILES = [*((game, game) for game in GAMES), ("four-rooms", "four-rooms_long")]  # game, summary of its runs
UNBOUNDED = {
    "lq": "the paper's constants",
    "lq-cohesion-0.2": "c_m/c_x = 0.2",
    "lq-cohesion-1": "c_m/c_x = 1",
    "lq-cohesion-2": "c_m/c_x = 2",
}
AVERAGES = {"uniform": "", "corrective": "corrective weights", "mirror": "mirror descent"}
# game, averaging; targets: last over first exploitability in %, seconds, over that of the better baseline in equal time
REACHED = [
    ("beach-bar", "uniform", 2.0, 90.0, 0.7),
    ("beach-bar", "corrective", 1.0, 60.0, 0.7),
    ("beach-bar", "mirror", 1.0, 60.0, 0.7),
    ("four-rooms", "uniform", 3.0, 360.0, 0.7),
    ("four-rooms", "mirror", 3.0, 200.0, 0.7),
    ("lq-bounded", "uniform", 0.3, 45.0, None),
    ("market", "uniform", 1.0, 90.0, None),
]
FROM_RUNS = re.compile(r"last / first, mean$|wall time of a run|after .* s of training|equal seconds")  # rows of these
HEAD = ["| measure | value | target | |", "|---|---|---|---|"]

# Why a target is missed, by a pattern of its measure.
REASONS = {
    r"lq, .*W1\(flow, equilibrium\)": "the policy: its mean action is off by the noise of PPO, and the equilibrium is "
    "only 0.058 wide; the flow is within 0.03 of the population that it is shown",
    r"beach-bar, deda-fp, corrective weights: last / first": "best responses react to every bump of the learned crowd: "
    "the last one leaves 0.05 in the crowd that it faced and 0.23 in the true one (seed 0, notebook 04)",
    r"beach-bar, deda-fp, corrective weights: exploitability after": "Algo 1 plays the mixture itself and meets "
    "simulated agents: no clone and no flow that jitter from fit to fit",
    r"four-rooms, deda-fp, mirror descent: exploitability after": "with kernels through a lattice (decision K5) Algo 2 "
    "is done in less time than DEDA-FP, which needs its last iterations to be better",
    r".*density of .* points: kernels": "kernels are summed through a lattice (decision K5), no longer pair by pair",
    r"beach-bar, deda-fp, mirror descent: last / first": "values and flow jitter from fit to fit, and the policy is "
    "the last one",
    r"beach-bar, deda-fp, mirror descent: exploitability after": "the crowd leaves the ends of the beach at once, and "
    "away from them a kernel knows its density as well as the flow",
    r"(beach-bar|four-rooms), deda-fp: exploitability after": "with uniform weights early best responses, which are as "
    "rough for all three, are most of what is left; and kernels through a lattice (decision K5) cost less than a flow",
    r"beach-bar, deda-fp: last / first": "early best responses stay in the uniform average; the number halves or "
    "doubles from one look to the next",
    r"four-rooms, deda-fp: last / first": "exact learners on this schedule need 20 to 30 iterations for 2.5%, and the "
    "learned best responses leave 1 to 2 unearned in the first fifteen, which stays in the average",
    r"lq.*wall time of a run": "the machine did other work in the first third of this benchmark; the same runs on a "
    "quiet one are in figures/data/lq_seconds.csv",
    r"four-rooms, 10 s": "at t = 0 simulation draws the known initial distribution itself",
    r"speed-up over Stable-Baselines3": "both do the same work on the same agents; ours saves overhead only",
}


def load(name: str) -> list[dict]:
    return json.loads((ROOT / "figures/data" / name).read_text(encoding="utf-8"))


def values(name: str) -> dict[str, float]:
    return {row["measure"]: row["value"] for row in load(name)}


# --- README


def front() -> str:
    """Three games x three algorithms beside the paper's, and what falls short."""
    reported = pd.read_csv(ROOT / "figures/data/paper_curves.csv", comment="#")
    lines = ["| game | " + " | ".join(ALGORITHMS.values()) + " |", "|---" * 4 + "|"]
    for game in PAPER:
        title, cells = GAMES[game], []
        for algorithm in ALGORITHMS:
            ratio = ratios(game, game, algorithm)
            theirs = reported.query("game == @PAPER[@game] and algorithm == @algorithm")["exploitability"]
            cells.append(f"{ratio.mean():.2g} ± {ratio.std():.1g} ({100 * theirs.iloc[-1] / theirs.iloc[0]:.2g})")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    uniform, mirror = (
        {game: ratios(game, game, "deda-fp", name).mean() for game in ("beach-bar", "four-rooms")}
        for name in ("uniform", "mirror")
    )
    lq, sb3 = values("lq_benchmark.json"), values("best_response_benchmark.json")
    flow = [v for m, v in lq.items() if re.match(r"lq, .*W1\(flow, equilibrium\)", m)]
    ours = next(v for m, v in sb3.items() if m.startswith("speed-up over Stable-Baselines3"))
    averaged = (
        f"By [mirror descent](notebooks/05_four_rooms.ipynb) instead of averages, DEDA-FP ends at "
        f"{mirror['four-rooms']:.2g}% in 4-rooms and at {mirror['beach-bar']:.2g}% on the beach."
    )
    short = [
        (uniform["four-rooms"], 3, "4-rooms ends at {:.2g}% (target 3)"),
        (uniform["beach-bar"], 2, "the beach bar at {:.2g}% (2)"),
        (mirror["four-rooms"], 3, "4-rooms by mirror descent at {:.2g}% (3)"),
        (mirror["beach-bar"], 1, "the beach bar by mirror descent at {:.2g}% (1)"),
        (max(flow), 0.1, "the flow of the unbounded game is up to {:.2f} standard deviations off (0.10)"),
        (-ours, -5, "our PPO is {:.2g} times as fast as Stable-Baselines3's (5)"),
    ]
    missed = [text.format(abs(value)) for value, target, text in short if value > target]
    even = {r["measure"].split(":")[0]: r["value"] for r in reached() if "s of training / that" in r["measure"]}
    rooms, beach = (even[f"{game}, deda-fp"] for game in ("four-rooms", "beach-bar"))
    if max(rooms, beach) > 0.7:
        times = f"{rooms:.2g} (4-rooms) and {beach:.2g} (beach bar) times"
        missed.append(f"at equal training time DEDA-FP has {times} the better baseline's exploitability (0.7)")
    return "\n".join([*lines, "", averaged, *([f"What falls short: {'; '.join(missed)}."] if missed else [])])


def ratios(game: str, file: str, algorithm: str, averaging: str = "uniform") -> pd.Series:
    """Last over first exploitability of each seed, in %."""
    table = read_runs(ROOT / f"figures/data/{file}_runs.csv")
    table = table.query("algorithm == @algorithm and averaging == @averaging")
    table = table.pivot(index="iteration", columns="seed", values="exploitability")
    return 100 * table.iloc[-1] / table.iloc[0]


# --- docs/results.md


def results() -> str:
    sections = [
        ("Where targets are missed", missed()),
        ("Bounded games", bounded()),
        ("The unbounded linear-quadratic game", unbounded()),
        ("How errors propagate", propagation()),
        ("Time of training", training()),
        ("Speed of sampling", sampling()),
        ("One best response of PPO", [*HEAD, *map(line, load("best_response_benchmark.json"))]),
    ]
    return "\n\n".join("\n".join([f"## {title}", "", *lines]) for title, lines in sections)


def rows_with_targets(name: str) -> list[dict]:
    """What runs reach is said by the runs themselves, all seeds of them, and not by the benchmark."""
    rows = [row for row in load(name) if row["target"]]
    if name != "bounded_benchmark.json":
        return rows
    game, file = FILES[-1]
    ratio, label = ratios(game, file, "deda-fp"), f"{game}, deda-fp, 100 iterations"
    longer = dict(measure=f"{label}: last / first, mean of {len(ratio)} seeds", value=ratio.mean(), unit="%")
    longer |= dict(target="<= 3", met=bool(ratio.mean() <= 3))
    return [row for row in rows if not FROM_RUNS.search(row["measure"])] + [longer, *reached()]


def reached() -> list[dict]:
    """What runs reach, and how fast, by the clock of the machine that made them."""
    rows = []
    for game, averaging, most, seconds_most, ratio_most in REACHED:
        table = read_runs(ROOT / f"figures/data/{game}_runs.csv").query("averaging == @averaging")
        table["clock"] = table.filter(regex="seconds_(best_response|cloning|population)").sum(axis=1)
        table["clock"] = table.groupby(["algorithm", "seed"])["clock"].cumsum()
        ours = ratios(game, game, "deda-fp", averaging)
        seconds = table.query("algorithm == 'deda-fp'").groupby("seed")["clock"].max()
        table["clock"] = table.groupby(["algorithm", "iteration"])["clock"].transform("mean")
        common, judged = table.groupby("algorithm")["clock"].max().min(), table.dropna(subset="exploitability")
        then = {}
        for name, part in judged.groupby("algorithm"):  # log-linear between certificates, as in notebooks 04 and 05
            mean = part.groupby("clock")["exploitability"].mean()
            then[name] = np.exp(np.interp(common, mean.index, np.log(mean)))
        others = min(value for name, value in then.items() if name != "deda-fp")
        found = [
            (f"last / first, mean of {len(ours)} seeds", ours.mean(), "%", most),
            ("wall time of a run on one core, mean", seconds.mean(), "s", seconds_most),
            (
                f"exploitability after {common:.0f} s of training / that of the better baseline",
                then["deda-fp"] / others,
                "",
                ratio_most,
            ),
        ]
        label = ", ".join(filter(None, (game, "deda-fp", AVERAGES[averaging])))
        rows += [
            dict(measure=f"{label}: {what}", value=value, unit=unit, target=f"<= {limit:g}", met=bool(value <= limit))
            for what, value, unit, limit in found
            if limit is not None
        ]
    return rows


def missed() -> list[str]:
    lines = ["| measure | value | target | why |", "|---|---|---|---|"]
    for name in ("bounded", "lq", "theory", "training", "inference", "best_response"):
        for row in rows_with_targets(f"{name}_benchmark.json"):
            if not row["met"]:
                why = next(text for pattern, text in REASONS.items() if re.match(pattern, row["measure"]))
                lines.append(line(row, why))
    return lines


def bounded() -> list[str]:
    lines = [
        "Certified on a grid; mean over the seeds, ± standard deviation. Minutes of training: one run on one core.",
        "",
        "| game | algorithm | seeds | iterations | first | last | last / first | minutes of training |",
        "|---" * 8 + "|",
    ]
    for game, file in FILES:
        table = read_runs(ROOT / f"figures/data/{file}_runs.csv")
        table["minutes"] = table.filter(regex="seconds_(best_response|cloning|population)").sum(axis=1) / 60
        pairs = itertools.product(AVERAGES, ALGORITHMS)
        for averaging, algorithm in pairs:
            rows = table.query("algorithm == @algorithm and averaging == @averaging")
            if rows.empty:
                continue
            first, last = (
                rows[rows["iteration"] == k].set_index("seed")["exploitability"] for k in (0, rows["iteration"].max())
            )
            ratio, minutes = ratios(game, file, algorithm, averaging), rows.groupby("seed")["minutes"].sum().mean()
            label = ", ".join(filter(None, (ALGORITHMS[algorithm], AVERAGES[averaging])))
            cells = [GAMES[game], label, len(last), rows["iteration"].max(), f"{first.mean():.3g}"]
            cells += [f"{last.mean():.2g} ± {last.std():.2g}", f"{ratio.mean():.2g} ± {ratio.std():.1g}%"]
            lines.append(f"| {' | '.join(map(str, [*cells, f'{minutes:.1f}']))} |")
    heads = re.compile(r"four-rooms, deda-fp.*: last (cloning loss|exploitability), mean")  # mixture and one Gaussian
    shown = [row for row in load("bounded_benchmark.json") if heads.match(row["measure"])]
    text = "Total variation (TV) is that at t = T on the grid's cells; one Gaussian: one seed."
    return [*lines, "", text, "", *HEAD, *map(line, [*rows_with_targets("bounded_benchmark.json"), *shown])]


def unbounded() -> list[str]:
    value = values("lq_benchmark.json")
    lines = [
        "Exploitability of the sampled average policy after 20 iterations, in % of the equilibrium's value, mean ± std",
        "over four seeds (worst seed); in square brackets, fictitious play with exact learners on the same schedule.",
        "",
        "| game | uniform (the paper's) | linear | constant step ½ |",
        "|---|---|---|---|",
    ]
    for game, title in UNBOUNDED.items():
        cells = []
        for averaging in ("uniform", "linear", "geometric"):
            label = f"{game}, {averaging}"
            mean, std, worst = (
                value[f"{label}: exploitability / |value|, {what}"] for what in ("mean", "std over seeds", "worst seed")
            )
            exact = value[f"{label}: exact fictitious play"]
            cells.append(f"{mean:.2f} ± {std:.2f} ({worst:.2f}) [{exact:.2g}]")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    kept = re.compile(r"lq, (geometric|.*equilibrium)(?!.*exploitability)")
    others = [row for row in load("lq_benchmark.json") if row["target"] and kept.match(row["measure"])]
    text = "W1 is the Wasserstein distance at the worst time and seed, in standard deviations of the equilibrium."
    return [*lines, "", text, "", *HEAD, *map(line, others)]


def propagation() -> list[str]:
    """Error terms, bounds and the laboratory (notebook 03)."""
    value = values("theory_benchmark.json")
    lines = [
        "Exploitability after the last iteration (mean of four seeds), each learner's share, and bounds over truth.",
        "",
        "| game | exploitability | best responses | flow | cloning | fictitious play itself "
        "| our bound, every term measured | our bound by constants | the printed bound |",
        "|---" * 9 + "|",
    ]
    for game in ("LQ", "beach bar"):
        parts = [f"part_{name}" for name in ("best_response", "flow", "cloning", "averaging")]
        cells = [f"{value[f'{game}: {name} at the last iteration']:.2g}" for name in ("e_true", *parts)]
        bounds = [f"{game}: {bound} bound / e_true, last iteration" for bound in ("measured", "constants", "printed")]
        cells += [f"{value[bound]:.2g} ×" for bound in bounds]
        lines.append(f"| {game} | {' | '.join(cells)} |")
    rows = [row for row in load("theory_benchmark.json") if row["target"] and not row["measure"].endswith(": seeds")]
    lines += ["", *HEAD, *map(line, rows), ""]
    lines += [
        "Exponents of the laboratory, in which each learner's error has a dial, ± half of their 95% intervals:",
        "",
        "| game | best response | clone | flow |",
        "|---|---|---|---|",
    ]
    titles = {
        "floor against the dial {dial}, random signs": "what stays, against the size of a constant error",
        "exploitability against k, {dial} falling like i^-0.25": "exploitability against k, errors ∝ i^(−1/4)",
    }
    for game, (label, title) in itertools.product(("LQ", "beach bar"), titles.items()):
        names = [f"laboratory, {game}: {label.format(dial=dial)}" for dial in ("br", "sl", "cnf")]
        cells = [f"{value[name]:.2f} ± {value[f'{name}, half of the 95% interval']:.2f}" for name in names]
        lines.append(f"| {game}: {title} | {' | '.join(cells)} |")
    return lines


def training() -> list[str]:
    """Time to a certified exploitability, and where it goes (`benchmarks/training.py`)."""
    rows = load("training_benchmark.json")
    value = {row["measure"]: row["value"] for row in rows}
    goals = [f"{m.split(':')[0]} {v:.3g}% {m.split(',')[1].strip()}" for m, v in value.items() if ": goal" in m]
    lines = [
        f"Seconds on one core until the certified exploitability is below a goal ({'; '.join(goals)}), and the shares",
        "of the learners and the judge in the time of a run.",
        "",
    ]
    steps = {"best_response": "best responses", "cloning": "cloning", "population": "population", "judge": "judge"}
    lines += ["| run | to the goal | seeds that reached it | in all | last | " + " | ".join(steps.values()) + " |"]
    lines += ["|---" * 9 + "|"]
    for label in dict.fromkeys(row["measure"].rpartition(": seconds in all")[0] for row in rows):
        if not label or re.search("best response|budget", label):  # older than the preset: decisions L3 and S7
            continue
        mean, std = (value.get(f"{label}: seconds to the goal, {what}") for what in ("mean", "std over seeds"))
        share = next(m for m in value if m.startswith(f"{label}: share of ") and m.endswith("seeds that reached it"))
        seeds = int(share.removeprefix(f"{label}: share of ").split()[0])
        there = round(value[share] * seeds / 100)
        cells = [label, "never" if mean is None else f"{mean:.0f}" + (f" ± {std:.0f}" if there > 1 else "")]
        cells += [f"{there} of {seeds}", f"{value[f'{label}: seconds in all, mean']:.0f}"]
        cells += [f"{value[f'{label}: last exploitability, mean']:.2g}%"]
        shares = [value.get(f"{label}: share of time, {step}") for step in steps]
        lines.append(f"| {' | '.join(cells + ['' if v is None else f'{v:.0f}%' for v in shares])} |")
    others = [row for row in rows if "at once" in row["measure"]]
    return [*lines, "", *HEAD, *map(line, others)]


def sampling() -> list[str]:
    text = "Medians on two cores; where a measure is a ratio of times, both were measured in turn in one run."
    rows = load("inference_benchmark.json")
    parts = "2 x 64 networks", "flow without a table", "drawing for", "one process", "tabulating"
    shown = [row for row in rows if row["target"] or any(part in row["measure"] for part in parts)]
    return [text, "", *HEAD, *map(line, shown)]


def line(row: dict, last: str | None = None) -> str:
    verdict = {True: "met", False: "**missed**", None: ""}[row["met"]] if last is None else last
    target = (row["target"] or "").replace("<=", "≤").replace(">=", "≥")
    measure = row["measure"].replace("|value|", "value")  # a bar would end the cell
    value = f"{row['value']:.3g} {row['unit']}".strip()
    return f"| {measure} | {value} | {target} | {verdict} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    for name, tables in {"docs/results.md": results(), "README.md": front()}.items():
        before = (ROOT / name).read_text(encoding="utf-8")
        head, rest = before.split(BEGIN)
        after = head + BEGIN + "\n" + tables + "\n" + END + rest.split(END)[1]
        if arguments.check and before != after:
            sys.exit(f"{name} does not say what figures/data says: run `python benchmarks/_readme.py`")
        if not arguments.check:
            (ROOT / name).write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
