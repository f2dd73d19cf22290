"""Errors of dvc_mlflow as a stage reports them."""

from collections.abc import Iterator
from contextlib import contextmanager

from dvc_mlflow.errors import StoreError, ToolError

from ..run.errors import StageError, TrackingError


@contextmanager
def stage_errors() -> Iterator[None]:
    """Raise errors of dvc_mlflow as `TrackingError` or `StageError`; also a decorator."""
    try:
        yield
    except StoreError as error:
        raise TrackingError(error.address, error.problem, error.cure) from None
    except ToolError as error:
        raise StageError(f"{error}") from None
