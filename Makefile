# `make` alone lists the targets. PYTHON=... names the interpreter that .venv is made from.
.DEFAULT_GOAL := help
.PHONY: help env demo shipped-model test test-heavy chaos-short chaos lint format docs clean

BIN := .venv/bin
PYTHON ?= python3.13 python3.12 python3.11 python3
export PYTHON

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

env: .venv/.ready ## Install everything into .venv, with the versions of constraints.txt (7 GB)

demo: .venv/.ready ## Run the whole pipeline on scenes made up on the spot
	$(BIN)/cdpipe demo

shipped-model: .venv/.ready ## Make the model that comes with cdpipe again, from made-up scenes
	$(BIN)/python benchmarks/shipped_model.py

# Three at a time on two cores: the long ones wait for Ray half of their time. Each has a Ray of its own.
test: .venv/.ready ## Run the tests, but for the heavy ones
	$(BIN)/pytest -m "not heavy" -n 3 --dist loadfile --no-loadscope-reorder

test-heavy: .venv/.ready ## Run the heavy tests (more than an hour)
	$(BIN)/pytest -m heavy --ignore tests/test_chaos.py

chaos-short: .venv/.ready ## Kill runs at random moments, 30 times
	CDPIPE_CHAOS_KILLS=30 $(BIN)/pytest -s tests/test_chaos.py

chaos: .venv/.ready ## Kill runs 300 times at random and 5 times at every named point, damage 200 files (hours)
	CDPIPE_CHAOS_KILLS=300 $(BIN)/pytest -s tests/test_chaos.py
	$(BIN)/pytest -m heavy tests/test_crash_points.py tests/test_tamper.py tests/test_resume.py

lint: .venv/.ready ## Check style, format, types and the Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	$(BIN)/hadolint Dockerfile

format: .venv/.ready ## Fix style and format where that needs no thought
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

docs: .venv/.ready ## Build the documentation: docs/_build/index.html
	$(BIN)/python -m sphinx -W --keep-going -q docs docs/_build

clean: ## Remove caches and build products (.venv stays; remove it to change its Python)
	rm -rf build docs/_build *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find cdpipe jobs tests -name __pycache__ -prune -exec rm -rf {} +

# .ready is written last, so an interrupted installation is taken up again.
.venv/.ready: pyproject.toml constraints.txt
	@$(make_venv)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

# Every candidate is run, not just looked up: a version manager's shim may be on PATH and refuse to start. An existing
# environment is kept if it works; one that was interrupted before it had pip does not.
define make_venv
set -eu; \
fits() { "$$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2> /dev/null; }; \
if fits $(BIN)/python && $(BIN)/python -m pip --version > /dev/null 2>&1; then exit 0; fi; \
bare=; \
for python in $$PYTHON; do \
    fits "$$python" || continue; \
    if "$$python" -c 'import ensurepip, venv' 2> /dev/null; then \
        echo "making .venv with $$("$$python" --version) ($$python)"; \
        exec "$$python" -m venv --clear .venv; \
    fi; \
    bare="$$python"; \
done; \
if [ -n "$$bare" ]; then \
    package=$$("$$bare" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
    echo "$$bare fits but cannot make environments: it lacks ensurepip. On Debian and Ubuntu install" \
        "the package $$package, or name another Python: make env PYTHON=/path/to/python3" >&2; \
else \
    echo "expected a Python 3.11, 3.12 or 3.13 that runs, found none among: $$PYTHON." \
        "Install one, or name it: make env PYTHON=/path/to/python3" >&2; \
fi; \
exit 1
endef
