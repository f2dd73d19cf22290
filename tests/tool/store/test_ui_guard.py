"""Whose connections the server of `dvc-mlflow ui` answers."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dvc_mlflow.store.ui_guard import is_allowed
from support.servers import other_user

CLIENTS = {
    "IPv4": (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
    "another address of this machine": (socket.AF_INET, "127.0.0.9", "127.0.0.1"),
    "IPv4 over a socket of IPv6": (socket.AF_INET6, "::ffff:127.0.0.1", "::ffff:127.0.0.1"),
}
each_client = pytest.mark.parametrize("kind", CLIENTS)


@contextmanager
def connected(kind: str) -> Iterator[tuple[socket.socket, tuple[str, int], tuple[str, int]]]:
    """Yield the socket of a client, its address as its server sees it, and the server's."""
    family, source, address = CLIENTS[kind]
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(family) as client:
        client.bind((source, 0))
        client.connect((address, server.getsockname()[1]))
        accepted, there = server.accept()
        with accepted:
            yield client, there, server.getsockname()


@each_client
def test_open_connections(kind: str) -> None:
    """A connection is allowed while its client has it open; one that is not found is refused."""
    with connected(kind) as (client, there, here):
        assert is_allowed(there, here)
        assert not is_allowed((there[0], 1), here)
        assert not is_allowed(("127.0.0.2", there[1]), here)
        assert not is_allowed(there, (here[0], 1))
        client.close()
        assert not is_allowed(there, here)  # Linux says now that it is root's


@each_client
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_owners(kind: str) -> None:
    """The connections of this user and root are allowed, other users' are refused."""
    with connected(kind) as (client, there, here):
        with other_user(1):
            assert is_allowed(there, here)
        os.fchown(client.fileno(), 1, 1)
        assert not is_allowed(there, here)
        with other_user(1):
            assert is_allowed(there, here)
        with other_user(2):
            assert not is_allowed(there, here)
