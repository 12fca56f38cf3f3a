# Two commands: `make demo` and `make test` do all the set-up they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV := $(VENV)/.installed-dev

.PHONY: demo test test-cluster test-architectures lint docs audit mini-base bench bench-recommend bench-explain bench-budget clean

demo: $(STAMP)
	$(BIN)/traitmap run src/traitmap/mini/study.yaml --output runs
	$(BIN)/traitmap matrix runs/mini
	$(BIN)/traitmap traits runs/mini
	$(BIN)/traitmap report runs/mini

# Two processes of one thread each: with two threads each they would wait for each other.
test: $(DEV) lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

# On a cluster of two nodes that is started on this machine.
test-cluster: $(DEV)
	$(BIN)/python -m pytest -m cluster tests/cluster

# The whole catalogue of architectures (tests/tiny_architectures.py), of which `make test` walks a third.
test-architectures: $(DEV)
	$(BIN)/python -m pytest -m "architectures or not architectures" tests/architectures

lint: $(DEV)
	$(BIN)/ruff check src tests docs benchmarks
	$(BIN)/ruff format --check src tests docs benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(DEV)
	NO_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict

# Known faults of the pinned packages; asks a public database.
audit: $(DEV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[audit]"
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip

# The bundled base, from nothing: its corpus is generated, and the same machine gives the same weights.
mini-base: $(STAMP)
	$(BIN)/python -m traitmap.mini.corpus build/corpus.txt
	rm -rf src/traitmap/mini/base
	$(BIN)/traitmap pretrain build/corpus.txt --output src/traitmap/mini/base \
		--vocab-size 2048 --steps 1800 --arithmetic bfloat16 --threads 1

bench: $(DEV)
	$(BIN)/python benchmarks/run.py

$(STAMP): pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $(STAMP)

$(DEV): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(DEV)

# Recommenders on every published matrix that is laid out in ../shared/matrices; the fixture always runs.
bench-recommend: $(DEV)
	$(BIN)/python benchmarks/recommend.py

bench-explain: $(DEV)
	$(BIN)/python benchmarks/explain_calibration.py
	$(BIN)/python benchmarks/explain_planted.py
	$(BIN)/python benchmarks/relations.py

bench-budget: $(DEV)
	$(BIN)/python benchmarks/budget.py --taskweb ../shared/matrices --run runs/real

clean:
	rm -rf $(VENV) build dist
