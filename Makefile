# Everything a bare machine needs: Python 3.11 or newer, and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help quickstart setup test slow soak guards lint bench native clean

help:  ## what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(INSTALL) .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(INSTALL) '.[dev]'
	@touch $@

setup: $(VENV)/.dev  ## .venv with everything for development

quickstart: $(VENV)/.installed  ## train FastViT-T8 on the embedded digits, validate it, say what comes next
	@run=runs/quickstart-$$(date +%Y%m%d-%H%M%S) && \
	$(BIN)/vitcli train -c quickstart --run_dir $$run && \
	$(BIN)/vitcli validate --ckpt_path $$run && \
	echo "next: activate the environment (source $(BIN)/activate), then" && \
	echo "  vitcli recipes ls                                             the recipes that are shipped" && \
	echo "  vitcli train -c finetune --data_dir PHOTOS --ckpt_path FILE   your photographs, from given weights" && \
	echo "  vitcli validate --ckpt_path $$run --fold full"

# one worker more than cores, four at most: the tests of whole runs wait for half of their time
WORKERS := $(shell cores=$$(getconf _NPROCESSORS_ONLN); echo $$(( cores < 4 ? cores + 1 : 4 )))

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
IN_PARALLEL := -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: setup  ## the test suite
	$(PYTEST) -m "not slow and not soak and not gpu" $(IN_PARALLEL)

slow: setup  ## the tests of whole runs: killed, on several processes, exported, compiled; CI runs them, too
	$(PYTEST) -m "slow and not soak and not gpu" $(IN_PARALLEL)

soak: setup  ## the tests that take minutes each
	$(PYTEST) -m soak

guards: setup  ## remove each guard against a fault: its test must fail
	OMP_NUM_THREADS=1 $(BIN)/python tests/guards.py

lint: setup  ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

bench: setup  ## our training step compared with timm's
	$(BIN)/python benchmarks/train_step.py

native:  ## the programs that run an exported network without a framework, as far as this machine can build them
	@PYTHON=$(if $(wildcard $(BIN)/python),$(abspath $(BIN)/python),$(PYTHON)) sh deploy/build.sh build/native

clean:  ## remove what was made here, except runs/
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache
