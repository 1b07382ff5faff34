# Every target sets up what it needs: a .venv in the project, with the versions of requirements.lock.
.DEFAULT_GOAL := help
.PHONY: help demo test test-all check toy-study pocket mera fidelity arena coverage published bench everything report docs clean
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(READY): pyproject.toml requirements.lock
	@echo "Setting up $(VENV) (a few minutes the first time) ..."
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[dev]' --constraint requirements.lock
	@touch $@

demo: $(READY)  ## train and steer two toy networks and a language model, and judge it (a minute and a half)
	@$(RUN) -m lightning_steer.studies.demo

test: $(READY)  ## the tests, without the slow ones (a few minutes)
	@OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 -m "not slow"

test-all: $(READY)  ## all tests
	@OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2

check: $(READY)  ## format, lint, types, import contracts, docstrings
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/pyright
	@$(VENV)/bin/lint-imports
	@$(VENV)/bin/interrogate --quiet lightning_steer

toy-study: $(READY)  ## when vectors beat projections, and why the reproduction failed (a quarter of an hour)
	@$(RUN) -m lightning_steer.studies.toy

pocket: $(READY)  ## train the small language models that ship, three seeds, and measure them (half an hour)
	@$(RUN) -m lightning_steer.studies.pocket

mera: $(READY)  ## repair a model's errors, certified: every method, then the crossed design (half an hour)
	@$(RUN) -m lightning_steer.studies.mera
	@$(RUN) -m lightning_steer.studies.mera.crossed --verdict

fidelity: $(READY)  ## stereotypes and behaviours: what was meant to move and what moved (twelve minutes)
	@$(RUN) -m lightning_steer.studies.fidelity

arena: $(READY)  ## which method should I use: every method at equal damage, two processes (a quarter of an hour)
	@OMP_NUM_THREADS=1 $(RUN) -m lightning_steer.studies.arena --processes 2 --verdict

coverage: $(READY)  ## how often every interval and certificate holds, simulated (half an hour of processor time)
	@OMP_NUM_THREADS=1 $(RUN) -m lightning_steer.studies.coverage
	@OMP_NUM_THREADS=1 $(RUN) -m lightning_steer.studies.coverage.choices

published: $(READY)  ## judge outcomes that others released; DATA=FOLDER holds them (a quarter of a minute)
	@$(RUN) -m lightning_steer.studies.published --data $(DATA)

bench: $(READY)  ## speed, as ratios measured side by side in one run (half an hour)
	@$(RUN) benchmarks/all.py

# + runs the line in a dry run too, which then only says what it would take
everything: $(READY)  ## all studies, benchmarks and the pages that quote them; goes on where it stopped (hours; --dry-run says more)
	+@$(RUN) -m lightning_steer.studies.everything $(if $(findstring n,$(firstword -$(MAKEFLAGS))),--dry-run)

report: $(READY)  ## collect all runs into one table
	@$(RUN) -m lightning_steer.report logs/ --html

# mkdocs counts warnings only where it prints them
docs: $(READY)  ## the documents and the API as pages, in site/
	@said=$$($(RUN) -m mkdocs build --strict 2>&1) || { echo "$$said" | grep -v '^INFO'; exit 1; }
	@echo "Wrote site/index.html"

clean:  ## remove what runs have written, not what ships
	rm -rf logs/* .pytest_cache .ruff_cache .hypothesis .import_linter_cache site
	git clean -fdXq checkpoints
