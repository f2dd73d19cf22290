"""What a stage sends to its recorder when it begins."""

from typing import NamedTuple


class Request(NamedTuple):
    """What a stage sends to its recorder when it begins."""

    stage: str
    """`DVC_STAGE`, relative to the folder that `dvc` works in."""
    folder: str
    """The stage's working directory."""
    began: int
    """Nanoseconds since 1970."""
    token: str
    """The value of `TOKEN`."""
    params: str
    """The text of the params.yaml in that folder before the command began, or ""."""
    home: str
    """The folder that `dvc` works in."""
    text: str | None = None
    """The command as DVC has it, which may be one of several; None if it has the prefix."""
    asks: bool = False
    """Whether the stage waits to hear if it is recorded."""
