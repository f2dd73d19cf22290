"""What a killed follower leaves: runs of stages whose end it has not seen."""

from collections import defaultdict
from collections.abc import Sequence

from ..pipeline.lineages import live_key
from ..pipeline.tags import LIVE, value
from ..rows.content import params_of
from ..rows.result import Result
from ..store.store import Store
from ..store.upsert import written_on


def settle_leftovers(store: Store, results: Sequence[Result]) -> None:
    """Move to the trash what was left of stages that have ended well after all: it is there twice.

    The results have rows. A run that was left has the params of its result, and began before it was
    made. It stays if somebody has written on it. The store's lock must be held. Raises what the
    store raises.
    """
    found = defaultdict(list)
    for run in store.runs(f"attributes.status = 'KILLED' and tags.`{LIVE}` LIKE '%'"):
        found[value(run.data.tags, LIVE)].append(run)
    if not found:
        return
    for result in results:
        key = live_key(result.pipeline.folder, result.lineage)
        for run in found.get(key, ()):
            is_before = (run.info.start_time or 0) <= result.origin.time
            has_params = run.data.params.items() <= params_of(result)[0].items()
            if is_before and has_params and not written_on(store, run):
                store.client.delete_run(run.info.run_id)
