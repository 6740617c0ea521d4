# make demo: set up and run the demo.  make test: set up and run the quick tests.  make check: linters and types.
# make faults: the whole fault matrix.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
WORKERS ?= 2

.PHONY: help setup demo test test-slow faults check bench fuzz clean

help:
	@echo "make demo | test | test-slow | faults | check | bench | fuzz | clean"

.venv/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "facegraft needs Python 3.11 or newer on the PATH (or make PYTHON=/path/to/python3.11)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[model]'
	@touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

setup: .venv/installed

demo: .venv/installed
	$(BIN)/facegraft demo -o demo

test: .venv/installed-dev
	$(BIN)/python -m pytest -q -n $(WORKERS) -m "not slow and not faults" --durations=15

test-slow: .venv/installed-dev
	$(BIN)/python -m pytest -q -n $(WORKERS) -m "slow and not faults" --durations=15

faults: .venv/installed-dev
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadgroup tests/faults $(if $(TABLE),--faults-table $(TABLE))

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/installed-dev
	$(BIN)/python benchmarks/graft_quality.py
	$(BIN)/python benchmarks/region_quality.py
	$(BIN)/python benchmarks/sdf_accuracy.py
	$(BIN)/python benchmarks/distance_speed.py
	$(BIN)/python benchmarks/pipeline_speed.py

# Each reader for MINUTES; guided by coverage where atheris is installed (pip install atheris).
MINUTES ?= 10
fuzz: .venv/installed-dev
	for reader in obj ply scan.obj scan.ply scan.xyz scan.npy regions recipe manifest; do $(BIN)/python tests/faults/fuzz.py $$reader --minutes $(MINUTES) || exit 1; done

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
