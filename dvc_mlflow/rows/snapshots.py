"""A project's results in git's history: each state of DVC's files, and its oldest commit."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..git import Blobs, ask, git, glob
from . import dvc_files
from .commits import EXPERIMENTS, Commits, refs_by_commit, short_name
from .kept_trees import ALL, REFS
from .origin import KeptTree, Origin

_FORMAT = "%H%x00%T%x00%an%x00%ct%x00%P%x00%s"


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
    commits = {commit.hash: commit for commit in _log(top, of.starts)}
    # Tips that do not count can still name a state of commits that do.
    own = [c for c in commits.values() if of.only is None or c.hash in of.only or c.hash in tips]
    states = dvc_files.read(blobs, folder, [*dict.fromkeys(commit.tree for commit in own)])
    having: dict[dvc_files.DvcFiles, list[_Commit]] = defaultdict(list)
    names: dict[dvc_files.DvcFiles, list[str]] = defaultdict(list)
    for commit in own:
        state = states[commit.tree]
        names[state] += filter(None, map(short_name, tips.get(commit.hash, ())))
        if state.is_any and (of.only is None or commit.hash in of.only):
            having[state].append(commit)
    branches, dates = _branches(top, commits, tips), _dates(commits.values())
    found = []
    for state, those in having.items():
        # An experiment's commit names nobody's own, even if it is older.
        first = min(
            those,
            key=lambda commit: (
                _is_row(tips, commit),
                commit.hash not in branches and _is_experiment(tips, commit),
                dates[commit.hash],
            ),
        )
        origin = _origin(first, commits, tips, branches)
        definitions = int.from_bytes(state.definitions)
        subjects = {commit.subject for commit in those} if _is_row(tips, first) else {ALL}
        found.append(
            Snapshot(
                first.hash,
                definitions,
                dict(state.locks),
                origin,
                names[state],
                frozenset(() if ALL in subjects else subjects),
            )
        )
    # Rows' own commits come last: they also have states between the stages of a committed result.
    return sorted(found, key=lambda each: (each.origin.is_dirty, dates[each.commit], each.commit))


def _log(top: Path, starts: Sequence[str]) -> Iterator[_Commit]:
    """Yield commits and their ancestors, each after its parents."""
    if not starts:
        return
    revisions = "".join(f"{start}\n" for start in starts).encode()
    options = ("--topo-order", "--reverse", "-z", f"--format={_FORMAT}")
    text = git("log", "--stdin", *options, cwd=top, text=revisions)
    fields = iter(os.fsdecode(text).split("\0"))
    for commit, tree, author, time, parents, subject in zip(*[fields] * 6, strict=False):
        yield _Commit(commit, tree, author, int(time), parents.split(), subject)


def _dates(commits: Iterable[_Commit]) -> dict[str, int]:
    """Return git's "corrected commit dates": those of commits, but later than their parents'.

    Commits of one second would else have no order, and clocks are set back.
    """
    found: dict[str, int] = {}
    for commit in commits:
        parents = (found[parent] + 1 for parent in commit.parents if parent in found)
        found[commit.hash] = max(commit.time, *parents, 0)
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
        kept=KeptTree(commit.hash, commit.tree),
        base=base,
        subject=of.subject,
    )
    if found.is_committed or base not in commits:
        return found
    return found._replace(subject=commits[base].subject)
