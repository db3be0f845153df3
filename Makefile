# Two commands do all set-up on a fresh machine with Python 3.11+ and make:  make demo  and  make test.
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
LINTED := $(VENV)/.lint-ready

# Tests wait for Kafka most of the time, so a whole run has more processes than cores, each with a Kafka of its own. On a
# busy machine one in thousands may run out of time: it is tried once more, and told at the end ("rerun").
AT_ONCE := -n 3 --dist worksteal --reruns 1 -rfER

.PHONY: help demo test test-confluent test-docker faults soak check coverage bench clean

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "quixframes needs Python 3.11 or newer: make PYTHON=python3.12"; exit 1; }
	@echo "Setting up $(VENV) (once; a minute or two) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

$(LINTED): $(READY)
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,lint]'
	@touch $@

demo: $(READY) ## Real weather through a real Kafka, cleaned, forecast, replayed and drawn (demo-output/)
	@$(BIN)/quixframes demo

test: $(READY) ## All tests but the long ones, on a real Kafka; or with ARGS="..." what pytest makes of that
	@$(BIN)/python -m pytest $(or $(ARGS),$(AT_ONCE))

test-docker: $(READY) ## The integration tests on testcontainers' Kafka; needs Docker
	@$(BIN)/python -m pytest --kafka docker tests/integration

test-confluent: $(READY) ## The tests of the adapters, and the integration tests over the other Kafka client
	@$(BIN)/python -m pytest --transport confluent tests/adapters tests/integration $(ARGS)

faults: $(READY) ## The long fault campaigns: clusters, models and networks that fail, 200,000 damaged messages
	@$(BIN)/python -m pytest -m faults -s --timeout 2400

soak: $(READY) ## An hour of 20,000 rows/s, 1,000 streams, and an instance restarted every minute
	@$(BIN)/python -m tests.faults.soak $(ARGS)

check: $(LINTED) ## Linters, types, and what is known to be unsafe
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/bandit --quiet --recursive --configfile pyproject.toml quixframes .ci
	@$(BIN)/python .ci/audit.py

coverage: $(READY) ## The tests, and how much of the package they run
	@rm -f .coverage .coverage.*
	@$(BIN)/python -m pytest $(AT_ONCE) --cov --cov-report=term $(ARGS)

bench: $(READY) ## Speed beside quixstreams 0.5.7, quixstreams 3 and bare kafka-python (some 25 minutes)
	@$(BIN)/python -m benchmarks.run

clean: ## Remove what the targets made here
	rm -rf $(VENV) .venv-bench demo-output .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.* build
