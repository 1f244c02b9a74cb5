# The two jobs are `make figures` and `make test`; `make help` lists the rest. Each job first sees to it that .venv holds
# exactly what requirements.lock says, so there is nothing else to install.
PYTHON ?= python3
PRESET ?= lecture
TORCH  := 2.13.0
PLAYWRIGHT := 1.65.2
NBGRADER := 0.9.6
# What Jupyter Book 1 is made of; Jupyter Book itself asks for an older docutils than the lock's.
SITE := sphinx==9.0.4 myst-nb==1.4.0 sphinx-book-theme==1.4.0

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/made-from
# What .venv was made from: the lock, the Python, and the folder (a virtual environment cannot be moved).
MADE_FROM = $(PYTHON) -c 'import hashlib, os, sys; \
  print(hashlib.sha256(open("requirements.lock", "rb").read()).hexdigest(), sys.version.split()[0], sys.base_prefix, os.getcwd())'
SNAKEMAKE = $(BIN)/python -m snakemake --cores all

.PHONY: help setup figures figure take reproduce test test-faults browser-test exercises lab notebooks site report slides bench lock unlock clean
.DEFAULT_GOAL := help

help: ## list the targets
	@echo "usage: make TARGET [PRESET=smoke|lecture|paper] [PYTHON=python3.12]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile

setup: ## build .venv from requirements.lock if it is missing or stale (every target does)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: Python 3.11 or newer is needed, and '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)" >&2; \
	  echo "name a newer one: make $(or $(MAKECMDGOALS),setup) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: '$(PYTHON)' lacks the modules venv and ensurepip; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@wanted="$$($(MADE_FROM))"; \
	if [ "$$wanted" != "$$(cat $(STAMP) 2>/dev/null)" ]; then \
	  set -e; \
	  echo "setup: making $(VENV) from requirements.lock with $$($(PYTHON) --version) (some minutes the first time)"; \
	  $(PYTHON) -m venv --clear $(VENV); \
	  echo "setup: installing the locked packages"; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock; \
	  echo "setup: installing this project"; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .; \
	  echo "$$wanted" > $(STAMP); \
	  echo "setup: done"; \
	fi

figures: take ## the main job: run the notebooks on the stored runs, draw every figure (PRESET=lecture)
	$(SNAKEMAKE) --config preset=$(PRESET)

figure: take ## one figure: make figure NAME=rooms_panel
	@file=$$($(BIN)/python -m deda_fp.execute --figure "$(NAME)" --preset $(PRESET)) && \
	$(SNAKEMAKE) --config preset=$(PRESET) --force -- "$$file"

take: setup ## put the stored runs that belong to this code where `figures` looks for runs; it trains the others
	@if [ $(PRESET) = lecture ]; then $(BIN)/python -m deda_fp.taken || $(BIN)/python -m mfglib take; fi

reproduce: setup ## train all runs from nothing (over an hour), draw, compare with the stored ones (STORE=1 renews those)
	$(SNAKEMAKE) --config preset=lecture results=results/reproduce
	$(BIN)/python -m mfglib compare --results results/reproduce
	$(if $(STORE),$(BIN)/python -m mfglib keep --results results/reproduce)

test: setup ## ruff, then pytest over the tests and every notebook cell at the smoke preset
	$(BIN)/python -m ruff check .
	OMP_NUM_THREADS=1 MFGLIB_PRESET=smoke $(BIN)/python -m pytest -n auto --dist loadfile --nbval-lax tests notebooks

test-faults: setup ## kill trainings, notebooks and the pipeline at twenty random moments, and compare (five minutes)
	MFGLIB_ALL_KILLS=1 $(BIN)/python -m pytest tests/test_kills.py

browser-test: site slides ## every notebook in JupyterLab in Chromium, three run, their panels moved; site and slides
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock playwright==$(PLAYWRIGHT)
	$(BIN)/python tests/browser/run.py

exercises: setup ## make starters from solutions, try both with nbgrader, pack results/exercises.zip (two minutes)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock nbgrader==$(NBGRADER)
	$(BIN)/python -m deda_fp.exercises
	OMP_NUM_THREADS=1 MFGLIB_NBGRADER=1 $(BIN)/python -m pytest tests/test_exercises.py
	$(BIN)/python -m deda_fp.exercises --pack results/exercises.zip

lab: setup ## open JupyterLab on the notebooks (its token stays on: use the address that it prints)
	$(BIN)/python -m jupyter lab --LabApp.default_url=/lab/tree/notebooks/index.ipynb

notebooks: take ## execute the notebooks that are stale at the lecture preset and store their outputs
	$(SNAKEMAKE) --config preset=lecture
	$(BIN)/python -m deda_fp.execute --store

site: setup ## build the site from stored outputs: results/site/html/index.html (needs npm; under a minute)
	@[ "$(SITE)" = "$$(cat $(VENV)/site 2>/dev/null)" ] || { \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock $(SITE) && \
	  echo "$(SITE)" > $(VENV)/site; }
	$(BIN)/python docs/site/build.py

report: setup ## build the report in paper/ from the results files
	$(BIN)/python paper/build.py

slides: setup ## slides of notebooks 00, 02 and 03, from stored outputs, in results/slides/ (needs npm)
	$(BIN)/python -m deda_fp.slides

bench: setup ## run every benchmark: tables on the screen, rows in results/bench/
	@mkdir -p results/bench; failed=; \
	for script in benchmarks/[!_]*.py; do \
	  echo "== $$script"; \
	  $(BIN)/python $$script --json results/bench/$$(basename $$script .py).json || failed="$$failed $$script"; \
	done; \
	if [ -n "$$failed" ]; then echo "error: failed:$$failed" >&2; exit 1; fi

# torch is named, and first, so that pip settles on its build (the CPU's, where the index offers one) before it looks at
# anything that merely depends on torch. `sed` drops the build's label (+cpu): the lock holds on other machines too.
lock: ## renew requirements.lock: the newest versions that pyproject.toml admits
	rm -rf results/lock && mkdir -p results
	$(PYTHON) -m venv results/lock
	results/lock/bin/python -m pip install --quiet --upgrade setuptools torch==$(TORCH)
	results/lock/bin/python -m pip install --quiet torch==$(TORCH) -e ".[notebooks,rl,dev]"
	{ echo "# Every version that the tests ran with. Made by \`make lock\`; do not edit."; \
	  results/lock/bin/python -m pip freeze --all --exclude-editable --exclude pip | sed 's/+[a-z0-9.]*$$//'; \
	} > results/lock/requirements
	@! grep -E 'nvidia|@|://' results/lock/requirements || { echo "error: the lock must name no GPU build and no address;" \
	  "point pip to an index with the CPU build of torch, for instance through PIP_EXTRA_INDEX_URL" >&2; exit 1; }
	mv results/lock/requirements requirements.lock && rm -rf results/lock

unlock: setup ## after a power cut or kill -9 during `make figures`: let Snakemake run here again
	$(SNAKEMAKE) --unlock

clean: ## remove results/ (training runs, executed copies); figures/ and .venv stay
	rm -rf results .snakemake
