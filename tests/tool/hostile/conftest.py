"""The pipeline that the attacks are tried on."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.hostile import Place, small_pipeline
from support.pipelines import Repository


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A recorded pipeline whose result is committed, for all tests: copy it."""
    return small_pipeline(tmp_path_factory.mktemp("made"))


@pytest.fixture
def place(made: Repository, tmp_path: Path) -> Place:
    """A copy of that pipeline, beside a folder that must stay as it is."""
    return Place.copied(made, tmp_path)


@pytest.fixture(autouse=True)
def _in_time(request: pytest.FixtureRequest) -> Iterator[None]:
    """End a test that waits for what never comes; the machine can be loaded."""

    def late(*_: object) -> None:
        raise AssertionError("it has not ended in time")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(0 if request.node.get_closest_marker("rest") else 300)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
