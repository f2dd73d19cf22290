"""Send parts of a row to MLflow: what it has is not sent again, so a killed recording goes on."""

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag

from ..pipeline.row import Input, Point
from .store import Store
from .store_errors import retried


def log(
    store: Store,
    run_id: str,
    metrics: Sequence[Metric] = (),
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Log any number of metrics, params and tags; MLflow's client divides them into requests."""
    pairs = [Param(*pair) for pair in (params or {}).items()]
    labels = [RunTag(*pair) for pair in (tags or {}).items()]
    # Another process may have added params to this row since the look.
    retried(lambda: store.client.log_batch(run_id, metrics, pairs, labels))


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
        store.log_artifacts(run.info.artifact_uri, folder)
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
