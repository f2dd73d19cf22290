"""A whole pass over git's history: the store says which was done, and it is not done again."""

from ..git import common_folder
from ..pipeline.row import digest_of
from ..pipeline.row_stages import recorded
from ..pipeline.tags import HISTORY
from ..project.files import cache_stamp
from ..rows.commits import committed
from ..rows.result import first_table, pipeline_now
from ..store.store import Store
from .recording import Recording


def record_everything(recording: Recording) -> bool:
    """Record the results of all commits; return whether anything is new since the last whole pass.

    Raises `ToolError`.
    """
    project, key = recording.project, f"{HISTORY}{recording.project.folder or '.'}"
    now, commits = pipeline_now(project), committed(project.top, rows=True)
    experiment, _ = first_table(now)
    declared = [[stage.name, repr(stage.settings)] for stage in (recorded(now) if now else ())]
    # `git fetch --unshallow` brings commits below the same tips.
    is_shallow = (common_folder(project.top) / "shallow").exists()
    state = digest_of([sorted(commits.starts), declared, is_shallow])
    if not (recording.dry_run or recording.fetch):
        store = Store.existing(recording.root, experiment, folder=project.folder)
        with store.errors_reported():
            had, _, stamp = store.tagged(key).partition(" ")
        if had == state and stamp in ("", cache_stamp(project)):
            return False
    recording.record_commits(commits)
    if not (recording.dry_run or recording.git_lacks):
        store = Store.existing(recording.root, experiment, folder=project.folder)
        # While rows lack files, DVC's cache can get them.
        stamp = cache_stamp(project) if recording.unread else ""
        with store.errors_reported():
            store.tag(key, f"{state} {stamp}")
    return True
