"""MLflow's server as `dvc-mlflow ui` starts it: it answers the user who started it, and root.

All users of a machine can connect to 127.0.0.1, and the server can read and write its user's files.
"""

import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

TABLE = Path("/proc/net/tcp")
"""The kernel's table of connections and their owners; that of IPv6 sockets has a 6 at its end."""

_MAPPED = bytes(10) + b"\xff\xff"  # in an IPv6 socket, what comes before an IPv4 address
_ESTABLISHED = "01"  # once a connection is closed, the kernel may call its owner root
_REFUSAL = b"`dvc-mlflow ui` answers the user who started it.\n"

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


def guarded_app() -> Callable[[_Message, _Receive, _Send], Awaitable[None]]:
    """Return MLflow's ASGI app, which answers 403 to other users."""
    from mlflow.server.fastapi_app import app

    logging.disable(logging.NOTSET)  # unlike the tool's own processes, the server keeps a log

    async def guarded(scope: _Message, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan" or is_allowed(scope["client"], scope["server"]):
            await app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # the client gets 403
        else:
            headers = [(b"content-type", b"text/plain")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": _REFUSAL})

    return guarded


def is_allowed(client: tuple[str, int], server: tuple[str, int]) -> bool:
    """Whether this user or root owns the client's end of an open IPv4 connection to a server."""
    for table, prefix in {TABLE: b"", Path(f"{TABLE}6"): _MAPPED}.items():
        ends = [_listed(prefix + socket.inet_aton(host), port) for host, port in (client, server)]
        with suppress(OSError), table.open() as lines:  # IPv6 may be switched off
            for line in lines:
                fields = line.split()
                if fields[1:4] == [*ends, _ESTABLISHED]:
                    return int(fields[7]) in {os.geteuid(), 0}
    return False


def _listed(address: bytes, port: int) -> str:
    """Return an address and a port as the table lists them: in words of the CPU's byte order."""
    words = struct.unpack(f"{len(address) // 4}I", address)
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"
