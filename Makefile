# Everything a checkout needs. `make train` and `make test` set themselves up the first time.
#
#   VENV=folder      where the virtual environment lives (default .venv)
#   PYTHON=python    the interpreter to make it from (default: the first of 3.13, 3.12, 3.11, python3 that will do)
#   TASK, ARGS       what `make train` runs: workhorse train $(TASK) $(ARGS)
#   JOBS             test processes (default auto: one a core)
#   PYTEST_ARGS      more arguments for pytest

.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV ?= .venv
TASK ?= HalfCheetah-v5
ARGS ?=
JOBS ?= auto
PYTEST_ARGS ?=
PYTHON ?=

BIN := $(abspath $(VENV))/bin
READY := $(VENV)/.ready

.PHONY: help setup train test test-all mutants lint format types contract docs bench pins clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1\t/' | while IFS=$$'\t' read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done

setup: $(READY)  ## make the virtual environment and install the pinned dependencies

# Candidates are run, not only found: a version manager's shim may be on the PATH and yet start nothing.
$(READY): pyproject.toml constraints.txt
	@python="$(PYTHON)"; \
	if [ -z "$$python" ]; then \
	  for candidate in python3.13 python3.12 python3.11 python3; do \
	    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then python="$$candidate"; break; fi; \
	  done; \
	fi; \
	if [ -z "$$python" ] || ! "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	  echo "Workhorse needs Python 3.11 or newer, which $${python:-none of python3.13, python3.12, python3.11, python3} is$${python:+ not}: install it, or name it with 'make PYTHON=/path/to/python'." >&2; exit 2; \
	fi; \
	if ! "$$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then \
	  echo "$$python cannot make virtual environments (its 'venv' or 'ensurepip' module is missing): install it, on Debian and Ubuntu with 'apt-get install python3-venv', or name another interpreter with 'make PYTHON=/path/to/python'." >&2; exit 2; \
	fi; \
	echo "Setting up $(VENV) with $$("$$python" --version) (once; later calls start at once)"; \
	"$$python" -m venv --clear "$(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt hatchling editables
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-build-isolation --editable '.[cluster,dev,docs]'
	@touch $@

train: $(READY)  ## train a policy for TASK (HalfCheetah-v5)
	$(BIN)/workhorse train $(TASK) $(ARGS)

test: $(READY)  ## the tests, without those marked slow
	$(BIN)/python -m pytest -n $(JOBS) $(PYTEST_ARGS)

test-all: $(READY)  ## every test
	$(BIN)/python -m pytest -n $(JOBS) -m "slow or not slow" $(PYTEST_ARGS)

mutants: $(READY)  ## plant the bugs of tests/mutants one at a time: the tests must turn red
	$(BIN)/python tests/mutants/plant.py --write docs/mutants.md

lint: $(READY)  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff check --select F821 bench
	$(BIN)/ruff format --check .

format: $(READY)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(READY)  ## pyright
	$(BIN)/pyright --pythonpath $(BIN)/python

contract: $(READY)  ## the import layers
	$(BIN)/lint-imports

docs: $(READY)  ## the documentation, strictly, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(READY)  ## the benchmarks of docs/benchmarks.md
	$(BIN)/python -m bench

pins: ## resolve the newest stable versions anew into constraints.txt
	@folder="$$(mktemp -d)" && trap 'rm -rf "$$folder"' EXIT && \
	"$(or $(PYTHON),python3)" -m venv "$$folder" && \
	"$$folder/bin/python" -m pip install --quiet --upgrade --upgrade-strategy eager '.[cluster,dev,docs,wandb]' && \
	"$$folder/bin/python" -m pip freeze --exclude workhorse --exclude pip --exclude setuptools > constraints.txt && \
	wc -l constraints.txt

clean:  ## remove the virtual environment, caches and built documentation (never runs/)
	rm -rf $(VENV) site build dist .pytest_cache .ruff_cache .import_linter_cache
