# Commands for development and CI. `make` lists them.

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c '$(SUPPORTED)' 2>/dev/null && echo $$python && exit; done; echo python3)
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
ARGS ?=
SECONDS ?= 60
DAYS ?= 30
T ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps
PINNED := $(PIP) --require-hashes --only-binary=:all:
PYTEST := $(BIN)/python -m pytest
PURE := exporter/account_group.py,exporter/labels.py,exporter/metrics/exposition.py,exporter/metrics/families.py
PURE := $(PURE),exporter/otlp/convert.py,exporter/render.py,exporter/series_limit.py,exporter/sources/aggregate.py,exporter/sources/results.py
PURE := $(PURE),exporter/sources/rows.py,exporter/sources/session_filter.py,exporter/sources/site_histograms.py
PURE := $(PURE),exporter/web/status.py

# Programs that system tests start, unpacked by tests/system/tools.sh where the host has none.
export PATH := $(PATH):$(CURDIR)/.tools/usr/bin

.PHONY: help install demo run check test-system test lint tools bench bench-quick bench-queries fuzz soak mutation \
	docs pictures lock image clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' Makefile

install: $(VENV)/.installed ## Install the exporter into .venv

demo: install ## Serve the metrics of a simulated company; no account required
	$(BIN)/thousandeyes-exporter demo

run: install ## Run the exporter: make run ARGS="--api.token-file token.txt check"
	$(BIN)/thousandeyes-exporter $(ARGS)

ifeq ($(T),)
check: lint ## Run lint and the fast tests, or one file of tests: make check T=tests/unit/test_labels.py
	$(PYTEST) --ignore=tests/system --numprocesses=auto --maxprocesses=4 --dist=worksteal
else
check: $(VENV)/.installed-dev
	$(PYTEST) $(T)
endif

test-system: $(VENV)/.installed-dev tools ## Run the tests that need root, Debian packages or a browser
	$(PYTEST) tests/system --numprocesses=3 --dist=loadfile

test: lint ## Run everything: lint, fast tests, system tests, coverage
	rm -f .coverage .coverage.*
	$(PYTEST) --ignore=tests/system --numprocesses=2 --dist=worksteal --cov --cov-report=
	$(MAKE) tools
	$(PYTEST) tests/system --numprocesses=3 --dist=loadfile --cov --cov-append
	$(BIN)/coverage report --include=$(PURE) --fail-under=100

lint: $(VENV)/.installed-dev ## Check style, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

tools: $(VENV)/.installed-dev ## Install the programs that system tests start
	tests/system/tools.sh .tools $(BIN)/python

# Without cached bytecode, every process of tests and benchmarks compiles what it imports.
bench bench-quick check test test-system: export PYTHONDONTWRITEBYTECODE =

bench: .tools/benchmarks-go ## Run all benchmarks (long) and write benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks

bench-quick: .tools/benchmarks-go ## Run all benchmarks in less than two minutes
	$(BIN)/python -m benchmarks --quick

.tools/benchmarks-go: benchmarks/go/main.go $(VENV)/.installed-dev
	tests/system/tools.sh .tools $(BIN)/python benchmarks
	cd benchmarks/go && GO111MODULE=off GOPATH=/usr/share/gocode go build -o $(CURDIR)/$@ .

bench-queries: $(VENV)/.installed-dev tools ## Measure query time of dashboards and rules at 200 and 2,000 agents
	$(BIN)/python -m benchmarks.query_cost

fuzz: $(VENV)/.installed-dev ## Fuzz every input: make fuzz SECONDS=600 (each of the inputs)
	FUZZ_SECONDS=$(SECONDS) $(PYTEST) tests/fuzz --timeout=0 --numprocesses=auto --maxprocesses=3

soak: $(VENV)/.installed-dev ## Poll for days of simulated time with random faults: make soak DAYS=30
	$(BIN)/python tests/soak.py --days $(DAYS)

mutation: $(VENV)/.installed-dev ## Mutate the pure modules, rate limit and decoder; at least 85 % must be killed
	rm -rf mutants
	$(BIN)/mutmut run
	$(BIN)/mutmut results
	$(BIN)/mutmut export-cicd-stats
	@$(BIN)/python -c 'import json, sys; n = json.load(open("mutants/mutmut-cicd-stats.json")); \
		killed, total = n["killed"] + n["timeout"], n["total"]; \
		print(f"{killed} of {total} mutants killed ({killed / total:.1%})"); sys.exit(killed < 0.85 * total)'

docs: $(VENV)/.installed-dev ## Generate the references, the dashboards and the files of the chart
	$(BIN)/python -m docs
	$(BIN)/python -m grafana
	$(BIN)/python -m deploy

pictures: $(VENV)/.installed-dev tools ## Render the pictures of the dashboards, with Chromium and npm
	$(BIN)/python -m grafana.render

lock: $(VENV)/.installed-dev ## Pin the newest packages that pyproject.toml allows
	.ci/lock $(BIN)/uv

image: $(VENV)/.installed-dev tools ## Build the container image into .image, without a container engine
	tests/system/image.sh .image

clean: ## Remove everything that was generated
	rm -rf $(VENV) .tools .image .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis \
		.import_linter_cache mutants dist

$(BIN)/python:
	@$(PYTHON) -c '$(SUPPORTED)' || { echo "Python 3.11 or newer (up to 3.14) is required;" \
		"found $$($(PYTHON) --version 2>&1 | cut -d " " -f 2); set PYTHON=/path/to/python3.14" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot create virtual" \
		"environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt requirements-build.txt pyproject.toml | $(BIN)/python
	$(PINNED) -r requirements.txt -r requirements-build.txt
	$(PIP) --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(PINNED) -r requirements-dev.txt
	@touch $@
