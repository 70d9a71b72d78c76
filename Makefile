# Two commands for a fresh machine: `make demo` and `make test`. Everything goes into .venv beside this file.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
JOBS ?= 2
MINUTES ?= 10
KILLS ?= 85
WORKERS ?= 15

.PHONY: demo demo-real test test-slow lint docs smoke truth editors techniques fuzz kills damage mutants clean

$(VENV)/.runtime: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt "torch==2.13.0"
	$(PIP) install --quiet --constraint constraints.txt --editable ".[gguf]"
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(PIP) install --quiet --constraint constraints.txt --editable ".[dev,gguf]"
	touch $@

demo: $(VENV)/.runtime  ## the whole job on the embedded pair; prints where the report is
	rm -rf runs/demo
	$(BIN)/taxlens demo --out runs/demo

demo-real: $(VENV)/.runtime  ## the whole job on SmolLM2-135M-Instruct and a refusal-tuned version
	$(BIN)/python -m benchmarks.real.fetch
	rm -rf runs/smollm2
	$(BIN)/taxlens run configs/smollm2.yaml --out runs/smollm2

test: $(VENV)/.dev  ## all tests but the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS)

test-slow: $(VENV)/.dev  ## real weights and long simulations
	$(BIN)/python -m pytest -q -m slow

lint: $(VENV)/.dev  ## style, types, import order, size budget
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright
	$(BIN)/python -m benchmarks.house.sizes

docs: $(VENV)/.dev  ## the documentation site, into .cache/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

smoke: $(VENV)/.dev  ## the wheel built from the sdist, in an empty environment
	$(BIN)/python -m benchmarks.house.smoke

truth: $(VENV)/.dev  ## the proving ground
	$(BIN)/python -m benchmarks.truth

fuzz: $(VENV)/.dev  ## ten minutes of fuzzing a target (MINUTES=)
	$(BIN)/python -m benchmarks.house.fuzz --minutes $(MINUTES)

kills: $(VENV)/.dev  ## a hundred random kills, each resumed to the same bytes (KILLS=, WORKERS=)
	$(BIN)/python -m benchmarks.house.kills --kills $(KILLS) --workers $(WORKERS)

damage: $(VENV)/.dev  ## two hundred flipped bits and cuts in every kind of file that is written
	$(BIN)/python -m benchmarks.house.damage

mutants: $(VENV)/.dev  ## mutations of the committed list, and how many the tests kill
	$(BIN)/python -m benchmarks.house.mutants

editors: $(VENV)/.dev  ## every editor on the embedded pairs
	$(BIN)/python -m benchmarks.editors

TECHNIQUES := refusal preference constitutional adversarial chain
techniques: $(VENV)/.dev  ## four alignment techniques on SmolLM2: adapters, bills, accounts, pages; goes on where it was stopped
	$(BIN)/python -m benchmarks.real.fetch
	for name in $(filter-out refusal,$(TECHNIQUES)); do test -e configs/techniques/$$name/recipe.json || $(BIN)/python -m benchmarks.real.techniques $$name || exit 1; done
	for name in $(TECHNIQUES); do $(BIN)/python -m benchmarks.real.bill $$name && $(BIN)/python -m benchmarks.real.account $$name || exit 1; done
	$(BIN)/python -m benchmarks.real.bill --figures
	$(BIN)/python -m benchmarks.real.technique_pages

clean:
	rm -rf $(VENV) .cache runs dist build
