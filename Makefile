# Two commands on a fresh machine with Python 3.11 to 3.13, pip and make:  make demo  and  make test
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo demo-toxicity docs test coverage tests latest lowest harness pins clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# What is installed: these versions and no others, so that the two commands do tomorrow what they do today. `make pins`
# writes the file anew; `make latest` installs with none, `make lowest` with the lowest that pyproject.toml promises.
PINS := constraints.txt
UV := 0.13.9

# Installed before anything else, at one exact version, so that pip settles for a build that is already at hand (such
# as a CPU build from a local folder of wheels) instead of choosing the newest torch, which on Linux brings gigabytes of
# CUDA libraries that nothing here uses. Give your own, for example: make demo TORCH="torch --index-url URL", with the
# URL of PyTorch's CPU builds. Hence neither torch nor what only its builds for CUDA need is among the pins.
TORCH ?= torch==2.13.0
OF_TORCH := ^(torch|triton|nvidia-[a-z0-9-]*|cuda-[a-z0-9-]*)==

PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PINNED = $(PIP) $(if $(PINS),--constraint $(PINS))

# Reads the metadata of releases and downloads none of them.
RESOLVE := .venv-uv/bin/uv pip compile --quiet --no-config --annotation-style line \
	--extra test --extra language --extra lexical --extra toxblock --extra ray --extra docs

PYTEST := $(BIN)/python -m pytest -q -n 2 --dist loadgroup

# One thread per process: threads that wait for each other on a busy machine cost more than they bring.
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
export MKL_NUM_THREADS := 1

# Not a defect of ours: mkdocs-material says at every build which program follows it.
export NO_MKDOCS_2_WARNING := 1

help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

# Fewer items and less text than by default, so that it takes minutes.
LM_DEMO := smollm2 --bias pronouns --prompt-count 300 --text-tokens 768

# A sample that shows the planted bias and its repair in minutes; a real audit of toxicity takes thousands of prompts.
PLANTED := planted-smollm2 --axis gender_and_sex --scorer lexical --prompt-count 112 --new-tokens 12 --text-tokens 1024

demo: $(VENV)/.installed ## Audit and repair a network trained on Adult, then the pronouns of a language model as it is; results in ./fairmend-demo
	@rm -rf fairmend-demo/network fairmend-demo/language-model
	$(BIN)/fairmend fetch adult
	$(BIN)/fairmend tabular audit --preset adult-sex
	$(BIN)/fairmend tabular repair --preset adult-sex --out fairmend-demo/network
	$(BIN)/fairmend lm audit $(LM_DEMO)
	$(BIN)/fairmend lm repair $(LM_DEMO) --soft-steps 4 --soft-tokens 2048 --out fairmend-demo/language-model
	@$(BIN)/python examples/check_demo.py fairmend-demo/network fairmend-demo/language-model

demo-toxicity: $(VENV)/.installed ## Audit and repair a language model that was made to insult people; results in ./fairmend-demo
	@rm -rf fairmend-demo/heads.* fairmend-demo/toxicity
	$(BIN)/fairmend lm audit $(PLANTED)
	@mkdir -p fairmend-demo
	$(BIN)/fairmend lm score $(PLANTED) --out fairmend-demo/heads.csv
	$(BIN)/fairmend lm repair $(PLANTED) --scores fairmend-demo/heads.csv --front --finalists 6 --out fairmend-demo/toxicity
	@$(BIN)/python examples/check_demo.py fairmend-demo/toxicity

docs: $(VENV)/.tested ## Build the documentation site into ./site; every warning is an error
	$(BIN)/python -m mkdocs build --quiet

test: $(VENV)/.tested ## Lint, types, import rules, all tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST)

coverage: $(VENV)/.tested ## All tests with coverage of lines, which takes a third longer
	$(PYTEST) --cov --cov-report=term:skip-covered --cov-fail-under=90

# What `latest` and `lowest` run in the environment of their own, and which versions those are.
tests: $(VENV)/.tested
	$(BIN)/fairmend doctor
	$(PYTEST)

latest: ## All tests with the newest of everything but torch, in a virtual environment of its own
	rm -rf .venv-latest
	$(MAKE) VENV=.venv-latest PINS= tests

lowest: ## All tests with the lowest versions that pyproject.toml promises, in a virtual environment of its own
	rm -rf .venv-lowest
	$(MAKE) VENV=.venv-lowest PINS=.venv-lowest/lowest.txt tests

# Apart from the tests, because lm-eval brings 35 packages, and their newest do not go with the newest of ours.
harness: ## The tests against lm-evaluation-harness, in a virtual environment of its own
	$(MAKE) VENV=.venv-harness .venv-harness/.harness
	.venv-harness/bin/python -m pytest -q tests/language/choices/test_lm_eval.py

pins: .venv-uv/.$(UV) ## Pin the newest versions that fit together, for every Python and system, in constraints.txt
	echo '$(firstword $(TORCH))' | UV_CUSTOM_COMPILE_COMMAND='make pins' $(RESOLVE) \
	  --universal --python-version 3.11 --fork-strategy fewest pyproject.toml - > .venv-uv/pins.txt
	grep -vE '$(OF_TORCH)' .venv-uv/pins.txt > $(PINS)

clean: ## Remove the virtual environments, caches and the demo's result
	rm -rf $(VENV) .venv-harness .venv-latest .venv-lowest .venv-uv fairmend-demo site build dist .coverage .hypothesis \
	  .import_linter_cache .mypy_cache .pytest_cache .ruff_cache

# Done once, and again when pyproject.toml or the pins change.
$(VENV)/.torch:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else \
	  "fairmend needs Python 3.11, 3.12 or 3.13, but $(PYTHON) is %d.%d. Name another: make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing $(TORCH): about 200 MB without CUDA"
	$(PIP) $(TORCH)
	@touch $@

# hatchling comes first, among the pins too: without isolation, building fetches nothing that is not pinned.
$(VENV)/.installed: $(VENV)/.torch pyproject.toml $(PINS)
	@echo "Installing fairmend and what it needs"
	$(PINNED) hatchling
	$(PINNED) --no-build-isolation --editable '.[language,lexical]'
	@touch $@

$(VENV)/.tested: $(VENV)/.torch pyproject.toml $(PINS)
	@echo "Installing fairmend with everything that its tests need"
	$(PINNED) hatchling
	$(PINNED) --no-build-isolation --editable '.[test,docs,language,lexical,toxblock,ray]'
	@touch $@ $(VENV)/.installed

$(VENV)/.harness: $(VENV)/.tested
	@echo "Installing lm-evaluation-harness"
	$(PINNED) --no-build-isolation --editable '.[lm-eval]'
	@touch $@

# torch is what it is, and everything else the lowest that has a wheel for this Python.
$(VENV)/lowest.txt: $(VENV)/.torch .venv-uv/.$(UV) pyproject.toml
	$(BIN)/python -c 'from importlib.metadata import version; print("torch==" + version("torch").split("+")[0])' | \
	  $(RESOLVE) --resolution lowest-direct --only-binary :all: --python $(BIN)/python pyproject.toml - > $(VENV)/all.txt
	grep -vE '$(OF_TORCH)' $(VENV)/all.txt > $@

.venv-uv/.$(UV):
	$(PYTHON) -m venv .venv-uv
	.venv-uv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV)
	@touch $@
