"""The plots that dvc.yaml declares, of a stage and at the top."""

from collections.abc import Iterator, Mapping
from typing import Any

from ..pipeline.stages import Plot
from .files import Files


def own(project: Files, out: Any) -> Plot:
    """Return the plot that an output of a stage is."""
    given = out.plot if isinstance(out.plot, Mapping) else {}
    return _plot(project._path(out), given.get("x"), given)


def at_top(project: Files, file: str) -> Iterator[Plot]:
    """Yield the plots at the top of a dvc.yaml."""
    for entry in project._repo.index._plots.get(file, ()):
        for name, given in (entry if isinstance(entry, Mapping) else {entry: {}}).items():
            y, x = (given or {}).get("y"), (given or {}).get("x")
            for path in y if isinstance(y, Mapping) else [name]:
                axis = x.get(path) if isinstance(x, Mapping) else x
                yield _plot(project._beside(file, path), axis, given or {})


def _plot(path: str, x: object, given: Mapping[str, Any]) -> Plot:
    template, header = str(given.get("template") or ""), given.get("header", True)
    return Plot(path, str(x or ""), template, bool(header))
