"""A row follows its result when somebody commits it: its tags and description name the commit."""

from dataclasses import replace

from ..pipeline.identity import Known
from ..pipeline.tags import BRANCH, CHANGE, COMMIT, DIRTY, NOTE, USER
from ..store.store import Store
from .description import lead
from .origin import UNCOMMITTED
from .result import Result
from .sending import log


def lags(result: Result, known: Known) -> bool:
    """Whether a row names no commit of its result, and there is one now."""
    return result.origin.is_committed and names_no_commit(known)


def names_no_commit(known: Known) -> bool:
    """Whether a row does not name a commit that has its result."""
    return not known.change or known.change.startswith(UNCOMMITTED)


def follow(store: Store, result: Result, known: Known) -> Known:
    """Let a row name the commit of its result; what a person has written about it stays."""
    found = result.origin.tags()
    now = {key: found[key] for key in (CHANGE, COMMIT, DIRTY, BRANCH, USER) if key in found}
    before = store.client.get_run(known.run_id).data.tags
    note, first = before.get(NOTE, ""), lead(before)
    if first and first in note:
        now[NOTE] = note.replace(first, lead(now), 1)
    log(store, known.run_id, tags=now)
    return replace(known, change=now[CHANGE])
