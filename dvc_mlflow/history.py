"""A project's results in git's history: each state of DVC's files, and its oldest commit."""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from .errors import ProjectError
from .origin import Origin
from .repository import Blobs, ask, git
from .trees import REFS

_REFS = ("refs/heads", "refs/remotes", "refs/tags", "refs/exps", REFS)
_FILES = ("dvc.yaml", "dvc.lock", "Dvcfile", "*.dvc", ".dvcignore")
_FORMAT = "%x01%H%x00%T%x00%an%x00%ct%x00%P"
_NOTHING = {"0" * 40, "0" * 64}


class Snapshot(NamedTuple):
    """A state of DVC's files, and the oldest commit that has it."""

    commit: str
    definitions: int
    """A digest of all files but the locks."""
    locks: Mapping[str, str]
    """The git object of each dvc.lock, by its path in the repository."""
    origin: Origin
    names: Sequence[str]
    """The branches, tags and experiments whose last commit has it."""


class Commits(NamedTuple):
    """Some of git's commits."""

    starts: Sequence[str]
    """They and their ancestors are read."""
    only: frozenset[str] | None = None
    """Those that count, or None if all do."""


class _Commit(NamedTuple):
    hash: str
    tree: str
    author: str
    time: int
    parents: Sequence[str]
    changes: Sequence[tuple[str, str, str]]
    """For each file that differs from the first parent: path, old object and new object."""


def everything(top: Path) -> Commits:
    """Return all commits of HEAD, branches, tags, experiments and rows."""
    head = ask("-C", str(top), "rev-parse", "-q", "--verify", "HEAD")
    return Commits([*filter(None, [head]), *_tips(top)])


def experiments(top: Path) -> Commits:
    """Return the commits of DVC's experiments."""
    own = [c for c, refs in _tips(top).items() if any(r.startswith("refs/exps/") for r in refs)]
    return Commits(own, frozenset(own))


def between(top: Path, range_: str) -> Commits:
    """Return the commits in a range such as `v1..main`; raises `ProjectError`."""
    starts = os.fsdecode(git("rev-parse", "--revs-only", range_, cwd=top)).split()
    if not starts:
        raise ProjectError(f"--rev: git has no commits {range_!r}")
    only = os.fsdecode(git("rev-list", *starts, cwd=top)).split()
    return Commits([name for name in starts if not name.startswith("^")], frozenset(only))


def snapshots(top: Path, folder: str, blobs: Blobs, of: Commits) -> list[Snapshot]:
    """Return the states that these commits have, the oldest first; raises `ProjectError`.

    `top` is the checkout's root, and `folder` the project in it.
    """
    tips = _tips(top)
    commits = {commit.hash: commit for commit in _log(top, folder, _FILES, of.starts)}
    if extra := _variables(blobs, commits.values()):
        commits = {c.hash: c for c in _log(top, folder, (*_FILES, *extra), of.starts)}
    branches = _branches(top, commits, tips)
    states: dict[str, tuple[int, dict[str, str]]] = {}
    having: dict[object, list[_Commit]] = defaultdict(list)
    names: dict[object, list[str]] = defaultdict(list)
    for commit in commits.values():
        before = states.get(commit.parents[0]) if commit.parents else None
        states[commit.hash] = state = _changed(*(before or (0, {})), commit.changes)
        key: object = (state[0], tuple(sorted(state[1].items())))
        names[key] += filter(None, map(_short, tips.get(commit.hash, ())))
        if state != (0, {}) and (of.only is None or commit.hash in of.only):
            having[key].append(commit)
    found = []
    for key, those in having.items():
        first = min(those, key=lambda commit: (_is_row(tips, commit), commit.time))
        definitions, locks = states[first.hash]
        origin = _origin(first, commits, tips, branches)
        found.append(Snapshot(first.hash, definitions, locks, origin, names[key]))
    # Rows' own commits come last: they also have states between the stages of a committed result.
    return sorted(found, key=lambda each: (each.origin.is_dirty, each.origin.time, each.commit))


def _log(top: Path, folder: str, files: Iterable[str], starts: Sequence[str]) -> Iterator[_Commit]:
    """Yield commits and their ancestors, the oldest first, with their changes to these files."""
    if not starts:
        return
    start = f"{folder}/" if folder else ""
    paths = [f":(top,glob){start}**/{name}" for name in files]
    # A state is that of the first parent with these changes, so no commit may be left out.
    options = ("--full-history", "--sparse", "--topo-order", "--reverse", f"--format={_FORMAT}")
    diff = ("--diff-merges=first-parent", "--raw", "--no-abbrev", "--no-renames")
    config = ("-c", "log.showRoot=true", "-c", "core.quotePath=false")
    revisions = "".join(f"{start}\n" for start in starts).encode()
    text = git(*config, "log", "--stdin", *options, *diff, "--", *paths, cwd=top, text=revisions)
    for entry in os.fsdecode(text).split("\x01")[1:]:
        head, _, rest = entry.partition("\n")
        commit, tree, author, time, parents = head.split("\0")
        changes = []
        for line in filter(None, rest.split("\n")):
            fields, _, path = line.partition("\t")
            _, _, old, new, _ = fields.split()
            changes.append((path.strip('"'), old, new))
        yield _Commit(commit, tree, author, int(time), parents.split(), changes)


def _changed(
    definitions: int, locks: dict[str, str], changes: Sequence[tuple[str, str, str]]
) -> tuple[int, dict[str, str]]:
    for path, old, new in changes:
        if path.endswith("dvc.lock"):
            locks = {key: value for key, value in locks.items() if key != path}
            if new not in _NOTHING:
                locks[path] = new
        else:
            for blob in {old, new} - _NOTHING:
                text = f"{path}\0{blob}".encode()
                digest = hashlib.md5(text, usedforsecurity=False).digest()
                definitions ^= int.from_bytes(digest)
    return definitions, locks


def _variables(blobs: Blobs, commits: Iterable[_Commit]) -> set[str]:
    """Return the names of the files whose values a dvc.yaml of these commits inserts by `${…}`."""
    seen = {
        new
        for commit in commits
        for path, _, new in commit.changes
        if path.endswith("dvc.yaml") and new not in _NOTHING
    }
    found = set()
    for blob in seen:
        text = blobs.read(blob) or b""
        if b"${" in text:
            found.add("params.yaml")
            try:
                given = yaml.load(text, yaml.CSafeLoader) or {}
                stages = (given.get("stages") or {}).values()
                lists = [given.get("vars"), *(s.get("vars") for s in stages)]
            except (yaml.YAMLError, AttributeError, ValueError):
                continue  # DVC reports what is wrong
            for each in (name for names in lists for name in names or ()):
                if isinstance(each, str):
                    found.add(re.sub(r":[^/]*$", "", each).rpartition("/")[2])
    return found


def _tips(top: Path) -> dict[str, list[str]]:
    """Return the refs that name each commit."""
    found: dict[str, list[str]] = defaultdict(list)
    form = "--format=%(objectname) %(*objectname) %(refname)"
    for line in os.fsdecode(git("for-each-ref", form, *_REFS, cwd=top)).splitlines():
        *hashes, ref = line.split()
        if not ref.startswith("refs/exps/") or ref.count("/") == 4:  # DVC's own have fewer
            found[hashes[-1]].append(ref)
    return found


def _short(ref: str) -> str:
    """Return what the user calls a ref, or "" if nobody has given it a name."""
    kind, _, name = ref.removeprefix("refs/").partition("/")
    if kind == "exps":
        return ref.rpartition("/")[2]
    return name if kind in ("heads", "tags", "remotes") and not name.endswith("/HEAD") else ""


def _is_row(tips: Mapping[str, Sequence[str]], commit: _Commit) -> bool:
    """Whether a commit is one of the tool's own, which says neither who made it nor when."""
    refs = tips.get(commit.hash, ())
    return any(ref.startswith(f"{REFS}/") for ref in refs)


def _branches(
    top: Path, commits: Mapping[str, _Commit], tips: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Return, for each commit, a local branch that contains it: if possible, the current one."""
    current = ask("-C", str(top), "symbolic-ref", "--short", "-q", "HEAD")
    heads = [
        (ref.removeprefix("refs/heads/"), commit)
        for commit, refs in tips.items()
        for ref in refs
        if ref.startswith("refs/heads/")
    ]
    found: dict[str, str] = {}
    for name, tip in sorted(heads, key=lambda head: head[0] != current):
        todo = [tip]
        while todo:
            commit = todo.pop()
            if commit in commits and commit not in found:
                found[commit] = name
                todo += commits[commit].parents
    return found


def _origin(
    commit: _Commit,
    commits: Mapping[str, _Commit],
    tips: Mapping[str, Sequence[str]],
    branches: Mapping[str, str],
) -> Origin:
    refs = tips.get(commit.hash, ())
    experiment = next((_short(ref) for ref in refs if ref.startswith("refs/exps/")), "")
    own = _is_row(tips, commit) and commit.parents
    of = commits.get(commit.parents[0], commit) if own else commit
    return Origin(
        of.hash,
        branches.get(of.hash, ""),
        experiment,
        of.author,
        of.time * 1000,
        is_dirty=bool(own),
        kept=commit.hash,
        tree=commit.tree,
    )
