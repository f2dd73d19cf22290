"""The curves of a running stage, read from its plot files as they grow."""

from collections.abc import Iterator
from pathlib import Path

from .. import work_tree
from ..pipeline.keys import file_prefixes, keyed_curves, labels, prefix
from ..pipeline.row import Point
from ..pipeline.stages import Plot, Stage, is_table
from ..rows.result import Result

_MOST = 10_000  # points at once, so that whatever else there is to do can be done
_CHUNK = 1_000_000  # bytes


class GrowingCurves:
    """Reads what a stage adds to its curves, each line once and only when it is whole."""

    def __init__(self, result: Result, stage: Stage) -> None:
        self.stage, pipeline = stage, result.pipeline
        self._root, self._top = result.project.root, result.project.top
        self._plots = [plot for plot in pipeline.plots_of(stage) if plot.draws_lines]
        self._start = prefix(stage, labels(result.row_stages)[stage.name])
        self._stems = file_prefixes(pipeline, stage)
        self._read: dict[str, _Read] = {}
        self._pending: list[Point] = []

    def read(self) -> list[Point]:
        """Return points that have been added since the last call, of very many the first."""
        for path, plot in () if self._pending else self._files():
            has_head = plot.header and not path.endswith(".jsonl")
            text = self._read.setdefault(path, _Read(has_head)).added(self._root / path, self._top)
            if text:
                keyed = keyed_curves(plot, path, text, self._start, self._stems)
                points = (Point(key, v, step) for key, curve in keyed for step, v in curve.points)
                self._pending += points
        found, self._pending = self._pending[:_MOST], self._pending[_MOST:]
        return found

    def _files(self) -> Iterator[tuple[str, Plot]]:
        for plot in self._plots:
            start = self._root / plot.path
            for file in [start] if is_table(plot.path) else sorted(start.rglob("*")):
                if is_table(file.name) and file.is_file():
                    yield file.relative_to(self._root).as_posix(), plot


class _Read:
    """How far a file has been read."""

    def __init__(self, has_head: bool) -> None:
        self._at, self._head, self._has_head = 0, b"", has_head

    def added(self, path: Path, top: Path) -> str:
        """Return whole lines that were added, after the table's header if it has one."""
        try:
            lines = work_tree.read(path, top, start=self._at, size=_CHUNK)
        except OSError:
            return ""
        whole = lines[: lines.rfind(b"\n") + 1]
        head = self._head
        if not self._at and self._has_head:
            self._head = whole[: whole.find(b"\n") + 1]
        self._at += len(whole)
        return (head + whole).decode(errors="replace") if whole else ""
