"""Training runs, then notebooks through papermill, which draw the figures. `make figures` calls this.

The runs' results, `results` by default, are a setting too: --config results=results/reproduce draws elsewhere.
On a cluster: snakemake --profile profiles/slurm --config preset=paper; see docs/howto/cluster.md.
A target is made again if a file that it depends on is newer, or if a notebook's cells or a command below changed.
"""

import csv
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, workflow.basedir)
from deda_fp.batch import INFERENCE, RUNS, SEEDS, STARTED_BY, THEORY, learned_by, modules_of_run
from deda_fp.batch import SWEEP_ITERATIONS, SWEEP_TABLE, SWEPT, sweep
from mfglib.presets import ALGORITHMS
from mfglib.sources import libraries, sources
from deda_fp.freshness import figure_files, read, sources_hash, used_sources

PRESET = config.get("preset", "lecture")
if PRESET not in ("smoke", "lecture", "paper"):
    raise WorkflowError(f"preset: expected smoke, lecture or paper, got {PRESET!r}")
PYTHON = sys.executable  # of the environment that Snakemake runs in
os.environ[STARTED_BY] = str(os.getpid())  # its jobs end with it, even if it is killed
ROOT_OF_RESULTS = config.get("results", "results")
RESULTS = f"{ROOT_OF_RESULTS}/{PRESET}"
FIGURES = "figures" if RESULTS == "results/lecture" else f"{RESULTS}/figures"  # the committed ones

NOTEBOOKS = sorted(Path("notebooks").glob("[0-9]*.ipynb"))
PAPER = "figures/data/paper_curves.csv"  # read off the paper's figures


def stored(name):
    """A table beside the runs: the stored one where it is this batch's own, as in a notebook opened alone."""
    mine, stored = Path(RESULTS, name), Path("runs", name)
    own = RESULTS == "results/lecture" and mine.exists() and mine.read_bytes() == stored.read_bytes()
    return (stored if own else mine).as_posix()


# What a notebook reads beside the code: parameter and file.
DATA = {
    "02_deda_fp_on_lq": {"runs_csv": f"{FIGURES}/data/lq_runs.csv"},
    "03_error_propagation": {
        "lq_csv": f"{FIGURES}/data/lq_errors.csv",
        "beach_csv": f"{FIGURES}/data/beach-bar_errors.csv",
        "runs_csv": f"{FIGURES}/data/lq_runs.csv",
    },
    "04_beach_bar": {"runs_csv": f"{FIGURES}/data/beach-bar_runs.csv", "sweep_csv": stored(SWEEP_TABLE)},
    "05_four_rooms": {"runs_csv": f"{FIGURES}/data/four-rooms_runs.csv"},
    "06_bounded_lq": {"runs_csv": f"{FIGURES}/data/lq-bounded_runs.csv"},
    "09_market": {"runs_csv": f"{FIGURES}/data/market_runs.csv"},
    "07_inference_at_scale": {
        "inference_csv": stored(INFERENCE[0]),
        "sizes_csv": stored(INFERENCE[1]),
    },
}

# What a job may use on a cluster, by preset and with room to spare: with its two Snakemakes it was seen to use 1.1 to
# 1.7 GB. The timing of samplers goes to ten million agents, which one process holds while another measures them.
MEMORY_MB = 4000
INFERENCE_MB = {"smoke": 4000, "lecture": 8000, "paper": 8000}[PRESET]
MINUTES = {"smoke": 15, "lecture": 60, "paper": 24 * 60}[PRESET]

ROOT = Path(workflow.basedir)


localrules:
    all,
    summary,
    errors_summary,
    sweep_table,


def relative(paths):
    return [path.relative_to(ROOT).as_posix() for path in paths]


def figures(notebook):
    """The files of the figures that its metadata declares (mfglib.figures)."""
    stems = read(notebook).metadata.get("mfglib", {}).get("figures", [])
    return [f"{FIGURES}/{file}" for stem in stems for file in figure_files(stem)]


def runs_of(notebook):
    """The histories of the runs that its metadata declares (mfglib.runs): it opens them, and trains none."""
    runs = read(notebook).metadata.get("mfglib", {}).get("runs", [])
    return [f"{RESULTS}/{run}/seed-0/history.csv" for run in runs]


def files_of(notebook):
    """Its own data, and the paper's where a cell names them."""
    named = any(PAPER in cell.source for cell in read(notebook).cells)
    return [*DATA.get(notebook.stem, {}).values(), *([PAPER] if named else [])]


def parameters(notebook):
    """Where it finds its data and, if it opens runs, those of this batch."""
    opens = {"results": ROOT_OF_RESULTS} if runs_of(notebook) else {}
    return opens | DATA.get(notebook.stem, {})


def histories(game):
    return expand(f"{RESULTS}/{game}/{{variant}}/seed-{{seed}}/history.csv", variant=RUNS[game], seed=SEEDS[PRESET])


def error_terms(game):
    return expand(f"{RESULTS}/{game}/{THEORY[game]}/seed-{{seed}}/errors.csv", seed=SEEDS[PRESET])


rule all:
    input:
        # the histories by name: otherwise a fresh clone, where only their summaries are committed, would not train
        [histories(game) for game in RUNS],
        expand(f"{FIGURES}/data/{{game}}_runs.csv", game=RUNS),
        [error_terms(game) for game in THEORY],
        expand(f"{FIGURES}/data/{{game}}_errors.csv", game=THEORY),
        [[f"{RESULTS}/notebooks/{path.name}", *figures(path)] for path in NOTEBOOKS],


# The code of the run's own game and learners, the constants of the game, and the code of the judge. Where nothing that
# the run follows from has changed, the command below opens what it has stored; where only the judge has, it measures
# that again.
def code_of(game, variant):
    modules = [*modules_of_run(game, variant), "mfglib.certificates"]
    return [*relative(sources(modules, ROOT)), "deda_fp/catalogue.py"]


def seconds(wildcards):
    """What the stored run took: the longest start first, and so no core is idle at the end."""
    history = ROOT / "runs" / wildcards.game / wildcards.variant / "seed-0/history.csv"
    if not history.exists():
        return 0
    with history.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return round(sum(float(v or 0) for row in rows for name, v in row.items() if name.startswith("seconds_")))


# One thread a run: the networks are small, and as many seeds as there are cores run side by side.
# Snakemake clears the output first, not the checkpoints beside it: a run that was killed resumes.
rule train:
    input:
        lambda wildcards: code_of(wildcards.game, wildcards.variant),
    output:
        f"{RESULTS}/{{game}}/{{variant}}/seed-{{seed}}/history.csv",
    threads: 1
    priority: seconds
    resources:
        mem_mb=MEMORY_MB,
        runtime=MINUTES,
    params:
        directory=lambda wildcards, output: str(Path(output[0]).parent),
        preset=PRESET,
        libraries=lambda wildcards: libraries(sources(modules_of_run(wildcards.game, wildcards.variant), ROOT)),
        kind=lambda wildcards: "--algorithm {} --averaging {}".format(*learned_by(wildcards.variant)),
    shell:
        "{PYTHON} -m mfglib train {wildcards.game} {params.kind} --seed {wildcards.seed}"
        " --preset {params.preset} --directory {params.directory} --overwrite"


rule summary:
    input:
        tables=lambda wildcards: histories(wildcards.game),
        code="deda_fp/__main__.py",
    output:
        table=f"{FIGURES}/data/{{game}}_runs.csv",
        seconds=f"{FIGURES}/data/{{game}}_seconds.csv",
    wildcard_constraints:
        game="|".join(RUNS),
    shell:
        "{PYTHON} -m mfglib summary {input.tables} --output {output.table}"


# What the theorem calls errors, measured from the learners that the run has kept.
rule errors:
    input:
        run=f"{RESULTS}/{{game}}/{{variant}}/seed-{{seed}}/history.csv",
        code=relative(sources(["deda_fp.theory.errors", "mfglib.judge"], ROOT)),
    output:
        f"{RESULTS}/{{game}}/{{variant}}/seed-{{seed}}/errors.csv",
    wildcard_constraints:
        game="|".join(THEORY),
        variant="|".join(THEORY.values()),
    threads: 1
    resources:
        mem_mb=MEMORY_MB,
        runtime=MINUTES,
    params:
        directory=lambda wildcards, output: str(Path(output[0]).parent),
    shell:
        "{PYTHON} -m mfglib errors {wildcards.game} --directory {params.directory}"


rule errors_summary:
    input:
        tables=lambda wildcards: error_terms(wildcards.game),
        code="deda_fp/__main__.py",
    output:
        f"{FIGURES}/data/{{game}}_errors.csv",
    wildcard_constraints:
        game="|".join(THEORY),
    shell:
        "{PYTHON} -m mfglib summary {input.tables} --output {output}"


# A learning rate of one learner, the rest as in the runs of the same game (paper, Fig. 15).
rule sweep:
    input:
        code_of(*SWEPT),
    output:
        f"{RESULTS}/sweep/{{learner}}/{{rate}}/seed-{{seed}}/history.csv",
    threads: 1
    resources:
        mem_mb=MEMORY_MB,
        runtime=MINUTES,
    params:
        directory=lambda wildcards, output: str(Path(output[0]).parent),
        game=SWEPT[0],
        iterations=SWEEP_ITERATIONS.get(PRESET, 10),
        preset=PRESET,
        sizes=lambda wildcards: json.dumps({wildcards.learner: {"learning_rate": float(wildcards.rate)}}),
    shell:
        "{PYTHON} -m mfglib train {params.game} --seed {wildcards.seed} --iterations {params.iterations}"
        " --preset {params.preset} --sizes {params.sizes:q} --directory {params.directory} --overwrite"


rule sweep_table:
    input:
        tables=[f"{RESULTS}/sweep/{learner}/{rate}/seed-{seed}/history.csv" for learner, rate, seed in sweep(PRESET)],
        code="deda_fp/__main__.py",
    output:
        f"{RESULTS}/{SWEEP_TABLE}",
    shell:
        "{PYTHON} -m mfglib sweep {input.tables} --output {output}"


# Times mean something on a quiet machine only: as many threads as it has, which --cores limits, so that nothing else
# runs beside it.
rule inference:
    input:
        runs=expand(
            f"{RESULTS}/{{game}}/{{variant}}/seed-0/history.csv", game=["four-rooms", "beach-bar"], variant=ALGORITHMS
        ),
        scripts=[path.as_posix() for path in sorted(Path("benchmarks").glob("*inference*.py"))],
        code=relative(sources(["mfglib.populations", "deda_fp.distances"], ROOT)),
    output:
        csv=f"{RESULTS}/{INFERENCE[0]}",
        flows=f"{RESULTS}/{INFERENCE[1]}",
    threads: os.cpu_count()  # a cluster's profile sets its own (set-threads)
    resources:
        mem_mb=INFERENCE_MB,
        runtime=MINUTES,
    params:
        preset=PRESET,
        results=ROOT_OF_RESULTS,
    shell:
        "{PYTHON} benchmarks/inference.py --preset {params.preset} --results {params.results} --csv {output.csv} --sizes {output.flows}"


# A rule for each notebook, as each has its own figures.
for path in NOTEBOOKS:

    rule:
        name:
            f"notebook_{path.stem}"
        input:
            code=relative(used_sources(read(path), ROOT)),
            execute=["deda_fp/execute.py", "deda_fp/freshness.py"],
            data=files_of(path),
            runs=runs_of(path),
            # its time does not count: storing its outputs must not run it again; its cells do, through `sources`
            notebook=ancient(str(path)),
        output:
            figures(path),
            notebook=f"{RESULTS}/notebooks/{path.name}",
        threads: 1
        resources:
            mem_mb=MEMORY_MB,
            runtime=MINUTES,
        params:
            sources=sources_hash(path),
            preset=PRESET,
            figures=FIGURES,
            data=" ".join(f"-p {name} {file}" for name, file in parameters(path).items()),
        shell:
            "{PYTHON} -m deda_fp.execute {input.notebook} {output.notebook}"
            " --figures {params.figures} -p preset {params.preset} {params.data}"
