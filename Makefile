# make demo | test | setup | lint | train-tiny | clean          VENV=folder of the environment (default .venv)
VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
# Small batches on few cores: threads that sleep while they wait.
export OMP_WAIT_POLICY ?= passive
export GOMP_SPINCOUNT ?= 0
# Clones may share an environment: the code is always this one's.
export PYTHONPATH := $(CURDIR)

.PHONY: setup demo test lint bench train-tiny evaluate-tiny clean

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
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m tests.typed

bench: setup
	$(BIN)/python -m experiments.speed
	$(BIN)/python -m experiments.metrics

# Everything of the embedded models from nothing, on a CPU, in hours; a stopped training goes on.
train-tiny: setup
	$(BIN)/python tiny/train.py tiny
	$(BIN)/python tiny/train.py tiny-v
	$(BIN)/python tiny/build_world.py
	$(BIN)/python -m experiments.train_probe
	$(BIN)/python -m experiments.make_realism

# Presets from the tuning split, then the figures of the model card and the README from the test split; some hours. EMBEDDED=tiny-v for the other model.
EMBEDDED ?= tiny
evaluate-tiny: setup
	$(BIN)/python detect_memorization.py calibrate stability --model_id $(EMBEDDED) --prompts tiny/prompts/$(EMBEDDED)_ordinary_tuning.csv -n 4 -b 4 \
		--out tiny/weights/$(EMBEDDED)/stability.json
	$(BIN)/python detect_memorization.py calibrate stability --model_id $(EMBEDDED) --prompts tiny/prompts/$(EMBEDDED)_ordinary_tuning.csv -n 4 -b 4 --guidance_scale 7.5 \
		--out tiny/weights/$(EMBEDDED)/stability_7.5.json
	mkdir -p build
	$(BIN)/python mitigation/nemo/localize_neurons.py statistics --model_id $(EMBEDDED) --scheduler keep --prompts tiny/prompts/$(EMBEDDED)_ordinary_tuning.csv \
		--out build/$(EMBEDDED)_statistics.safetensors
	$(BIN)/python mitigation/nemo/localize_neurons.py localize --model_id $(EMBEDDED) --scheduler keep --prompts tiny/prompts/$(EMBEDDED)_memorized_test.csv --blocks all \
		--statistics build/$(EMBEDDED)_statistics.safetensors --seeds 4 --threshold 0.15 --out tiny/weights/$(EMBEDDED)/neurons.json
	$(BIN)/python -m experiments.tune_presets --model_id $(EMBEDDED)
	$(BIN)/python -m experiments.evaluate_tiny --model_id $(EMBEDDED)
	$(BIN)/python -m experiments.initial_noise --model_id $(EMBEDDED)
	$(BIN)/python -m experiments.compare_methods --model_id $(EMBEDDED)
	$(BIN)/python -m experiments.compare_detectors --model_id $(EMBEDDED)

# What the others made, but for build/ (checkpoints of the training) and an environment elsewhere.
clean:
	rm -rf .venv demo *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
