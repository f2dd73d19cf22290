"""Git's commits as states of DVC's files: the oldest that has each, and the refs that name it.

What decides a state is few files: each dvc.yaml, the dvc.lock beside it, and what a dvc.yaml reads
besides. Git says which versions of them all commits have, in one answer.
"""

import os
import posixpath
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import yaml

from ..errors import ProjectError
from ..git import Blobs, ask, git, glob, is_experiment
from ..pipeline.stages import leads_out
from .kept_trees import ALL, REFS
from .origin import KeptTree, Origin

_NAMED = ("refs/heads", "refs/remotes", "refs/tags")
EXPERIMENTS = "refs/exps/"
_FORMAT = "%H%x00%T%x00%an%x00%ct%x00%P%x00%s"

_Versions = tuple[tuple[str, str], ...]
"""Paths with git's objects of the files there."""


class Commits(NamedTuple):
    """Some of git's commits."""

    starts: Sequence[str]
    """They and their ancestors are read."""
    only: frozenset[str] | None = None
    """Those that count, or None if all do."""


class Snapshot(NamedTuple):
    """A state of DVC's files, and the commits that have it."""

    commit: str
    """The oldest, by which it is known."""
    commits: Sequence[str]
    definitions: object
    """What decides the pipeline, but for the locks."""
    locks: Mapping[str, str]
    """The git object of each dvc.lock, by its path in the repository."""
    origin: Origin
    kept_for: frozenset[str] = frozenset()
    """If only rows' own commits have it, and other stages were half-way in the dvc.lock of the
    moment, those whose rows these keep."""


class _Commit(NamedTuple):
    hash: str
    tree: str
    author: str
    time: int
    parents: Sequence[str]
    subject: str


def committed(top: Path, commit: str = "", *, rows: bool = False) -> Commits:
    """Return the commits of HEAD, branches, tags and experiments, and one more.

    A row's own commit has the outputs of that row only, so only if all is recorded, that of `rows`
    are among them.
    """
    kinds = (*_NAMED, EXPERIMENTS, *((REFS,) if rows else ()))
    head = ask("rev-parse", "-q", "--verify", "HEAD", cwd=top)
    refs_by_commit = _refs_by_commit(top).items()
    named = [c for c, refs in refs_by_commit if any(ref.startswith(kinds) for ref in refs)]
    return Commits([*dict.fromkeys(filter(None, [head, commit, *named]))])


def between(top: Path, range_: str) -> Commits:
    """Return the commits in a range such as `v1..main`; raises `ProjectError`."""
    starts = os.fsdecode(git("rev-parse", "--revs-only", range_, cwd=top)).split()
    if not starts:
        raise ProjectError(f"--rev: git has no commits {range_!r}")
    only = os.fsdecode(git("rev-list", *starts, cwd=top)).split()
    return Commits([name for name in starts if not name.startswith("^")], frozenset(only))


def named_experiments(folder: Path) -> dict[str, str]:
    """Return the names of DVC's experiments by their commits; {} if git does not answer."""
    lines = ask("for-each-ref", "--format=%(objectname) %(refname)", EXPERIMENTS, cwd=folder)
    found = (line.split(" ", 1) for line in lines.splitlines())
    return {commit: ref.rpartition("/")[2] for commit, ref in found if is_experiment(ref)}


def snapshots(top: Path, folder: str, blobs: Blobs, of: Commits) -> list[Snapshot]:
    """Return the states that these commits have, the oldest first; raises `ProjectError`.

    `top` is the checkout's root, and `folder` the project in it. Rows' own commits come last, as
    they also have states between the stages of a committed result.
    """
    if not of.starts:
        return []
    tips, starts = _refs_by_commit(top), "".join(f"{start}\n" for start in of.starts).encode()
    commits = {each.hash: each for each in _log(top, starts)}
    on_branch = {*ask("rev-list", "--branches", "--remotes", "--tags", "HEAD", cwd=top).split()}
    rows = {c for c, refs in tips.items() if any(ref.startswith(f"{REFS}/") for ref in refs)}
    read = [commit for commit in commits if of.only is None or commit in of.only]
    having: dict[Any, list[str]] = defaultdict(list)
    for commit, state in zip(read, _states(top, folder, blobs, read, starts), strict=True):
        if any(state):
            having[state].append(commit)
    subjects = Counter(commit.subject for commit in commits.values())
    states = []
    for state, those in having.items():
        definitions, locks = state
        # An experiment's commit names nobody's own, even if it is older.
        first = min(those, key=lambda commit: (commit in rows, commit not in on_branch))
        origin = _origin(commits[first], commits, tips, on_branch, rows)
        origin = origin._replace(is_repeated=subjects[origin.subject] > 1)
        kept = {commits[c].subject for c in those} if first in rows else {ALL}
        kept_for = frozenset(() if ALL in kept else kept)
        states.append(Snapshot(first, those, definitions, dict(locks), origin, kept_for))
    place = {commit: i for i, commit in enumerate(commits)}
    return sorted(states, key=lambda each: (each.origin.is_row, place[each.commit]))


def _states(
    top: Path, folder: str, blobs: Blobs, commits: Sequence[str], starts: bytes
) -> list[tuple[_Versions, _Versions]]:
    """Return what decides the pipeline of each commit, and its locks, as paths with objects."""
    options = ("log", "--stdin", "-z", "--format=", "--name-only", "--diff-merges=separate")
    listed = ""
    # DVC 0.x had stages in .dvc files, with a command.
    for kind in ([], ["dvc.yaml", "dvc.lock"]), (["-G^cmd:"], ["*.dvc"]):
        patterns = [glob(folder, f"**/{name}") for name in kind[1]]
        listed += os.fsdecode(git(*options, *kind[0], "--", *patterns, cwd=top, text=starts))
    paths = sorted({path for path in listed.split("\0") if path and "\n" not in path})
    versions = _versions(top, commits, paths)
    definitions = {pair for own in versions for pair in own if pair[0].endswith("dvc.yaml")}
    more = {path for pair in definitions for path in _read_besides(blobs, *pair)}
    others = _versions(top, commits, sorted(more.difference(paths)), folders=True)
    states = []
    for own, besides in zip(versions, others, strict=True):
        locks = tuple(pair for pair in own if pair[0].endswith("dvc.lock"))
        states.append(((*(pair for pair in own if pair not in locks), *besides), locks))
    return states


def _versions(
    top: Path, commits: Sequence[str], paths: Sequence[str], *, folders: bool = False
) -> list[_Versions]:
    """Return those of these paths that each commit has, with git's objects."""
    kinds = (b"blob", b"tree") if folders else (b"blob",)
    if not paths:
        return [() for _ in commits]
    asked = os.fsencode("".join(f"{c}:{path}\n" for c in commits for path in paths))
    answers = iter(git("cat-file", "--batch-check", cwd=top, text=asked).split(b"\n"))
    versions = []
    for _ in commits:
        pairs = ((path, next(answers).split(b" ")) for path in paths)
        versions.append(tuple((p, o[0].decode()) for p, o in pairs if o[1:2] and o[1] in kinds))
    return versions


def _read_besides(blobs: Blobs, path: str, blob: str) -> Iterator[str]:
    """Yield the other files that decide what a dvc.yaml says, by their paths in the repository.

    These are the values that it inserts by `${…}`, and what its top declares, which no stage need
    have made, as with DVCLive.
    """
    text, named = blobs.read(blob) or b"", list[object]()
    try:
        dvc_yaml = yaml.load(text, yaml.CSafeLoader) or {}
        stages = [each.get("do", each) for each in (dvc_yaml.get("stages") or {}).values()]
        for content in (dvc_yaml, *stages):
            named += [f"{each}".partition(":")[0] for each in content.get("vars") or ()]
        for content in stages:  # a dep is data if it, or a folder above it, has a .dvc file
            for dep in content.get("deps") or ():
                place = PurePosixPath(content.get("wdir") or ".", f"{dep}")
                named += [f"{each}.dvc" for each in (place, *place.parents) if each.name]
        named += ["params.yaml"] if b"${" in text else []
        named += dvc_yaml.get("params") or ()
        named += [f"{each['path']}.dvc" for each in (dvc_yaml.get("artifacts") or {}).values()]
        for kind in ("metrics", "plots"):
            for entry in dvc_yaml.get(kind) or ():
                named += entry if isinstance(entry, dict) else [entry]
                for more in entry.values() if isinstance(entry, dict) else ():
                    y = (more or {}).get("y")
                    named += y if isinstance(y, dict) else []
    except (yaml.YAMLError, AttributeError, LookupError, ValueError, TypeError, RecursionError):
        return  # DVC reports what is wrong
    for name in named:
        joined = posixpath.normpath(posixpath.join(posixpath.dirname(path), f"{name}"))
        if not (leads_out(joined) or "\n" in joined):
            yield joined


def _log(top: Path, starts: bytes) -> Iterator[_Commit]:
    """Yield commits and their ancestors, the oldest first, but each after its parents."""
    options = ("--stdin", "--date-order", "--reverse", "-z", f"--format={_FORMAT}")
    fields = iter(os.fsdecode(git("log", *options, cwd=top, text=starts)).split("\0"))
    for commit, tree, author, time, parents, subject in zip(*[fields] * 6, strict=False):
        yield _Commit(commit, tree, author, int(time), parents.split(), subject)


def _refs_by_commit(top: Path) -> dict[str, list[str]]:
    """Return the refs that name each commit."""
    refs: dict[str, list[str]] = defaultdict(list)
    form = "--format=%(objectname) %(*objectname) %(refname)"
    listed = os.fsdecode(git("for-each-ref", form, *_NAMED, EXPERIMENTS, REFS, cwd=top))
    for line in listed.splitlines():
        *hashes, ref = line.split()
        if not ref.startswith(EXPERIMENTS) or is_experiment(ref):
            refs[hashes[-1]].append(ref)
    return refs


def _origin(
    commit: _Commit,
    commits: Mapping[str, _Commit],
    tips: Mapping[str, Sequence[str]],
    on_branch: Set[str],
    rows: Set[str],
) -> Origin:
    is_row = commit.hash in rows and bool(commit.parents)
    of = commits.get(commit.parents[0], commit) if is_row else commit
    base = of.hash if is_row else next(iter(of.parents), "")
    refs = [ref for ref in tips.get(commit.hash, ()) if ref.startswith(EXPERIMENTS)]
    is_committed = not is_row and (commit.hash in on_branch or not refs)
    subject = of.subject if is_committed or base not in commits else commits[base].subject
    return Origin(
        of.hash,
        refs[0].rpartition("/")[2] if refs else "",
        of.author,
        of.time * 1000,
        is_row=is_row,
        is_committed=is_committed,
        kept=KeptTree(commit.hash, commit.tree),
        base=base,
        subject=subject,
    )
