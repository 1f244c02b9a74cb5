"""paper/build.py: the report builds from the committed results, and stops at anything missing, with the mend."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typst

from mfglib.games import LinearQuadratic
from paper import build as report

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "paper/report.typ"
BENCHMARK = "figures/data/lq_benchmark.json"
RUNS = "figures/data/lq_runs.csv"


@pytest.fixture
def tree(tmp_path):
    """The report with its inputs, and nothing else."""
    root = tmp_path / "tree"
    for file in ["paper/report.typ", "paper/build.py", *report.inputs(SOURCE)]:
        assert (ROOT / file).is_file(), f"{file} is missing: {report.mend(file)}"
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, root / file)
    return root


def test_builds_and_an_unchanged_report_is_an_unchanged_file(tree, tmp_path):
    first, second = (report.build(tmp_path / name, root=tree).read_bytes() for name in ("a.pdf", "b.pdf"))
    assert first.startswith(b"%PDF-") and len(first) > 50_000
    assert first == second
    assert str(tmp_path).encode() not in first


def test_reads_figures_and_data(tree):
    files = report.inputs(SOURCE)
    assert {RUNS, BENCHMARK, "figures/data/paper_curves.csv", "paper/references.bib"} <= set(files)
    assert sum(file.endswith(".svg") for file in files) >= 3


@pytest.mark.parametrize(
    ("file", "mend"),
    [
        (RUNS, "run `make figures`"),
        ("figures/lq_fictitious_play.svg", "run `make figures`"),
        (BENCHMARK, f"run the benchmark, `python benchmarks/lq.py --full --json {BENCHMARK}`"),
        ("paper/references.bib", "git checkout -- paper/references.bib"),
    ],
)
def test_a_missing_file_is_named_with_its_mend_and_leaves_the_old_report(tree, file, mend):
    (tree / file).unlink()
    old = tree / "paper/report.pdf"
    old.write_text("old", encoding="utf-8")
    run = subprocess.run([sys.executable, tree / "paper/build.py"], capture_output=True, encoding="utf-8", timeout=60)
    assert run.returncode != 0
    assert f"{file} is missing" in run.stderr and mend in run.stderr and "Traceback" not in run.stderr
    assert old.read_text(encoding="utf-8") == "old"


def test_a_missing_row_of_the_benchmark_fails(tree):
    rows = json.loads((tree / BENCHMARK).read_text(encoding="utf-8"))
    kept = [row for row in rows if not row["measure"].startswith("lq, linear: exact")]
    assert len(kept) == len(rows) - 1
    (tree / BENCHMARK).write_text(json.dumps(kept), encoding="utf-8")
    with pytest.raises(report.ReportError, match="no row 'lq, linear: exact fictitious play'; run the benchmark"):
        report.build(root=tree)


def test_a_missing_number_fails(tree):
    with (tree / RUNS).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    last = [row for row in rows if row["averaging"] == "uniform"][-1]
    last["exploitability"] = ""  # how pandas writes NaN
    with (tree / RUNS).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(report.ReportError, match="exploitability: expected a number, got ''; run `make figures`"):
        report.build(root=tree)
    assert not (tree / "paper/report.pdf").exists()


def test_a_table_that_is_not_of_the_stored_runs_fails(tree):
    shutil.copytree(ROOT / "runs/lq", tree / "runs/lq")
    assert report.stale(tree) == []
    history = next((tree / "runs/lq/uniform/seed-0").glob("history.csv"))
    lines = history.read_text(encoding="utf-8").splitlines()
    history.write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    with pytest.raises(report.ReportError, match="lq_runs.csv: lq, deda-fp, uniform, 0 is not of the stored"):
        report.build(root=tree)


def test_verdicts_follow_the_numbers(tree):
    """Worse runs of DEDA-FP in 4-rooms turn its verdicts; a sentence that cannot follow stops the build."""
    options = {"field": "value", "one": True, "root": tree, "ignore_system_fonts": True}
    source, table = tree / "paper/report.typ", tree / "figures/data/four-rooms_runs.csv"
    before = json.loads(typst.query(source, "<verdicts>", **options))
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    final = max(int(row["iteration"]) for row in rows)
    for row in rows:
        if row["algorithm"] == "deda-fp" and row["averaging"] == "uniform" and int(row["iteration"]) == final:
            row["exploitability"] = str(4 * float(row["exploitability"]))
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    after = json.loads(typst.query(source, "<verdicts>", **options))
    assert len(before) == len(after) >= 15
    assert after["exploitability: four-rooms"] == "weaker"
    assert after["better: four-rooms"] == "not reproduced" != before["better: four-rooms"]
    text = source.read_text(encoding="utf-8").replace("flow-ratio < 10 [", "flow-ratio < 1 [")
    source.write_text(text, encoding="utf-8")
    with pytest.raises(report.ReportError, match="by less than ten times': rewrite the sentence"):
        report.build(root=tree)


def test_notebook_and_benchmark_must_agree_on_what_is_exact(tree):
    rows = json.loads((tree / BENCHMARK).read_text(encoding="utf-8"))
    for row in rows:
        if row["measure"] == "lq-cohesion-2, uniform: exact fictitious play":
            row["value"] *= 1.1
    (tree / BENCHMARK).write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(report.ReportError, match="disagree on exact fictitious play"):
        report.build(root=tree)


def test_the_constants_in_the_text_are_those_of_the_code(tree):
    options = {"field": "value", "one": True, "root": tree, "ignore_system_fonts": True}
    stated = json.loads(typst.query(tree / "paper/report.typ", "<constants>", **options))
    game = LinearQuadratic()
    assert stated == {name: np.asarray(getattr(game, name)).item() for name in stated}
    assert not game.bounded and len(stated) == 11
