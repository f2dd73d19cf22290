"""Fixtures that the test modules share; clone.py makes the clones."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import pytest

from clone import ROOT, Clone, make_clone
from processor import processor

with suppress(ImportError):  # `make test-oldest` has none
    import hypothesis  # noqa: F401  (before Keras, whose import hides objects from it)

REST = (
    "tests/learning/test_processors.py",
    "tests/learning/test_training.py::test_same_weights_on_one_core_and_on_more[size1]",
    "tests/learning/test_training.py::test_same_weights_on_one_core_and_on_more[size2]",
    "tests/pipeline/test_browser.py",
    "tests/pipeline/test_kills.py::test_kills",
    "tests/test_examples.py::test_in_place",
    "tests/test_properties.py::test_measuring_is_what_the_stages_do",
    "tests/test_readme.py::test_commands_print_what_readme_shows",
    "tests/test_readme.py::test_the_sixth_task",
    "tests/test_repro.py::test_what_runs[{'data.n_steps': 12}",
    "tests/test_repro.py::test_what_runs[{'test_data.seed': 1}",
)
"""The tests that `make test` leaves to `make test-rest`, by the beginning of their ids."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith(REST):
            item.add_marker(pytest.mark.rest)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests with larger numbers")


def pytest_report_header() -> str:
    return f"processor: {processor()}"


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """Undo what a test or MLflow (`set_tracking_uri`) writes to the environment of this process."""
    with patch.dict(os.environ):
        yield


@pytest.fixture(scope="session")
def slow(request: pytest.FixtureRequest) -> bool:
    """Whether to run with larger numbers, which takes minutes to hours."""
    return bool(request.config.getoption("--slow"))


@pytest.fixture(scope="session")
def as_committed() -> None:
    """Skip tests of the committed results if code, params or results have uncommitted changes."""
    paths = ["stages", "properties", "data", "params.yaml", "dvc.yaml", "dvc.lock"]
    command = ["git", "status", "--porcelain", "--", *paths]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    if done.stdout:
        pytest.skip(f"not committed: {done.stdout.split()[1]}")


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    """A clone of the working tree with the tiny params; nothing has run in it."""
    return make_clone(tmp_path / "clone")


@pytest.fixture
def project(made: Clone, tmp_path: Path) -> Clone:
    """A copy, with an empty store, of the pipeline that the test's module has `made`."""
    return made.copy(tmp_path / "project")


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which `dvc repro` has run once for all tests: read it, or `copy` it."""
    clone = make_clone(tmp_path_factory.mktemp("reproduced") / "clone")
    clone.dvc("repro")
    clone.commit("The results")
    return clone
