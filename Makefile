# `make help` lists what there is. Everything runs in a virtual environment of its own, .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help install demo test lint format clean
.DEFAULT_GOAL := help

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

install: $(INSTALLED)  ## Install ser-batch and its test tools into .venv

demo: $(INSTALLED)  ## Run the main job end to end on a small made-up corpus, in demo/
	rm -rf demo
	$(BIN)/ser-batch run jobs/demo.toml
	@echo
	@echo "report:      $(CURDIR)/demo/model/report.html"
	@echo "predictions: $(CURDIR)/demo/preds.parquet"

test: lint  ## Lint, check types, run all tests
	$(BIN)/python -m pytest

lint: $(INSTALLED)  ## Ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)  ## Let ruff write the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove the virtual environment and the demo
	rm -rf $(VENV) demo
