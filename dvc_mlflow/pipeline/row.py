"""A row as plain values: what MLflow gets of a result, and what a run in MLflow has of it."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, NewType, Self

from .stages import Model

RowKey = NewType("RowKey", str)
"""A stage's name in a row, as keys in MLflow have it: another one than its name in the project."""
DIGITS, LONGEST = 7, 5000
"""Of a digest, by which people know it; and the characters of a tag's value in MLflow."""
UNCOMMITTED = "after "
"""What is before the commit in the tag `commit` until somebody has committed the result."""

NOT_HERE, NO_MODEL = "not as in dvc.lock", "its bytes are neither here nor in DVC's cache"
"""What notes say of files, and of a model, that are not here."""


class Point(NamedTuple):
    """A value of a metric."""

    key: str
    value: float
    step: int
    is_final: bool = False
    """Whether it comes from a metrics file, so that the table shows it."""


class Input(NamedTuple):
    """A data set that a stage reads."""

    path: str
    md5: str
    stage: str


class ServedModel(NamedTuple):
    """A model, and how MLflow serves it."""

    model: Model
    md5: str
    identity: str
    """A digest of its bytes, loader, code and requirements: rows share a model."""
    requirements: Sequence[str]
    code: Mapping[str, bytes]
    files: Sequence[tuple[str, Path | bytes]]
    """Its files by their paths in it: where their bytes are, or the bytes."""
    is_package: bool
    """Whether it is MLflow's own form, a folder with an MLmodel file."""


@dataclass
class Part:
    """What a row gets of one of its stages."""

    points: list[Point] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    inputs: list[Input] = field(default_factory=list)
    models: list[ServedModel] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)
    """Files whose bytes are not here, and what brings each."""
    notes: list[str] = field(default_factory=list)
    """What cannot be recorded, one line each."""

    def notes_unread(self) -> Iterator[str]:
        """Yield which files are not as in dvc.lock, and how they are brought back."""
        for cure in dict.fromkeys(self.unread.values()):
            own = [path for path, each in self.unread.items() if each == cure]
            yield f"{', '.join(own[:5])}: {NOT_HERE}; {cure}"


class Standing(NamedTuple):
    """Where a result stands in git; an older commit of a higher rank says who made it and when."""

    rank: int = 0
    """2 if somebody has committed it, 1 if only DVC has, as an experiment; else 0."""
    time: int = 0
    """Of the commit, in seconds since 1970."""
    commit: str = ""

    def is_better(self, than: Self) -> bool:
        """Whether it should replace the other one."""
        if self.rank != than.rank:
            return self.rank > than.rank
        return self.rank > 0 and (self.time, self.commit) < (than.time, than.commit)


NOWHERE = Standing()


class Wanted(NamedTuple):
    """What decides a row, known before anything of it is read."""

    digests: Mapping[RowKey, str]
    """Of the results, by the stages' names in the row."""
    standing: Standing
    declared: str
    """A digest of what dvc.yaml declares of them."""


@dataclass(frozen=True)
class Row:
    """All that MLflow gets of a result."""

    wanted: Wanted
    words: str
    """The name without its digits: `rows.name`."""
    digits: Sequence[str]
    """Those that the name begins with, then those of each result by which it is found as well."""
    note: str
    """The description."""
    time: int
    """Milliseconds since 1970."""
    tags: Mapping[str, str]
    """Those that say what it is for, and those of a new run."""
    origin: Mapping[str, str]
    """The tags that say where the results come from: they follow the best standing."""
    params: Mapping[str, str]
    parts: Mapping[RowKey, Part]
    """By the stages' names in the row; none if only its standing has changed."""
    measures: Sequence[str]
    """The metrics that say how good the result is, best first, with signs: `pipeline.measures`."""
    notes: Sequence[str]
    """What cannot be recorded, one line each."""

    @property
    def name(self) -> str:
        """The row's name."""
        return f"{self.digits[0]} {self.words}".strip()

    @property
    def points(self) -> list[Point]:
        """The points of all parts."""
        return [point for part in self.parts.values() for point in part.points]

    @property
    def unread(self) -> dict[str, str]:
        """The files whose bytes are not here, and what brings each."""
        return {path: cure for part in self.parts.values() for path, cure in part.unread.items()}

    def contradicted(self, logged: Mapping[str, str]) -> Iterator[str]:
        """Yield a note on each param for which a script has logged another value."""
        for key, value in self.params.items():
            if (has := logged.get(key, value)) != value:
                yield f"param {key!r}: the script logged {has!r}, DVC has {value!r}"


@dataclass(frozen=True)
class StoredRun:
    """A run in the store, by the results that it holds."""

    run_id: str
    name: str
    digests: Mapping[RowKey, str]
    """Of its results, by the stages' names in the row."""
    is_deleted: bool = False
    is_live: bool = False
    """Whether a stage of it runs, or has ended unseen."""
    is_closed: bool = False
    """Whether a process is at work on it, or its files are elsewhere: nothing joins it."""
    declared: str = ""
    """The digest of what was declared when it got all that it has; "" if it has not."""
    standing: Standing = NOWHERE
    unread: str = ""
    """Which files could not be read."""
    kept: str = ""
    """The commit that keeps its files."""

    def lacks_content(self, wanted: Wanted) -> bool:
        """Whether it lacks more than a better standing."""
        return bool(self.unread) or wanted.declared != self.declared

    def lacks(self, wanted: Wanted) -> bool:
        """Whether a row lacks something that is known before it is read: a part of it does not."""
        if wanted.digests.items() < self.digests.items():
            return False
        return self.lacks_content(wanted) or wanted.standing.is_better(self.standing)


class Match(NamedTuple):
    """Where results go: the run that has them, the one that they join, or neither: a new one."""

    has: StoredRun | None = None
    joins: StoredRun | None = None

    @property
    def run(self) -> StoredRun | None:
        """The run, if there is one."""
        return self.has or self.joins

    @property
    def complete(self) -> StoredRun | None:
        """The run, if it has all of what it says that it has."""
        return None if self.run and self.run.is_live else self.run


def match(wanted: Mapping[RowKey, str], runs: Sequence[StoredRun]) -> Match:
    """Return where the results of a row go, given the runs in the store, oldest first.

    They join a run only if all that it has is among them, so that no run ever mixes results that
    were in no dvc.lock together.
    """
    if has := [run for run in runs if wanted.items() <= run.digests.items()]:
        return Match(has=min(has, key=lambda run: run.is_deleted))
    free = (run for run in runs if not (run.is_deleted or run.is_closed))
    joins = [run for run in free if run.digests.items() <= wanted.items()]
    return Match(joins=max(joins, key=lambda run: len(run.digests), default=None))


def allowed_key(key: str, longest: int = 250) -> str:
    """Return a key as MLflow allows it: only some characters, no `..`, not too long."""
    key = re.sub(r"[^\w/. -]", "_", key)
    parts = [re.sub(r"^\.+$", "_", part) for part in key.split("/") if part]
    key = re.sub(r"^\.\.", "__", "/".join(parts))
    return (key if len(key) <= longest else key[:longest].rstrip("/.")) or "_"


def digest_of(of: object) -> str:
    """Return a digest of plain values."""
    return md5_of_text(json.dumps(of, sort_keys=True, default=repr))


def md5_of_text(text: str) -> str:
    """Return the md5 of a text, of which the tool makes its digests."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
