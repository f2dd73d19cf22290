"""What can go wrong with a store, and what helps: every fault is classified here."""

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from google.protobuf import json_format
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from ..run.errors import TrackingError

ERRORS = (
    *(MlflowException, SQLAlchemyError, OSError, ImportError),
    # From within MLflow's client, if a server answers what no MLflow server would.
    *(AttributeError, LookupError, RuntimeError, TypeError, ValueError, json_format.Error),
)
"""Raised when a store is missing, damaged, locked or full, lacks its driver, or is none."""

_CURES = {
    "locked|busy|serialize access|too many c(lients|onnections)": "run it again when it is free",
    "disk is full|disk full|No space left|quota": "make room on its disk",
    "(?i)read-?only|permission denied|unable to open": "make it writable for you",
    "not a database|malformed|no such (table|column)": (
        "bring back a backup, or move it away to begin a new store"
    ),
    "out-of-date database schema": "back it up, and run `mlflow db upgrade` on it",
    "Can't locate revision": "use the version of MLflow that wrote it last",
    "older than": "upgrade it, or unset MLFLOW_TRACKING_URI",
    "error code 40[13]|authentication|Unauthorized": "check its user name and password",
    "refused|timed out|resol(ve|ution)|unreachable|no whole answer|HTTPConn|error code 5": (
        "start it, or unset MLFLOW_TRACKING_URI"
    ),
    "No module named|NoSuchModule|Can't load plugin": "install its driver",
}
_OTHERWISE = "check that its address is that of an MLflow store"

_T = TypeVar("_T")


def tracking_error(address: str, error: Exception, cure: str = "") -> TrackingError:
    """Return an error of a store as its user reads it: in one line, without passwords.

    Without `cure`, it is the one for this fault.
    """
    cause = " ".join(masked(str(error)).split())[:300] or type(error).__name__
    known = (text for pattern, text in _CURES.items() if re.search(pattern, str(error)))
    return TrackingError(masked(address), cause, cure or next(known, _OTHERWISE))


def masked(text: str) -> str:
    """Return text without the user names, passwords and tokens of the addresses in it."""
    text = re.sub(r"(?<=://)[^\s/]*(?=@)", "***", text)
    return re.sub(r"(?i)\b(\w*(?:password|passwd|pwd|token|secret|key))=[^\s&]+", r"\1=***", text)


@contextmanager
def deadline(seconds: int) -> Iterator[None]:
    """Raise `TimeoutError` in a block that takes longer; in the main thread only.

    MLflow's own timeout is for each read, so a server that answers a byte at a time holds it.
    """

    def late(*_: object) -> None:
        raise TimeoutError(f"no whole answer within {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    outer = signal.setitimer(signal.ITIMER_REAL, seconds, 1)  # again, if a library tries again
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *outer)
        signal.signal(signal.SIGALRM, before)


def once_more(call: Callable[[], _T]) -> _T:
    """Return what `call` returns, at its second attempt if another process was faster.

    Two checkouts that make the same experiment or data set in one store conflict, once.
    """
    try:
        return call()
    except (MlflowException, SQLAlchemyError) as error:
        if not re.search("UNIQUE constraint|duplicate key|already exists", str(error)):
            raise
        return call()
