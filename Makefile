# Two commands a newcomer needs: `make quickstart` and `make test`. Both build their environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# verl cannot live in one environment with TRL.
VENV_VERL ?= .venv-verl
BIN_VERL := $(VENV_VERL)/bin
# Nor can the other engines: each is tested in an environment of its own, TRL in one per version.
VENV_SWIFT ?= .venv-swift
VENV_AXOLOTL ?= .venv-axolotl
# mkdocs and its themes need nothing of ours but the command line.
VENV_DOCS ?= .venv-docs
MATRIX ?= .matrix
CORNERS := trl-1.6.0 trl-1.9.0 trl-1.14.2
SOURCES := $(shell find src tests/engines/trl -name '*.py')

.PHONY: quickstart test test-trl test-verl test-swift test-axolotl test-matrix test-oldest test-nightly lint check docs figures clean
.SECONDARY:  # environments stay

quickstart: $(VENV)/.installed  ## Train the built-in model with GDPO, RVPO and LIFT (about three minutes on two cores)
	$(BIN)/rvpo quickstart

test: test-trl test-verl  ## Run the tests

test-trl: $(VENV)/.installed  ## All but those of the verl engine
	$(BIN)/python -m pytest -n auto --dist loadgroup

test-verl: $(VENV_VERL)/.installed  ## Those of the verl engine: Ray and verl on the CPU
	$(BIN_VERL)/python -m pytest tests/engines/verl -n 2 --dist loadfile

test-swift: $(VENV_SWIFT)/.installed  ## Those of ms-swift: trainings by its own command on the CPU
	$(VENV_SWIFT)/bin/python -m pytest tests/engines/swift

test-axolotl: $(VENV_AXOLOTL)/.installed  ## Those of axolotl
	$(VENV_AXOLOTL)/bin/python -m pytest tests/engines/axolotl

test-oldest: $(MATRIX)/trl-1.6.0.passed  ## The tests of TRL's engine with the oldest TRL
	@tail -n 1 $(MATRIX)/trl-1.6.0.log

# A version that has passed is not run again before something changes; `make -k` goes on after one that fails.
test-matrix: $(CORNERS:%=$(MATRIX)/%.passed) $(MATRIX)/newest.passed  ## The tests of TRL's engine with every version at the corners of the range
	@for log in $(^:.passed=.log); do echo "$$log: $$(tail -n 1 $$log)"; done

$(MATRIX)/newest.passed: $(VENV)/.installed $(SOURCES)
	@mkdir -p $(MATRIX)
	$(BIN)/python -m pytest tests/engines/trl -n auto --dist loadgroup > $(@:.passed=.log) 2>&1 || { tail -n 40 $(@:.passed=.log); exit 1; }
	touch $@

$(MATRIX)/%.passed: $(MATRIX)/%/.installed $(SOURCES)
	$(MATRIX)/$*/bin/python -m pytest tests/engines/trl -n auto --dist loadgroup > $(@:.passed=.log) 2>&1 || { tail -n 40 $(@:.passed=.log); exit 1; }
	touch $@

test-nightly: $(VENV)/.installed $(VENV_VERL)/.installed  ## What takes long: trainings with verl, every signal and fault
	$(BIN)/python -m pytest -m slow -n auto --dist loadgroup
	$(BIN_VERL)/python -m pytest tests/engines/verl -m slow -s

lint: $(VENV)/.installed  ## Check style, words and types
	$(BIN)/python tests/words.py
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test  ## Everything that CI checks

figures: $(VENV)/.installed  ## Draw the figures of the docs that need no training
	$(BIN)/python benchmarks/figures.py

docs: $(VENV_DOCS)/.installed  ## Build the docs site into site/; every warning is an error
	$(VENV_DOCS)/bin/mkdocs build --strict

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps bfcl-eval  # its pins would break the others
	touch $@

$(VENV_VERL)/.installed: pyproject.toml constraints-verl.txt
	$(PYTHON) -m venv $(VENV_VERL)
	$(BIN_VERL)/python -m pip install --quiet -c constraints-verl.txt -e '.[dev-verl]'
	touch $@

$(MATRIX)/%/.installed: pyproject.toml constraints/%.txt
	$(PYTHON) -m venv $(MATRIX)/$*
	$(MATRIX)/$*/bin/python -m pip install --quiet -c constraints/$*.txt -e '.[dev]'
	touch $@

$(VENV_SWIFT)/.installed: pyproject.toml constraints/swift.txt
	$(PYTHON) -m venv $(VENV_SWIFT)
	$(VENV_SWIFT)/bin/python -m pip install --quiet -c constraints/swift.txt -e '.[report]' ms-swift msgspec pandas pytest
	touch $@

# axolotl's own requirements bring builds for CUDA along. These are what its GRPO trainer imports.
$(VENV_AXOLOTL)/.installed: pyproject.toml constraints/axolotl.txt
	$(PYTHON) -m venv $(VENV_AXOLOTL)
	$(VENV_AXOLOTL)/bin/python -m pip install --quiet -c constraints/axolotl.txt -e '.[trl,report]' pandas pytest triton \
		addict art colorama einops evaluate fire numba nvidia-ml-py posthog python-dotenv requests sentencepiece wandb
	$(VENV_AXOLOTL)/bin/python -m pip install --quiet -c constraints/axolotl.txt --no-deps axolotl axolotl-contribs-lgpl axolotl-contribs-mit
	touch $@

$(VENV_DOCS)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV_DOCS)
	$(VENV_DOCS)/bin/python -m pip install --quiet -e '.[docs]'
	touch $@

clean:  ## Remove the environments and caches
	rm -rf $(VENV) $(VENV_VERL) $(VENV_SWIFT) $(VENV_AXOLOTL) $(VENV_DOCS) $(MATRIX) site .pytest_cache .mypy_cache .ruff_cache .hypothesis
