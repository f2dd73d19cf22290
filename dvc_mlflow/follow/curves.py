"""The curves of a running stage, read from its plot files as they grow."""

from collections.abc import Iterator
from contextlib import suppress

from .. import work_tree
from ..pipeline.keys import file_prefixes, keyed_curves, labels, prefix
from ..pipeline.row import Point
from ..pipeline.stages import Plot, Stage, is_table
from ..rows.result import Result
from .project_homes import Stamp, stamp

_MOST = 5_000_000  # bytes of a file that are read while its stage runs


class GrowingCurves:
    """Reads the whole lines of a stage's curves whenever their files have changed."""

    def __init__(self, result: Result, stage: Stage) -> None:
        self.stage, pipeline = stage, result.pipeline
        self._root, self._top = result.project.root, result.project.top
        self._plots = [plot for plot in pipeline.plots_of(stage) if plot.draws_lines]
        self._start = prefix(stage, labels(result.row_stages)[stage.name])
        self._stems = file_prefixes(pipeline, stage)
        self._seen: dict[str, Stamp | None] = {}

    def read(self) -> list[Point]:
        """Return the points in the files that have changed since the last call."""
        points = list[Point]()
        for path, plot in self._files():
            file, was = self._root / path, self._seen.get(path)
            self._seen[path] = stamp(f"{file}")
            with suppress(OSError):
                if self._seen[path] != was:
                    body = work_tree.read(file, self._top, size=_MOST)
                    text = body[: body.rfind(b"\n") + 1].decode(errors="replace")
                    if not plot.x and text.count("\n") < 3:  # a line may show another axis
                        continue
                    keyed = keyed_curves(plot, path, text, self._start, self._stems)
                    points += (Point(k, v, step) for k, curve in keyed for step, v in curve.points)
        return points

    def _files(self) -> Iterator[tuple[str, Plot]]:
        for plot in self._plots:
            start = self._root / plot.path
            for file in [start] if is_table(plot.path) else sorted(start.rglob("*")):
                if is_table(file.name) and file.is_file():
                    yield file.relative_to(self._root).as_posix(), plot
