"""The model registry in git's tags, as GTO reads and makes them: `name@v1.0.0`, `name#stage#1`."""

import posixpath
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from gto.base import BaseRegistryState
from gto.constants import VersionSort, assert_fullname_is_valid, assert_name_is_valid
from gto.exceptions import GTOException
from gto.registry import GitRegistry
from gto.tag import find, index_tag, parse_name

from ..errors import ProjectError, is_raised_in
from ..git import text, tree
from ..pipeline.keys import in_repository
from .project import Project


class Version(NamedTuple):
    """A version of an artifact that is registered, or that a stage was assigned to as it is."""

    artifact: str
    """With the folder of its dvc.yaml in the repository, as `folder:name`."""
    name: str
    """Such as `v1.0.0`; its commit if it was not registered."""
    commit: str
    tag: str
    author: str
    date: str
    message: str


class Assigned(NamedTuple):
    """The version that a stage is assigned to, and the tag that says so."""

    version: str
    commit: str
    tag: str


class Artifact(NamedTuple):
    """What git's tags say of one artifact now."""

    versions: Sequence[Version]
    """Those that are neither deregistered nor deprecated, the oldest first."""
    stages: Mapping[str, Assigned]
    """By name, those that are assigned."""
    tags: Sequence[str]
    """All of its tags, the newest last."""
    problem: str = ""
    """Why GTO cannot read it, with nothing else but its tags."""

    def at(self, commit: str) -> Version | None:
        """Return the version of a commit; GTO allows one."""
        return next((version for version in self.versions if version.commit == commit), None)


def read(top: Path) -> dict[str, Artifact]:
    """Return what the tags of the checkout at `top` say, by artifact; raises `ProjectError`."""
    state, problems = BaseRegistryState(), dict[str, str]()
    tags: dict[str, list[str]] = defaultdict(list)
    with _opened(top) as registry:
        # As `gto show` does, but that reads nothing if one artifact is wrong.
        managers = registry.artifact_manager, registry.version_manager, registry.stage_manager
        for manager in managers:
            for tag in find(action=manager.actions, scm=registry.scm):
                name = parse_name(tag.name)["name"]
                tags[name].append(tag.name)
                try:
                    index_tag(state.find_artifact(name, create_new=True), tag)
                except GTOException as error:
                    problems[name] = _line(error)
        return {
            name: Artifact([], {}, those, problems[name])
            if name in problems
            else _artifact(state.find_artifact(name, create_new=True))
            for name, those in tags.items()
        }


def check_names(top: Path, artifact: str, stage: str) -> None:
    """Raise `ProjectError` if GTO allows no artifact or stage of this name."""
    with _opened(top) as registry:
        assert_fullname_is_valid(artifact)
        assert_name_is_valid(stage)
        allowed = registry.get_stages(allowed=True)
        if allowed and stage not in allowed:
            raise GTOException(f"{stage!r} is not among its stages: {', '.join(allowed)}")


def promote(top: Path, artifact: str, stage: str, commit: str, message: str) -> list[str]:
    """Register the next version of an artifact at a commit, if it has none; assign it a stage.

    Return the tags that say so. Raises `ProjectError`.
    """
    known = read(top).get(artifact)
    version = known.at(commit) if known else None
    is_registered = version is not None and version.name != commit
    tags = [version.tag] if version and is_registered else []
    _wait(top)
    with _opened(top) as registry:
        if not is_registered:
            made = registry.register(artifact, commit, message=message, simple=True)
            tags.append(made.tag)
        made = registry.assign(artifact, stage, rev=commit, message=message)
        return [*dict.fromkeys([*tags, made.tag])]


def declared(project: Project) -> dict[str, str]:
    """Return the type of each artifact that the project's dvc.yaml files declare, by its name.

    The name is as in `Version.artifact`.
    """
    found = {}
    for file, artifacts in project._repo.index._artifacts.items():
        folder = posixpath.dirname(project._relative(file))
        for name, given in artifacts.items():
            kind = given.get("type") if isinstance(given, Mapping) else ""
            found[in_repository(project.folder, f"{folder}:{name}")] = f"{kind}"
    return found


def locks(project: Project, commit: str) -> dict[str, str]:
    """Return the git object of each dvc.lock of the project at a commit, by path."""
    files = tree(project.top, commit, project.folder or ".")
    return {path: blob for path, _, blob in files if posixpath.basename(path) == "dvc.lock"}


def _artifact(found: Any) -> Artifact:
    events = sorted(found.get_events(), key=lambda event: (event.created_at, event.priority))
    tags = [event.tag for event in events]
    if not found.is_active:
        return Artifact([], {}, tags)
    stages = {
        name: Assigned(those[0].version, those[0].commit_hexsha, those[0].assignments[-1].tag)
        for name, those in found.get_vstages(
            versions_per_stage=1, sort=VersionSort.Timestamp
        ).items()
    }
    assigned = {each.version for each in stages.values()}
    versions = [
        _version(each)
        for each in found.get_versions(include_non_explicit=True, include_discovered=True)
        if each.is_registered or each.version in assigned
    ]
    return Artifact(sorted(versions, key=lambda each: (each.date, each.tag)), stages, tags)


def _version(found: Any) -> Version:
    if found.registrations:
        event = found.registrations[-1]
    else:
        event = found.get_vstages()[-1].assignments[-1]
    date = event.created_at.isoformat()
    author = f"{event.author} <{event.author_email}>"
    return Version(
        found.artifact, found.version, found.commit_hexsha, event.tag, author, date, event.message
    )


def _wait(top: Path) -> None:
    """Wait until git's clock has left the second of the last tag: GTO orders tags by seconds."""
    newest = "--sort=-taggerdate", "--format=%(taggerdate:unix)"
    last = text("for-each-ref", "--count=1", *newest, "refs/tags", cwd=top)
    if last.isdecimal() and 0 <= int(last) + 1 - time.time() <= 1:
        time.sleep(int(last) + 1 - time.time())


@contextmanager
def _opened(top: Path) -> Iterator[GitRegistry]:
    """Open the registry of a checkout, and turn GTO's errors into `ProjectError`."""
    try:
        with GitRegistry.from_url(top) as registry:
            yield registry
    except Exception as error:
        if not (isinstance(error, GTOException) or is_raised_in("gto", error)):
            raise  # a bug of the tool
        raise ProjectError(f"GTO, git's model registry: {_line(error)}") from None


def _line(error: Exception) -> str:
    said = getattr(error, "message", "") or f"{error}" or type(error).__name__
    return " ".join(said.split())[:300]
