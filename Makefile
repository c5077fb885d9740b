# `make demo` and `make test` build .venv where it is missing; nothing else needs to be installed.
PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/.ready
# Two processes; the tests of a file share what they start, so they stay together. Files run in the
# order of tests/conftest.py.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help setup demo test test-quick test-slow test-lowest lint type layers check bench docs notebook clean
.DEFAULT_GOAL := help

help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## build .venv by one resolve of pyproject.toml

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(READY) ## draw a data set with planted shortcuts, explain it, show what was found
	$(BIN)/legrad demo

test: $(READY) ## the tests
	$(PYTEST) -m "not slow"

test-quick: $(READY) ## the tests that start neither Ray nor a server, a browser or a process
	$(PYTEST) -m "not slow and not starts"

test-slow: $(READY) ## the tests that take minutes each
	$(BIN)/python -m pytest -m slow

test-lowest: ## test-quick, and some runs, with the oldest versions of constraints-lowest.txt
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --disable-pip-version-check --quiet -c constraints-lowest.txt -e ".[test]"
	.venv-lowest/bin/python -m pytest -m "not slow and not starts"
	.venv-lowest/bin/python -m pytest -m "not slow" tests/results/test_results.py tests/jobs/test_cli.py tests/cluster

lint: $(READY) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(READY) ## mypy, strict
	$(BIN)/mypy

layers: $(READY) ## the order of the rooms, see [tool.importlinter]
	$(BIN)/lint-imports --no-cache --no-logo

check: lint type layers docs ## lint, types, layers, site

bench: $(READY) ## figures of docs/method.md
	$(BIN)/python -m benchmarks.engine --picture docs/engine.png

docs: $(READY) ## the site with the reference, in site/; broken links are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

notebook: $(READY) ## run the notebooks in docs/ again, outputs and all
	$(BIN)/jupyter execute --inplace docs/audit-example.ipynb docs/classifier-example.ipynb

clean: ## remove what the commands made
	rm -rf .venv .venv-lowest demo dist build site .mypy_cache .pytest_cache .ruff_cache
