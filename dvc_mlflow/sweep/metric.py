"""The metric that decides which trial is best."""

from difflib import get_close_matches

from ..errors import ToolError
from ..project import Project
from ..rows.content import part_of
from ..rows.result import read
from ..rows.shown import metrics_shown
from .table import Table


def chosen(given: str | None, project: Project, table: Table, *, is_needed: bool) -> str:
    """Return the metric, with a `-` before it if lower is better.

    By default it is the first in the table. If there is none, return "", unless it `is_needed`.
    Raises `ToolError` if a name only resembles a metric that the results of the checkout have.
    """
    names, known = [*table.columns], list[str]()
    for result in read(project).results():
        content = {name: part_of(result, name) for name in result.digests}
        known += [point.key for each in content.values() for point in each.points]
        names += metrics_shown(result, content)
    if given:
        name = given.removeprefix("-")
        near = get_close_matches(name, known, 1)
        # A script can log what DVC does not know of.
        if near and name not in known and not table.has_metric(name):
            raise ToolError(f"--metric: no row has '{name}'; is it '{near[0]}'?")
        return given
    for name in names:
        if name.removeprefix("-").startswith("metrics."):
            return name.replace("metrics.", "", 1)
    if is_needed:
        rule = "name what best means, such as --metric=-evaluate/loss"
        raise ToolError(f"--metric: {rule}; neither dvc.yaml nor its results have a metric")
    return ""
