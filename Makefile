# Everything runs in .venv, which is made when it is missing or its requirements have changed.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
# A container's setting, with which each process would compile the same code again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help repro heal claims ui plots test check format bench lock cluster-setup
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */:/' | awk -F: '{name = $$1; sub(/[^:]*:/, ""); printf "make %-14s %s\n", name, $$0}'

repro: heal  ## run the stages that have changed, and add the rows that MLflow lacks
	PYTHONPATH=stages python -m vanilla_lstm.task.params
	dvc repro
	dvc-mlflow record

heal: .venv/run  ## repair what a killed dvc or git left behind
	python tools/heal.py . claims

claims: heal  ## measure the post's five claims (claims/README.md)
	cd claims && dvc repro && dvc-mlflow record

ui: .venv/run  ## show the results in MLflow, on this machine only: make ui PORT=5000
	dvc-mlflow ui --port $(or $(PORT),5000)

plots: .venv/dev  ## write DVC's plots to a page that needs no network
	python tools/offline_plots.py

# Some tests wait, so there is one worker more than processors; each takes half a minute of one by itself.
PYTEST = python -m pytest -n $(shell echo $$(( $$(nproc) + 1 ))) --maxprocesses 8 --dist loadfile -rs

# The suites: what each needs, and how it runs. Two are of the tool with other versions: `oldest` with
# the oldest DVC and MLflow that it supports, `newest` with the newest ones and its built package.
SUITE = main
NEEDS_main = .venv/dev
RUN_main = $(PYTEST) -m "not rest and not cluster"
NEEDS_rest = .venv/dev
RUN_rest = $(PYTEST) -m "rest and not versions"
NEEDS_cluster = .venv/dev .venv/cluster
RUN_cluster = $(PYTEST) -m "cluster and not versions" tests/tool/sweep
NEEDS_oldest = .venv-oldest/run
RUN_oldest = .venv-oldest/bin/$(PYTEST) -m versions
NEEDS_newest = .venv-newest/run
RUN_newest = .venv-newest/bin/$(PYTEST) -m versions

test: $(NEEDS_$(SUITE))  ## run the main tests, or others: make test SUITE=rest, cluster, oldest, newest
	$(or $(RUN_$(SUITE)),$(error SUITE must be main, rest, cluster, oldest or newest; received '$(SUITE)'))

check: .venv/dev  ## check format, lint and types
	python -m ruff format --check .
	python -m ruff check .
	python -m mypy

format: .venv/dev  ## format the code
	python -m ruff format .
	python -m ruff check --fix .

bench: .venv/dev .venv/cluster  ## measure the speed and write benchmarks/RESULTS*.md
	python benchmarks/run.py
	python benchmarks/recording.py
	python benchmarks/history.py
	python benchmarks/cluster.py

cluster-setup: .venv/cluster  ## install what sweeps on a cluster need (docs/SWEEP.md)

lock:  ## compile pyproject.toml to requirements*.txt (needs uv)
	uv pip compile pyproject.toml $(PINNED) -o requirements.txt
	$(call compile_extra,shared,requirements.txt)
	$(call compile_extra,dev,requirements.txt requirements-shared.txt)
	$(call compile_extra,cluster,requirements.txt requirements-shared.txt)
	uv pip compile tests/tool/oldest.in --exclude-newer 2025-06-20 \
		$(addprefix --exclude-newer-package ,ray=2025-10-01 $(addsuffix =2025-10-23,mlflow mlflow-skinny mlflow-tracing)) \
		$(PINNED) -o tests/tool/oldest.txt

PINNED = --universal --python-version 3.11 --generate-hashes -q

# $(call compile_extra,EXTRA,LISTS): pin what an extra adds to LISTS. uv writes a complete list.
define compile_extra
	uv pip compile pyproject.toml --extra $(1) $(addprefix -c ,$(2)) $(PINNED) \
		--custom-compile-command "make lock" -o requirements-$(1).txt
	awk 'FNR == 1 {again = 0} /^[a-z]/ {again = said[$$0]++} FILENAME == ARGV[ARGC - 1] && !again' \
		$(2) requirements-$(1).txt > requirements-$(1).new && mv requirements-$(1).new requirements-$(1).txt
endef

# Together the lists are complete: nothing looks for more. Python 3.11's own pip would look for a
# newer fsspec for `fsspec[http]`, and uv for the hashes of what another list has.
PIP_INSTALL = pip install -q --disable-pip-version-check --no-deps
TOOL = --no-build-isolation -e

.venv-oldest/run: tests/tool/oldest.txt dvc_mlflow/pyproject.toml dvc_mlflow/dvc-mlflow
	@test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	@.venv-oldest/bin/python -m $(PIP_INSTALL) --require-hashes -r $<
	@.venv-oldest/bin/python -m $(PIP_INSTALL) $(TOOL) dvc_mlflow
	@touch $@

.PHONY: .venv-newest/run
.venv-newest/run:
	@test -x .venv-newest/bin/python || $(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install -q --upgrade build twine $$(sed s/==.*// tests/tool/oldest.in)
	.venv-newest/bin/python -m build -o .venv-newest/dist dvc_mlflow
	.venv-newest/bin/python -m twine check --strict .venv-newest/dist/*
	.venv-newest/bin/python -m pip install -q --force-reinstall --no-deps .venv-newest/dist/*.whl

# .venv's programs name it by an absolute path, so one that was moved or copied is made again. A link
# to another checkout's .venv uses that one's.
ifneq ($(shell cat .venv/run 2>/dev/null),$(realpath .venv/..))
.PHONY: .venv/run
endif

.venv/run: requirements.txt dvc_mlflow/pyproject.toml dvc_mlflow/dvc-mlflow
	@test ! -f $@ || test "$$(cat $@)" = "$$(cd -P .venv/.. && pwd -P)" || rm -rf .venv
	$(call install,requirements.txt)
	@test -L .venv || if command -v uv >/dev/null; \
	then uv pip install -q --python .venv/bin/python --no-deps $(TOOL) "$(CURDIR)/dvc_mlflow"; \
	else .venv/bin/python -m $(PIP_INSTALL) $(TOOL) "$(CURDIR)/dvc_mlflow"; fi
	@(cd -P .venv/.. && pwd -P) > $@

.venv/dev: requirements-shared.txt requirements-dev.txt .venv/run
	$(call install,requirements-shared.txt requirements-dev.txt)
	@touch $@

.venv/cluster: requirements-shared.txt requirements-cluster.txt .venv/run
	$(call install,requirements-shared.txt requirements-cluster.txt)
	@touch $@

define install
	@test -x .venv/bin/python || $(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) \
		and "Python 3.11, 3.12 or 3.13 is needed; choose one with PYTHON=")'
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv || { rm -rf .venv; \
		echo "Python cannot make .venv: it lacks the module venv (Debian: apt install python3-venv)"; exit 1; }
	@echo "installing $(1) into .venv: half a minute with uv, a few minutes with pip"
	@if command -v uv >/dev/null; then uv pip install -q --compile-bytecode --python .venv/bin/python --no-deps --require-hashes $(addprefix -r ,$(1)); \
	else .venv/bin/python -m $(PIP_INSTALL) --require-hashes $(addprefix -r ,$(1)); fi
endef
