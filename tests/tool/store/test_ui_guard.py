"""Whose connections the server of `dvc-mlflow ui` answers."""

import os
import socket

import pytest

from dvc_mlflow.store.ui_guard import is_allowed
from support.servers import other_user


@pytest.mark.parametrize(
    ("family", "source", "address"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET, "127.0.0.9", "127.0.0.1"),  # another address of this machine
        (socket.AF_INET6, "::ffff:127.0.0.1", "::ffff:127.0.0.1"),  # IPv4 over a socket of IPv6
    ],
)
def test_whose_connections(family: socket.AddressFamily, source: str, address: str) -> None:
    """A connection is allowed while a client of this user or root has it open, and no other."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(family) as client:
        client.bind((source, 0))
        client.connect((address, server.getsockname()[1]))
        (accepted, there), here = server.accept(), server.getsockname()
        with accepted:
            assert is_allowed(there, here)
            assert not is_allowed((there[0], 1), here)
            assert not is_allowed(("127.0.0.2", there[1]), here)
            assert not is_allowed(there, (here[0], 1))
            if os.geteuid() == 0:  # only root can be another user
                with other_user(1):
                    assert is_allowed(there, here)
                os.fchown(client.fileno(), 1, 1)
                assert not is_allowed(there, here)
                with other_user(1):
                    assert is_allowed(there, here)
                with other_user(2):
                    assert not is_allowed(there, here)
                os.fchown(client.fileno(), 0, 0)
            client.close()
            assert not is_allowed(there, here)  # Linux says now that it is root's
