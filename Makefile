# make run    from sequences to the report, on the shipped model and data
# make test   the suite; what takes longer is in make test-slow, and CI runs both
# Each creates the environment it needs in .venv; nothing but Python 3.11 or 3.12, git and make has to be there.
# On 3.12 the newest helical is installed (3.1.4), on 3.11 the newest that it allows (2.2.0).

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The newest Python that helical's pins allow; `make PYTHON=/path/to/python3.11` names another. A shim may be on the
# PATH and refuse, so each is asked.
PYTHON ?= $(shell for p in python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && { command -v $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# An environment keeps the Python that it was made with.
VERSION_OF := -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null
VERSION := $(shell $(BIN)/python $(VERSION_OF) || { test -n "$(PYTHON)" && $(PYTHON) $(VERSION_OF); })
LOCK := requirements-$(VERSION).lock
INTEROP_VENV := .venv-interop

# One thread a worker: two workers with a pool of threads each would only fight for the cores.
SINGLE_THREADED := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1

.PHONY: help
help:
	@sed -n 's/^\([a-z-]*\):.*## */\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do printf '  make %-14s %s\n' "$$name" "$$text"; done

.PHONY: install
install: $(STAMP) ## create .venv from the lock file of its Python

$(STAMP): $(wildcard requirements-*.lock) pyproject.toml
	@test -f "$(LOCK)" || { echo "Python 3.11 or 3.12 is needed and was not found: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@test "$(origin PYTHON)" = file || test "$$($(PYTHON) $(VERSION_OF))" = "$(VERSION)" || { \
		echo "$(VENV) was made with Python $(VERSION), not with $(PYTHON): remove it, or name another folder with VENV=" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	$(BIN)/python -m helix_sae.statistics.compilation
	touch $@

.PHONY: run
run: $(STAMP) ## run the default pipeline: sequences, activations, features, their biology and their effects
	@$(BIN)/helix-sae run
	@echo
	@echo "To look at everything: make viz"
	@echo "For helix-sae and kedro in this shell: source $(BIN)/activate"

.PHONY: test
test: $(STAMP) ## run the test suite, without its slow part
	$(SINGLE_THREADED) $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

.PHONY: test-slow
test-slow: $(STAMP) ## run the slow part of the suite: whole roads, soaks, kills, benchmarks' small cases
	$(SINGLE_THREADED) $(BIN)/python -m pytest -n 2 --dist worksteal -m slow

.PHONY: fuzz
fuzz: $(STAMP) ## coverage-guided fuzzing of every reader of sequences, on a fixed number of inputs
	$(SINGLE_THREADED) $(BIN)/python tests/fuzz/fuzz_readers.py

.PHONY: test-core
test-core: $(STAMP) ## what a new torch or helical could change: the model, causal effects and one whole run
	$(SINGLE_THREADED) $(BIN)/python -m pytest -n 2 --dist worksteal tests/models tests/causal tests/end_to_end/test_run.py

.PHONY: lint
lint: $(STAMP) ## style, types and the arrows between packages
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

.PHONY: docs
docs: $(STAMP) ## build the site into build/docs; a warning is an error, nothing is fetched
	$(BIN)/python -m sphinx -b html -W --keep-going -q docs build/docs
	@echo "The site: build/docs/index.html"

.PHONY: viz
viz: $(STAMP) ## look at the pipelines, tables and figures in the browser
	@echo "The six pipelines as boxes, without their data: http://127.0.0.1:4141/?types=nodes"
	$(BIN)/kedro viz run

.PHONY: bench
bench: $(STAMP) ## run every benchmark; one JSON line a case
	@set -e; for script in benchmarks/*.py; do echo "# $$script"; $(BIN)/python $$script; done

ifneq ($(wildcard tests/interop/requirements.txt),)
.PHONY: test-interop
test-interop: $(INTEROP_VENV)/.installed ## exchange autoencoders with real SAELens, in an environment of its own
	$(SINGLE_THREADED) $(INTEROP_VENV)/bin/python -m pytest tests/interop

$(INTEROP_VENV)/.installed: tests/interop/requirements.lock
	test -x $(INTEROP_VENV)/bin/python || $(PYTHON) -m venv $(INTEROP_VENV)
	$(INTEROP_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	touch $@
endif

# MLflow asks for older cryptography and pyarrow than the lock files have: they come before those of .venv, on top of it.
.PHONY: test-mlflow
test-mlflow: .venv-mlflow/.installed ## keep a run in a store of MLflow, in an environment of its own on top of .venv
	$(SINGLE_THREADED) $(BIN)/python -m pytest tests/tracking

.venv-mlflow/.installed: $(STAMP)
	test -x .venv-mlflow/bin/python || $(BIN)/python -m venv .venv-mlflow
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
		"$$(.venv-mlflow/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/base.pth"
	.venv-mlflow/bin/python -m pip install --quiet --disable-pip-version-check "kedro-mlflow>=2,<3" "mlflow<3.18"
	touch $@

.PHONY: wheel
wheel: $(STAMP) ## build dist/*.whl, which works without a clone
	rm -rf build/lib build/bdist.*
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-index --no-build-isolation --no-deps --wheel-dir dist .
	rm -rf build/lib build/bdist.*
	@ls dist/*.whl

# The extras of pyproject.toml that .venv has.
LOCKED := --extra structure --extra cluster --extra dev

# uv resolves for every platform but, told by `environments`, for one Python; that marker on each line is then no news.
.PHONY: lock
lock: $(STAMP) ## write the lock files anew from pyproject.toml and tests/interop/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@set -e; for version in 3.11 3.12; do \
		folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; lock=requirements-$$version.lock; \
		{ cat pyproject.toml; printf '\n[tool.uv]\nenvironments = ["python_version == '"'%s'"'"]\n' $$version; } > $$folder/pyproject.toml; \
		test ! -f $$lock || cp $$lock $$folder/lock; \
		(cd $$folder && $(abspath $(BIN))/uv pip compile --quiet --universal --python-version $$version --generate-hashes \
			--no-annotate --custom-compile-command "make lock" $(LOCKED) --output-file lock pyproject.toml); \
		sed -E "s/ ; python_full_version < '3\.1[23]' and / ; /; s/ ; python_full_version < '3\.1[23]'//" $$folder/lock > $$lock; rm -rf "$$folder"; \
	done
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
		--custom-compile-command "make lock" --output-file tests/interop/requirements.lock tests/interop/requirements.txt

.PHONY: clean
clean: ## remove what the tools leave behind; data and .venv stay
	rm -rf build dist .viz .ruff_cache .pytest_cache .hypothesis .import_linter_cache src/*.egg-info
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
