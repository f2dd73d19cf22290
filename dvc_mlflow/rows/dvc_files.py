"""The files that decide what DVC reads of a project, found in the trees of git's commits.

A tree of git's names all that is in a folder, and folders with equal content share one. So each is
read once, however many commits have it. `<commit>:<path>` of all paths at all commits would be
5,000,000 questions for a thousand `.dvc` files in 5,000 commits.
"""

import hashlib
import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import chain
from typing import Any, NamedTuple

import yaml

from ..git import Blobs
from ..pipeline.stages import overlap

_NAMES = {b"dvc.yaml", b"dvc.lock", b"Dvcfile", b".dvcignore"}
_FOLDER, _SUBMODULE = b"40000", b"160000"
_AT_ONCE = 200  # commits whose trees are read together


class DvcFiles(NamedTuple):
    """Which files that DVC reads are in a folder, or below it."""

    definitions: bytes = b""
    """A digest of all but the locks; empty if there are no others."""
    locks: tuple[tuple[str, str], ...] = ()
    """Path and git object of each dvc.lock."""
    metrics: bytes = b""
    """A digest of the stages' files of metrics, which git can have otherwise than dvc.lock."""

    @property
    def is_any(self) -> bool:
        """Whether there is anything that DVC would read."""
        return bool(self.definitions or self.locks)


def read(blobs: Blobs, folder: str, trees: Sequence[str]) -> dict[str, DvcFiles]:
    """Return what the project in a folder has in each of these trees; raises `ProjectError`."""
    first = _Trees(blobs, folder)
    found = first.read(trees)
    names, paths, metrics = _read_besides(blobs, first.definitions)
    if not (names or paths or metrics):
        return found
    return _Trees(blobs, folder, names, paths, metrics - paths).read(trees)


class _Trees:
    """Reads trees of one project."""

    def __init__(
        self,
        blobs: Blobs,
        folder: str,
        names: Set[bytes] = set(),
        paths: Set[bytes] = set(),
        metrics: Set[bytes] = set(),
    ) -> None:
        self._blobs, self._names, self._paths = blobs, _NAMES | names, paths
        self._metrics = metrics
        self._start = os.fsencode(f"{folder}/") if folder else b""
        self._known: dict[tuple[bytes, str], DvcFiles] = {}
        self.definitions: set[tuple[str, str]] = set()
        """Path and git object of each dvc.yaml that they have."""

    def read(self, trees: Sequence[str]) -> dict[str, DvcFiles]:
        for start in range(0, len(trees), _AT_ONCE):
            self._read([(b"", tree) for tree in trees[start : start + _AT_ONCE]])
        return {tree: self._known[b"", tree] for tree in trees}

    def _read(self, folders: Sequence[tuple[bytes, str]]) -> None:
        """Read folders, known by path and tree, and all below them: one level after another."""
        read = []
        while folders:
            contents = self._blobs.trees([tree for _, tree in folders])
            level = [
                (key, *self._own(key[0], content))
                for key, content in zip(folders, contents, strict=True)
            ]
            read += level
            below = dict.fromkeys(chain.from_iterable(inner for _, _, inner in level))
            folders = [each for each in below if each not in self._known]
        for key, own, inner in reversed(read):  # a folder after those in it
            self._known[key] = _joined([own, *(self._known[each] for each in inner)])

    def _own(
        self, folder: bytes, content: Sequence[tuple[bytes, bytes, bytes]]
    ) -> tuple[DvcFiles, list[tuple[bytes, str]]]:
        """Return what a folder itself has, and the folders in it."""
        is_inside = folder.startswith(self._start)
        definitions, locks, metrics, folders = [], [], [], []
        for mode, name, of in content:
            path = folder + name
            if mode == _SUBMODULE:
                continue
            if mode == _FOLDER:
                below = path + b"/"
                if is_inside or self._start.startswith(below):
                    folders.append((below, of.hex()))
                is_named = False
            else:
                is_named = name in self._names or name.endswith(b".dvc")
            if path in self._metrics:
                metrics.append(b"%b\0%b" % (path, of))
            if not (is_inside and (is_named or path in self._paths)):
                continue
            if name == b"dvc.lock":
                locks.append((os.fsdecode(path), of.hex()))
                continue
            if name == b"dvc.yaml":
                self.definitions.add((os.fsdecode(path), of.hex()))
            definitions.append(b"%b\0%b" % (path, of))
        return DvcFiles(_digest(definitions), (*locks,), _digest(metrics)), folders


def _joined(parts: Sequence[DvcFiles]) -> DvcFiles:
    locks = (*chain.from_iterable(part.locks for part in parts),)
    definitions = _of_all(part.definitions for part in parts)
    return DvcFiles(definitions, locks, _of_all(part.metrics for part in parts))


def _of_all(digests: Iterable[bytes]) -> bytes:
    some = [digest for digest in digests if digest]
    return some[0] if len(some) == 1 else _digest(some)


def _digest(parts: Sequence[bytes]) -> bytes:
    """Return a digest of parts, each of which is a digest or a path with the file's object."""
    return hashlib.md5(b"\0".join(parts), usedforsecurity=False).digest() if parts else b""


def _read_besides(
    blobs: Blobs, definitions: Iterable[tuple[str, str]]
) -> tuple[set[bytes], set[bytes], set[bytes]]:
    """Return names and paths of other files that decide what these dvc.yaml say; then metrics.

    By name these are all whose values a dvc.yaml may insert by `${…}`, and by path those that its
    top declares and no stage makes. The metrics are all that it declares.
    """
    names, paths, metrics = set[bytes](), set[bytes](), set[bytes]()
    for path, blob in definitions:
        text = blobs.read(blob) or b""
        if not any(word in text for word in (b"${", b"metrics", b"plots")):
            continue
        if b"${" in text:
            names.add(b"params.yaml")
        try:
            given = yaml.load(text, yaml.CSafeLoader) or {}
            names |= {os.fsencode(name) for name in _variables(given)}
            unmade, measured = unmade_in(given), _metrics_in(given)
        except (yaml.YAMLError, AttributeError, ValueError, TypeError, RecursionError):
            continue  # DVC reports what is wrong
        folder = posixpath.dirname(path)
        paths |= {os.fsencode(_join(folder, path)) for path in unmade}
        metrics |= {os.fsencode(_join(folder, path)) for path in measured}
    return names, paths, metrics


def _variables(content: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the files whose values a dvc.yaml may insert."""
    stages = [stage.get("do", stage) for stage in (content.get("stages") or {}).values()]
    for lists in (content.get("vars"), *(stage.get("vars") for stage in stages)):
        for each in lists or ():
            if isinstance(each, str):
                yield re.sub(r":[^/]*$", "", each).rpartition("/")[2]


def unmade_in(content: Mapping[str, Any]) -> set[str]:
    """Return the files that the top declares and no stage of the same dvc.yaml makes.

    They are relative to its folder. Raises errors of many kinds for what is no dvc.yaml.
    """
    made = []
    for stage in (content.get("stages") or {}).values():
        own = stage.get("do", stage)
        for kind in ("outs", "metrics", "plots"):
            made += [_join(own.get("wdir"), path) for path in _paths(own.get(kind))]
    declared = {_join("", path) for kind in ("metrics", "plots") for path in _at_top(content, kind)}
    unmade = {path for path in declared if not any(overlap(path, out) for out in made)}
    return unmade | {_join("", path) for path in content.get("params") or ()} if unmade else set()


def _metrics_in(content: Mapping[str, Any]) -> set[str]:
    """Return the files that are declared as metrics, but for those with `${…}` in their names."""
    found = {_join("", path) for path in _at_top(content, "metrics")}
    for stage in (content.get("stages") or {}).values():
        own = stage.get("do", stage)
        found |= {_join(own.get("wdir"), path) for path in _paths(own.get("metrics"))}
    return found


def _at_top(content: Mapping[str, Any], kind: str) -> Iterator[str]:
    """Yield the files that the top declares as metrics or plots; a plot can name others."""
    given = content.get(kind) or ()
    entries = [{key: given[key]} for key in given] if isinstance(given, Mapping) else given
    for entry in entries:
        for path, more in entry.items() if isinstance(entry, Mapping) else [(entry, None)]:
            y = more.get("y") if isinstance(more, Mapping) else None
            yield from map(str, y if isinstance(y, Mapping) else [path])


def _paths(given: object) -> Iterator[str]:
    """Yield the paths in a list of a stage's outputs."""
    for entry in given if isinstance(given, list) else ():
        yield from map(str, entry if isinstance(entry, Mapping) else [entry])


def _join(folder: object, path: object) -> str:
    return posixpath.normpath(posixpath.join(str(folder or ""), str(path)))
