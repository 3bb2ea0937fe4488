# `make help` lists what there is. Everything runs in a virtual environment of its own, .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DOCS_INSTALLED := $(VENV)/.docs-installed

# a target, of which there are 13
FUZZ_MINUTES ?= 10

# benchmarks: PyTorch, a peer, lives in an environment of its own; audio made for them is kept
TORCH := .venv-torch
TORCH_INSTALLED := $(TORCH)/.installed
PYTEST := $(BIN)/python -m pytest -n logical --dist worksteal

BENCH := $(BIN)/python tests/benchmark
SCRATCH := --scratch .bench

.PHONY: help install demo test test-all slow coverage torture fuzz lint format docs wheels vega bench clean
.DEFAULT_GOAL := help

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(INSTALLED): pyproject.toml packages/research/pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]' -e packages/research
	@touch $@

install: $(INSTALLED)  ## Install ser-batch, the model research and the test tools into .venv

demo: $(INSTALLED)  ## Run the main job end to end on a small made-up corpus, in demo/
	rm -rf demo
	$(BIN)/ser-batch run jobs/demo.toml
	@echo
	@echo "report:      $(CURDIR)/demo/model/report.html"
	@echo "predictions: $(CURDIR)/demo/preds.parquet"

test: $(INSTALLED)  ## Lint, check types, run the tests on all cores
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	@# beside the tests, which wait for processes now and then; told after them
	@$(BIN)/mypy > $(VENV)/mypy.txt 2>&1 & mypy=$$!; \
	$(PYTEST); tests=$$?; \
	wait $$mypy; types=$$?; \
	echo "$(BIN)/mypy"; cat $(VENV)/mypy.txt; \
	[ $$tests -eq 0 ] && [ $$types -eq 0 ]

test-all: test slow  ## The same and what takes minutes more

slow: $(INSTALLED)  ## The tests that `make test` leaves out, and those of networks as they are compiled otherwise
	$(PYTEST) -m slow
	XLA_FLAGS= JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(PYTEST) tests/test_network.py tests/test_checkpoints.py

coverage: $(INSTALLED)  ## Run all tests with coverage; fails below the floor in pyproject.toml
	$(PYTEST) --cov --cov-report=term

torture: $(INSTALLED)  ## Run the long tests: kills, faults; an hour
	$(BIN)/python -m pytest -m torture

lint: $(INSTALLED)  ## Ruff, mypy and codespell
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

fuzz: $(INSTALLED)  ## Names, labels, jobs, recordings and models that are broken on purpose, 2 hours
	SER_BATCH_FUZZ_MINUTES=$(FUZZ_MINUTES) $(BIN)/python -m pytest -s --timeout 0 tests/test_fuzz.py

format: $(INSTALLED)  ## Let ruff write the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(DOCS_INSTALLED): $(INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

docs: $(DOCS_INSTALLED)  ## Write docs/cli.md from the commands, build the site in site/
	$(BIN)/python tests/make_docs.py
	$(BIN)/mkdocs build --strict

wheels: $(INSTALLED)  ## Build wheel and sdist of ser-batch and of ser-batch-research, in dist/
	rm -rf dist
	$(BIN)/hatchling build -d dist
	cd packages/research && $(CURDIR)/$(BIN)/hatchling build -d $(CURDIR)/dist

vega: $(INSTALLED)  ## Bundle the JavaScript of the charts
	$(BIN)/python -c "import vl_convert; print(vl_convert.javascript_bundle(), end='')" > ser_batch/templates/vega.js

$(TORCH_INSTALLED): tests/benchmark/requirements-torch.txt constraints.txt
	$(PYTHON) -m venv $(TORCH)
	$(TORCH)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -r tests/benchmark/requirements-torch.txt
	@touch $@

bench: $(INSTALLED) $(TORCH_INSTALLED)  ## Measure speed and memory beside peers, 15 minutes
	$(BENCH)/startup.py
	$(BENCH)/parts.py $(SCRATCH)
	$(BENCH)/stages.py $(SCRATCH)
	$(BENCH)/parquet.py $(SCRATCH)
	$(BENCH)/featurize.py $(SCRATCH) --files 700
	$(BENCH)/scaling.py $(SCRATCH) --runs 1
	$(BENCH)/score.py $(SCRATCH) --hours 0.25
	$(BENCH)/encoder.py $(SCRATCH) --runs 3
	$(BENCH)/train.py --torch-python $(TORCH)/bin/python --runs 2 --epochs 2
	$(BENCH)/large_table.py --gigabytes 0.6

clean:  ## Remove the virtual environments, the demo, the wheels, the site and the benchmarks' audio
	rm -rf $(VENV) $(TORCH) demo dist site .bench
