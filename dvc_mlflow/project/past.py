"""A project as commits have it, one after another; DVC reads dvc.yaml only if it has changed."""

import posixpath
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Self

from dvc.dependency import ParamsDependency
from dvc.dvcfile import Lockfile, SingleStageFile
from dvc.stage.loader import StageLoader
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.meta import Meta
from voluptuous import Schema

from ..errors import ProjectError
from ..pipeline import Pipeline
from .opened import errors_reported, parse
from .running import Project


class Past:
    """The project at any commit; in its block, the project is at the one that was read last."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._opened = ExitStack()
        self._definitions: object = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def at(self, commit: str, definitions: object, locks: Mapping[str, str]) -> Pipeline:
        """Return the pipeline of a commit; raises `ProjectError`.

        Commits with equal `definitions` differ at most in their dvc.lock; `locks` are these files'
        git objects, by path in the repository.
        """
        project = self._project
        if definitions != self._definitions:
            self._close()
            self._opened.enter_context(project.at(commit))
            self._opened.callback(setattr, project, "_locks", None)
            with _leniently(), errors_reported():
                _ = project._repo.index.stages
            self._definitions = definitions
        project._commit, project._locks = commit, {}
        with errors_reported():
            stages = [s for s in project._repo.index.stages if s.cmd and hasattr(s, "name")]
        for path, blob in locks.items():
            name = posixpath.relpath(path, project.folder or ".")
            project._locks[name] = self._parse(blob, name)
        for stage in stages:
            name = f"{posixpath.splitext(project._relative(stage.path))[0]}.lock"
            _fill(stage, project._locks.get(name, {}).get(stage.name), name)
        return project.pipeline()

    def _close(self) -> None:
        self._definitions = None
        self._opened.close()

    def _parse(self, blob: str, name: str) -> dict[str, Any]:
        """Return the stages in a lock, even one from before DVC 2.0."""
        text = self._project.blobs.read(blob) or b""
        try:
            found = parse(text.decode(), "dvc.lock") or {}
            stages = found.get("stages") or {} if "schema" in found else found
            return {name: entry for name, entry in stages.items() if isinstance(entry, dict)}
        except (AttributeError, ValueError) as error:
            raise ProjectError(f"{name}: {error}") from None


def _fill(stage: Any, entry: Mapping[str, Any] | None, lock: str) -> None:
    """Give a stage the hashes in its entry of a lock, and no others."""
    for item in (*stage.deps, *stage.outs):
        item.hash_info, item.obj = HashInfo(), None
        if not isinstance(item, ParamsDependency):
            item.meta, item.files = Meta(), None
    stage.cmd_changed = entry is not None and entry.get("cmd") != stage.cmd
    try:
        StageLoader.fill_from_lock(stage, entry)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ProjectError(f"{lock}: the entry of {stage.name} cannot be read ({what})") from None


@contextmanager
def _leniently() -> Iterator[None]:
    """Keep DVC from reading locks, as it refuses old ones; let it read old `.dvc` files."""
    load, schema = Lockfile.load, SingleStageFile.SCHEMA
    Lockfile.load, SingleStageFile.SCHEMA = (lambda *_, **__: {}), Schema({str: object})
    try:
        yield
    finally:
        Lockfile.load, SingleStageFile.SCHEMA = load, schema
