# Two commands matter: `make serve` and `make test`. Each does its own set-up.
.DELETE_ON_ERROR:
.PHONY: setup serve test check lint types layers dead bench bench-planners bench-kernels bench-engines real-sizes chaos docs clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.rackscale-installed
MODEL ?= models/austen-moe-nvfp4
PYTHON ?= python3
NATIVE := CMakeLists.txt $(wildcard src/rackscale/runtime/csrc/*)

setup: $(STAMP)

$(STAMP): pyproject.toml $(NATIVE)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

serve: setup
	$(BIN)/rackscale serve $(MODEL) $(ARGS)

test: setup
	$(BIN)/pytest --cov --cov-report=term $(ARGS)

check: lint types layers dead test

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

layers: setup
	$(BIN)/lint-imports

dead: setup
	$(BIN)/vulture

bench: setup
	$(BIN)/python bench/control_plane.py
	$(BIN)/python bench/serve.py
	$(BIN)/python bench/all_to_all.py
	$(BIN)/python bench/expert_parallel.py
	$(BIN)/python bench/balancing.py
	$(BIN)/python bench/disaggregation.py

bench-engines: setup
	$(BIN)/python bench/engines.py --activations int8 --profile $(ARGS)

real-sizes: setup
	$(BIN)/python bench/real_sizes.py --activations int8 $(ARGS)

bench-kernels: setup
	$(BIN)/python bench/kernels.py $(ARGS)

bench-planners: setup
	$(BIN)/python bench/planners.py $(ARGS)

chaos: setup
	PYTHONPATH=tests/serve OMP_NUM_THREADS=1 $(BIN)/python tests/chaos/chaos.py --requests 10000 --kills 200 $(ARGS)

docs: setup
	$(BIN)/pdoc rackscale rackscale.core rackscale.specs rackscale.policy rackscale.engine rackscale.measure rackscale.checkpoint rackscale.runtime rackscale.serve rackscale.cli --output-directory site

clean:
	rm -rf build dist site .coverage htmlcov .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
