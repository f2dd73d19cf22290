"""A row's uncommitted code, as a patch for `git apply`."""

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from dvc_mlflow.repository import checkout

from ..run.errors import StageError
from . import provenance
from .kept import LARGEST
from .provenance import git
from .store import Store

PATCH = "uncommitted.patch"
NO_PATCH = "patch.missing"

# The options override the user's git settings for patches.
_DIFF = "diff --binary --no-color --no-ext-diff --no-textconv --no-renames --no-relative"
_DIFF += " --src-prefix=a/ --dst-prefix=b/ HEAD --"


def log_patch(store: Store, run_id: str) -> None:
    """Store what differs from the row's commit, or a tag that says why it is missing."""
    try:
        patch = _uncommitted(store.params)
        if len(patch) > LARGEST:
            raise StageError(f"its {len(patch)} bytes are more than {LARGEST}")
    except StageError as error:
        store.client.set_tag(run_id, NO_PATCH, f"{error}"[:500])
        return
    with TemporaryDirectory() as folder:
        file = Path(folder, PATCH)
        file.write_bytes(patch)
        store.client.log_artifact(run_id, str(file))


def _uncommitted(params: Path) -> bytes:
    """Return what differs from the commit, including untracked files that a stage depends on.

    Params and results are left out, because a row has its own copy of them.
    """
    names = git("ls-files", "--others", "--exclude-standard", "--full-name", "-z", ":/")
    untracked = [checkout() / os.fsdecode(name) for name in names.split(b"\0")[:-1]]
    deps = _deps() if untracked else []
    new = [str(p) for p in untracked if any(p.is_relative_to(dep) for dep in deps)]
    with TemporaryDirectory() as folder:
        index = Path(folder, "index")
        shutil.copyfile(os.fsdecode(git("rev-parse", "--git-path", "index").strip()), index)
        if new:
            git("add", "--intent-to-add", "--", *new, env={"GIT_INDEX_FILE": str(index)})
        paths = [":/", *provenance.recorded(params)]
        return git(*_DIFF.split(), *paths, env={"GIT_INDEX_FILE": str(index)})


def _deps() -> list[Path]:
    """Return the deps of all stages of the current DVC project."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            return [Path(dep.fs_path) for stage in repo.index.stages for dep in stage.deps]
    except DvcException:  # DVC itself reports it
        return []
