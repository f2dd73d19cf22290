"""The columns and order of the runs table that the printed addresses open, and names told apart.

Unless somebody chooses them, they are a function of the rows: the metric that says which is best,
and the params by which the rows differ. MLflow stores a shared view in a tag of the experiment, in
an undocumented format; a browser test checks it.
"""

import base64
import json
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from textwrap import shorten

from mlflow.entities import Run, RunData

from ..pipeline.keys import short_names, tells
from ..pipeline.row import UNCOMMITTED
from ..pipeline.tags import CHANGE, DATA, NAMED, STAGE, WHOLE

RESULTS = "results"
KEY = f"mlflow.sharedViewState.{RESULTS}"
ROWS = f"tags.`{STAGE}` != ''"
"""What a view shows: what scripts have opened beside the rows is on their pages."""
_WIDE = 3
"""Columns of metrics and params that a browser of 1,440 px shows beside MLflow's panels."""
_MOST_PARAMS = 8
_APART = " | "
"""Before what tells a row from others of the same words."""
_LONGEST, _VALUE = 40, 16  # characters of params in that, and of the value of one
_MEASURES = "measures"
"""What a view that nobody has chosen has besides, which MLflow skips: the metrics, with signs."""


def by_default(
    rows: Sequence[RunData], measures: Sequence[str], key: str = RESULTS, search: str = ROWS
) -> dict[str, str]:
    """Return the tags for a view of these rows, newest first, that nobody has chosen.

    `measures` are the metrics of such rows, best first, with signs (`pipeline.measures`). The table
    is sorted by the first one of which the direction is known; else the newest row is first. What
    is the same in all rows is no column.
    """
    metrics, params = _metrics(rows, measures), _params(rows)
    columns = [f"metrics.{measure[1:]}" for measure in metrics[: max(_WIDE - len(params), 1)]]
    columns += [f"params.{key}" for key in params[:_MOST_PARAMS]]
    columns += [
        f"tags.{key}" for key in (STAGE, DATA, CHANGE) if len(_values(rows, "tags", key)) > 1
    ]
    order: dict[str, object] = {"orderByKey": "attributes.start_time", "orderByAsc": False}
    if metrics and metrics[0][0] != "?":
        order = {"orderByKey": f"metrics.`{metrics[0][1:]}`", "orderByAsc": metrics[0][0] == "-"}
    more = {**order, _MEASURES: [*measures]}
    return view_tags(columns or [f"tags.{CHANGE}"], key, search, more)


def _metrics(rows: Sequence[RunData], measures: Sequence[str]) -> list[str]:
    """Return the metrics that differ, or those of an only row: those of a known direction first.

    Best of all is followed by the best one of rows that lack it, such as those of another stage.
    """
    metrics, firsts = list[str](), list[str]()
    for measure in sorted(measures, key=lambda measure: measure[0] == "?"):
        values = _values(rows, "metrics", key := measure[1:])
        if len(values) > 1 or (values and (values.total() < len(rows) or len(rows) == 1)):
            metrics.append(measure)
            if any(key in row.metrics and row.metrics.keys().isdisjoint(firsts) for row in rows):
                firsts.append(key)
    return sorted(metrics, key=lambda measure: measure[1:] not in firsts)


def _params(rows: Sequence[RunData]) -> list[str]:
    """Return the params that differ, first those by which most rows differ."""
    ranks: dict[str, int] = {}
    for key in sorted({key for row in rows for key in row.params}):
        values = _values(rows, "params", key)
        if len(values) > 1 and all(tells(key, value) for value in values):
            ranks[key] = max(values.values()) - values.total()
    return sorted(ranks, key=lambda key: ranks[key])


def _values(rows: Sequence[RunData], kind: str, key: str) -> Counter[str]:
    """Count the values of a metric, a param or a tag in the rows that have it."""
    own: Iterable[Mapping[str, object]] = (getattr(row, kind) for row in rows)
    return Counter(f"{each[key]}" for each in own if key in each)


def told_apart(runs: Iterable[Run]) -> Iterator[tuple[str, str]]:
    """Yield the ids and new names of rows whose names are alike but for their digits.

    The names say in which params such rows differ, and where they do not, the subjects of commits.
    What a person has written stays.
    """
    alike: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        if WHOLE in run.data.tags and run.info.run_name == run.data.tags.get(NAMED):
            alike[run.info.run_name.partition(" ")[2].partition(_APART)[0]].append(run)
    for words, group in ((words, group) for words, group in alike.items() if len(group) > 1):
        names = short_names(_params([run.data for run in group]))
        texts = [_listed(run.data.params, names) for run in group]
        for run, text in zip(group, texts, strict=True):
            _, _, subject = run.data.tags.get(CHANGE, "").removeprefix(UNCOMMITTED).partition(" ")
            is_same = texts.count(text) > 1 and subject not in words
            apart = f"{text} {subject}".strip() if is_same else text
            start = f"{run.info.run_name.partition(' ')[0]} {words}".strip()
            name = f"{start}{_APART}{shorten(apart, 2 * _LONGEST, placeholder=' …')}"
            if apart and name != run.info.run_name:
                yield run.info.run_id, name


def _listed(params: Mapping[str, str], names: Mapping[str, str]) -> str:
    listed = (f"{name}={params[key]:.{_VALUE}}" for key, name in names.items() if key in params)
    return shorten(" ".join(listed), _LONGEST, placeholder=" …")


def default_measures(tag: str | None) -> list[str] | None:
    """Return the metrics that `by_default` put into a tag, or None if the view is another."""
    if tag is None:
        return []
    try:
        packed = json.loads(tag)["state"].removeprefix("deflate;")
        state = json.loads(zlib.decompress(base64.b64decode(packed)))
        return [str(measure) for measure in state[_MEASURES]]
    except (ValueError, LookupError, TypeError, AttributeError, zlib.error):
        return None


def view_tags(
    columns: Sequence[str], key: str = RESULTS, search: str = ROWS, more: Mapping[str, object] = {}
) -> dict[str, str]:
    """Return the tags for a view with these columns, of the runs that `search` finds.

    `viewStateShareKey=<key>` in an address opens it. It is sorted by the first column: the highest
    value first, or the lowest with a `-` before the column's name. `more` joins
    the view's state, and replaces what it has.
    """
    if not columns:
        return {}
    names = [name.removeprefix("-").partition(".") for name in columns]
    quoted = [f"{kind}.`{column}`" for kind, _, column in names]
    state: dict[str, object] = {"selectedColumns": quoted, "searchFilter": search}
    state |= {"orderByKey": quoted[0], "orderByAsc": columns[0].startswith("-"), **more}
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    shared = {"name": key, "createdAt": 0, "updatedAt": 0, "state": f"deflate;{packed}"}
    return {f"mlflow.sharedViewState.{key}": json.dumps(shared)}
