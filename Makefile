# Every target sets up .venv as it needs; nothing is installed outside of it.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check lint bench clean

demo: .venv/demo.done  ## a synthetic volume, segmented, scored and drawn; under two minutes
	rm -rf emslice-demo
	$(BIN)/emslice demo --out emslice-demo

test: .venv/test.done  ## the tests; under twelve minutes on two cores
	$(BIN)/pytest -n 2 --dist loadfile

check: lint test  ## what a change must pass

lint: .venv/check.done  ## ruff, ruff format, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/test.done  ## on real data: every benchmark of which docs/results/ has the figures
	$(BIN)/python -m benchmarks.main_job
	$(BIN)/python -m benchmarks.blocks
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.thresholds
	$(BIN)/python -m benchmarks.dust
	$(BIN)/python -m benchmarks.postprocess
	$(BIN)/python -m benchmarks.predict
	$(BIN)/python -m benchmarks.crops
	$(BIN)/python -m benchmarks.train

clean:
	rm -rf .venv emslice-demo

# torch is pinned here, not in pyproject.toml: the release that the figures were measured with.
.venv/demo.done: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet -e .
	touch $@

.venv/test.done: .venv/demo.done
	$(BIN)/pip install --quiet -e ".[test]"
	touch $@

.venv/check.done: .venv/test.done
	$(BIN)/pip install --quiet -e ".[check]"
	touch $@
