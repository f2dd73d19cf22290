"""A project as commits have it, one after another; DVC reads dvc.yaml only if it has changed."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from dvc.dependency import ParamsDependency
from dvc.dvcfile import Lockfile, ProjectFile, SingleStageFile
from dvc.repo.index import Index
from dvc.stage.loader import StageLoader
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.meta import Meta
from voluptuous import Schema

from ..errors import one_line
from ..pipeline.stages import Pipeline
from .definitions import read_pipeline, stages_in, stages_with_locks
from .dvc_errors import errors_reported
from .project import Project, git_at

_Definitions = Sequence[tuple[str, str]]


class ProjectAt:
    """The project at any commit; until `close`, the project is at the one that was read last."""

    def __init__(self, project: Project) -> None:
        self._project, self._opened = project, ExitStack()
        self._checkout = git_at(project.top)  # at a commit, the project's own does not know it
        self._definitions: _Definitions = ()
        self._read = dict[object, tuple[Index, Any]]()
        """What DVC has made of the files of the commit that was opened last."""
        self._stages: list[tuple[Any, str]] = []
        """DVC's stages in a dvc.yaml, each with the path of its lock."""

    def at(self, commit: str, definitions: _Definitions) -> Pipeline:
        """Return the pipeline of a commit; raises `ProjectError`.

        Commits with equal `definitions`, which are paths and git objects, differ at most in their
        dvc.lock.
        """
        project = self._project
        if definitions != self._definitions or not project.commit:
            self.close()
            self._opened.enter_context(project.at(commit))
            others = [each for each in definitions if not each[0].endswith(("dvc.yaml", ".dvc"))]
            with as_of_today(without_locks=True), self._reading(others), errors_reported():
                self._stages = [*stages_with_locks(project)]
            self._definitions = definitions
        project.commit = commit
        texts = {lock: project.text(lock) or "" for lock in {lock for _, lock in self._stages}}
        for stage, lock in self._stages:
            fill(stage, stages_in(texts[lock], lock).get(stage.name), lock)
        return read_pipeline(project)

    @contextmanager
    def _reading(self, others: _Definitions) -> Iterator[None]:
        """Let DVC read a file once for commits that have it, and what it inserts of `others`.

        And let it read no file that git ignores, though it tracks it: in a checkout, it reads none.
        DVC decides it, by the rules of the checkout.
        """
        project, from_file = self._project, Index.from_file
        before, self._read = self._read, {}

        def read(repo: Any, path: str) -> Index:
            name = project.relative(path)
            here = project.root / name
            inside = (each for each in here.parents if project.root in each.parents)
            way = [*(f"{folder}/" for folder in inside), f"{here}"]
            if any(map(self._checkout.is_ignored, way)):
                return Index(repo)
            key = (path, project.text(name), *others)
            found = before.get(key) or (from_file(repo, path), project.dvc_file(path))
            self._read[key] = found
            index, project.dvc_files[path] = found
            return index

        Index.from_file = read
        try:
            yield
        finally:
            Index.from_file = from_file

    def close(self) -> None:
        """Let the project be at the checkout again."""
        self._definitions = ()
        self._opened.close()


def fill(stage: Any, entry: Mapping[str, Any] | None, lock: str) -> None:
    """Give a stage the hashes in its entry of a lock, and no others."""
    for item in (*stage.deps, *stage.outs):
        item.hash_info, item.obj = HashInfo(), None
        if not isinstance(item, ParamsDependency):
            item.meta, item.files = Meta(), None
    with one_line(f"{lock}: the entry of {stage.name} cannot be read"):
        stage.cmd_changed = entry is not None and entry.get("cmd") != stage.cmd
        StageLoader.fill_from_lock(stage, entry)


@contextmanager
def as_of_today(*, without_locks: bool = False) -> Iterator[None]:
    """Let DVC read files of DVC 0.x and 2, and no locks if `fill` adds what they say."""
    load, single, whole = Lockfile.load, SingleStageFile.SCHEMA, ProjectFile.SCHEMA
    if without_locks:
        Lockfile.load = lambda *_, **__: {}
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
            for entry in (e for kind in ("outs", "metrics", "plots") for e in own.get(kind, ())):
                for settings in entry.values() if isinstance(entry, dict) else ():
                    settings.pop("checkpoint", None)
    return content
