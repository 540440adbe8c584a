# Two commands a newcomer needs: `make quickstart` and `make test`. Both build their environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: quickstart test lint check clean

quickstart: $(VENV)/.installed  ## Train the built-in model with GDPO, RVPO and LIFT (about three minutes on two cores)
	$(BIN)/rvpo quickstart

test: $(VENV)/.installed  ## Run the tests
	$(BIN)/python -m pytest -n auto --dist loadgroup

lint: $(VENV)/.installed  ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test  ## Everything that CI checks

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:  ## Remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
