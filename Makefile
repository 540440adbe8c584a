# Two commands a newcomer needs: `make quickstart` and `make test`. Both build their environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# verl cannot live in one environment with TRL.
VENV_VERL ?= .venv-verl
BIN_VERL := $(VENV_VERL)/bin

.PHONY: quickstart test test-trl test-verl test-nightly lint check clean

quickstart: $(VENV)/.installed  ## Train the built-in model with GDPO, RVPO and LIFT (about three minutes on two cores)
	$(BIN)/rvpo quickstart

test: test-trl test-verl  ## Run the tests

test-trl: $(VENV)/.installed  ## All but those of the verl engine
	$(BIN)/python -m pytest -n auto --dist loadgroup

test-verl: $(VENV_VERL)/.installed  ## Those of the verl engine: Ray and verl on the CPU
	$(BIN_VERL)/python -m pytest tests/engines/verl -n 2 --dist loadfile

test-nightly: $(VENV)/.installed $(VENV_VERL)/.installed  ## What takes long: trainings with verl, every signal and fault
	$(BIN)/python -m pytest -m slow -n auto --dist loadgroup
	$(BIN_VERL)/python -m pytest tests/engines/verl -m slow -s

lint: $(VENV)/.installed  ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test  ## Everything that CI checks

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps bfcl-eval  # its pins would break the others
	touch $@

$(VENV_VERL)/.installed: pyproject.toml constraints-verl.txt
	$(PYTHON) -m venv $(VENV_VERL)
	$(BIN_VERL)/python -m pip install --quiet -c constraints-verl.txt -e '.[dev-verl]'
	touch $@

clean:  ## Remove the environments and caches
	rm -rf $(VENV) $(VENV_VERL) .pytest_cache .mypy_cache .ruff_cache .hypothesis
