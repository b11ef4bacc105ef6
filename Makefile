# Two commands need nothing prepared: `make demo` and `make test`. The rest is for contributors.
PYTHON ?= python3
BENCH ?= full
FRAMEWORK ?= aiogram
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test versions scenarios bench docs lint types imports format lock clean

help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## Play with a real bot on a local Bot API server
	@$(BIN)/gramkeep demo --framework $(FRAMEWORK)

test: $(READY) ## Run all tests
	@$(BIN)/pytest $(PYTEST_ARGS)

versions: $(READY) ## Run tests with the lowest and the newest versions that users may have
	@$(BIN)/nox $(NOX_ARGS)

scenarios: $(READY) ## Run what every integration must pass, and write its table
	@PYTHONPATH=tests $(BIN)/python -m integrations.scenario_table

bench: $(READY) ## Measure speed beside that of others; BENCH=quick shows figures only
	@PYTHONPATH=tests $(BIN)/python -m benchmarks $(BENCH)

docs: $(READY) ## Build the documentation
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/mkdocs build --strict

lint: $(READY) ## Check style
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY) ## Check types, as mypy and as pyright see them
	@$(BIN)/mypy
	@MYPYPATH=tests $(BIN)/mypy -p benchmarks --follow-imports silent
	@$(BIN)/pyright

imports: $(READY) ## Check that imports point one way
	@$(BIN)/lint-imports

format: $(READY) ## Put the code into its form
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: ## Pin the newest versions of everything in requirements/dev.in
	@PYTHON="$(PYTHON)" sh requirements/lock.sh

clean: ## Remove what was set up
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache dist

$(READY): pyproject.toml requirements/dev.txt requirements/setup.sh tests/golden/package.json
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh requirements/setup.sh
	@touch $@
