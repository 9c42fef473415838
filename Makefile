# `make quickstart` shows what ConTrans does; `make test` proves it. Both set up the environment first.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin

.PHONY: setup quickstart serve test test-fast interop bench lint format clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	$(BIN)/python -m pip check
	touch $@

quickstart: setup
	$(BIN)/contrans run quickstart

serve: setup
	$(BIN)/contrans serve

test: setup
	$(BIN)/python -m pytest

test-fast: setup
	$(BIN)/python -m pytest -m "not real"

# Proofs by the tools that read what is exported; those two pin other versions, so they have an environment of their own.
interop: setup
	$(PYTHON) -m venv .venv-interop
	.venv-interop/bin/python -m pip install --quiet torch==2.13.0 'numpy<2' repeng==0.4.0 steering-vectors==0.12.2 accelerate
	$(BIN)/python -m pytest -m interop

bench: setup
	$(BIN)/python -m tests.benchmarks

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .venv-interop build *.egg-info .pytest_cache .ruff_cache .import_linter_cache
