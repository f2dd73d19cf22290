"""What has changed in a project since a commit, and whether dvc.lock is what its code makes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..pipeline import overlap
from .opened import errors_reported
from .running import Project

_Table = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""By file and key: `old`, `new`, and for numbers `diff`."""


class Changes(NamedTuple):
    """How the files of a project differ from a commit, and from dvc.lock."""

    metrics: _Table
    params: _Table
    changed: Sequence[str]
    """The stages and .dvc files that differ from what dvc.lock or the .dvc file says."""
    missing: Sequence[str]
    """Those that only lack files that DVC keeps."""
    results: Sequence[Path]
    """Every dvc.lock, and the outputs that DVC leaves to git."""


def changes(project: Project, commit: str) -> Changes:
    """Return what has changed since a commit; raises `ProjectError`."""
    repo = project._repo
    changed: list[str] = []
    missing: list[str] = []
    with errors_reported():
        metrics, params = (
            values.diff(a_rev=commit).get("diff", {}) for values in (repo.metrics, repo.params)
        )
        status = repo.status(check_updates=False)
        kept = [project._path(o) for o in repo.index.outs if o.use_cache and o.hash_info]
        locks = {Path(stage.path).with_suffix(".lock") for stage in repo.index.stages if stage.cmd}
        outs = [out.fs_path for out in repo.index.outs if not out.use_cache and out.is_in_repo]
    for name, entries in status.items():
        found = [_is_missing(entry, kept) for entry in entries if entry != "always changed"]
        if found:
            (missing if all(found) else changed).append(name)
    return Changes(metrics, params, changed, missing, [*sorted(locks), *map(Path, outs)])


def _is_missing(entry: Any, kept: Sequence[str]) -> bool:
    """Whether `dvc status` reports only that files that DVC keeps are missing."""
    return isinstance(entry, Mapping) and all(
        state in ("deleted", "not in cache") and any(overlap(path, out) for out in kept)
        for files in entry.values()
        for path, state in files.items()
    )
