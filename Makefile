# make demo   a fresh machine to a report;  make test   the whole suite;  make check   the quick checks
# make test-faults   20 random moments of each kill, 5 of each fault of a cluster: 41 min on 2 cores
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check test-faults data format clean

demo: $(READY) data
	$(BIN)/python -m harness.sweep ablations/quickstart.yaml

test: $(READY) data
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Without the slow tests, on all cores: about a minute on two.
check: $(READY) data
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -m "not slow" -n auto

test-faults: $(READY) data
	RESOLUTE_FAULTS=20 $(BIN)/python -m pytest tests/faults -n 2

data: $(READY)
	$(BIN)/python -m harness.dataset

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Resolute needs Python 3.11 or newer; this is " + sys.version.split()[0] + " (say make PYTHON=python3.12)")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) build *.egg-info
