"""What a killed follower leaves: runs of stages whose end it has not seen."""

from collections.abc import Sequence

from mlflow.entities import Run

from .. import processes
from ..pipeline.row_stages import live_key
from ..pipeline.tags import CLONE, LIVE, TOKEN
from ..rows.content import params_of
from ..rows.result import Result
from ..store.store import Store
from ..store.upsert import Live, written_on


class Leftovers:
    """The runs that were left in a store; methods raise what the store raises."""

    def __init__(self, store: Store) -> None:
        self._store, self._clone = store, processes.clone(store.root)
        query = f"attributes.status != 'RUNNING' and tags.`{LIVE}` LIKE '_%'"
        self._runs = [
            run
            for run in store.runs(query)
            # A script can have ended its run as it should, while its stage goes on.
            if run.info.status == "KILLED" or processes.has_ended(run.data.tags)
        ]

    def begun_for(self, result: Result) -> Live | None:
        """Return the newest run that was left in this clone when a result was made, or None.

        The row goes on with it: a script can have logged to it.
        """
        for run in self._runs:
            if run.data.tags.get(CLONE, "") == self._clone and _is_of(run, result):
                is_used = bool(run.data.tags.get(TOKEN, ""))
                return Live(run.info.run_id, run.info.run_name or "", is_used)
        return None

    def settle(self, results: Sequence[Result]) -> None:
        """Move to the trash what was left of stages that have ended well after all.

        The results have rows, so it is there twice. It stays if somebody has written on it. The
        store's lock must be held.
        """
        for result in results:
            for run in self._runs:
                if _is_of(run, result) and not written_on(run):
                    self._store.client.delete_run(run.info.run_id)


def _is_of(run: Run, result: Result) -> bool:
    """Whether a run may have begun what has become a result."""
    own, has = params_of(result)[0], run.data.params
    is_used = bool(run.data.tags.get(TOKEN, ""))  # and may have params of the script's
    is_same = all(own.get(key, text if is_used else None) == text for key, text in has.items())
    is_for = run.data.tags.get(LIVE, "") == live_key(result.pipeline.folder, result.row_stages)
    return is_for and is_same and (run.info.start_time or 0) <= result.origin.time
