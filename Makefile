# Needs only python3 (3.11 or newer), its venv module and make. Everything is installed into .venv, from pinned versions.

PYTHON ?= python3
VENV ?= .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --no-input
INSTALLED := $(VENV)/.installed
PEER ?= .venv-peer
PEER_PIP := $(PEER)/bin/python -m pip --disable-pip-version-check --no-input
PEER_PACKAGES := ultralytics==8.4.190 ultralytics-thop==2.2.3 torchvision==0.28.0 \
	polars==2.1.0 polars-runtime-32==2.1.0 psutil==7.2.2 py-cpuinfo==9.0.0 \
	yolov5==7.0.14 pandas==3.1.1 seaborn==0.13.2 setuptools==79.0.1 tzdata==2026.6
# -qq: pip's notes are left out, its errors are not.
# constraints.txt is the one list of pinned versions; torch goes in first, by its exact version.
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: help demo walk test test-slow check house format docs bench-peer clean distclean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F '\t' '{printf "  make %-11s %s\n", $$1, $$2}'

demo: $(INSTALLED)  ## draw a dataset, train on it, evaluate, predict; four to five minutes on two CPU cores
	$(VENV)/bin/boxwright demo

walk: $(INSTALLED)  ## the README's code from top to bottom, as printed, in an empty folder; about fifteen minutes on two CPU cores
	$(VENV)/bin/python -m pytest -q -m slow tests/test_readme_walk.py

test: $(INSTALLED)  ## all tests but the slow ones
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -q -n auto --dist loadfile

test-slow: $(INSTALLED)  ## the slow tests: killed and resumed trainings, tracing, ten thousand files
	$(VENV)/bin/python -m pytest -q -m slow

check: $(INSTALLED)  ## lint, format, types, import rule
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest -q tests/test_architecture.py

house: $(INSTALLED)  ## how far the heart of the package is from its door, in numbers that may only get better
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m tests.house

format: $(INSTALLED)  ## apply the formatter and the safe lint fixes
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

docs: $(INSTALLED)  ## pages and pictures of every assigner and loss term, sizes of the models, pictures of the tasks, the tour
	$(VENV)/bin/python docs/build_losses.py
	$(VENV)/bin/python docs/build_models.py
	$(VENV)/bin/python docs/build_audit.py
	$(VENV)/bin/python docs/build_tour.py

bench-peer: $(PEER)/.installed  ## a second environment with the packages that benchmarks compare with (AGPL, GPL; only ever run)

clean:  ## remove caches and build output; keeps the environments and the runs
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage htmlcov
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean  ## also remove the environments
	rm -rf $(VENV) $(PEER)

# Made again when the versions change, not when it already stands.
$(INSTALLED): pyproject.toml constraints.txt
	@$(MAKE) --no-print-directory python-is-usable
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV); the first time this takes a few minutes"
	@$(PIP) install -qq -c constraints.txt $(TORCH)
	@$(PIP) install -qq -c constraints.txt hatchling
	@$(PIP) install -qq -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

# The peer goes in without its dependencies: they would replace torch by another build and bring a second OpenCV.
$(PEER)/.installed: constraints.txt $(INSTALLED)
	@test -x $(PEER)/bin/python || $(PYTHON) -m venv $(PEER)
	@$(PEER_PIP) install -qq -c constraints.txt $(TORCH)
	@$(PEER_PIP) install -qq -c constraints.txt hatchling
	@$(PEER_PIP) install -qq -c constraints.txt --no-build-isolation -e '.[dev]'
	@$(PEER_PIP) install -qq --no-deps $(PEER_PACKAGES)
	@touch $@

.PHONY: python-is-usable
python-is-usable:
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found; install Python 3.11 or newer, or say which: make PYTHON=/path/to/python3 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: boxwright needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version 2>&1); say which to use: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "make: $(PYTHON) has no venv module; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

# The README's picture, from the newest demo: `make demo picture`.
.PHONY: picture
picture:
	$(VENV)/bin/python docs/make_picture.py
