"""Runs that are there twice: clones that share a store can make one of the same result each."""

from collections.abc import Mapping

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from .. import processes
from ..pipeline.stored_run import StoredRun
from ..pipeline.tags import DOUBLE, NAMED, NOTE, NOTED, ROW, TOKEN, is_of_the_tool, value
from .run_data import log
from .runs import stored_run
from .store import Store
from .upsert import note_digest


def trash_double(store: Store, double: StoredRun, kept: str, wanted: Mapping[str, str]) -> str:
    """Move a run for these results, of which another is `kept`, to the trash; say what was done.

    It stays if it has more than the tool has given to it: somebody can have written on it. It
    stays, too, while a process can complete it or has just done so: that one may keep it, and move
    the other.
    """
    run = store.client.get_run(double.run_id)
    now = stored_run(run, store)
    is_in_the_making = now.complete != wanted and not processes.has_ended(run.data.tags)
    if is_in_the_making or now.complete != double.complete:
        return ""
    if why := written_on(store, run):
        return f"row {double.name!r} is there twice; both stay, as {why}"
    try:
        log(store, double.run_id, tags={DOUBLE: kept})
        store.client.delete_run(double.run_id)
    except MlflowException:
        if store.client.get_run(double.run_id).info.lifecycle_stage == "active":
            raise
        return ""  # another clone has just moved it
    return f"row {double.name!r} was there twice; one is in MLflow's trash"


def written_on(store: Store, run: Run) -> str:
    """Return why a run is not only the tool's, or ""."""
    tags, run_id = run.data.tags, run.info.run_id
    if value(tags, TOKEN):
        return "a script has logged to it"
    if NAMED in tags and tags[NAMED] != run.info.run_name:
        return "somebody has named it"
    if NOTED in tags and tags[NOTED] != note_digest(tags.get(NOTE, "")):
        return "somebody has described it"
    if others := sorted(key for key in tags if not is_of_the_tool(key)):
        return f"somebody has tagged it with {others[0]!r}"
    for query in (f"run_id = '{run_id}'", f"tags.`{ROW}` = '{run_id}'"):
        if store.client.search_model_versions(query, max_results=1):
            return "its model is registered"
    return ""
