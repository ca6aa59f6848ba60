# The template's own checks. The generated service has a Makefile of its own.
# `make PYTHON=/some/python3.12 test` uses that interpreter.

SERVICE := {{cookiecutter.project_slug}}
PEERS := benchmarks/compare/requirements

# The first interpreter that really runs, can make venvs and is supported, with its version.
PYENV_ROOT ?= $(HOME)/.pyenv
CANDIDATES := $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 \
	$(wildcard $(PYENV_ROOT)/versions/3.1[1-4]*/bin/python3))
PROBE := import sys, ensurepip; (3, 11) <= sys.version_info < (3, 15) or sys.exit(1); \
	print("%d.%d.%d" % sys.version_info[:3])
FOUND := $(shell for python in $(CANDIDATES); do \
	version=$$($$python -c '$(PROBE)' 2>/dev/null) && echo $$python $$version && break; done)
override PYTHON = $(or $(firstword $(FOUND)),$(error No Python 3.11 to 3.14 with venv runs here: \
	install one, or name it: make PYTHON=path))
INSTALLED = .venv/installed-with-python-$(lastword $(FOUND))

.PHONY: demo test mutants mutation coverage hunt simulate chaos compare lock clean

demo: $(INSTALLED)
	@.venv/bin/python -m tools.demo $(PORT)

test: $(INSTALLED)
	@.venv/bin/python tools/check.py

mutants: $(INSTALLED)
	@.venv/bin/python tools/mutants.py

# Each statement deleted, each operator and value changed: hours for the whole engine, so FILES="app/db.py",
# CHANGED=main (what differs from that commit), MINUTES=5, SEED=7 (of the order), SECONDS=4 (of
# tests for a mutant) say what to try.
mutation: $(INSTALLED)
	@.venv/bin/python -m tools.mutation $(FILES) $(if $(CHANGED),--changed $(CHANGED)) \
		$(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) \
		$(if $(SECONDS),--seconds $(SECONDS))

# Each line and branch of the service, in processes too. With Python 3.12 or newer: those before do
# not show what a coroutine does after what it has waited for has failed. Tests of the tests' own
# support run nothing of it. No cache is left in the folder that cookiecutter copies.
COVERAGE = $(CURDIR)/.venv/bin/python -m coverage
coverage: export COVERAGE_RCFILE = $(CURDIR)/pyproject.toml
coverage: export COVERAGE_FILE = $(CURDIR)/.cache/coverage/data
coverage: export HYPOTHESIS_STORAGE_DIRECTORY = $(CURDIR)/.cache/hypothesis
coverage: export PYTHONPYCACHEPREFIX = $(CURDIR)/.cache/bytecode
coverage: $(INSTALLED)
	@rm -rf .cache/coverage && mkdir -p .cache/coverage
	@cd "$(SERVICE)" && $(COVERAGE) run -m pytest -q -p no:cacheprovider -n auto \
		--ignore=tests/simulation --ignore=tests/support
	@cd "$(SERVICE)" && $(COVERAGE) combine --quiet && $(COVERAGE) report

# Which mutants the simulation sees without any other test, and with how many seeds.
hunt: $(INSTALLED)
	@.venv/bin/python -m tools.hunt $(MUTANTS)

# Many replicas and faults on one virtual clock. `make simulate SEED=7` replays one seed and draws it.
SEEDS = 1000
FIRST = 0
simulate: $(INSTALLED)
	@PYTHONPATH="$(SERVICE):$(SERVICE)/tests" SEEDS=$(SEEDS) FIRST=$(FIRST) SEED=$(SEED) \
		.venv/bin/python -m simulation

# Six processes on one database, SQLite and then Postgres: left alone, killed, frozen, cut off and
# so on, for MINUTES in all.
chaos: MINUTES = 10
chaos: $(INSTALLED)
	@.venv/bin/python -m tools.chaos $(MINUTES)

# Ours, APScheduler 3, fastapi-crons and the plain loop, frozen, killed and stopped: README's table.
compare: $(INSTALLED)
	@.venv/bin/python -m benchmarks.compare

$(INSTALLED): requirements-dev.txt
	rm -rf .venv
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

# The service's lists first: ours take their versions. What still fits keeps its version; to take
# the newest, remove the .txt files before.
lock:
	$(MAKE) -C "$(SERVICE)" lock
	uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
		--no-emit-index-url requirements-dev.in -o requirements-dev.txt
	for list in apscheduler fastapi-crons; do \
		uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
			--no-emit-index-url $(PEERS)/$$list.in -o $(PEERS)/$$list.txt || exit; done

clean:
	rm -rf .venv .cache
	find . -type d \( -name __pycache__ -o -name '.*_cache' \) -prune -exec rm -rf {} +
