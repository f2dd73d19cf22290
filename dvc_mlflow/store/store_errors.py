"""What can go wrong with an MLflow store, and how the user can fix it."""

import re
from collections.abc import Callable
from sqlite3 import Error
from typing import TypeVar

from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from ..errors import StoreError, is_raised_in, masked

_CURES = {
    "locked|busy|serialize access|too many c(lients|onnections)": "run it again when it is free",
    "disk is full|disk full|No space left|quota": "make room on its disk",
    "(?i)read-?only|permission denied|unable to open": "make it writable for you",
    "out-of-date database schema": "back it up, and run `mlflow db upgrade` on it",
    "error code 40[13]|authentication|Unauthorized": "check its user name and password",
    "refused|timed out|resol(ve|ution)|unreachable|HTTPConn|error code 5": "start it, or unset "
    "MLFLOW_TRACKING_URI",
}
_OTHERWISE = "check that its address is that of an MLflow store"
_IS_THERE = "(?i)unique constraint|duplicate (key|entry)|already exists"
_CHECKOUTS = 20  # that create something in one store at the same time, and then wait for each other

_T = TypeVar("_T")


def store_error(address: str, error: Exception) -> StoreError:
    """Return a store error as the user sees it: one line, without passwords."""
    said = re.sub(r"^\(\w+\.\w+\) ", "", masked(str(error)))
    if password := re.search(r"://[^\s/:@]*:(\S*)@", address):
        for part in re.split("[/@]", password[1]):  # requests may take parts of it for the path
            said = said.replace(part, "***") if len(part) > 2 else said
    # After the cause come advice, an SQL statement, a link or a limit that may not be the one.
    ends = r"\. (?=[A-Z])| \[SQL: | \(Background on |\.? \(\w+ timeout="
    text = re.split(ends, " ".join(said.split()))[0]
    # Around the cause of a failed request come its address and its client's classes.
    if inner := re.search(r"\(Caused by \w+\([\"'][^)>]*[)>]: ([^\"]*)", text):
        text = inner[1]
    cause = text[:300] or type(error).__name__
    fault = f"{getattr(error, 'error_code', '')} {error}"
    known = (text for pattern, text in _CURES.items() if re.search(pattern, fault))
    return StoreError(masked(address), cause, next(known, _OTHERWISE))


def is_of_store(error: BaseException) -> bool:
    """Whether an error comes from MLflow, its database or its server, rather than from the tool.

    If something other than an MLflow server answers, MLflow's client raises any kind of error.
    """
    if isinstance(error, MlflowException | SQLAlchemyError | Error | OSError | ImportError):
        return True
    return is_raised_in("mlflow", error)


def retried(call: Callable[[], _T]) -> _T:
    """Return the result of `call`; try again while other processes create the same thing first.

    Each process that creates the same thing in one store conflicts only once.
    """
    for _ in range(_CHECKOUTS):
        try:
            return call()
        except (MlflowException, SQLAlchemyError) as error:
            if not re.search(_IS_THERE, str(error)):
                raise
    return call()
