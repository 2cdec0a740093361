# What a fresh checkout needs is python3 (3.10 or newer) and make; everything else goes into .venv.
#   make PYTHON=python3.12 test      another interpreter (after `make distclean`, if .venv exists)
#   NASMW_DATA=folder make test      where published latencies stand; tests that need them are skipped without it

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq install --no-build-isolation -c constraints.txt
PYTEST := $(BIN)/python -m pytest
# Tests are shared out to this number of processes; WORKERS=0 keeps them in one.
WORKERS ?= 2
BENCHMARKS ?= $(sort $(wildcard benchmarks/bench_*.py))

.PHONY: help demo test test-slow check bench format clean distclean
.NOTPARALLEL:
.DELETE_ON_ERROR:

help:
	@echo 'make demo       search a network for handwritten digits on this CPU'
	@echo 'make test       the tests, without the slow ones'
	@echo 'make test-slow  the slow ones'
	@echo 'make check      ruff, mypy, and what the wheel holds'
	@echo 'make bench      the benchmarks'
	@echo 'make format     let ruff format and sort the code'
	@echo 'make clean      remove caches and build results; make distclean removes .venv too'

demo: $(VENV)/.demo
	$(BIN)/python examples/mnist_cpu.py

# Small networks gain nothing from more threads, and the workers would wait for each other's.
test test-slow: export OMP_NUM_THREADS ?= 1

test: $(VENV)/.test
	$(PYTEST) -q -m 'not slow' -n $(WORKERS) --dist worksteal

# pytest's status 5 says that no test is marked slow, which is no failure.
test-slow: $(VENV)/.test
	$(PYTEST) -q -m slow -n $(WORKERS) --dist worksteal || [ $$? -eq 5 ]

check: $(VENV)/.check
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(PYTEST) -q tests/test_packaging.py

bench: $(VENV)/.demo
	@set -e; for script in $(BENCHMARKS); do echo "$$script"; $(BIN)/python $$script; done

format: $(VENV)/.check
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find nasmw/ strategies/ profilers/ tests/ examples/ benchmarks/ -name __pycache__ -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)

# torch comes first and alone, so that what follows finds it settled and doesn't fetch another build of it.
$(VENV)/.base: constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("nasmw needs Python 3.10 or newer, and $(PYTHON) is %d.%d. Name another one: make PYTHON=python3.12" % sys.version_info[:2])'
	@echo 'installing into $(VENV): torch'
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@$(PIP) setuptools wheel
	@$(PIP) torch
	@touch $@

# mypy reads the packages that the extras bring, so checking installs them as well.
$(VENV)/.demo: EXTRAS = demo
$(VENV)/.test: EXTRAS = test
$(VENV)/.check: EXTRAS = check,test
$(VENV)/.demo $(VENV)/.test $(VENV)/.check: $(VENV)/.base setup.cfg pyproject.toml constraints.txt
	@echo 'installing into $(VENV): nasmw[$(EXTRAS)]'
	@$(PIP) -e '.[$(EXTRAS)]'
	@touch $@
