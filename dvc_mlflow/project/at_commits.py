"""A project as commits have it, one after another; DVC reads dvc.yaml only if it has changed."""

import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager, suppress
from copy import deepcopy
from pathlib import PurePosixPath
from typing import Any, Self

from dvc.dvcfile import Lockfile, ProjectFile, SingleStageFile, is_valid_filename
from dvc.repo.index import Index
from voluptuous import Schema

from ..errors import ProjectError
from ..git import tree
from ..pipeline.stages import Pipeline
from .dvc_repo import errors_reported
from .git_ignored import GitIgnored
from .lock_entries import fill, stages_in
from .project import Project

_VALUES = (".yaml", ".yml", ".json", ".toml", ".py")
"""How the names of files end whose values DVC inserts."""
_FEW = 20
"""At most so many stages that have changed are read by themselves, with those that read them."""


class ProjectAt:
    """The project at any commit; in its block, the project is at the one that was read last."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._opened = ExitStack()
        self._definitions: object = None
        self._stages: Sequence[tuple[Any, str]] = ()
        """DVC's stages in a dvc.yaml, each with the path of its lock."""
        self._entries: Sequence[object] | None = None
        """What the locks have of these stages; None before all stages were given it."""
        self._known: dict[tuple[object, ...], Index] = {}
        """What DVC has read, by path and git object, and those of files with values in it."""
        self._ignored = GitIgnored(project._repo.scm, project.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def at(self, commit: str, definitions: object, locks: Mapping[str, str]) -> Pipeline:
        """Return the pipeline of a commit; raises `ProjectError`.

        Commits with equal `definitions` differ at most in their dvc.lock; `locks` are these files'
        git objects, by path in the repository. Only stages whose entries there differ from those of
        the commit before are read again.
        """
        project = self._project
        if definitions != self._definitions:
            self.leave()
            self._open(commit)
            self._definitions = definitions
        project._commit, project._locks = commit, {}
        for path, blob in locks.items():
            name = posixpath.relpath(path, project.folder or ".")
            project._locks[name] = self._parse(blob, name)
        entries = [project._locks.get(lock, {}).get(each.name) for each, lock in self._stages]
        before, self._entries = self._entries, None
        changed = [
            (*stage, entry)
            for i, (stage, entry) in enumerate(zip(self._stages, entries, strict=True))
            if before is None or before[i] is not entry
        ]
        for stage, lock, entry in changed:
            fill(stage, entry, lock)
        if before is None or len(changed) > _FEW:
            project._stages.clear()
        else:
            for stage, _, _ in changed:
                project._forget(stage)
        found = project.pipeline()
        self._entries = entries
        return found

    def leave(self) -> None:
        """Let the project be at the checkout again."""
        self._definitions = self._entries = None
        self._opened.close()

    def _open(self, commit: str) -> None:
        project = self._project
        self._opened.enter_context(project.at(commit))
        self._opened.callback(setattr, project, "_locks", None)
        read = old_files_read(lambda _: {})  # `fill` adds what locks say
        with read, self._read_as_checkout(commit), errors_reported():
            stages = project._repo.index.stages
            self._stages = [
                (each, f"{posixpath.splitext(project._relative(each.path))[0]}.lock")
                for each in stages
                if each.cmd and hasattr(each, "name")
            ]

    @contextmanager
    def _read_as_checkout(self, commit: str) -> Iterator[None]:
        """Let DVC read none of the files that git ignores, as in a checkout, and no version twice.

        There can be hundreds of files in each commit, most of them as in the commit before.
        """
        repo, from_file = self._project._repo, Index.from_file
        files = {path: blob for path, _, blob in tree(self._project.top, commit)}
        values = [each for each in files.items() if each[0].endswith(_VALUES)]
        ignored = self._ignored_among(files)

        def read(_: Any, path: str) -> Index:
            own = posixpath.join(self._project.folder, self._project._relative(path))
            if own in ignored:
                return Index(repo)
            if own not in files:
                return from_file(repo, path)
            key = own, files[own], *self._inserted(files[own], values)
            if key not in self._known:
                self._known[key] = from_file(repo, path)
            for item in (i for stage in self._known[key].stages for i in stage.outs + stage.deps):
                if item.is_in_repo:
                    item.fs = repo.fs
            return self._known[key]

        Index.from_file = read
        try:
            yield
        finally:
            Index.from_file = from_file

    def _inserted(self, blob: str, values: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return those files of values that DVC can insert into one of its own files.

        By default it inserts those of params.yaml, and of any file that it names.
        """
        text = self._project.blobs.read(blob) or b"${"
        if b"${" not in text:
            return []
        names = ((each, posixpath.basename(each[0])) for each in values)
        return [each for each, name in names if name == "params.yaml" or name.encode() in text]

    def _ignored_among(self, files: Mapping[str, str]) -> Set[str]:
        """Return those of DVC's files of a commit that git ignores."""
        start = posixpath.join(self._project.folder, "")
        own = [path for path in files if path.startswith(start) and is_valid_filename(path)]
        folders = {f"{parent}" for path in own for parent in PurePosixPath(path).parents}
        rules = {
            path: (self._project.blobs.read(blob) or b"").decode(errors="replace")
            for path, blob in files.items()
            if posixpath.basename(path) == ".gitignore"
            and ".." not in path.split("/")  # as a tree that nobody has checked can have
            and (posixpath.dirname(path) or ".") in folders
        }
        return self._ignored.among(own, rules)

    def _parse(self, blob: str, name: str) -> dict[str, Any]:
        try:
            return stages_in((self._project.blobs.read(blob) or b"").decode(), name)
        except (AttributeError, ValueError) as error:
            raise ProjectError(f"{name}: {error}") from None


def lock_as_now(lock: Lockfile) -> dict[str, Any]:
    """Return the content of a lock as `record` reads it, with no entries that are none."""
    text = lock.repo.fs.read_text(lock.path) if lock.exists() else ""
    return {"schema": "2.0", "stages": deepcopy(dict(stages_in(text)))}


@contextmanager
def old_files_read(read_lock: Callable[[Lockfile], dict[str, Any]]) -> Iterator[None]:
    """Let DVC read locks by this function, and files of DVC 2 and before."""
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
