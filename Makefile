# Two commands on a fresh machine: make demo, make test. Set-up happens by itself, once.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
FOLDERS := base browser cli cloud convert edge federated house
.PHONY: help setup setup-use setup-lint setup-docs setup-cloud demo test unit $(FOLDERS:%=test-%) faults soak durations lint bench docs coverage wheel lock clean
ARGS ?=
BIN := .venv/bin
WORKERS ?= 2
# by file: what its tests share is made once. Not by group: xdist 3.8 marks none under pytest 9.2
IN_WORKERS := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
PY := $(wildcard src convert edge federated browser/edgeloop cloud tests benchmarks scripts)

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18
	@echo; echo "ARGS passes options on, e.g. make demo ARGS='--data DIR --rounds 5'. Targets with ARGS: demo, test, unit, bench."

setup: ## make .venv, .venv-device, the browser page, a Chromium and devices (other targets make what they need)
	@scripts/setup

setup-use:
	@scripts/setup use

setup-lint:
	@scripts/setup lint

setup-docs:
	@scripts/setup docs

setup-cloud:
	@scripts/setup cloud

demo: setup-use ## run the whole loop on real data: train, convert, measure, deploy, federate, fine-tune, show in a page
	@$(BIN)/edgeloop demo $(ARGS)

test: setup ## run all tests except faults and soak, in two processes (WORKERS=1: in one)
	@$(BIN)/pytest tests $(IN_WORKERS) --durations=15 $(ARGS)

test-base: ## run the tests of src/edgeloop except the command line
test-browser: ## run the tests of the page, its server, and the TF.js and LiteRT.js runtimes
test-cli: ## run the tests of the command line and the demo
test-cloud: ## run the tests of training in the cloud
test-convert: ## run the tests of conversion and proof
test-edge: ## run the tests of bench, deploy, run and inspect --target
test-federated: ## run the tests of federated training
test-house: ## run the tests of layout, imports, errors, READMEs and the wheel
$(FOLDERS:%=test-%): setup
	@$(BIN)/pytest tests/$(@:test-%=%) $(IN_WORKERS) --durations=15 $(ARGS)

faults: setup ## inject every fault at every point: damaged files, kills, full disks, changed bytes
	@$(BIN)/pytest tests -m faults --timeout=1800 --durations=15 $(ARGS)

soak: setup ## run the long simulations and searches
	@$(BIN)/pytest tests -m soak --timeout=1800 --durations=15 $(ARGS)

durations: setup ## measure how long each test takes and write tests/durations.json
	@$(BIN)/pytest tests $(IN_WORKERS) --keep-durations $(ARGS)

unit: setup-cloud ## run only the unit tests (seconds, without TensorFlow)
	@$(BIN)/pytest tests/*/unit $(IN_WORKERS) $(ARGS)

lint: setup-lint ## run ruff, mypy and the import contracts; for TypeScript tsc, biome and vitest
	@$(BIN)/ruff check $(PY)
	@$(BIN)/ruff format --check $(PY)
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@PATH="$(CURDIR)/$(BIN):$$PATH" npm --prefix browser/web --silent run check

bench: setup ## measure every ratio that the READMEs quote and write benchmarks/results.json
	@for script in benchmarks/*.py; do $(BIN)/python $$script $(ARGS); done

docs: setup-docs ## build the documentation as a site in dist/site and check its links
	@NO_MKDOCS_2_WARNING=1 .setup/docs-environment/bin/mkdocs build --config-file scripts/mkdocs.yml
	@echo "open dist/site/index.html"

coverage: setup-cloud ## measure which lines the unit tests run
	@$(BIN)/coverage run -m pytest tests/*/unit -q
	@$(BIN)/coverage report

wheel: setup-use ## build the page, then the wheel and the sdist in dist/
	@rm -rf dist
	@$(BIN)/hatchling build -t wheel -t sdist
	@ls -l dist | awk 'NF > 8 {printf "%s  %.1f MB\n", $$9, $$5 / 1e6}'

lock: setup-cloud ## resolve the locks again
	@scripts/lock

clean: ## remove everything that make has made
	rm -rf .venv .venv-device .devices .venv-device.lock .setup browser/web/node_modules browser/edgeloop/browser/static dist \
	  .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage
	find $(PY) -name __pycache__ -type d -prune -exec rm -rf {} +
