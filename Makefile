# What a new user runs: `make demo`, then `make test`. Both make .venv themselves.
# `make fuzz` tries thousands of broken files of each kind: hours, or fewer with FILES=500.

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test fuzz check format catalogue clean

demo: $(VENV)/.installed
	$(BIN)/relume demo --output demo --overwrite

test: check
	$(BIN)/python -m pytest

FILES ?= 5000

fuzz: $(VENV)/.developing
	RELUME_FUZZ=$(FILES) $(BIN)/python -m pytest -s tests/fuzz/test_fuzz.py

check: $(VENV)/.developing
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m relume.apps.catalogue --check

format: $(VENV)/.developing
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

catalogue: $(VENV)/.developing
	$(BIN)/python -m relume.apps.catalogue

clean:
	rm -rf $(VENV) demo build dist

$(VENV)/.python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "relume needs Python 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv $(VENV)
	touch $@

# torch comes first, so that one build serves whatever else asks for a range of it.
$(VENV)/.torch: $(VENV)/.python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.developing: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[train,dev]"
	touch $@ $(VENV)/.installed
