"""A team's services and nodes, on which tests sweep over projects of a stage or two."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from unittest.mock import patch

import pytest

from dvc_mlflow.sweep import node
from support.projects import Shared
from support.servers import TrackingServer, postgresql


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TrackingServer, ExitStack]]:
    """A tracking server with users, on PostgreSQL, for all tests of a module, and what stops it."""
    with postgresql() as database, patch.dict(os.environ), ExitStack() as up:
        server = TrackingServer(database, tmp_path_factory.mktemp("server") / "mlflow")
        os.environ.update(server.client)
        up.enter_context(server.up())
        yield server, up


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory, server: tuple[TrackingServer, ExitStack]
) -> Iterator[Shared]:
    """A cluster for all tests of this module, which soon knows that a node is lost."""
    soon = {"failure_threshold": "2", "timeout_ms": "4000", "period_ms": "1000"}
    with patch.dict(os.environ, {f"RAY_health_check_{name}": n for name, n in soon.items()}):
        found = Shared(tmp_path_factory.mktemp("nodes"), server[0].client)
    try:
        yield found
    finally:
        found.cluster.shutdown()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nodes say soon that they have failed."""
    monkeypatch.setattr(node, "_SLOW", 2.0)
