# `make demo` and `make test` are the two commands; each sets up .venv on its first run.
SHELL := /bin/bash
PYTHON ?= python3.11
BIN := .venv/bin
CLIPS ?=
WORKSPACE ?= demo-workspace

export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := 1
export GX_ANALYTICS_ENABLED := False

.PHONY: help setup demo test test-fast test-slow lint up down lock

help:            ## what can be made
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */\1\t/' | expand -t 14

setup:           ## create .venv with everything pinned (nothing to do while the lock is unchanged)
	@PYTHON=$(PYTHON) tools/setup.sh

demo: setup      ## two nights end to end in a clean workspace; CLIPS=<folder> for real clips
	@$(BIN)/violence-ops demo $(WORKSPACE) $(if $(CLIPS),--clips "$(CLIPS)")

test: setup lint ## linters, the fast tests, then the slow ones (real scheduler, faults)
	@tools/system_packages.sh
	$(BIN)/python -m pytest -q -m "not slow" -n auto --dist loadfile
	$(BIN)/python -m pytest -q -m slow

test-fast: setup ## the fast tests alone
	$(BIN)/python -m pytest -q -m "not slow" -n auto --dist loadfile

test-slow: setup ## the slow tests alone
	$(BIN)/python -m pytest -q -m slow

lint: setup      ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check -q .
	$(BIN)/mypy
	$(BIN)/lint-imports

up: setup        ## start Airflow and MLflow on the demo's workspace
	@$(BIN)/violence-ops up --workspace $(WORKSPACE)

down: setup      ## stop them
	@$(BIN)/violence-ops down --workspace $(WORKSPACE)

lock: setup      ## resolve requirements.lock again from pyproject.toml
	UV_FIND_LINKS="$$PIP_FIND_LINKS" $(BIN)/uv pip compile pyproject.toml --extra dev --no-header --no-annotate -q --upgrade -o requirements.lock
	sed -i 's/^\(torch==[0-9.]*\)+cpu/\1/' requirements.lock
