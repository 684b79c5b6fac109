PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/installed

# A private home for ZenML's state would hide the user's stacks: only the reporting of usage is turned off.
export ZENML_ANALYTICS_OPT_IN ?= false

.PHONY: demo check test test-slow test-cluster lint docs setup

demo: setup  ## the main job on the embedded phantom cohort: no network, no account, no GPU
	$(BIN)/python gan_augmentation.py  # as `zenml pipeline run gan_augmentation`, which ends badly without a home folder

check: setup  ## the inner loop: lint beside the tests that need no training and no server
	$(MAKE) lint & OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile -m "not slow and not cluster and not heavy" && wait $$!

# Tests run side by side, a file each; torch's own threads would only get into each other's way.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

test-slow: setup
	$(BIN)/python -m pytest -m slow

test-cluster: setup  ## the whole pipeline on ZenML's Kubernetes orchestrator and others; Debian's podman runs the pods
	test -d .venv/vertex || $(BIN)/pip install -q --no-deps --target .venv/vertex -r constraints-vertex.txt
	$(BIN)/python -m pytest -m cluster

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup  ## the page of all keys of a run file, and the schema that editors check one by
	$(BIN)/python -m docs.configuration

setup: $(STAMP)

$(STAMP): constraints.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[pipeline,kubernetes,s3,server,ssh,dev]'
	test -d .zen || $(BIN)/zenml init
	touch $@
