"""A whole pass over git's history is noted, and what it has read is not read again."""

import json
import secrets
from collections.abc import Sequence, Set
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import ProjectError
from ..git import ask, checkout
from ..pipeline.row import digest_of
from ..pipeline.row_stages import recorded
from ..pipeline.tags import HISTORY
from ..place import own_folder
from ..project.files import cache_stamp
from ..rows.commits import Commits, committed, named_experiments
from ..rows.result import pipeline_now
from ..store.store import Store, exists
from .recording import Recording

_FILE = "history"
_DECIDE = ("store", "declared", "shallow")
"""What has to be as it was when the last pass was noted, or all is read again."""


def record_everything(recording: Recording) -> bool:
    """Record the results of all commits; return whether anything is new since the last whole pass.

    Raises `ToolError`.
    """
    state = _state(recording)
    if not (recording.dry_run or recording.fetch) and _noted(recording) == state:
        return False
    recording.record_commits(Commits(state["tips"]))
    if not recording.dry_run:
        _note(recording, state)
    return True


def record_new(
    recording: Recording, running: Set[str] = frozenset(), old: Sequence[str] | None = None
) -> None:
    """Record the results of all commits that were not there when a pass was done last.

    If none was done, commits below those that are `old` are left out. Experiments that are
    `running`, by name, are left for the next time. Raises `ToolError`.
    """
    noted, now, top = _noted(recording), _state(recording), recording.project.top
    is_known = all(noted.get(key) == now[key] for key in _DECIDE)
    excluded = noted["tips"] if is_known else old
    experiments = named_experiments(top)
    starts = [start for start in now["tips"] if experiments.get(start) not in running]
    commits = Commits(starts)
    if excluded is not None:
        wanted = "\n".join([*starts, *(f"^{commit}" for commit in excluded), ""])
        listed = ask("rev-list", "--ignore-missing", "--stdin", cwd=top, text=wanted)
        commits = Commits(starts, frozenset(listed.split()))
    if commits.only is None or commits.only:
        recording.record_commits(commits)
    if is_known or old is None:
        _note(recording, {**now, "tips": starts}, noted["lacking"] if is_known else "")


def tips(root: Path, before: float) -> Sequence[str]:
    """Return the commits of a repository made before a time, in seconds since 1970.

    All its others from that time can be reached from them.
    """
    starts = committed(checkout(root), rows=True).starts
    options = (f"--since={before:.0f}", "--boundary")
    listed = ask("rev-list", *options, "--stdin", cwd=root, text="\n".join(starts)).split()
    parents = [commit[1:] for commit in listed if commit.startswith("-")]  # of newer ones
    return [*parents, *(commit for commit in starts if commit not in listed)]


def _state(recording: Recording) -> dict[str, Any]:
    """Return what decides whether there is something to do: equal, and nothing is."""
    project, noted = recording.project, _noted(recording)
    now = pipeline_now(project)
    stages = [[stage.name, repr(stage.settings)] for stage in (recorded(now) if now else ())]
    return {
        "store": _store(recording),
        "declared": digest_of(stages),
        "tips": [*committed(project.top, rows=True).starts],
        # `git fetch --unshallow` brings commits below the same tips.
        "shallow": ask("rev-parse", "--is-shallow-repository", cwd=project.top),
        # While rows lack files, DVC's cache can get them.
        "lacking": noted.get("lacking") and cache_stamp(project),
    }


def _noted(recording: Recording) -> dict[str, Any]:
    """Return what the last whole pass has noted, or {} if there was none."""
    try:
        text = (own_folder(recording.root) / _FILE).read_text()
        found = json.loads(text)[recording.project.folder]
        return found if {*found} == {*_DECIDE, "tips", "lacking"} else {}
    except (ProjectError, OSError, ValueError, LookupError, TypeError):  # none, or half of it
        return {}


def _note(recording: Recording, state: dict[str, Any], lacking: str = "") -> None:
    """Note a whole pass, also in the store: so a backup of the store is another one.

    `lacking` is what an earlier pass has noted, whose rows lack files still.
    """
    if recording.git_lacks:
        return
    lacking = lacking or (cache_stamp(recording.project) if recording.unread else "")
    state = {**state, "lacking": lacking, "store": _store(recording, is_read=True)}
    with suppress(ProjectError, OSError):  # a server is used without the folder, too
        file, content = own_folder(recording.root) / _FILE, {recording.project.folder: state}
        with suppress(OSError, ValueError, TypeError):
            content = {**json.loads(file.read_text()), **content}
        file.write_text(json.dumps(content))


def _store(recording: Recording, *, is_read: bool = False) -> str:
    """Return what no other store has, now that all `is_read` or before; "" without a store.

    That is when its first experiment was made, and in a clone's own store the last pass, too.
    """
    if not exists(recording.root):
        return ""
    store, key = Store.existing(recording.root), f"{HISTORY}{recording.project.folder or '.'}"
    with store.errors_reported():
        oldest = store.client.search_experiments(max_results=1, order_by=["creation_time ASC"])
        mark = "".join(each.tags.get(key, "") for each in oldest)
        if oldest and is_read and not store.is_shared:
            mark = secrets.token_hex(8)
            store.client.set_experiment_tag(oldest[0].experiment_id, key, mark)
    return "".join(f"{each.experiment_id} {each.creation_time} {mark}" for each in oldest)
