# Every target sets up what it needs: a virtual environment with the package and its development tools.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-slow soak lint bench bench-speed strategies docs clean

demo: $(READY)
	$(BIN)/overtone demo --out demo-run

test: $(READY)
	$(BIN)/python -m pytest -q -m "not slow"

test-slow: $(READY)
	$(BIN)/python -m pytest -q -m slow

# 200 kills at random moments, and a longer run that must not grow: 7 minutes.
soak: $(READY)
	PYTHONPATH=tests $(BIN)/python tests/faults/soak.py --kills 200

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: bench-speed
	for row in $$($(BIN)/python benchmarks/quality/rows.py); do \
		$(BIN)/python benchmarks/quality/run.py $$row || exit 1; \
	done
	$(BIN)/python benchmarks/quality/table.py
	for row in beside-mnist trifeature nothing-planted; do \
		$(BIN)/python benchmarks/quality/stopping.py $$row || exit 1; \
	done
	for row in scenes emoji emoji-base; do \
		$(BIN)/python benchmarks/two_towers/run.py $$row || exit 1; \
	done
	$(BIN)/python benchmarks/footprint.py
	$(BIN)/python benchmarks/sampler.py

# What each strategy claims, trained and drawn: docs/strategies.
strategies: $(READY)
	$(BIN)/python benchmarks/strategies/claims.py
	$(BIN)/python benchmarks/strategies/pictures.py

# Every part of a run beside its peers and the limits of the machine, into docs/performance.md: about an hour, on an idle
# machine.
bench-speed: $(READY)
	$(BIN)/pip install --quiet -e ".[bench]"
	for part in step views objective embedding clustering cells demo overhead startup; do \
		$(BIN)/python benchmarks/speed/$$part.py || exit 1; \
	done
	$(BIN)/python benchmarks/speed/speed_table.py

# The reference: every public name with its docstring, as HTML in docs/build.
docs: $(READY)
	$(BIN)/pip install --quiet pdoc
	$(BIN)/pdoc --docformat google --output-directory docs/build overtone

clean:
	rm -rf $(VENV) demo-run docs/build

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e ".[dev,timm,clip,hf,lora,hub,report,tensorboard]"
	touch $(READY)
