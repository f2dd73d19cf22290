"""What git has: recorded once, and then only what is new of it."""

import json
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

from mlflow.entities import ViewType

from ..git import ask, checkout
from ..place import own_folder
from ..project import Project
from ..rows.commits import Commits, committed, everything, named_experiments
from ..store.store import Store, exists
from .recording import Options, Recording

_FILE = "history"


def record_history(
    project: Project,
    root: Path,
    running: Set[str] = frozenset(),
    old: Sequence[str] | None = None,
) -> Recording:
    """Record the results of all commits that were not there when this was done last.

    If it was never done, commits below those that are `old` are left out. Experiments that are
    `running`, by name, are left for the next time. Raises `ToolError`.
    """
    file, top = own_folder(root) / _FILE, project.top
    content = _content(file)
    own = content.get(project.folder, {})
    is_known = bool(own) and own["store"] == _store(root)
    known = own["tips"] if is_known else old
    experiments = named_experiments(top)
    found = everything(top) if known is None else committed(top)
    starts = [start for start in found.starts if experiments.get(start) not in running]
    commits = Commits(starts)
    if known is not None:
        wanted = "\n".join([*starts, *(f"^{commit}" for commit in known), ""])
        listed = ask("rev-list", "--ignore-missing", "--stdin", cwd=top, text=wanted)
        commits = Commits(starts, frozenset(listed.split()))
    recording = Recording(project, root, Options(), reads_all=known is None)
    if commits.only is None or commits.only:
        recording.record_commits(commits)
    if is_known or old is None:
        content[project.folder] = {"store": _store(root), "tips": starts}
        file.write_text(json.dumps(content))
    return recording


def tips(root: Path) -> Sequence[str]:
    """Return the commits of a repository from which all others can be reached."""
    return committed(checkout(root)).starts


def _content(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
        return {
            key: {"store": str(each["store"]), "tips": [*map(str, each["tips"])]}
            for key, each in content.items()
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # none yet, or half of it
        return {}


def _store(root: Path) -> str:
    """Return what no other store has: when its first experiment was made; "" without a store."""
    if not exists(root):
        return ""
    store = Store.existing(root)
    with store.errors_reported():
        found = store.client.search_experiments(ViewType.ALL, 1, order_by=["creation_time ASC"])
    return f"{found[0].experiment_id} {found[0].creation_time}" if found else ""
