"""Results of stages whose inputs changed while they ran: dvc.lock claims them, no row has them.

The row of such a run is FAILED and has the digest of the result, so that any clone which shares the
store leaves it out. A deterministic stage has the same digest once it has run again, and rightly: a
row that is FINISHED with it counts more.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ..pipeline.stages import Stage
from ..pipeline.tags import CHANGED
from ..rows.result import State
from ..store.run_data import log
from ..store.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Run


class ChangedInputs:
    """What a store says of changed inputs; raises what the store raises."""

    def __init__(self, store: Store) -> None:
        self._store = store
        query = f"attributes.status = 'FAILED' and tags.`{CHANGED}` LIKE '_%'"
        self._runs: dict[str, list[Run]] = {}
        """By digest."""
        for run in store.runs(query):
            digest = run.data.tags.get(CHANGED, "").partition(" ")[0]
            self._runs.setdefault(digest, []).append(run)

    def __bool__(self) -> bool:
        """Whether any result counts for nothing."""
        return bool(self._runs)

    def why_not(self, state: State, stages: Iterable[Stage], known: Iterable[str] = ()) -> str:
        """Return why the results of stages count for nothing, and what to do; "" if they do.

        Of what is `known` by its digest, a run that has ended well says that it does.
        """
        for stage in stages:
            digest = state.locked.get(stage.name, "")
            if digest in self._runs and digest not in known:
                what = self._runs[digest][0].data.tags.get(CHANGED, "").partition(" ")[2]
                again = f"`dvc-mlflow run dvc repro -f {stage.name}` makes it again"
                return f"the result of {stage.name} is not recorded, as {what}; {again}"
        return ""

    def withdraw(self, digest: str) -> None:
        """Take note that the stage of a result has run again, with inputs that have not changed."""
        for run in self._runs.pop(digest, ()):
            log(self._store, run.info.run_id, tags={CHANGED: ""})


def tags(digest: str, paths: Iterable[str]) -> Mapping[str, str]:
    """Return the tag of a run during which the inputs at these paths changed."""
    return {CHANGED: f"{digest} {', '.join([*paths][:3])} changed while it ran"}
