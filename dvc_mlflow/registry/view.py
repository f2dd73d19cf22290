"""Bring a registered model of MLflow to what git's tags say of an artifact.

Git decides. What the tool made in MLflow follows git's tags; what people made there stays as it is,
and is named where it contradicts them. A clone that lacks a tag by which MLflow was last changed is
behind, and changes nothing.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING

from ..store.store import Store  # before MLflow, which it sets up

# isort: split
from mlflow.entities.model_registry import ModelVersion

from ..errors import plain
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
from ..store.faults import retried
from . import registered_models
from .registered_models import RegisteredModel
from .tagged import Found

if TYPE_CHECKING:
    from ..project.registry import Artifact, Version

_NONE = "-"
"""In a mark: the stage is not assigned."""
_FETCH = "`git fetch --tags` gets it, if nobody has deleted it"


def registered_name(artifact: str) -> str:
    """Return the name of an artifact's registered model: MLflow's has neither `/` nor `:`."""
    return re.sub("[/:]", "-", artifact)


class View:
    """What MLflow shows of the artifacts."""

    def __init__(
        self,
        store: Store,
        found: Mapping[str, Found],
        had: Collection[str],
        tags: Collection[str],
        dry: bool,
    ) -> None:
        self._client, self._found, self._had, self._dry = store.client, found, had, dry
        self._why: dict[str, list[str]] = defaultdict(list)
        self.tags = tags
        self.done: list[str] = []

    def notes(self) -> list[str]:
        """Return what could not be shown, one line for each reason."""
        return [
            f"{tags[0]}{f' and {len(tags) - 1} more' if len(tags) > 1 else ''}: {why}"
            for why, tags in self._why.items()
        ]

    def show(
        self,
        artifact: str,
        there: RegisteredModel | None,
        said: "Artifact",
        moves: Collection[tuple[str, str]],
    ) -> None:
        """Let MLflow show one artifact as git's tags say."""
        if said.problem:
            self._why[said.problem].append(said.tags[-1])
            return
        there = there or RegisteredModel(registered_name(artifact))
        if (other := there.tags.get(GTO_NAME, artifact)) != artifact:
            why = f"models:/{there.name} shows {other} of git's tags already"
            self._why[why].append(artifact)
            return
        numbers = self._versions(there, artifact, said)
        for stage in sorted({*said.stages, *_marked(there)}):
            self._stage(there, stage, said, numbers, takes_over=(artifact, stage) in moves)
        self._remove(there, said)

    def _versions(self, there: RegisteredModel, artifact: str, said: "Artifact") -> dict[str, str]:
        """Add the versions that MLflow lacks; return the numbers of all, by their names in git."""
        numbers, added = dict[str, str](), list[str]()
        for version in said.versions:
            known = shown(there, version)
            if known is None:
                if number := self._add(there, artifact, version, len(added)):
                    numbers[version.name] = number
                    added.append(f"{_short(version.name)} is version {number}")
            elif known.tags.get(GTO_COMMIT) == version.commit:
                numbers[version.name] = f"{known.version}"
            else:
                was, now = known.tags.get(GTO_COMMIT, "?")[:7], version.commit[:7]
                what = f"models:/{there.name} version {known.version} shows its commit {was}"
                cure = "delete that version in MLflow to show git's"
                self._why[f"{what}, git has it at {now}; {cure}"].append(version.tag)
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

    def _stage(
        self,
        there: RegisteredModel,
        stage: str,
        said: "Artifact",
        numbers: Mapping[str, str],
        *,
        takes_over: bool,
    ) -> None:
        """Let the alias of a stage follow git, unless somebody else has given it."""
        wanted, (marked, by) = said.stages.get(stage), _mark(there, stage)
        at, number = f"models:/{there.name}@{stage}", there.aliases.get(stage, "")
        if by and (number or marked == _NONE) and not self._knows(by):
            why = f"{at} is as this tag says, which git here lacks"
            self._why[f"{why}; {_FETCH}"].append(by)
            return
        if wanted is None:
            if marked != _NONE and _is_own(there, stage):
                if not self._dry:
                    self._client.delete_registered_model_alias(there.name, stage)
                self._say(f"{at}: deleted, as git assigns this stage no longer")
            self._set_mark(there, stage, f"{_NONE} {said.tags[-1] if said.tags else by}")
            return
        target, name = numbers.get(wanted.version), _short(wanted.version)
        if not registered_models.is_alias(stage):
            self._why[f"MLflow allows no alias {stage!r}"].append(wanted.tag)
        elif not target:
            if number:
                why = f"{at} stays version {number}, as MLflow does not show {name}"
                self._why[why].append(wanted.tag)
        elif number not in ("", target) and not (takes_over or _is_own(there, stage)):
            why = f"{at} is version {number}, as somebody chose in MLflow"
            self._why[f"{why}; git says {name}, version {target}"].append(wanted.tag)
        else:
            if number != target:
                if not self._dry:
                    give = self._client.set_registered_model_alias
                    retried(partial(give, there.name, stage, target))
                self._say(f"{at} is version {target}, {name} in git")
            self._set_mark(there, stage, f"{wanted.version} {wanted.tag}")

    def _set_mark(self, there: RegisteredModel, stage: str, mark: str) -> None:
        if not self._dry and there.tags.get(GTO_STAGE + stage) != mark:
            self._tag(there, GTO_STAGE + stage, mark)

    def _tag(self, there: RegisteredModel, key: str, value: str) -> None:
        retried(partial(self._client.set_registered_model_tag, there.name, key, value))

    def _remove(self, there: RegisteredModel, said: "Artifact") -> None:
        """Delete the versions that git has no longer, unless somebody has given them an alias."""
        kept = [known for version in said.versions if (known := shown(there, version))]
        for number, version in there.versions.items():
            tag, own = version.tags.get(GTO_TAG, ""), version.tags.get(GTO_VERSION, "")
            if not tag or version in kept:
                continue
            at = f"models:/{there.name} version {number}"
            foreign = [a for a in there.aliases_of(number) if not _is_own(there, a)]
            if not self._knows(tag):
                why = f"models:/{there.name} has this version, which git here lacks; {_FETCH}"
                self._why[why].append(tag)
            elif foreign:
                why = f"{at} stays, though git has it no longer: somebody gave it the alias "
                self._why[f"{why}{foreign[0]}"].append(tag)
            else:
                if not self._dry:
                    self._client.delete_model_version(there.name, number)
                self._say(f"{at}: deleted, as git has {_short(own)} no longer")

    def _knows(self, tag: str) -> bool:
        """Whether this clone has a tag, or had it: then somebody has deleted it here."""
        return tag in self.tags or tag in self._had

    def _say(self, line: str) -> None:
        self.done.append(f"would be so: {line}" if self._dry else line)


def shown(there: RegisteredModel | None, version: "Version") -> ModelVersion | None:
    """Return what MLflow shows under the name of a version."""
    if there is None:
        return None
    known = there.with_tag(GTO_VERSION, version.name)
    if known is None and version.name == version.commit:  # it is not registered
        return there.with_tag(GTO_COMMIT, version.commit)
    return known


def tags_of(there: RegisteredModel) -> set[str]:
    """Return the tags in git by which the tool has changed a registered model."""
    by = {version.tags.get(GTO_TAG, "") for version in there.versions.values()}
    return (by | {_mark(there, stage)[1] for stage in _marked(there)}) - {""}


def _is_own(there: RegisteredModel, alias: str) -> bool:
    """Whether the tool has given an alias where it is now: today's, or 2.0.0."""
    if (version := there.versions.get(there.aliases.get(alias, ""))) is None:
        return False
    if GTO_TAG in version.tags:
        return bool(version.tags.get(GTO_VERSION) == _mark(there, alias)[0])
    return ROW in version.tags


def _marked(there: RegisteredModel) -> set[str]:
    """Return the stages whose aliases the tool has given or deleted."""
    return {key.removeprefix(GTO_STAGE) for key in there.tags if key.startswith(GTO_STAGE)}


def _mark(there: RegisteredModel, stage: str) -> tuple[str, str]:
    """Return the version that an alias was given to, or `-`, and the tag that said so."""
    version, _, tag = there.tags.get(GTO_STAGE + stage, "").partition(" ")
    return version, tag


def _short(version: str) -> str:
    """Return a version's name; of a whole commit, its first digits."""
    return version[:7] if re.fullmatch("[0-9a-f]{40,}", version) else version
