# SPDX-License-Identifier: BSD-2-Clause
# Each goal sets up .venv by itself: a fresh machine needs Python >= 3.10, g++, make and perl.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Numba, Verilator's compiler and BLAS share the machine with pytest's workers.
JOBS ?= 2

.PHONY: demo test test-slow fuzz link-campaign lint bench clean help

help:
	@echo "make demo       trained network to Verilog, simulated board and bitstream"
	@echo "make test       the tests of minutes (under 15 on 2 cores)"
	@echo "make test-slow  the long tests too: place and route, whole test sets"
	@echo "make fuzz       10,000 random networks in simulation, 300 in Verilator (an hour or two)"
	@echo "make link-campaign  the link's tables: line use, 150,000 faults, 1,000 breaks (40 minutes)"
	@echo "make lint       ruff and mypy"
	@echo "make bench      the figures of docs/results.md"
	@echo "make clean      removes .venv and everything made"

demo: $(VENV)/.demo
	@$(BIN)/xnorforge demo

test: $(VENV)/.all
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

test-slow: $(VENV)/.all
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "slow or routing or not slow"

fuzz: $(VENV)/.all
	@$(BIN)/python benchmarks/fuzz.py --jobs $(JOBS)

link-campaign: $(VENV)/.all
	@$(BIN)/python benchmarks/link_use.py
	@$(BIN)/python benchmarks/link_faults.py --jobs $(JOBS)
	@$(BIN)/python benchmarks/link_breaks.py

lint: $(VENV)/.all
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@mkdir -p build/types/xnorforge
	@for folder in hw gen sim sw; do ln -sfn ../../../$$folder build/types/xnorforge/$$folder; done
	@$(BIN)/mypy -p xnorforge.hw -p xnorforge.gen -p xnorforge.sim -p xnorforge.sw

bench: $(VENV)/.all
	@$(BIN)/python benchmarks/run.py

clean:
	rm -rf $(VENV) build dist results *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp per set of extras; a changed pyproject.toml installs again.
$(VENV)/.demo: pyproject.toml
	@test -e $(VENV)/.all || $(MAKE) --no-print-directory install EXTRAS=build,sim
	@test ! -e $(VENV)/.all || $(MAKE) --no-print-directory $(VENV)/.all
	@touch $@

$(VENV)/.all: pyproject.toml
	@$(MAKE) --no-print-directory install EXTRAS=all
	@touch $@ $(VENV)/.demo

.PHONY: install
install:
	@for tool in g++ perl; do command -v $$tool >/dev/null || \
	    { echo "$$tool is missing: install it (Debian: apt install g++ perl)" >&2; exit 2; }; done
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "$(PYTHON) is older than 3.10: make PYTHON=python3.11 ..." >&2; exit 2; }
	@test -x $(BIN)/python || { echo "Making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing xnorforge[$(EXTRAS)] into $(VENV) (one to five minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$(EXTRAS)]'
