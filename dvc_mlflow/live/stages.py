"""The stages that one `dvc` process runs: a stage can have several commands, and has one row."""

from contextlib import suppress

from ..follow.known import Known
from ..place import main_repository
from .request import Request
from .row import Ended, LiveRow
from .shared import Shared


class Stages:
    """The stages of one `dvc` process, and what they share."""

    def __init__(self, shared: Shared) -> None:
        self._known, self._shared = Known(main_repository()), shared
        self._unfinished: dict[tuple[str, str], LiveRow] = {}

    def begin(self, request: Request) -> LiveRow:
        """Return the row of a stage that begins a command: if it is not its first, the same row."""
        row = self._unfinished.pop((request.home, request.stage), None)
        if row and row.goes_on(request):
            return row
        if row:
            row.drop()
        return LiveRow(self._known, self._shared.now(), request)

    def finish(self, row: LiveRow, code: int, stopped: int, said: str) -> Ended:
        """End the row of a stage whose command has ended, unless it has further commands."""
        if row.commands and not (code or stopped):
            self._unfinished[row.key] = row
            return Ended([], 0)
        return row.finish(code, stopped, said)

    def drop(self) -> None:
        """Mark the rows of unfinished stages as KILLED, as `dvc` has ended."""
        for row in self._unfinished.values():
            with suppress(Exception):  # the next command that opens the store does it, too
                row.drop()
