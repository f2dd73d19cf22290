"""The curves of a running stage, read from its plot files as they grow."""

from collections.abc import Iterator
from pathlib import Path

from ..pipeline.keys import file_prefixes, keyed_curves, labels, prefix
from ..pipeline.row import Point
from ..pipeline.stages import Plot, Stage, is_table
from ..rows.result import Result


class GrowingCurves:
    """Reads what a stage adds to its curves, each line once and only when it is whole."""

    def __init__(self, result: Result, stage: Stage) -> None:
        self._root, pipeline = result.project.root, result.pipeline
        self._plots = [plot for plot in pipeline.plots_of(stage) if plot.draws_lines]
        self._start = prefix(stage, labels(result.row_stages)[stage.name])
        self._stems = file_prefixes(pipeline, stage)
        self._read: dict[str, _Read] = {}

    @property
    def draws(self) -> bool:
        """Whether the stage has any curves."""
        return bool(self._plots)

    def read(self) -> list[Point]:
        """Return the points that have been added since the last call."""
        found = []
        for path, plot in self._files():
            has_head = plot.header and not path.endswith(".jsonl")
            text = self._read.setdefault(path, _Read(has_head)).added(self._root / path)
            if text:
                keyed = keyed_curves(plot, path, text, self._start, self._stems)
                found += [Point(key, v, step) for key, curve in keyed for step, v in curve.points]
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

    def added(self, path: Path) -> str:
        """Return the whole lines that were added, after the table's header if it has one."""
        try:
            with path.open("rb") as file:
                file.seek(self._at)
                lines = file.read(1 << 24)
        except OSError:
            return ""
        whole = lines[: lines.rfind(b"\n") + 1]
        head = self._head
        if not self._at and self._has_head:
            self._head = whole[: whole.find(b"\n") + 1]
        self._at += len(whole)
        return (head + whole).decode(errors="replace") if whole else ""
