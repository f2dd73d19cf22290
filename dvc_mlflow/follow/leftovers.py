"""What a killed follower leaves: runs of stages whose end it has not seen."""

from collections import defaultdict
from collections.abc import Sequence

from ..store.store import Store  # before MLflow, which it sets up

# isort: split
from mlflow.entities import Run

from ..pipeline.lineages import live_key
from ..pipeline.tags import LIVE, value
from ..rows.content import params_of
from ..rows.result import Result
from ..store.upsert import written_on


def leftovers(store: Store) -> list[Run]:
    """Return the runs that were left; raises what the store raises."""
    query = f"attributes.status = 'KILLED' and tags.`{LIVE}` LIKE '%'"
    return [run for run in store.runs(query) if value(run.data.tags, LIVE)]


def settle_leftovers(store: Store, left: Sequence[Run], results: Sequence[Result]) -> None:
    """Move to the trash what was left of stages that have ended well after all: it is there twice.

    The results have rows. A run that was left has the params of its result, and began before it was
    made. It stays if somebody has written on it. The store's lock must be held. Raises what the
    store raises.
    """
    found = defaultdict(list)
    for run in left:
        found[value(run.data.tags, LIVE)].append(run)
    for result in results:
        key = live_key(result.pipeline.folder, result.lineage)
        for run in found.get(key, ()):
            is_before = (run.info.start_time or 0) <= result.origin.time
            has_params = run.data.params.items() <= params_of(result)[0].items()
            if is_before and has_params and not written_on(store, run):
                store.client.delete_run(run.info.run_id)
