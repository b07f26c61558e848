# `make` lists the targets. VENV=folder: another environment. PYTHON=python3.12: what it is made with. PIP_ARGS="...": for every call of pip.
VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
BIN := $(VENV)/bin
NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
# The environment's Python once it is there.
ANY_PYTHON = $(shell $(BIN)/python $(NEW_ENOUGH) 2>/dev/null && echo $(BIN)/python || echo $(PYTHON))
SETUP = @$(ANY_PYTHON) -m memorization_suite setup --venv $(VENV)
# Small batches on few cores: threads that sleep while they wait.
export OMP_WAIT_POLICY ?= passive
export GOMP_SPINCOUNT ?= 0
# Clones may share an environment: the code is always this one's.
export PYTHONPATH := $(CURDIR)

.PHONY: help setup doctor demo test lint gpu-check documents bench train-tiny evaluate-tiny reproduce clean environment tools

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## the environment, in .venv
	$(SETUP) -- $(PIP_ARGS)

environment: # the same without a word when it is there
	$(SETUP) --quiet -- $(PIP_ARGS)

tools: ## what tests and linters need beside it
	$(SETUP) --quiet --dev -- $(PIP_ARGS)

doctor: ## what this machine has, what is missing, and what gets it
	@$(ANY_PYTHON) -m memorization_suite doctor

demo: environment ## the first page, in minutes on a CPU; FULL=1: all of it
	$(BIN)/python examples/demo.py $(if $(filter-out 0,$(FULL)),--full)

test: tools ## the tests
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: tools ## the layout, the linter, the types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m tests.typed

# PYTHON=... typed here is used as it is, without an environment. ARGS: flags, see --help.
CHECKING = $(if $(filter command line,$(origin PYTHON)),$(PYTHON),$(BIN)/python)
gpu-check: $(if $(filter command line,$(origin PYTHON)),,environment) ## whether all is right on this GPU, in minutes; PYTHON=python3: without .venv
	@$(CHECKING) $(NEW_ENOUGH) || { echo "gpu-check: $(CHECKING) is no Python 3.11 or newer"; exit 2; }
	@$(CHECKING) -m experiments.gpu_check $(ARGS)

documents: environment ## writes the generated parts of the documents anew
	$(BIN)/python -m experiments.documents

bench: environment ## speed of sampling and of metrics
	$(BIN)/python -m experiments.cost
	$(BIN)/python -m experiments.metrics

# Processes that share every batch: of a CPU's cores, or a GPU each.
PROCESSES ?= 2
TRAIN = $(BIN)/torchrun --standalone --nproc-per-node $(PROCESSES) tiny/train.py
train-tiny: environment ## the embedded models from nothing, in hours on a CPU; a stopped training resumes
	$(TRAIN) tiny
	$(TRAIN) tiny-v
	$(BIN)/python tiny/build_world.py
	$(BIN)/python -m experiments.make_realism

# NeMo's threshold of 0.15 lies below what the widest selection reaches (median 0.21; tiny-v 0.79), not at mean + 1 std of
# ordinary pairs (0.47; 0.54): nearly every search goes on to the widest selection, and refines that.
# Presets from the tuning split, then the figures of the model card and the README from the test split.
EMBEDDED ?= tiny
OF = --model_id $(EMBEDDED) --prompts tiny/prompts/$(EMBEDDED)
STABILITY = $(BIN)/python detect_memorization.py calibrate stability $(OF)_ordinary_tuning.csv -n 4 -b 4
NEURONS = $(BIN)/python mitigation/nemo/localize_neurons.py
STATISTICS = build/$(EMBEDDED)_statistics.safetensors
WEIGHTS = tiny/weights/$(EMBEDDED)

evaluate-tiny: environment ## the embedded models' presets and figures, in hours; EMBEDDED=tiny-v: of the other one
	$(BIN)/python -m experiments.tune_guidance --model_id $(EMBEDDED)
	$(STABILITY) --out $(WEIGHTS)/stability.json
	$(STABILITY) --guidance_scale 7.5 --out $(WEIGHTS)/stability_7.5.json
	mkdir -p build
	$(NEURONS) statistics $(OF)_ordinary_tuning.csv --scheduler keep --out $(STATISTICS)
	$(NEURONS) localize $(OF)_memorized_test.csv --scheduler keep --blocks all --statistics $(STATISTICS) \
		--seeds 4 --threshold 0.15 --out $(WEIGHTS)/neurons.json
	$(BIN)/python -m experiments.tune_presets --model_id $(EMBEDDED)
	$(BIN)/python -m experiments.evaluate_tiny --model_id $(EMBEDDED)
	$(BIN)/python -m experiments.late_guidance --model_id $(EMBEDDED)
	$(BIN)/python -m experiments.initial_noise --model_id $(EMBEDDED)
	$(BIN)/python -m experiments.compare_methods --model_id $(EMBEDDED)
	$(BIN)/python -m experiments.compare_detectors --model_id $(EMBEDDED)

reproduce: environment ## all figures, tables and verdicts of the embedded models, in many hours; QUICK=1: a subset, in minutes
	$(BIN)/python -m experiments.reproduce $(if $(filter-out 0,$(QUICK)),--quick) $(ARGS)

clean: ## removes what the others made, but build/ (checkpoints of a training)
	rm -rf .venv demo first_look.png *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
