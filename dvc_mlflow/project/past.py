"""A project as commits have it, one after another; DVC reads dvc.yaml only if it has changed."""

import posixpath
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Self

from dvc.dvcfile import Lockfile, ProjectFile, SingleStageFile
from dvc.repo.index import Index
from voluptuous import Schema

from ..errors import ProjectError
from ..git import tree
from ..pipeline.stages import Pipeline
from .locks import fill, stages_in
from .opened import errors_reported
from .running import Project


class Past:
    """The project at any commit; in its block, the project is at the one that was read last."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._opened = ExitStack()
        self._definitions: object = None
        self._data: dict[tuple[str, str], Index] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def at(self, commit: str, definitions: object, locks: Mapping[str, str]) -> Pipeline:
        """Return the pipeline of a commit; raises `ProjectError`.

        Commits with equal `definitions` differ at most in their dvc.lock; `locks` are these files'
        git objects, by path in the repository.
        """
        project = self._project
        if definitions != self._definitions:
            self.leave()
            self._opened.enter_context(project.at(commit))
            self._opened.callback(setattr, project, "_locks", None)
            read = old_files_read(lambda _: {})  # `fill` adds what locks say
            with read, self._data_read_once(commit), errors_reported():
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
            fill(stage, project._locks.get(name, {}).get(stage.name), name)
        project._stages.clear()
        return project.pipeline()

    def leave(self) -> None:
        """Let the project be at the checkout again."""
        self._definitions = None
        self._opened.close()

    @contextmanager
    def _data_read_once(self, commit: str) -> Iterator[None]:
        """Let DVC read each version of a `.dvc` file once: there can be hundreds in each commit."""
        repo, from_file = self._project._repo, Index.from_file
        files = tree(self._project.top, commit)
        known = {path: blob for path, _, blob in files if path.endswith(".dvc")}

        def read(_: Any, path: str) -> Index:
            own = posixpath.join(self._project.folder, self._project._relative(path))
            if own not in known:
                return from_file(repo, path)
            key = own, known[own]
            if key not in self._data:
                self._data[key] = from_file(repo, path)
            for out in (out for stage in self._data[key].stages for out in stage.outs):
                if out.is_in_repo:
                    out.fs = repo.fs
            return self._data[key]

        Index.from_file = read
        try:
            yield
        finally:
            Index.from_file = from_file

    def _parse(self, blob: str, name: str) -> dict[str, Any]:
        try:
            return stages_in((self._project.blobs.read(blob) or b"").decode())
        except (AttributeError, ValueError) as error:
            raise ProjectError(f"{name}: {error}") from None


def lock_as_now(lock: Lockfile) -> dict[str, Any]:
    """Return the content of a lock in the form of today, whatever version of DVC has written it."""
    text = lock.repo.fs.read_text(lock.path) if lock.exists() else ""
    return {"schema": "2.0", "stages": stages_in(text)}


@contextmanager
def old_files_read(read_lock: Callable[[Lockfile], dict[str, Any]]) -> Iterator[None]:
    """Let DVC read locks by this function, as it refuses old ones, and files of DVC 1 and 2."""
    load, single, whole = Lockfile.load, SingleStageFile.SCHEMA, ProjectFile.SCHEMA
    Lockfile.load = lambda lock, **_: read_lock(lock)
    SingleStageFile.SCHEMA = Schema({str: object})
    ProjectFile.SCHEMA = staticmethod(lambda content: whole(_as_now(content)))
    try:
        yield
    finally:
        Lockfile.load, SingleStageFile.SCHEMA, ProjectFile.SCHEMA = load, single, whole


def _as_now(content: Any) -> Any:
    """Change the content of a dvc.yaml of DVC 2 to what it would be today."""
    with suppress(AttributeError, TypeError):  # of what is no dvc.yaml, DVC says why
        for stage in content.get("stages", {}).values():
            own = stage.get("do", stage)
            own.pop("live", None)
            for kind in ("outs", "metrics", "plots"):
                for entry in own.get(kind, ()):
                    for settings in entry.values() if isinstance(entry, dict) else ():
                        settings.pop("checkpoint", None)
    return content
