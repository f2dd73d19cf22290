"""The curves of a running stage, read from its plot files as they grow."""

from collections.abc import Iterator, Set
from contextlib import suppress

from .. import work_tree
from ..pipeline.keys import file_prefixes, keyed_curves, labels, prefix
from ..pipeline.row import Point
from ..pipeline.stages import Plot, Stage, is_table
from ..rows.result import Result
from ..store.run_data import comparable
from .project_homes import Stamp, stamp

_MOST = 10_000  # points at once, so that whatever else there is to do can be done
_LARGEST = 5_000_000  # bytes of a file that are read while its stage runs


class GrowingCurves:
    """Reads the whole lines of a stage's curves whenever their files have changed."""

    def __init__(self, result: Result, stage: Stage) -> None:
        self.stage, pipeline = stage, result.pipeline
        self._root, self._top = result.project.root, result.project.top
        self._plots = [plot for plot in pipeline.plots_of(stage) if plot.draws_lines]
        self._start = prefix(stage, labels(result.row_stages)[stage.name])
        self._stems = file_prefixes(pipeline, stage)
        self._seen: dict[str, Stamp | None] = {}

    def read(self, sent: Set[tuple[str, str, int]]) -> list[Point]:
        """Return the points of files that have changed, but for those `sent`; of many the first."""
        new = list[Point]()
        for path, plot in self._files():
            file = self._root / path
            now = stamp(f"{file}")
            with suppress(OSError):
                if now == self._seen.get(path) or len(new) > _MOST:
                    continue
                body = work_tree.read(file, self._top, size=_LARGEST)
                text = body[: body.rfind(b"\n") + 1].decode(errors="replace")
                if not plot.x and text.count("\n") < 3:  # a line may show another axis
                    continue
                keyed = keyed_curves(plot, path, text, self._start, self._stems)
                points = (Point(key, v, step) for key, curve in keyed for step, v in curve.points)
                new += (point for point in points if comparable(point) not in sent)
                if len(new) <= _MOST:  # else the rest is read the next time
                    self._seen[path] = now
        return sorted(new, key=lambda point: point.step)[:_MOST]  # some of each curve

    def _files(self) -> Iterator[tuple[str, Plot]]:
        for plot in self._plots:
            start = self._root / plot.path
            for file in [start] if is_table(plot.path) else sorted(start.rglob("*")):
                if is_table(file.name) and file.is_file():
                    yield file.relative_to(self._root).as_posix(), plot
