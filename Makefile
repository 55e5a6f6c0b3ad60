# `make demo` and `make test` do all their set-up on a fresh machine: a virtual environment, torch pinned and first.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test lint tests environment docs clean

demo: $(VENV)/installed
	$(BIN)/foresay demo

test: lint tests

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

tests: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n auto

docs: $(VENV)/installed-dev
	$(BIN)/python docs/make_cli.py

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install -q -c constraints.txt -e ".[test,lint]"
	touch $@

clean:
	rm -rf $(VENV) build dist
