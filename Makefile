# make demo | test | setup | lint | train-tiny | clean          VENV=folder of the environment (default .venv)
VENV ?= .venv
PYTHON ?= python3.11
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
# Small batches on few cores: threads that sleep while they wait, and memory that is kept.
export OMP_WAIT_POLICY ?= passive
export GOMP_SPINCOUNT ?= 0

.PHONY: setup demo test lint train-tiny clean

setup: $(STAMP)

$(STAMP): requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

demo: setup
	$(BIN)/python examples/demo.py

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy

# Everything of the embedded models from nothing, on a CPU, in hours; a stopped training goes on.
train-tiny: setup
	$(BIN)/python tiny/train.py tiny
	$(BIN)/python tiny/train.py tiny-v
	$(BIN)/python tiny/build_world.py
	$(BIN)/python benchmarks/train_probe.py

clean:
	rm -rf $(VENV) demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
