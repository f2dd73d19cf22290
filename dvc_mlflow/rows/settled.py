"""A row that another process has made of the same result at the same time goes to the trash."""

from collections.abc import Mapping

from ..store.store import Store  # before MLflow, which it sets up

# isort: split
from .. import processes
from ..pipeline.identity import Known
from ..pipeline.tags import COMPLETE, ROW, TOKEN, tagged, value


def trash(store: Store, double: Known, wanted: Mapping[str, str]) -> bool:
    """Move a run for these results to MLflow's trash; return whether it was done.

    It stays if it has more: a script may have logged to it, or somebody may have registered its
    model. It stays, too, if a process can still complete it or has just done so: that one may keep
    it, and move the other.
    """
    run_id = double.run_id
    tags = store.client.get_run(run_id).data.tags
    complete = tagged(tags, COMPLETE)
    is_in_the_making = complete != wanted and not processes.has_ended(tags)
    if is_in_the_making or complete != double.complete or value(tags, TOKEN):
        return False
    if store.client.search_model_versions(f"tags.`{ROW}` = '{run_id}'", max_results=1):
        return False
    store.client.delete_run(run_id)  # it does no harm if another process has just done it
    return True
