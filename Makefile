# The front door. Every target sets up .venv first (scripts/setup: nothing to do when it is up to date).
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
ARGS ?=

.PHONY: help demo test test-browser test-vllm check bench docs clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## the whole path on the sample, then a page to look at (ARGS=--exit: end after the summary)
	@scripts/setup
	@.venv/bin/reki demo $(ARGS)

test: ## unit, conformance and integration tests on a real broker and vector store (ARGS go to pytest)
	@scripts/test $(ARGS)

test-browser: ## the page in a real Chromium (needs one: apt-get install chromium)
	@scripts/test tests/browser -m browser $(ARGS)

test-vllm: ## extraction and batches on a real vLLM with a tiny model (the first time: 6 GB into .venv-vllm)
	@scripts/test-vllm $(ARGS)

check: ## ruff, mypy and the direction of imports
	@scripts/check

bench: ## every benchmark, one JSON line each, also into bench-results/ (ARGS=rank: that one)
	@scripts/bench $(ARGS)

docs: ## write docs/settings.md anew from contracts/settings.py
	@scripts/setup
	@.venv/bin/reki settings --markdown >docs/settings.md

clean: ## remove .venv, caches and benchmark results; data under .reki stays
	@rm -rf .venv .venv-vllm .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build bench-results reki.egg-info
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
	@if [ -d .reki ]; then echo "kept: .reki (broker, vectors, checkpoints, logs); remove it yourself if you do not need it"; fi
