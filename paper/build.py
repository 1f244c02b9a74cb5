"""Build the report: `python paper/build.py` compiles paper/report.typ into paper/report.pdf (`make report`).

Every number and figure in it comes from a file. A missing file, or a number missing in one, is an error that names the
mend. Only the fonts that come with Typst are used and no date is written: an unchanged report is an unchanged file.
"""

import argparse
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


def build(output: Path | None = None, root: Path = ROOT) -> Path:
    """Compile root/paper/report.typ into `output`, by default the PDF beside it; returns the file.

    Raises ReportError, and leaves `output` as it was, if a file or a number is missing.
    """
    source = root / "paper/report.typ"
    output = source.with_suffix(".pdf") if output is None else Path(output)
    if not source.is_file():
        raise ReportError("paper/report.typ is missing: " + mend("paper/report.typ"))
    missing = [file for file in inputs(source) if not (root / file).is_file()]
    if missing:
        raise ReportError("\n".join(f"{file} is missing: {mend(file)}" for file in missing))
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
