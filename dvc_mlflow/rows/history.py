"""A project's results in git's history: each state of DVC's files, and its oldest commit."""

import hashlib
import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from ..git import Blobs, ask, git, glob, literal
from ..pipeline.plain_yaml import unmade_in
from .commits import EXPERIMENTS, Commits, refs_by_commit, short_name
from .origin import Kept, Origin
from .trees import REFS

_FILES = ("**/dvc.yaml", "**/dvc.lock", "**/Dvcfile", "**/*.dvc", "**/.dvcignore")
_FORMAT = "%H%x00%T%x00%an%x00%ct%x00%P%x00%s"
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


class _Commit(NamedTuple):
    hash: str
    tree: str
    author: str
    time: int
    parents: Sequence[str]
    subject: str
    changes: Sequence[tuple[str, str, str]]
    """For each file that differs from the first parent: path, old object and new object."""


def has_lock(top: Path, folder: str) -> bool:
    """Whether the project in a folder has a dvc.lock, and git's HEAD has each as it is here."""
    locks = glob(folder, "**/dvc.lock")
    is_there = bool(ask("ls-files", "--", locks, cwd=top))
    return is_there and not ask("status", "--porcelain", "--", locks, cwd=top)


def snapshots(top: Path, folder: str, blobs: Blobs, of: Commits) -> list[Snapshot]:
    """Return the states that these commits have, the oldest first; raises `ProjectError`.

    `top` is the checkout's root, and `folder` the project in it.
    """
    tips = refs_by_commit(top)
    commits = {commit.hash: commit for commit in _log(top, folder, _FILES, of.starts)}
    if extra := _read_besides(blobs, folder, commits.values()):
        commits = {c.hash: c for c in _log(top, folder, (*_FILES, *extra), of.starts)}
    branches = _branches(top, commits, tips)
    dates = _dates(commits.values())
    states: dict[str, tuple[int, dict[str, str]]] = {}
    having: dict[object, list[_Commit]] = defaultdict(list)
    names: dict[object, list[str]] = defaultdict(list)
    for commit in commits.values():
        before = states.get(commit.parents[0]) if commit.parents else None
        states[commit.hash] = state = _changed(*(before or (0, {})), commit.changes)
        key: object = (state[0], tuple(sorted(state[1].items())))
        names[key] += filter(None, map(short_name, tips.get(commit.hash, ())))
        if state != (0, {}) and (of.only is None or commit.hash in of.only):
            having[key].append(commit)
    found = []
    for key, those in having.items():
        # An experiment's commit names nobody's own, even if it is older.
        first = min(
            those,
            key=lambda commit: (
                _is_row(tips, commit),
                commit.hash not in branches and _is_experiment(tips, commit),
                dates[commit.hash],
            ),
        )
        definitions, locks = states[first.hash]
        origin = _origin(first, commits, tips, branches)
        found.append(Snapshot(first.hash, definitions, locks, origin, names[key]))
    # Rows' own commits come last: they also have states between the stages of a committed result.
    return sorted(found, key=lambda each: (each.origin.is_dirty, dates[each.commit], each.commit))


def _log(top: Path, folder: str, files: Iterable[str], starts: Sequence[str]) -> Iterator[_Commit]:
    """Yield commits and their ancestors, the oldest first, with their changes to these files."""
    if not starts:
        return
    paths = [glob(folder, name) for name in files if not name.startswith("../")]
    # A state is that of the first parent with these changes, so no commit may be left out.
    options = ("--full-history", "--sparse", "--topo-order", "--reverse", f"--format={_FORMAT}")
    diff = ("--diff-merges=first-parent", "--raw", "-z", "--no-abbrev", "--no-renames")
    revisions = "".join(f"{start}\n" for start in starts).encode()
    text = git("log", "--stdin", *options, *diff, "--", *paths, cwd=top, text=revisions)
    fields = iter(os.fsdecode(text).split("\0"))
    field = next(fields)
    while field:
        commit = field
        tree, author, time, parents, subject = (next(fields) for _ in range(5))
        changes = []
        while (field := next(fields, "")).startswith((":", "\n:")):
            _, _, old, new, _ = field.split()
            changes.append((next(fields), old, new))
        yield _Commit(commit, tree, author, int(time), parents.split(), subject, changes)


def _dates(commits: Iterable[_Commit]) -> dict[str, int]:
    """Return git's "corrected commit dates": those of commits, but later than their parents'.

    Commits of one second would else have no order, and clocks are set back.
    """
    found: dict[str, int] = {}
    for commit in commits:
        parents = (found[parent] + 1 for parent in commit.parents if parent in found)
        found[commit.hash] = max(commit.time, *parents, 0)
    return found


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


def _read_besides(blobs: Blobs, folder: str, commits: Iterable[_Commit]) -> set[str]:
    """Return patterns of the files that decide what a dvc.yaml of these commits says.

    They are those whose values it inserts by `${…}`, and those that its top declares and no stage
    makes.
    """
    seen = {
        (path, new)
        for commit in commits
        for path, _, new in commit.changes
        if path.endswith("dvc.yaml") and new not in _NOTHING
    }
    found = set()
    for path, blob in seen:
        text = blobs.read(blob) or b""
        if not (b"${" in text or any(key in text for key in (b"metrics", b"plots"))):
            continue
        if b"${" in text:
            found.add("**/params.yaml")
        try:
            given = yaml.load(text, yaml.CSafeLoader) or {}
            stages = [s.get("do", s) for s in (given.get("stages") or {}).values()]
            lists = [given.get("vars"), *(s.get("vars") for s in stages)]
            unmade = unmade_in(given)
        except (yaml.YAMLError, AttributeError, ValueError, TypeError):
            continue  # DVC reports what is wrong
        for each in (name for names in lists for name in names or ()):
            if isinstance(each, str):
                found.add(f"**/{re.sub(r':[^/]*$', '', each).rpartition('/')[2]}")
        own = posixpath.relpath(posixpath.dirname(path) or ".", folder or ".")
        found |= {literal(posixpath.normpath(posixpath.join(own, name))) for name in unmade}
    return found


def _is_row(tips: Mapping[str, Sequence[str]], commit: _Commit) -> bool:
    """Whether a commit is one of the tool's own, which says neither who made it nor when."""
    refs = tips.get(commit.hash, ())
    return any(ref.startswith(f"{REFS}/") for ref in refs)


def _is_experiment(tips: Mapping[str, Sequence[str]], commit: _Commit) -> bool:
    """Whether a commit is that of one of DVC's experiments."""
    return any(ref.startswith(EXPERIMENTS) for ref in tips.get(commit.hash, ()))


def _branches(
    top: Path, commits: Mapping[str, _Commit], tips: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Return, for each commit, a local branch that contains it: if possible, the current one."""
    current = ask("symbolic-ref", "--short", "-q", "HEAD", cwd=top)
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
    experiment = next((short_name(ref) for ref in refs if ref.startswith(EXPERIMENTS)), "")
    own = _is_row(tips, commit) and commit.parents
    of = commits.get(commit.parents[0], commit) if own else commit
    base = of.hash if own else next(iter(of.parents), "")
    found = Origin(
        of.hash,
        branches.get(of.hash, ""),
        experiment,
        of.author,
        of.time * 1000,
        is_dirty=bool(own),
        kept=Kept(commit.hash, commit.tree),
        base=base,
        subject=of.subject,
    )
    if found.is_committed or base not in commits:
        return found
    return found._replace(subject=commits[base].subject)
