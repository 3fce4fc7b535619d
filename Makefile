# Everything runs in .venv, made here. `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
RUNS ?= runs/quickstart
# Options of both quickstart runs, such as QUICK="--config.epochs=2".
QUICK ?=
# Tests that run beside each other: compiling, their largest part, uses one core.
TEST_JOBS ?= 2
# Options of the slow tests, such as SLOW="-k distributed".
SLOW ?=
# Options of Sphinx, such as DOCS="-D nb_execution_mode=off"; tutorials that do not run, such as
# WITHOUT="tutorials/cluster.md"; LINKS=1 asks other sites, too.
DOCS ?=
WITHOUT ?=
LINKS ?=
TRAIN = $(BIN)/python -m sp_jax.main --config=configs/quickstart.py

.DEFAULT_GOAL := help
.PHONY: help quickstart test slow docs floor lint format clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/tested: .venv/installed requirements-test.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	@touch $@

.venv/documented: .venv/installed requirements-docs.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-docs.txt
	@touch $@

# Both runs at once: one step hardly uses more than one core.
quickstart: .venv/installed ## train SP and AP on the shipped drawings, and compare (5 minutes)
	@mkdir -p $(RUNS)
	@echo "AP trains in the background; its log is $(RUNS)/augmented.log. SP:"
	@$(TRAIN) --workdir=$(RUNS)/augmented --config.data.pairing=augmented $(QUICK) \
	    > $(RUNS)/augmented.log 2>&1 & background=$$!; \
	trap 'kill $$background 2> /dev/null' INT TERM EXIT; \
	$(TRAIN) --workdir=$(RUNS)/semantic $(QUICK) || exit 1; \
	wait $$background || { tail -n 3 $(RUNS)/augmented.log; exit 1; }
	@$(BIN)/python -m eval.report --out=$(RUNS) $(RUNS)/semantic $(RUNS)/augmented

test: .venv/tested ## run the test suite
	$(BIN)/python -m pytest -m "not slow" -n $(TEST_JOBS) --dist worksteal

slow: .venv/tested ## the long tests: every full-size recipe, two processes (needs about 16 GiB)
	$(BIN)/python -m pytest -m slow $(SLOW)

# Many small parts of the pages at a time: tutorials wait for compiling.
docs: .venv/documented ## build the site in docs/_build/html, and run its tutorials (5 minutes)
	WITHOUT="$(WITHOUT)" $(BIN)/python -m sphinx -q -E -j 8 -W --keep-going $(DOCS) docs docs/_build/html
	$(if $(LINKS),$(BIN)/python -m sphinx -q -b linkcheck -D nb_execution_mode=off docs docs/_build/links)

.floor/installed: requirements.txt
	$(PYTHON) -m venv .floor
	.floor/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt \
	    "jax[cuda13]"
	@touch $@

floor: .floor/installed ## compile steps for a GPU that is not there; fail where one has grown
	.floor/bin/python -m benchmarks.floor --known=benchmarks/floor.jsonl

lint: .venv/tested ## check style, spelling, types and the order of imports
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/codespell && \
	    $(BIN)/lint-imports && $(BIN)/mypy

format: .venv/tested ## apply style
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

clean: ## remove environments and caches; runs/ stays
	rm -rf .venv .floor .cache docs/_build .mypy_cache .pytest_cache .ruff_cache
