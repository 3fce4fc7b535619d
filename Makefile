# Everything runs in .venv, made here. `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
RUNS ?= runs/quickstart
# Options of both quickstart runs, such as QUICK="--config.epochs=1".
QUICK ?=
TRAIN = $(BIN)/python -m sp_jax.main --config=configs/quickstart.py

.DEFAULT_GOAL := help
.PHONY: help quickstart test lint format clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/tested: .venv/installed requirements-test.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	@touch $@

quickstart: .venv/installed ## train SP and AP on the shipped drawings, and compare (6 minutes)
	$(TRAIN) --workdir=$(RUNS)/semantic $(QUICK)
	$(TRAIN) --workdir=$(RUNS)/augmented --config.data.pairing=augmented $(QUICK)
	$(BIN)/python -m eval.report --out=$(RUNS) $(RUNS)/semantic $(RUNS)/augmented

test: .venv/tested ## run the test suite
	$(BIN)/python -m pytest

lint: .venv/tested ## check style
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: .venv/tested ## apply style
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

clean: ## remove .venv and caches; runs/ stays
	rm -rf .venv .cache .pytest_cache .ruff_cache
