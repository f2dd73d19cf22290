"""The pipeline that the attacks are tried on."""

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
