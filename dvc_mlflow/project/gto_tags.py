"""The model registry in git's tags, as GTO reads and makes them: `name@v1.0.0`, `name#stage#1`."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from gto.base import BaseRegistryState
from gto.constants import VersionSort, assert_fullname_is_valid
from gto.exceptions import GTOException
from gto.registry import GitRegistry
from gto.tag import find, index_tag, parse_name

from ..errors import one_line
from ..git import text


class Version(NamedTuple):
    """A version of an artifact that is registered, or that a stage was assigned to as it is."""

    name: str
    """Such as `v1.0.0`; the first digits of its commit if it was not registered."""
    commit: str
    tag: str
    message: str


class Artifact(NamedTuple):
    """What git's tags say of one artifact now."""

    versions: Sequence[Version]
    """Those that are neither deregistered nor deprecated, the oldest first."""
    stages: Mapping[str, tuple[Version, str]]
    """The version that each stage is assigned to, and the tag that says so."""
    problem: str = ""
    """Why GTO cannot read its tags."""


def read_artifacts(top: Path) -> dict[str, Artifact]:
    """Return what the tags of the checkout at `top` say, by artifact; raises `ProjectError`.

    An artifact's name begins with the folder of its dvc.yaml in the repository: `folder:name`.
    """
    state, problems = BaseRegistryState(), dict[str, str]()
    with _opened(top) as registry:
        # As `gto show` does, but that reads nothing if one artifact is wrong.
        for manager in (
            registry.artifact_manager,
            registry.version_manager,
            registry.stage_manager,
        ):
            for tag in find(action=manager.actions, scm=registry.scm):
                name = parse_name(tag.name)["name"]
                try:
                    index_tag(state.find_artifact(name, create_new=True), tag)
                except GTOException as error:
                    problems[name] = f"{tag.name}: {' '.join(f'{error}'.split())[:300]}"
        return {
            name: Artifact([], {}, problems[name]) if name in problems else _artifact(found)
            for name, found in sorted(state.artifacts.items())
        }


def check_names(top: Path, artifact: str, stage: str) -> None:
    """Raise `ProjectError` if GTO allows no artifact or stage of this name."""
    with _opened(top) as registry:
        assert_fullname_is_valid(artifact)
        registry.config.assert_stage(stage)


def promote(top: Path, artifact: str, stage: str, commit: str, message: str) -> list[str]:
    """Register the next version of an artifact at a commit, if it has none; assign it a stage.

    Return the tags that say so. Raises `ProjectError`.
    """
    known = read_artifacts(top).get(artifact, Artifact([], {})).versions
    tags = [v.tag for v in known if v.commit == commit and not commit.startswith(v.name)]
    newest = ("--count=1", "--sort=-taggerdate", "--format=%(taggerdate:unix)", "refs/tags")
    last = text("for-each-ref", *newest, cwd=top)
    if last.isdecimal() and 0 <= (wait := int(last) + 1 - time.time()) <= 1:
        time.sleep(wait)  # GTO orders tags by seconds
    with _opened(top) as registry:
        if not tags:
            tags = [registry.register(artifact, commit, message=message, simple=True).tag]
        # A version that was the champion before another one has the stage already.
        made = registry.assign(artifact, stage, rev=commit, message=message, force=True)
        return [*tags, made.tag]


def _artifact(artifact: Any) -> Artifact:
    if not artifact.is_active:
        return Artifact([], {})
    assigned = artifact.get_vstages(versions_per_stage=1, sort=VersionSort.Timestamp)
    stages = {name: each[0] for name, each in assigned.items()}
    staged = {stage.version for stage in stages.values()}
    options = {"sort": VersionSort.Timestamp, "ascending": True}
    versions = {
        version.version: Version(
            version.version if version.is_registered else version.version[:7],
            version.commit_hexsha,
            version.ref,
            version.message,
        )
        for version in artifact.get_versions(include_non_explicit=True, **options)
        if version.is_registered or version.version in staged
    }
    return Artifact(
        [*versions.values()],
        {name: (versions[stage.version], stage.ref) for name, stage in stages.items()},
    )


@contextmanager
def _opened(top: Path) -> Iterator[GitRegistry]:
    """Open the registry of a checkout, and turn GTO's errors into `ProjectError`."""
    with one_line("GTO, git's model registry"), GitRegistry.from_url(top) as registry:
        yield registry
