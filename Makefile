# Everything runs in .venv, which is made when it is missing or its requirements have changed.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := 1

.PHONY: help repro heal properties ui plots restore promote test test-rest test-cluster test-all test-fast test-slow test-oldest test-newest check format bench screenshots lock cluster-setup
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */:/' | awk -F: '{name = $$1; sub(/[^:]*:/, ""); printf "make %-14s %s\n", name, $$0}'

repro: heal  ## run the stages that have changed, and add the rows that MLflow lacks
	PYTHONPATH=stages python -m vanilla_lstm.task.params
	dvc repro
	dvc-mlflow record

heal: .venv/run  ## repair what a killed dvc or git left behind
	dvc-mlflow heal . properties

properties: heal  ## measure the post's five claims (properties/README.md)
	cd properties && dvc repro && dvc-mlflow record

ui: .venv/run  ## show the results in MLflow, on this machine only: make ui PORT=5000
	dvc-mlflow ui --port $(or $(PORT),5000)

plots: .venv/dev  ## write DVC's plots to a page that needs no network
	python tools/offline_plots.py

# Tests also wait, so there are twice as many workers as processors.
PYTEST = python -m pytest -n $(shell echo $$(( $$(nproc) * 2 ))) --maxprocesses 8 --dist loadfile -rs

test: .venv/dev  ## run the main tests, in about five minutes on two cores
	@echo "about five minutes on two cores; \`make test-rest test-cluster\` runs the deselected tests"
	$(PYTEST) -m "not rest and not cluster"

test-rest: .venv/dev  ## run the other tests: a browser, other processors, rarer faults
	$(PYTEST) -m rest

test-cluster: .venv/dev .venv/cluster  ## run the tests of sweeps on a cluster and its services
	$(PYTEST) -m cluster

test-all: test test-rest test-cluster  ## run every test

test-fast: .venv/dev  ## run the tests that run no TensorFlow, DVC or MLflow
	python -m pytest -m "not pipeline"

test-slow: .venv/dev  ## run every test with larger numbers: hundreds of kills, all committed results
	python -m pytest --slow

TOOL_TESTS = tests/test_examples.py \
	$(addprefix tests/tool/test_,history.py history_kills.py history_old.py identity.py \
	identity_items.py identity_stages.py package.py places.py places_git.py restore.py \
	restore_refused.py run.py run_curves.py run_inputs.py run_plain_mlflow.py run_rows.py \
	run_stopped.py)

test-oldest: .venv-oldest/run  ## test the tool with the oldest DVC and MLflow that it supports
	.venv-oldest/bin/python -m pytest $(TOOL_TESTS)

test-newest:  ## build the tool's package, and test it with the newest DVC and MLflow
	@test -x .venv-newest/bin/python || $(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install -q --upgrade build twine $$(sed s/==.*// tests/tool/oldest.in)
	.venv-newest/bin/python -m build -o .venv-newest/dist dvc_mlflow
	.venv-newest/bin/python -m twine check --strict .venv-newest/dist/*
	.venv-newest/bin/python -m pip install -q --force-reinstall --no-deps .venv-newest/dist/*.whl
	.venv-newest/bin/python -m pytest $(TOOL_TESTS)

check: .venv/dev  ## check format, lint and types
	python -m ruff format --check .
	python -m ruff check .
	python -m mypy

format: .venv/dev  ## format the code
	python -m ruff format .
	python -m ruff check --fix .

bench: .venv/dev .venv/cluster  ## measure the speed and write tests/benchmarks/RESULTS*.md
	python tests/benchmarks/run.py
	python tests/benchmarks/recording.py
	python tests/benchmarks/history.py
	python tests/benchmarks/cluster.py

screenshots: .venv/dev  ## make the README's pictures (needs chromium)
	python tools/screenshots.py

restore: .venv/run  ## restore a row's code and files in a separate folder: make restore RUN=<run id>
	@dvc-mlflow restore -- "$$RUN"

promote: .venv/run  ## make a row's model the champion if it is better: make promote RUN=<run id>
	@dvc-mlflow promote -- "$$RUN"

cluster-setup: .venv/cluster  ## install what sweeps on a cluster need (docs/SWEEP.md)

lock:  ## compile pyproject.toml to requirements*.txt (needs uv)
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes -q -o requirements.txt
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes -q -c requirements.txt -o requirements-dev.txt
	uv pip compile pyproject.toml --extra cluster --universal --python-version 3.11 --generate-hashes -q -c requirements-dev.txt -o requirements-cluster.txt
	uv pip compile tests/tool/oldest.in --exclude-newer 2025-06-20 --universal --python-version 3.11 --generate-hashes -q -o tests/tool/oldest.txt

# The lists are complete. Python 3.11's own pip would look for a newer fsspec for `fsspec[http]`.
PIP_INSTALL = pip install -q --disable-pip-version-check --no-deps
TOOL = --no-build-isolation -e

.venv-oldest/run: tests/tool/oldest.txt dvc_mlflow/pyproject.toml
	@test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	@.venv-oldest/bin/python -m $(PIP_INSTALL) --require-hashes -r $<
	@.venv-oldest/bin/python -m $(PIP_INSTALL) $(TOOL) dvc_mlflow
	@touch $@

# .venv names the tool, and here itself, by an absolute path: a moved one installs it again. A link
# to another checkout's .venv uses that one's.
ifneq ($(shell cat .venv/run 2>/dev/null),$(realpath .venv/..))
.PHONY: .venv/run
endif

.venv/run: requirements.txt dvc_mlflow/pyproject.toml
	$(call install,requirements.txt)
	@test -L .venv || if command -v uv >/dev/null; \
	then uv pip install -q --python .venv/bin/python --no-deps $(TOOL) "$(CURDIR)/dvc_mlflow"; \
	else .venv/bin/python -m $(PIP_INSTALL) $(TOOL) "$(CURDIR)/dvc_mlflow"; fi
	@(cd -P .venv/.. && pwd -P) > $@

.venv/dev: requirements-dev.txt .venv/run
	$(call install,requirements-dev.txt)
	@touch $@

.venv/cluster: requirements-cluster.txt .venv/run
	$(call install,requirements-cluster.txt)
	@touch $@

define install
	@test -x .venv/bin/python || $(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) \
		and "Python 3.11, 3.12 or 3.13 is needed; choose one with PYTHON=")'
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv || { rm -rf .venv; \
		echo "Python cannot make .venv: it lacks the module venv (Debian: apt install python3-venv)"; exit 1; }
	@echo "installing $(1) into .venv: half a minute with uv, a few minutes with pip"
	@if command -v uv >/dev/null; then uv pip install -q --compile-bytecode --python .venv/bin/python --require-hashes -r $(1); \
	else .venv/bin/python -m $(PIP_INSTALL) --require-hashes -r $(1); fi
endef
