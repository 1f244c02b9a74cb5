"""Build the report: `python paper/build.py` compiles paper/report.typ into paper/report.pdf (`make report`).

Every number and figure in it comes from a file. A missing file, a number missing in one, or a table of runs that is not
that of the stored runs, is an error that names the mend. Only the fonts that come with Typst are used and no date is
written: an unchanged report is an unchanged file.
"""

import argparse
import csv
import math
import re
import sys
from pathlib import Path

import typst

from mfglib.files import replacing

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = {
    "figures/data/bounded_benchmark.json": (
        "python benchmarks/bounded.py --full --json figures/data/bounded_benchmark.json"
    ),
    "figures/data/four-rooms_long_runs.csv": (
        "python benchmarks/bounded.py --games four-rooms --long 4, then python -m mfglib summary "
        "results/long/four-rooms/deda-fp/seed-*/history.csv --output figures/data/four-rooms_long_runs.csv"
    ),
    "figures/data/lq_benchmark.json": "python benchmarks/lq.py --full --json figures/data/lq_benchmark.json",
    "figures/data/theory_benchmark.json": (
        "python benchmarks/theory.py --full --json figures/data/theory_benchmark.json"
    ),
    "figures/data/best_response_benchmark.json": (
        "python benchmarks/best_response.py --full --json figures/data/best_response_benchmark.json"
    ),
}


class ReportError(Exception):
    """The report cannot be built; the message names what is missing and the mend."""


def mend(file: str) -> str:
    """How to make an input of the report, given from the project's root."""
    if file in BENCHMARKS:
        return f"run the benchmark, `{BENCHMARKS[file]}`"
    if file.startswith("figures/") and not file.startswith("figures/data/paper_"):
        return "run `make figures`"
    return f"it is kept in the repository: `git checkout -- {file}`"


def inputs(source: Path) -> list[str]:
    """The files that the report's source names, from the project's root: every string that starts with a slash."""
    text = re.sub(r"^\s*//.*$", "", source.read_text(encoding="utf-8"), flags=re.M)
    return sorted(set(re.findall(r'"/([^"\n]+\.\w+)"', text)))


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def stale(root: Path) -> list[str]:
    """Tables of runs, figures/data/GAME_runs.csv, whose last exploitabilities no history in root/runs/GAME ends with.

    Without a folder root/runs/GAME (a copy of the project without its store) there is nothing to compare with.
    """
    found = []
    for table in sorted((root / "figures/data").glob("*_runs.csv")):
        ends = {(row["game"], row["algorithm"], row["averaging"], row["seed"]): row for row in rows(table)}  # last rows
        for (game, *variant), row in ends.items():
            stored = [rows(file)[-1]["exploitability"] for file in (root / "runs" / game).glob("*/*/history.csv")]
            if "_long_" in table.name or not stored:  # runs that are carried on are not kept
                continue
            if not any(math.isclose(float(row["exploitability"]), float(value), rel_tol=1e-5) for value in stored):
                file = table.relative_to(root).as_posix()
                found.append(f"{file}: {', '.join([game, *variant])} is not of the stored runs: {mend(file)}")
    return found


def build(output: Path | None = None, root: Path = ROOT) -> Path:
    """Compile root/paper/report.typ into `output`, by default the PDF beside it; returns the file.

    Raises ReportError, and leaves `output` as it was, if a file or a number is missing or a table of runs is stale.
    """
    source = root / "paper/report.typ"
    output = source.with_suffix(".pdf") if output is None else Path(output)
    if not source.is_file():
        raise ReportError("paper/report.typ is missing: " + mend("paper/report.typ"))
    missing = [file for file in inputs(source) if not (root / file).is_file()]
    if missing:
        raise ReportError("\n".join(f"{file} is missing: {mend(file)}" for file in missing))
    if old := stale(root):
        raise ReportError("\n".join(old))
    try:
        pdf, warnings = typst.compile_with_warnings(source, root=root, format="pdf", ignore_system_fonts=True)
    except typst.TypstError as error:
        hints = "".join(f"\nhint: {hint}" for hint in error.hints)
        raise ReportError(f"paper/report.typ does not compile: {error.message}{hints}") from error
    if warnings:
        raise ReportError("paper/report.typ: " + "; ".join(warning.message for warning in warnings))
    with replacing(output) as part:
        part.write_bytes(pdf)
    return output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="the PDF (default: paper/report.pdf)")
    arguments = parser.parse_args()
    try:
        print(f"report: {build(arguments.output)}")
    except ReportError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
