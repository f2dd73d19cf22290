"""Show in MLflow what git's tags register: GTO's versions, and its stages as aliases.

It only adds. A version or an alias that MLflow lacks is made, and an alias moves on with git if it
still is where the tool put it. What contradicts git stays, and is named.
"""

import posixpath
import re
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mlflow.entities.model_registry import ModelVersion

from ..errors import ProjectError, plain, say, warn
from ..git import ask
from ..pipeline.stages import leads_out
from ..pipeline.tags import (
    GTO_AUTHOR,
    GTO_COMMIT,
    GTO_DATE,
    GTO_NAME,
    GTO_STAGE,
    GTO_TAG,
    GTO_VERSION,
    ROW,
)
from ..project import Project
from ..store.experiment_stores import AT_MOST
from ..store.store import Store, exists
from ..store.store_errors import retried
from . import registered_models
from .registered_models import RegisteredModel
from .version_rows import Found, VersionRows

if TYPE_CHECKING:
    from ..project.gto_tags import Artifact, Assigned, Version


class Shown(NamedTuple):
    """What has changed in MLflow, and what could not, one line each."""

    done: list[str]
    notes: list[str]


def show(project: Project, root: Path, *, dry: bool = False) -> Shown:
    """Show the registry of a project; `dry` writes nothing. Raises `ToolError`."""
    tags = {*ask("tag", cwd=project.top).splitlines()}
    if not (any({"@", "#"} & {*tag} for tag in tags) and exists(root)):  # GTO's have one of them
        return Shown([], [])
    from ..project import gto_tags  # GTO takes a third of a second

    said = gto_tags.read(project.top)
    own = {name: each for name, each in sorted(said.items()) if is_of(project, name)}
    store = Store.existing(root, folder=project.folder)
    with store.errors_reported(AT_MOST):
        there = {name: registered_models.read(store.client, name) for name in own}
    lacking = [v for name in own for v in own[name].versions if shown(there[name], v) is None]
    with VersionRows(project, root, store) as rows:
        found = {version.tag: rows.find(version) for version in lacking}
    view = _View(store, found, tags, dry=dry)
    with store.errors_reported(AT_MOST):
        for name, each in own.items():
            view.show(there[name], name, each)
    return Shown(view.done, view.notes())


def show_and_say(project: Project, root: Path, *, dry: bool = False) -> None:
    """Show the registry of a project, and print what has changed."""
    try:
        done, notes = show(project, root, dry=dry)
    except ProjectError as error:
        done, notes = [], [f"{error}"]
    for line in done:
        say(line)
    for line in notes:
        warn(line)


def is_of(project: Project, artifact: str) -> bool:
    """Whether an artifact is of a project, not of one around it, beside it or in it."""
    folder = artifact.rpartition(":")[0]
    within = posixpath.relpath(folder or ".", project.folder or ".")
    if leads_out(within):
        return False
    parts = [] if within == "." else within.split("/")
    inner = (project.root.joinpath(*parts[: n + 1]) for n in range(len(parts)))
    return not any((path / ".dvc").is_dir() for path in inner)


def shown(there: RegisteredModel, version: "Version") -> ModelVersion | None:
    """Return what MLflow shows of a version in git, by its name; if one is unnamed, by commit."""
    key = GTO_COMMIT if version.name == version.commit else GTO_VERSION
    known = there.with_tag(GTO_VERSION, version.name)
    return known or there.with_tag(key, version.commit)


class _Mark(NamedTuple):
    """The version to which the tool has given an alias, and git's tag that said so."""

    version: str
    tag: str


class _View:
    """What MLflow shows of the artifacts. `tags` are all that git has here."""

    def __init__(
        self, store: Store, found: Mapping[str, Found], tags: set[str], *, dry: bool
    ) -> None:
        self._client, self._found, self._tags, self._dry = store.client, found, tags, dry
        self._why: dict[str, list[str]] = defaultdict(list)
        self.done: list[str] = []

    def notes(self) -> list[str]:
        """Return what could not be shown, one line for each reason."""
        return [
            f"{tags[0]}{f' and {len(tags) - 1} more' if len(tags) > 1 else ''}: {why}"
            for why, tags in self._why.items()
        ]

    def show(self, there: RegisteredModel, artifact: str, said: "Artifact") -> None:
        """Let MLflow show one artifact as git's tags say."""
        if said.problem:
            self._why[said.problem].append(said.tags[-1])
            return
        if (other := there.tags.get(GTO_NAME, artifact)) != artifact:
            why = f"models:/{there.name} shows {other} of git's tags already"
            self._why[why].append(artifact)
            return
        numbers = self._versions(there, artifact, said)
        for stage, assigned in sorted(said.stages.items()):
            self._stage(there, stage, assigned, numbers.get(assigned.version, ""))
        self._name_what_git_took_back(there, said)

    def _versions(self, there: RegisteredModel, artifact: str, said: "Artifact") -> dict[str, str]:
        """Add the versions that MLflow lacks; return the numbers of all, by their names in git."""
        numbers, added = dict[str, str](), list[str]()
        for version in said.versions:
            known = shown(there, version)
            if known is None:
                if number := self._add(there, artifact, version, len(added)):
                    numbers[version.name] = number
                    added.append(f"{_short(version.name)} is version {number}")
            elif (at := known.tags.get(GTO_COMMIT, "?")) == version.commit:
                numbers[version.name] = f"{known.version}"
                self._rename(there, known, version)
            else:
                what = f"models:/{there.name} version {known.version} shows its commit {at[:7]}"
                cure = "delete that version in MLflow to show git's"
                why = f"{what}, git has it at {version.commit[:7]}; {cure}"
                self._why[why].append(version.tag)
        if added:
            more = f" and {len(added) - 5} more" if len(added) > 5 else ""
            self._say(f"models:/{there.name}: {', '.join(added[:5])}{more}")
        return numbers

    def _add(self, there: RegisteredModel, artifact: str, version: "Version", before: int) -> str:
        """Add a version, after those `before`; return its number, or "" if MLflow has no model."""
        found = self._found[version.tag]
        if not found.model_id:
            if found.why:
                self._why[found.why].append(version.tag)
            return ""
        if self._dry:
            return f"{max(map(int, there.versions), default=0) + before + 1}"
        said = {
            ROW: found.run_id,
            GTO_VERSION: version.name,
            GTO_COMMIT: version.commit,
            GTO_TAG: version.tag,
            GTO_AUTHOR: plain(version.author)[:250],
            GTO_DATE: version.date,
        }
        number = registered_models.add(self._client, there.name, found.model_id, said, GTO_TAG)
        text = "\n".join(map(plain, version.message.splitlines()))[:5000]
        self._client.update_model_version(there.name, number, text)
        self._tag(there, GTO_NAME, artifact)
        return number

    def _rename(self, there: RegisteredModel, known: ModelVersion, version: "Version") -> None:
        """Give the version of a commit the name that git has registered it by since."""
        is_new = known.tags[GTO_VERSION] == version.commit and version.commit != version.name
        if is_new and not self._dry:
            for key, text in ((GTO_VERSION, version.name), (GTO_TAG, version.tag)):
                self._client.set_model_version_tag(there.name, known.version, key, text)

    def _stage(self, there: RegisteredModel, stage: str, assigned: "Assigned", target: str) -> None:
        """Let the alias of a stage be at the version `target`, unless it contradicts git."""
        at, number = f"models:/{there.name}@{stage}", there.aliases.get(stage, "")
        name, by = _short(assigned.version), _mark(there, stage).tag
        is_older = _counter(by) > _counter(assigned.tag)
        if not registered_models.is_alias(stage):
            self._why[f"MLflow allows no alias {stage!r}"].append(assigned.tag)
        elif not target:
            if number:
                why = f"{at} stays version {number}, as MLflow does not show {name}"
                self._why[why].append(assigned.tag)
        elif number in ("", target) or (_is_own(there, stage) and not is_older):
            if number != target:
                self._say(f"{at} is version {target}, {name} in git")
            if not self._dry and (number != target or (by != assigned.tag and not is_older)):
                give = self._client.set_registered_model_alias
                retried(partial(give, there.name, stage, target))
                self._tag(there, GTO_STAGE + stage, f"{assigned.version} {assigned.tag}")
        else:
            who = "as somebody chose in MLflow"
            if _is_own(there, stage):
                lacks = ", which git here lacks; `git fetch --tags` gets it"
                who = f"as the tag {by} says{'' if by in self._tags else lacks}"
            why = f"{at} is version {number}, {who}; git says {name}, version {target}"
            self._why[why].append(assigned.tag)

    def _name_what_git_took_back(self, there: RegisteredModel, said: "Artifact") -> None:
        """Say which versions and aliases MLflow still has though git here took them back."""
        kept = {f"{known.version}" for v in said.versions if (known := shown(there, v))}
        for number, version in there.versions.items():
            tag = version.tags.get(GTO_TAG, "")
            if tag in self._tags and number not in kept:
                what = f"models:/{there.name} version {number} stays, though git took it back"
                self._why[f"{what}; delete it in MLflow"].append(tag)
        for stage in there.aliases.keys() - said.stages.keys():
            if (tag := _mark(there, stage).tag) in self._tags and _is_own(there, stage):
                what = f"models:/{there.name}@{stage} stays, though git assigns it no longer"
                self._why[f"{what}; delete it in MLflow"].append(tag)

    def _tag(self, there: RegisteredModel, key: str, value: str) -> None:
        retried(partial(self._client.set_registered_model_tag, there.name, key, value))

    def _say(self, line: str) -> None:
        self.done.append(f"would be so: {line}" if self._dry else line)


def tags_shown(there: RegisteredModel) -> set[str]:
    """Return git's tags by which the tool has made what MLflow has."""
    found = {version.tags.get(GTO_TAG, "") for version in there.versions.values()}
    return (found | {_mark(there, alias).tag for alias in there.aliases}) - {""}


def is_somebodys(there: RegisteredModel, alias: str) -> bool:
    """Whether MLflow has an alias that the tool has not put where it is."""
    return alias in there.aliases and not _is_own(there, alias)


def _is_own(there: RegisteredModel, alias: str) -> bool:
    """Whether an alias is where the tool has put it."""
    version = there.versions.get(there.aliases.get(alias, ""))
    return version is not None and _mark(there, alias).version in (
        version.tags.get(GTO_VERSION),
        version.tags.get(GTO_COMMIT),
    )


def _mark(there: RegisteredModel, stage: str) -> _Mark:
    """Return where the tool has put an alias last; both are "" if it has not."""
    version, _, tag = there.tags.get(GTO_STAGE + stage, "").partition(" ")
    return _Mark(version, tag)


def _counter(tag: str) -> int:
    """Return the number by which GTO orders the tags of an artifact's stages."""
    number = tag.rpartition("#")[2]
    return int(number) if number.isdecimal() else 0


def _short(version: str) -> str:
    """Return a version's name; of a whole commit, its first digits."""
    return version[:7] if re.fullmatch("[0-9a-f]{40,}", version) else version
