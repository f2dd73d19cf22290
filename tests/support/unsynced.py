"""SQLite that does not wait for the disk, which takes tests longer than all else it does.

That counts only if the power fails: a killed process leaves what it would leave otherwise.
"""

import sqlite3
from contextlib import suppress

from sqlalchemy import Engine, event


@event.listens_for(Engine, "connect")
def _do_not_wait(connection: object, _: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        (patience,) = connection.execute("PRAGMA busy_timeout").fetchone()
        connection.execute("PRAGMA busy_timeout = 0")
        with suppress(sqlite3.Error):  # what is damaged or locked, MLflow will see itself
            connection.execute("PRAGMA synchronous = OFF")
        connection.execute(f"PRAGMA busy_timeout = {patience}")
