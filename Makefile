# Tidemark. `make demo` shows it all, `make test` checks it; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
STAMP := $(VENV)/.runtime
DEV_STAMP := $(VENV)/.development
PEERS := build/bench/venv
PEERS_STAMP := $(PEERS)/.peers
PYTEST := $(BIN)/python -m pytest
IMAGE_TEST := tests/unit/docker/test_image_processes.py

.PHONY: help demo test up down setup setup-dev lint format lock contracts prove evaluate bench-landing bench-lake bench-files bench-gateway bench-windows bench-scoring clean

help:  ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: setup  ## Set up everything, run the whole way once, leave the stack running
	@$(BIN)/tidemark demo

test: setup-dev  ## All tests, on a server of their own
	@$(PYTEST) -n 2 --dist loadgroup -m "not prove" --ignore $(IMAGE_TEST) --cov --cov-report= --cov-fail-under=0 -q
	@$(PYTEST) $(IMAGE_TEST) --cov --cov-append --cov-report= --cov-fail-under=0 -q  # alone: its server was not always left in peace by the others
	@$(BIN)/coverage report | tail -n 40

up: setup  ## Start the stack
	@$(BIN)/tidemark up

down:  ## Stop the stack; no process stays
	@$(BIN)/tidemark down

setup: $(STAMP)  ## The virtual environment with the pinned packages

setup-dev: $(DEV_STAMP)  ## The same plus what tests and lint need

$(UV): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"Tidemark needs Python 3.11 or newer, {sys.executable} is {sys.version.split()[0]}: install one and run make PYTHON=/path/to/python3")'
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV) || { echo "Python cannot make a virtual environment: on Debian and Ubuntu install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' requirements.txt)"
	@touch $(UV)

$(STAMP): requirements.txt pyproject.toml $(UV)
	@start=$$SECONDS; $(UV) pip install --quiet --python $(BIN)/python -r requirements.txt && $(UV) pip install --quiet --python $(BIN)/python --no-deps --editable . \
		&& echo "packages: $$((SECONDS - start)) s"
	@touch $@

$(DEV_STAMP): requirements-dev.txt $(STAMP)
	@$(UV) pip install --quiet --python $(BIN)/python -r requirements-dev.txt
	@touch $@

lint: setup-dev  ## Style, types and SQL, checked and never changed
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/sqlfluff lint --processes 2 --disable-progress-bar dbt_project/models

format: setup-dev  ## Let ruff and sqlfluff mend what they can
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format . ; $(BIN)/sqlfluff fix --processes 2 --disable-progress-bar dbt_project/models

lock: $(UV)  ## Compile requirements*.txt from requirements*.in
	@$(UV) pip compile --quiet --no-emit-index-url requirements.in -o requirements.txt
	@$(UV) pip compile --quiet --no-emit-index-url requirements-dev.in -o requirements-dev.txt
	@$(UV) pip compile --quiet --no-emit-index-url tests/bench/peers/requirements.in -o tests/bench/peers/requirements.txt

contracts: setup  ## Write what is generated from the contracts
	@$(BIN)/tidemark contracts compile

prove: setup-dev  ## The long proofs
	@$(PYTEST) -m prove -q

evaluate: setup-dev  ## What the models are worth, into docs/evaluation.md; ARGS="--help" lists options
	@$(BIN)/python -m tests.evaluate $(ARGS)

bench-landing: setup-dev $(PEERS_STAMP)  ## Landing beside COPY and other loaders; ARGS="--help" lists options
	@$(BIN)/python -m tests.bench.landing $(ARGS)

bench-files: setup-dev  ## How fast the index of 100,000 files answers; ARGS="--help" lists options
	@$(BIN)/python -m tests.bench.files $(ARGS)

bench-windows: setup-dev  ## What a batch costs all levels of device windows; ARGS="--help" lists options
	@$(BIN)/python -m tests.bench.windows $(ARGS)

bench-lake: setup-dev  ## The lake beside what arrived; ARGS="--help" lists options
	@$(BIN)/python -m tests.bench.lake $(ARGS)

bench-gateway: setup-dev  ## What the gateway acknowledges beside the bare framework; ARGS="--help" lists options
	@$(BIN)/python -m tests.bench.gateway $(ARGS)

bench-scoring: setup-dev  ## How fast models score, in batches and row by row; ARGS="--help" lists options
	@$(BIN)/python -m tests.bench.scoring $(ARGS)

$(PEERS_STAMP): tests/bench/peers/requirements.txt | $(UV)
	@$(UV) venv --quiet --clear --python $(BIN)/python $(PEERS)
	@$(UV) pip install --quiet --python $(PEERS)/bin/python -r tests/bench/peers/requirements.txt
	@touch $@

clean:  ## Remove build output, not data
	@rm -rf build .coverage* .pytest_cache .mypy_cache .ruff_cache dbt_project/target dbt_project/logs
