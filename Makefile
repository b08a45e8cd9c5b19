# Two commands on a fresh machine: make demo, make test. Set-up happens by itself, once.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
FOLDERS := base browser cli convert edge federated house
.PHONY: help setup setup-use setup-lint setup-cloud demo test unit $(FOLDERS:%=test-%) faults soak durations lint bench coverage wheel lock clean
ARGS ?=
BIN := .venv/bin
WORKERS ?= 2
# by file: what its tests share is made once. Not by group: xdist 3.8 marks none under pytest 9.2
IN_WORKERS := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
PY := $(wildcard src convert edge federated browser/edgeloop cloud tests benchmarks)

help: ## what there is to make
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18
	@echo; echo "make demo ARGS='--data DIR --rounds 5' hands options on; so do test, unit and bench."

setup: ## .venv, .venv-device, the browser page, a Chromium, devices (every other target does what it needs of it)
	@scripts/setup

setup-use:
	@scripts/setup use

setup-lint:
	@scripts/setup lint

setup-cloud:
	@scripts/setup cloud

demo: setup-use ## the whole loop on real data: train, convert, prove, measure, federate, fold back, show
	@$(BIN)/edgeloop demo $(ARGS)

test: setup ## all tests but faults and soak, in two workers (WORKERS=1: in one)
	@$(BIN)/pytest tests $(IN_WORKERS) --durations=15 $(ARGS)

test-base: ## the tests of one folder: src/edgeloop without the command line
test-browser: ## the page, its server, the runners of TF.js and LiteRT.js
test-cli: ## the command line and the demo
test-convert: ## model in, bundle out
test-edge: ## bench, deploy, run, targets
test-federated: ## rounds across devices
test-house: ## layout, imports, errors, READMEs, the wheel
$(FOLDERS:%=test-%): setup
	@$(BIN)/pytest tests/$(@:test-%=%) $(IN_WORKERS) --durations=15 $(ARGS)

faults: setup ## every fault at every point: damaged files, kills, full disks, changed bytes
	@$(BIN)/pytest tests -m faults --timeout=1800 --durations=15 $(ARGS)

soak: setup ## long simulations and searches
	@$(BIN)/pytest tests -m soak --timeout=1800 --durations=15 $(ARGS)

durations: setup ## measure again how long each test takes: tests/durations.json
	@$(BIN)/pytest tests $(IN_WORKERS) --keep-durations $(ARGS)

unit: setup-cloud ## unit tests alone: no TensorFlow, seconds
	@$(BIN)/pytest tests/*/unit $(IN_WORKERS) $(ARGS)

lint: setup-lint ## ruff, mypy, who may import whom; the page's TypeScript: types, biome, vitest
	@$(BIN)/ruff check $(PY)
	@$(BIN)/ruff format --check $(PY)
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@PATH="$(CURDIR)/$(BIN):$$PATH" npm --prefix browser/web --silent run check

bench: setup ## every ratio the README quotes, measured here: benchmarks/results.json
	@for script in benchmarks/*.py; do $(BIN)/python $$script $(ARGS); done

coverage: setup-cloud ## which lines the unit tests reach
	@$(BIN)/coverage run -m pytest tests/*/unit -q
	@$(BIN)/coverage report

wheel: setup-use ## the page, and with it dist/: what pip installs, and the sources
	@rm -rf dist
	@$(BIN)/hatchling build -t wheel -t sdist
	@ls -l dist | awk 'NF > 8 {printf "%s  %.1f MB\n", $$9, $$5 / 1e6}'

lock: setup-cloud ## resolve the locks again
	@scripts/lock

clean: ## take away everything that was made here
	rm -rf .venv .venv-device .devices .venv-device.lock .venv-onnx2tf .venv-onnx2tf.lock .setup browser/web/node_modules browser/edgeloop/browser/static dist \
	  .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage
	find $(PY) -name __pycache__ -type d -prune -exec rm -rf {} +
