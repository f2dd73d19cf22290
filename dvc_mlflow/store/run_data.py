"""Send parts of a row to MLflow in few requests, so that a killed recording can be resumed."""

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag

from ..pipeline.row import Input, Point
from .store import Store
from .store_errors import retried

_T = TypeVar("_T")
_METRICS, _PAIRS = 800, 100  # at most, in a request


def log(
    store: Store,
    run_id: str,
    metrics: Sequence[Metric] = (),
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Log any number of metrics, params and tags, in as few requests as MLflow allows."""
    pairs = [Param(*pair) for pair in (params or {}).items()]
    labels = [RunTag(*pair) for pair in (tags or {}).items()]
    parts = (_batches(metrics, _METRICS), _batches(pairs, _PAIRS), _batches(labels, _PAIRS))
    for some_metrics, some_params, some_tags in zip_longest(*parts, fillvalue=()):
        call = partial(store.client.log_batch, run_id, some_metrics, some_params, some_tags)
        retried(call)  # another process may have added params to this row since the look


def _batches(items: Sequence[_T], most: int) -> list[list[_T]]:
    return [list(items[i : i + most]) for i in range(0, len(items), most)]


def log_files(store: Store, run: Run, files: Mapping[str, bytes]) -> list[str]:
    """Log files by their paths; return what cannot be logged."""
    if not files:
        return []
    if why := store.why_no_files(run):
        return [f"a row's files are left out: {why}"]
    with TemporaryDirectory() as folder:
        for path, body in files.items():
            file = Path(folder, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(body)
        store.log_artifacts(run, folder)
    return []


def log_inputs(store: Store, run: Run, inputs: Iterable[Input]) -> None:
    """Log the data sets that a run does not have."""
    has = [i.to_dictionary() for i in (run.inputs.dataset_inputs if run.inputs else ())]
    wanted = [_input(each) for each in dict.fromkeys(inputs)]
    if new := [each for each in wanted if each.to_dictionary() not in has]:
        retried(lambda: store.client.log_inputs(run.info.run_id, new))


def _input(data: Input) -> DatasetInput:
    source = json.dumps({"uri": data.path})  # in the repository: the digest says which bytes
    dataset = Dataset(data.path[-250:], data.md5[:36], "local", source)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", data.stage[:250])])


def stored(store: Store, run: Run) -> frozenset[tuple[str, str, int]]:
    """Return the points that a run has: MLflow would keep a point that is logged again twice."""
    keys = run.data.metrics
    found = [m for key in keys for m in store.client.get_metric_history(run.info.run_id, key)]
    return frozenset(comparable(Point(m.key, m.value, m.step)) for m in found)


def as_metric(point: Point, at: int) -> Metric:
    """Return a point as MLflow logs it, at a time in milliseconds since 1970."""
    # Of two values at one step, the table shows the later one: the final one.
    return Metric(point.key, point.value, at + point.is_final, point.step)


def comparable(point: Point) -> tuple[str, str, int]:
    """Return a point in a form that can be compared: NaN equals nothing."""
    return point.key, f"{as_stored(point.value)}", point.step


def as_stored(value: float) -> float:
    """Return a value as stores have it: they clip infinity."""
    greatest = sys.float_info.max
    return value if math.isnan(value) else max(-greatest, min(greatest, value))
