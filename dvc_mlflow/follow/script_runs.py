"""The runs that the script of a stage has opened in MLflow itself, under `dvc-mlflow run`."""

from collections.abc import Iterator
from pathlib import Path

from mlflow.entities import Run

from ..pipeline.run_context import Token
from ..pipeline.tags import CLONE, PARENT, TOKEN
from ..store.store import Store
from .stage_runs import StageRun

_COARSE = 20  # ms to which the start of a process is known


def opened_by(store: Store, run: StageRun, *, is_alone: bool) -> list[Run]:
    """Return the runs that are no row's yet, nor below another one, the oldest first.

    Where several `dvc` run at once below one `run`, and it is not `is_alone`, nobody knows which of
    them has opened a run, unless each stage has a `run` of its own. Raises what the store raises.
    """
    found = {each.info.run_id: each for mark in _marks(run) for each in _of(store, run, mark)}
    own = [each for each in found.values() if _is_of(each, run, is_alone=is_alone)]
    return sorted(own, key=lambda each: each.info.start_time)


def may_open(run: StageRun) -> bool:
    """Whether a script may have opened runs for a row, as far as is known."""
    return bool(_marks(run))


def are_elsewhere(store: Store, run: StageRun) -> bool:
    """Whether somebody has opened runs by plain MLflow while a stage ran."""
    places = [Path(run.folder, "mlruns"), Path(run.folder, "mlflow.db")]
    if any(_is_written(each, run.began) for each in places if each != store.root / "mlflow.db"):
        return True
    first, last = int(run.began * 1000), int(run.ended * 1000)
    query = f"attributes.start_time >= {first} and attributes.start_time <= {last}"
    return any(not each.data.tags.get(CLONE, "") for each in store.runs(query))


def _is_written(store: Path, since: float) -> bool:
    try:
        return store.stat().st_mtime >= since
    except OSError:
        return False


def _marks(run: StageRun) -> set[str]:
    return {run.mark, run.token.process if run.token else ""} - {""}


def _of(store: Store, run: StageRun, mark: str) -> Iterator[Run]:
    since = int(run.began * 1000) - _COARSE
    query = f"tags.`{TOKEN}` LIKE '{mark} %' and attributes.start_time >= {since}"
    return store.runs(query)


def _is_of(each: Run, run: StageRun, *, is_alone: bool) -> bool:
    tags = each.data.tags
    token = Token.of(tags[TOKEN])
    if PARENT in tags or tags.get(CLONE, ""):
        return False
    if run.ended and each.info.start_time > run.ended * 1000:
        return False
    return token.stage == run.address or (is_alone and not token.stage)
