# make analyze   set up and run the main job       make test    set up, then ruff, mypy, pytest
# make quick     ruff and the quick tests          make newest  the quick tests with the newest releases of all packages
# make soak      the tests that take many minutes
VENV   ?= .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
NEWEST := $(VENV)-newest
ARGS   ?=
ADAPTER = src/shiftlens/assets/bundled-adapter

.PHONY: analyze test lint types unit quick soak newest agree train adapter setup clean

analyze: $(VENV)/.ready
	$(BIN)/python analyze.py $(ARGS)

test: lint types unit

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready-dev
	$(BIN)/mypy

# With lines covered, also by the commands that tests start; ARGS leaves that out, as a part of the tests covers a part.
unit: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not soak" $(if $(ARGS),$(ARGS),--cov --cov-report=)
	$(if $(ARGS),,@echo "lines covered, in percent:" && $(BIN)/coverage report --format=total)

# What to run while working: style and the tests that take seconds.
quick: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "quick and not slow" $(ARGS)

soak: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -m soak $(ARGS)

# The quick tests with the newest releases that pyproject.toml allows, in an environment of their own. constraints.txt
# is not used; what differs from it is printed, so that a failure can be traced to a release.
newest:
	test -x $(NEWEST)/bin/python || $(PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check -U --upgrade-strategy eager -e '.[dev]'
	$(NEWEST)/bin/python -m pip freeze --exclude-editable | grep -vixFf constraints.txt || true
	$(NEWEST)/bin/python -m pytest -n 2 --dist loadfile -m "quick and not slow" $(ARGS)

# The engines against the naive loop, in numbers; times are not judged.
agree: $(VENV)/.ready-dev
	$(BIN)/python benchmarks/attribution.py --quick

# Tune the default model (conf/train.yaml) and watch the shift happen.
train: $(VENV)/.ready
	$(BIN)/python train.py $(ARGS)

# Make the adapter of the bundled pair again: what `make train` does, in a folder of its own, then copied over the shipped
# one. A run that was killed goes on where it stopped.
adapter: $(VENV)/.ready
	$(BIN)/python train.py hydra.run.dir=outputs/adapter ckpt_path=last seed=0 $(ARGS)
	cp $(addprefix outputs/adapter/tuned/,adapter_model.safetensors adapter_config.json record.json) $(ADAPTER)/

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt src/shiftlens/__init__.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) $(NEWEST) build dist outputs multirun
