"""What the checkout has now, where it may differ from dvc.lock."""

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from .. import work_tree
from .definitions import Definitions
from .dvc_repo import errors_reported


class Workspace(Definitions):
    """A project in a checkout."""

    def md5s_now(self, name: str, paths: Collection[str]) -> set[str]:
        """Return the md5s of those of a stage's deps with these paths that are in the checkout."""
        with errors_reported():
            deps = [dep for dep in self._dvc_stage(name).deps if self._path(dep) in paths]
            return {str(self._hash(dep)[1].hash_info.value) for dep in deps if dep.exists}

    def holds(self, name: str) -> bool:
        """Whether DVC would not run a stage again: its command, params and inputs are as locked."""
        with errors_reported():
            if (stage := self._dvc_stage(name)) is None:
                return True  # no stage makes it
            changed = getattr(stage, "cmd_changed", False) or stage.always_changed
            return not (changed or any(dep.workspace_status() for dep in stage.deps))

    def is_busy(self) -> bool:
        """Whether DVC holds files of the project, as while it runs a stage."""
        with suppress(OSError):
            rwlock = self.root / ".dvc/tmp/rwlock"
            return b'"pid"' in work_tree.read(rwlock, self.root, of_dvc=True, most=1_000_000)
        return False

    def files_to_keep(self) -> tuple[frozenset[Path], frozenset[Path], list[Path]]:
        """Return what results need from the checkout beside what git tracks, by absolute paths.

        That is what any stage reads, but for the outputs that DVC keeps, which are second and never
        in git; then the outputs that DVC leaves to git, and each dvc.lock.
        """
        with errors_reported():
            index = self._repo.index
            outs = [*index.outs, *self._unmade_outs()]
            others = {Path(out.fs_path) for out in outs if not out.use_cache}
            others |= {Path(each.path).with_suffix(".lock") for each in index.stages if each.cmd}
            return (
                frozenset(Path(dep.fs_path) for stage in index.stages for dep in stage.deps),
                frozenset(Path(out.fs_path) for out in outs if out.use_cache),
                [path for path in sorted(others) if path.exists() and self.is_inside(path)],
            )

    def _hash(self, item: Any) -> tuple[Any, Any]:
        """Return size and hash of a file or a folder, with the list of its files."""
        odb = item.cache if item.is_in_repo and item.use_cache else item.local_cache
        options = {"ignore": item.dvcignore, "dry_run": not item.use_cache}
        _, meta, found = item._build(
            odb, item.fs_path, item.fs, item.hash_name, no_progress_bar=True, **options
        )
        return meta, found
