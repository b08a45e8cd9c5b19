# Two commands on a fresh machine: make demo, make test. Set-up happens by itself, once.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup setup-use setup-cloud demo test unit lint bench coverage lock clean
ARGS ?=
BIN := .venv/bin
PY := $(wildcard src convert edge federated browser/edgeloop cloud tests benchmarks)

help: ## what there is to make
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12
	@echo; echo "make demo ARGS='--data DIR --rounds 5' hands options on; so do test, unit and bench."

setup: ## .venv, .venv-device, the browser page, a Chromium, devices (every other target does what it needs of it)
	@scripts/setup

setup-use:
	@scripts/setup use

setup-cloud:
	@scripts/setup cloud

demo: setup-use ## the whole loop on real data: train, convert, prove, measure, federate, fold back, show
	@$(BIN)/edgeloop demo $(ARGS)

test: setup ## unit and integration tests
	@$(BIN)/pytest tests --durations=15 $(ARGS)

unit: setup-cloud ## unit tests alone: no TensorFlow, seconds
	@$(BIN)/pytest tests/*/unit $(ARGS)

lint: setup-cloud ## ruff, mypy, who may import whom
	@$(BIN)/ruff check $(PY)
	@$(BIN)/ruff format --check $(PY)
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: setup ## every ratio the README quotes, measured here: benchmarks/results.json
	@for script in benchmarks/*.py; do $(BIN)/python $$script $(ARGS); done

coverage: setup-cloud ## which lines the unit tests reach
	@$(BIN)/coverage run -m pytest tests/*/unit -q
	@$(BIN)/coverage report

lock: setup-cloud ## resolve the locks again
	@scripts/lock

clean: ## take away everything that was made here
	rm -rf .venv .venv-device .devices .venv-onnx2tf .venv-onnx2tf.lock .setup browser/web/node_modules browser/edgeloop/browser/static dist \
	  .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage
	find $(PY) -name __pycache__ -type d -prune -exec rm -rf {} +
