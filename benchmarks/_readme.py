"""The tables of README.md and docs/results.md, written from the rows in figures/data: `python benchmarks/_readme.py`.

`--check` changes nothing and fails if they do not say what the files say.
"""

import argparse
import itertools
import json
import re
import sys
from pathlib import Path

from deda_fp.batch import read_runs

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- results: written by `python benchmarks/_readme.py` from figures/data -->", "<!-- end of results -->"
FOUR_ROOMS = ("four-rooms", "four-rooms"), ("four-rooms", "four-rooms_long")  # game, summary of its runs
GAMES = {
    "lq": "the paper's constants",
    "lq-cohesion-0.2": "c_m/c_x = 0.2",
    "lq-cohesion-1": "c_m/c_x = 1",
    "lq-cohesion-2": "c_m/c_x = 2",
}


def load(name: str) -> list[dict]:
    return json.loads((ROOT / "figures/data" / name).read_text(encoding="utf-8"))


def results() -> str:
    value = {row["measure"]: row["value"] for row in load("lq_benchmark.json")}
    lines = [
        "Exploitability of the sampled average policy after 20 iterations, in % of |value|, mean ± std (worst seed);",
        "in brackets, exact fictitious play on the same schedule.",
        "",
        "| game | uniform (the paper's) | linear | constant step ½ |",
        "|---|---|---|---|",
    ]
    for game, title in GAMES.items():
        cells = []
        for averaging in ("uniform", "linear", "geometric"):
            label = f"{game}, {averaging}"
            mean, std = (value[f"{label}: exploitability / |value|, {what}"] for what in ("mean", "std over seeds"))
            worst, exact = (
                value[f"{label}: exploitability / |value|, worst seed"],
                value[f"{label}: exact fictitious play"],
            )
            cells.append(f"{mean:.2f} ± {std:.2f} ({worst:.2f}) [{exact:.2g}]")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    lines += ["", "| measure | value | target | |", "|---|---|---|---|"]
    for row in load("lq_benchmark.json"):
        in_table_above = "exploitability / |value|" in row["measure"] and row["met"]
        if row["target"] and not in_table_above and keep(row):
            lines.append(line(row))
    lines += bounded()
    lines += propagation()
    lines += training()
    lines += ["", "Sampling populations, two cores, medians:", ""]
    lines += ["| measure | value | target | |", "|---|---|---|---|"]
    lines += [line(row) for row in load("inference_benchmark.json") if row["target"] or shown(row)]
    lines += ["", "| best response | value | target | |", "|---|---|---|---|"]
    lines += [line(row) for row in load("best_response_benchmark.json")]
    return "\n".join(lines)


def front() -> str:
    """The one table of the README: how far each algorithm gets in the bounded games."""
    return "\n".join(itertools.takewhile(lambda row: not row.startswith("Against"), bounded())).strip()


def bounded() -> list[str]:
    """The three algorithms on the bounded games, from the histories of their runs."""
    lines = [
        "",
        "Bounded games: certified on a grid, mean over the seeds that were run (± std if several).",
        "",
    ]
    lines += [
        "| game | algorithm | seeds | iterations | first | last | last / first | minutes of training |",
        "|---" * 8 + "|",
    ]
    ratios = {}
    for game, file in (("beach-bar", "beach-bar"), ("lq-bounded", "lq-bounded"), *FOUR_ROOMS):
        table = read_runs(ROOT / f"figures/data/{file}_runs.csv")
        table["minutes"] = table.filter(regex="seconds_(best_response|cloning|population)").sum(axis=1) / 60
        for algorithm in [a for a in ("deda-fp", "algo-2", "algo-1") if a in set(table["algorithm"])]:
            rows = table[table["algorithm"] == algorithm]
            minutes = rows.groupby("seed")["minutes"].sum().mean()
            first, last = (
                rows[rows["iteration"] == k].set_index("seed")["exploitability"] for k in (0, rows["iteration"].max())
            )
            spread = f" ± {last.std():.2g}" if len(last) > 1 else ""
            cells = [game, algorithm, len(last), rows["iteration"].max(), f"{first.mean():.3g}"]
            cells += [f"{last.mean():.2g}{spread}", f"{100 * (last / first).mean():.2g}%", f"{minutes:.1f}"]
            lines.append(f"| {' | '.join(map(str, cells))} |")
        ours = table[table["algorithm"] == "deda-fp"].pivot(index="iteration", columns="seed", values="exploitability")
        longer = "" if game == file else f", {ours.index[-1]} iterations"
        ratios[f"{game}, deda-fp{longer}: last / first, mean"] = 100 * ours.iloc[-1] / ours.iloc[0]
    lines += [
        "",
        "Against the targets, four seeds (one Gaussian: one); total variation (TV) at t = T on the grid's cells:",
        "",
    ]
    lines += ["| measure | value | target | |", "|---|---|---|---|"]
    heads = re.compile(r"four-rooms, deda-fp.*: last (cloning loss|exploitability), mean")  # mixture and one Gaussian
    rows = [row for row in load("bounded_benchmark.json") if row["target"] or heads.match(row["measure"])]
    for row in rows:
        if (ratio := ratios.get(row["measure"])) is not None:  # of all seeds that were run
            n, mean = len(ratio), ratio.mean()
            row["measure"] += f" of {n} seed{'s' * (n > 1)}"
            row |= dict(value=mean, met=bool(mean <= float(row["target"].split()[1])))
    return lines + [line(row) for row in rows]


def propagation() -> list[str]:
    """Error terms, bounds and the laboratory (notebook 03)."""
    value = {row["measure"]: row["value"] for row in load("theory_benchmark.json")}
    lines = [
        "",
        "How errors propagate: exploitability after the last iteration (mean of four seeds), and bounds over truth.",
        "",
        "| game | exploitability | best responses | flow | cloning | fictitious play itself "
        "| our bound, every term measured | crowds by constants | printed |",
        "|---" * 9 + "|",
    ]
    for game in ("LQ", "beach bar"):
        parts = [f"part_{name}" for name in ("best_response", "flow", "cloning", "averaging")]
        cells = [f"{value[f'{game}: {name} at the last iteration']:.2g}" for name in ("e_true", *parts)]
        bounds = [f"{game}: {bound} bound / e_true, last iteration" for bound in ("measured", "constants", "printed")]
        cells += [f"{value[bound]:.2g} ×" for bound in bounds]
        lines.append(f"| {game} | {' | '.join(cells)} |")
    lines += ["", "| measure | value | target | |", "|---|---|---|---|"]
    for row in load("theory_benchmark.json"):
        if row["target"] and row["measure"].split(": ")[-1] != "seeds":
            lines.append(line(row))
    lines += [
        "",
        "| laboratory: exponent ± half of its 95% interval | best response | clone | flow |",
        "|---|---|---|---|",
    ]
    for game, what in itertools.product(("LQ", "beach bar"), ("floor", "fall")):
        cells = []
        for dial in ("br", "sl", "cnf"):
            label = f"floor against the dial {dial}, random signs"
            if what == "fall":
                label = f"exploitability against k, {dial} falling like i^-0.25"
            label = f"laboratory, {game}: {label}"
            cells.append(f"{value[label]:.2f} ± {value[f'{label}, half of the 95% interval']:.2f}")
        title = (
            "what is left, against a constant error"
            if what == "floor"
            else "exploitability against k, error ∝ i^(−1/4)"
        )
        lines.append(f"| {game}: {title} | {' | '.join(cells)} |")
    return lines


def training() -> list[str]:
    """Time to a certified exploitability, and where it goes (`benchmarks/training.py`)."""
    rows = load("training_benchmark.json")
    value = {row["measure"]: row["value"] for row in rows}
    goals = [f"{m.split(':')[0]} {v:.3g}% {m.split(',')[1]}" for m, v in value.items() if ": goal" in m]
    lines = [
        "",
        f"Training, one core a run: seconds until the certified exploitability is below a goal ({'; '.join(goals)}).",
        "",
    ]
    steps = ("best_response", "cloning", "population", "judge")
    lines += [
        "| run | seconds to the goal | seeds that reached it | seconds in all | last | " + " | ".join(steps) + " |"
    ]
    lines += ["|---" * 9 + "|"]
    for label in dict.fromkeys(row["measure"].rpartition(": seconds in all")[0] for row in rows):
        if not label:
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
    lines += ["", "| inside a best response, and several seeds at once | value | target | |", "|---|---|---|---|"]
    return lines + [line(row) for row in rows if "at once" in row["measure"] or "later best response" in row["measure"]]


def shown(row: dict) -> bool:
    """What the inference table shows beside its targets."""
    parts = "2x64 /", "flow without a table", "of drawing", "one process", "making the table"
    return any(part in row["measure"] for part in parts) and "loop" not in row["measure"]


def keep(row: dict) -> bool:
    """The paper's game with constant steps, every game's best schedule, and all that was missed."""
    return row["measure"].startswith("lq, geometric") or "best schedule" in row["measure"] or not row["met"]


def line(row: dict) -> str:
    verdict = {True: "met", False: "**missed**", None: ""}[row["met"]]
    target = (row["target"] or "").replace("<=", "≤").replace(">=", "≥")
    measure = row["measure"].replace("|value|", "abs(value)")  # a bar would end the cell
    return f"| {measure} | {row['value']:.3g} {row['unit']} | {target} | {verdict} |"


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
