"""A team's services and nodes, on which tests sweep over projects of a stage or two."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from unittest.mock import patch

import pytest

from dvc_mlflow.sweep import node
from support.projects import Shared
from support.services import TrackingServer, postgresql


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackingServer]:
    """A tracking server with users, on PostgreSQL, for all tests of this module."""
    with postgresql() as database, pytest.MonkeyPatch.context() as own:
        server = TrackingServer(database, tmp_path_factory.mktemp("server") / "mlflow")
        for name, value in server.client.items():
            own.setenv(name, value)
        yield server


@pytest.fixture(scope="module")
def up(server: TrackingServer) -> Iterator[ExitStack]:
    """What stops the server."""
    with ExitStack() as up:
        up.enter_context(server.up())
        yield up


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory, server: TrackingServer, up: ExitStack
) -> Iterator[Shared]:
    """A cluster for all tests of this module."""
    allow = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "protocol.file.allow"}  # for submodules
    soon = {"failure_threshold": "2", "timeout_ms": "4000", "period_ms": "1000"}
    notices = {f"RAY_health_check_{name}": value for name, value in soon.items()}
    with patch.dict(os.environ, {**allow, **notices}, GIT_CONFIG_VALUE_0="always"):
        found = Shared(tmp_path_factory.mktemp("nodes"), server.client)
    try:
        yield found
    finally:
        found.cluster.shutdown()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nodes say soon that they have failed."""
    monkeypatch.setattr(node, "_SLOW", 2.0)
