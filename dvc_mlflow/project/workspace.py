"""What the checkout has now, where it may differ from dvc.lock."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .definitions import Definitions
from .dvc_repo import errors_reported


class FilesToKeep(NamedTuple):
    """What a stage's result needs from the checkout, by absolute paths."""

    deps: frozenset[Path]
    """What any stage reads."""
    folders: frozenset[Path]
    """Where stages run, and where their deps are: scripts there may import undeclared code."""
    files: frozenset[Path]
    """DVC's own files: dvc.yaml, .dvc files, settings, and the .gitignore beside outputs."""
    cached: frozenset[Path]
    """The outputs that DVC keeps, which are never in git."""
    outs: frozenset[Path]
    """All outputs, of any stage."""
    uncached: Sequence[Path]
    """The outputs of the stages that DVC leaves to git."""
    locks: Sequence[Path]
    """Each dvc.lock."""


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

    def files_to_keep(self, names: Collection[str]) -> FilesToKeep:
        """Return what the results of these stages need from the checkout."""
        repo = self._repo
        with errors_reported():
            own = [s for s in repo.index.stages if s.cmd and self._name(s) in names]
            outs = [out for s in own for out in s.outs if out.is_in_repo and out.exists]
            outs += self._unmade_outs(names)
            files = {Path(s.path) for s in repo.index.stages}
            files |= {Path(out.fs_path).with_name(".gitignore") for out in outs}
            files |= {self.root / path for path in (".dvcignore", ".dvc/config", ".dvc/.gitignore")}
            deps = {
                Path(dep.fs_path)
                for stage in repo.index.stages
                for dep in stage.deps
                if dep.fs.protocol == "local"
            }
            folders = {dep if dep.is_dir() else dep.parent for dep in deps}
            folders |= {Path(stage.wdir) for stage in repo.index.stages if stage.cmd}
            return FilesToKeep(
                frozenset(deps),
                frozenset(folders),
                frozenset(files),
                frozenset(Path(out.fs_path) for out in repo.index.outs if out.use_cache),
                frozenset(Path(out.fs_path) for out in repo.index.outs),
                [Path(o.fs_path) for o in outs if not o.use_cache and self.is_inside(o.fs_path)],
                self._lock_files(),
            )

    def _lock_files(self) -> list[Path]:
        """Return each dvc.lock."""
        stages = [s for s in self._repo.index.stages if s.cmd and hasattr(s, "name")]
        files = {Path(stage.path).with_suffix(".lock") for stage in stages}
        return [file for file in sorted(files) if file.exists() and self.is_inside(file)]

    def _hash(self, item: Any) -> tuple[Any, Any]:
        """Return size and hash of a file or a folder, with the list of its files."""
        odb = item.cache if item.is_in_repo and item.use_cache else item.local_cache
        options = {"ignore": item.dvcignore, "dry_run": not item.use_cache}
        _, meta, found = item._build(
            odb, item.fs_path, item.fs, item.hash_name, no_progress_bar=True, **options
        )
        return meta, found
