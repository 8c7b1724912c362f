# make analyze   set up and run the main job       make test   set up, then ruff, mypy, pytest
VENV   ?= .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
ARGS   ?=

.PHONY: analyze test lint types unit agree adapter setup clean

analyze: $(VENV)/.ready
	$(BIN)/python analyze.py $(ARGS)

test: lint types unit

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready-dev
	$(BIN)/mypy

unit: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

# The engines against the naive loop, in numbers; times are not judged.
agree: $(VENV)/.ready-dev
	$(BIN)/python benchmarks/attribution.py --quick

# Make the adapter of the bundled pair again (7 minutes of training on 2 cores, and the follow rate before and after).
adapter: $(VENV)/.ready
	$(BIN)/python scripts/make_adapter.py $(ARGS)

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist outputs multirun
