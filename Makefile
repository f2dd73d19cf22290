# Everything runs in .venv, which is made when it is missing or its requirements have changed.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := 1

.PHONY: help repro properties ui plots restore test test-fast test-slow test-oldest check format bench screenshots lock cluster-setup
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */:/' | awk -F: '{printf "make %-14s %s\n", $$1, $$2}'

repro: .venv/run  ## run the pipeline: whatever has changed, and nothing else
	dvc repro

properties: .venv/run  ## measure the post's five claims
	cd properties && dvc repro

ui: .venv/run  ## show the results in MLflow, on this machine only
	mlflow ui --host 127.0.0.1

plots: .venv/dev  ## write DVC's plots to one page that needs no network
	python tools/offline_plots.py

test: .venv/dev  ## run every test
	pytest

test-fast: .venv/dev  ## run the tests that need no TensorFlow, DVC or MLflow
	pytest -m "not pipeline"

test-slow: .venv/dev  ## run every test with larger numbers
	pytest --slow

test-oldest: .venv-oldest/run  ## run the bridge's tests with the oldest DVC and MLflow that it supports
	.venv-oldest/bin/python -m pytest tests/bridge/test_adoption.py tests/bridge/test_package.py

check: .venv/dev  ## check format, lint and types
	ruff format --check .
	ruff check .
	mypy

format: .venv/dev  ## format the code
	ruff format .
	ruff check --fix .

bench: .venv/dev  ## measure the speed, and write tests/benchmarks/RESULTS.md
	python tests/benchmarks/run.py

screenshots: .venv/dev  ## make the README's pictures (needs chromium)
	python tools/screenshots.py

restore: .venv/run  ## bring back the files of a row of MLflow: make restore RUN=<run id>
	python tools/restore.py "$$RUN"

cluster-setup: .venv/cluster  ## add what sweeps on a cluster need (cluster/README.md)

lock:  ## compile pyproject.toml to requirements*.txt (needs uv)
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes -q -o requirements.txt
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes -q -c requirements.txt -o requirements-dev.txt
	uv pip compile pyproject.toml --extra cluster --universal --python-version 3.11 --generate-hashes -q -c requirements-dev.txt -o requirements-cluster.txt
	uv pip compile tests/bridge/oldest.in --exclude-newer 2025-06-20 --universal --python-version 3.11 --generate-hashes -q -o tests/bridge/oldest.txt

.venv-oldest/run: tests/bridge/oldest.txt
	@test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	@.venv-oldest/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r $<
	@touch $@

.venv/run: requirements.txt
	$(call install,requirements.txt)

.venv/dev: requirements-dev.txt .venv/run
	$(call install,requirements-dev.txt)

.venv/cluster: requirements-cluster.txt .venv/run
	$(call install,requirements-cluster.txt)

define install
	@test -x .venv/bin/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say which with PYTHON=")'
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@if command -v uv >/dev/null; then uv pip install -q --compile-bytecode --python .venv/bin/python --require-hashes -r $(1); \
	else .venv/bin/pip install -q --disable-pip-version-check --require-hashes -r $(1); fi
	@touch $@
endef
