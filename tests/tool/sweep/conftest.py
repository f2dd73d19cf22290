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
def database() -> Iterator[str]:
    """The address of a database for all tests of a module."""
    with postgresql() as address:
        yield address


@pytest.fixture(scope="module")
def server(
    database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[TrackingServer, ExitStack]]:
    """A tracking server with users for all tests of a module, and what stops it."""
    with ExitStack() as up:
        server = TrackingServer(database, tmp_path_factory.mktemp("server") / "mlflow")
        up.enter_context(server.up())
        yield server, up


@pytest.fixture(scope="module")
def shared(client: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """A cluster for all tests of this module, which soon knows that a node is lost.

    The module says in `client` what leads to its rows: a server, or a database.
    """
    soon = {"failure_threshold": "2", "timeout_ms": "4000", "period_ms": "1000"}
    own = {f"RAY_health_check_{name}": n for name, n in soon.items()}
    with patch.dict(os.environ, {**client, **own}):
        found = Shared(tmp_path_factory.mktemp("nodes"), client)
        try:
            yield found
        finally:
            found.cluster.shutdown()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nodes say soon that they have failed."""
    monkeypatch.setattr(node, "_SLOW", 2.0)
