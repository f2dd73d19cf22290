"""A row that another process has made of the same result at the same time goes to the trash."""

from ..store.store import Store  # before MLflow, which it sets up

# isort: split
from ..pipeline.identity import Known
from ..pipeline.tags import COMPLETE, ROW, TOKEN, tagged, value


def trash(store: Store, double: Known) -> bool:
    """Move a run to MLflow's trash, unless it has more than its result; return whether it was done.

    A script may have logged to it, or somebody may have registered its model. Or another process
    has just completed it.
    """
    run_id = double.run_id
    tags = store.client.get_run(run_id).data.tags
    has_more = bool(value(tags, TOKEN)) or tagged(tags, COMPLETE) != double.complete
    if has_more or store.client.search_model_versions(f"tags.`{ROW}` = '{run_id}'", max_results=1):
        return False
    store.client.delete_run(run_id)  # it does no harm if another process has just done it
    return True
