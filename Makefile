# Everything that is done to this project by hand or by CI. `make` alone lists it.

PYTHON ?= python3
ARGS ?=
SECONDS ?= 60
DAYS ?= 30
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
PURE := exporter/aggregate.py,exporter/distributions.py,exporter/exposition.py,exporter/metrics.py,exporter/model.py,$\
	exporter/page.py,exporter/privacy.py,exporter/report.py,exporter/selection.py,exporter/store.py

# The real Prometheus, Alertmanager and wrk that tests start, where the machine has none of its own.
export PATH := $(PATH):$(CURDIR)/.tools/usr/bin
export LD_LIBRARY_PATH := $(if $(LD_LIBRARY_PATH),$(LD_LIBRARY_PATH):)$(CURDIR)/.tools/usr/lib/$(shell uname -m)-linux-gnu

.PHONY: help install demo run test lint tools bench bench-quick fuzz soak storm docs pictures lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## Install the exporter into .venv, from pinned and hashed packages

demo: install ## Serve metrics of a pretend company: no account needed
	$(BIN)/thousandeyes-exporter demo

run: install ## Run the exporter: make run ARGS="--api.token-file token.txt check"
	$(BIN)/thousandeyes-exporter $(ARGS)

test: $(VENV)/.installed-dev tools lint ## Run every check and every test
	$(BIN)/python -m pytest --numprocesses=2 --cov --cov-report=term-missing:skip-covered
	$(BIN)/coverage report --include=$(PURE) --fail-under=100

lint: $(VENV)/.installed-dev ## Check style, types, and which room may know which
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

tools: $(VENV)/.installed-dev ## Unpack the programs that tests need into .tools, where the machine lacks them
	tests/tools.sh .tools
	tests/image.sh tools
	tests/helm.sh .tools $(BIN)/python
	tests/chromium.sh .tools $(BIN)/python

bench: $(VENV)/.installed-dev tools ## Measure everything (long) and write benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks

bench-quick: $(VENV)/.installed-dev tools ## Measure everything in under two minutes
	$(BIN)/python -m benchmarks --quick

fuzz: $(VENV)/.installed-dev ## Fuzz everything that is read, guided by coverage: make fuzz SECONDS=600 (each target)
	cd tests && ../$(BIN)/python -m fuzz.guided --seconds $(SECONDS)

soak: $(VENV)/.installed-dev ## Poll for days of simulated time, with faults at random: make soak DAYS=30
	$(BIN)/python tests/soak.py --days $(DAYS)

storm: $(VENV)/.installed-dev tools ## Measure scrapes while many scrape, others only half, and polls run
	$(BIN)/python tests/storm.py

docs: $(VENV)/.installed-dev ## Write anew what is made from the code: references, dashboards, the chart's copies
	$(BIN)/python -m docs
	$(BIN)/python -m grafana
	$(BIN)/python -m deploy

pictures: $(VENV)/.installed-dev tools ## Draw the dashboards' pictures anew, with Chromium and npm
	$(BIN)/python -m grafana.render

lock: $(VENV)/.installed-dev ## Pin the newest packages that pyproject.toml allows
	$(PIP) 'uv>=0.9'
	.ci/lock $(BIN)/uv

clean: ## Remove everything that was made
	rm -rf $(VENV) .tools .image .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis .fuzz .import_linter_cache dist

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo 'Python 3.11, 3.12 or 3.13 is needed: say where with make PYTHON=/path/to/python' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo 'This Python can not make environments. On Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt requirements-build.txt pyproject.toml | $(BIN)/python
	$(PIP) --require-hashes -r requirements.txt -r requirements-build.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(PIP) --require-hashes -r requirements-dev.txt
	@touch $@
