"""Git's commits as states of DVC's files: the oldest that has each, and the refs that name it.

What decides a state is few files: each dvc.yaml, the dvc.lock beside it, and what a dvc.yaml reads
besides. Git says which of them each commit has changed.
"""

import os
import posixpath
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import yaml

from ..errors import ProjectError
from ..git import Blobs, ask, git, glob, own_head
from ..pipeline.stages import leads_out
from .kept_trees import ALL, REFS
from .origin import KeptTree, Origin

_NAMED = ("refs/heads", "refs/remotes", "refs/tags")
EXPERIMENTS = "refs/exps/"
_FORMAT = "%H%x00%T%x00%an%x00%ct%x00%P%x00%s"

_FILES = {"100644", "100755", "120000"}
"""The modes of what git tracks as a file."""
_Pairs = tuple[tuple[str, str], ...]
"""Paths with git's objects of the files there."""


class _Refs(NamedTuple):
    """The commits that a repository's refs name."""

    own: list[str]
    """Those of branches, tags, and of a person's HEAD."""
    experiments: dict[str, list[str]]
    """Those of DVC's experiments, with their names."""
    rows: set[str]
    """Rows' own commits."""


class Commits(NamedTuple):
    """Some of git's commits."""

    starts: Sequence[str]
    """They and their ancestors are read."""
    refs: _Refs
    only: frozenset[str] | None = None
    """Those that count, or None if all do."""

    def having(self, experiments: Set[str]) -> list[str]:
        """Return the commits that DVC has made as experiments of these names."""
        return [c for c, names in self.refs.experiments.items() if {*names} & experiments]


class Snapshot(NamedTuple):
    """A state of DVC's files, and the commits that have it."""

    commit: str
    """The oldest, by which it is known."""
    commits: Sequence[str]
    definitions: _Pairs
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
    """Return the commits of a person's HEAD, branches, tags and experiments, and one more.

    A row's own commit has the outputs of that row only, so only if all is recorded, that of `rows`
    are among them.
    """
    refs = _refs(top)
    named = [*refs.own, *refs.experiments, *(refs.rows if rows else ())]
    return Commits([*dict.fromkeys(filter(None, [commit, *named]))], refs)


def exactly(top: Path, commits: Sequence[str]) -> Commits:
    """Return commits of which only these count, not their ancestors; raises `ProjectError`."""
    return Commits(commits, _refs(top), frozenset(commits))


def between(top: Path, range_: str) -> Commits:
    """Return the commits in a range such as `v1..main`; raises `ProjectError`."""
    starts = os.fsdecode(git("rev-parse", "--revs-only", range_, cwd=top)).split()
    if not starts:
        raise ProjectError(f"--rev: git has no commits {range_!r}")
    only = os.fsdecode(git("rev-list", *starts, cwd=top)).split()
    ends = [name for name in starts if not name.startswith("^")]
    return Commits(ends, _refs(top), frozenset(only))


def since(top: Path, old: Sequence[str], running: Set[str]) -> Commits:
    """Return all commits that cannot be reached from `old` ones.

    Those of `running` experiments, by name, are left out.
    """
    now = committed(top, rows=True)
    starts = [*{*now.starts} - {*now.having(running)}]
    asked = "\n".join([*starts, *(f"^{commit}" for commit in old)])
    new = ask("rev-list", "--ignore-missing", "--stdin", cwd=top, text=asked)
    return Commits(starts, now.refs, frozenset(new.split()))


def snapshots(top: Path, folder: str, blobs: Blobs, of: Commits) -> list[Snapshot]:
    """Return the states that these commits have, the oldest first; raises `ProjectError`.

    `top` is the checkout's root, and `folder` the project in it. Rows' own commits come last, as
    they also have states between the stages of a committed result.
    """
    if not of.starts:
        return []
    commits, states = _states(top, folder, blobs, of.starts)
    on_branch = {*ask("rev-list", "--stdin", cwd=top, text="\n".join(of.refs.own)).split()}
    having: dict[Any, list[str]] = defaultdict(list)
    for commit, state in states.items():
        if any(state) and (of.only is None or commit in of.only):
            having[state].append(commit)
    subjects = Counter(commit.subject for commit in commits.values())
    found = []
    for state, those in having.items():
        definitions, locks = state
        # An experiment's commit names nobody's own, even if it is older.
        first = min(those, key=lambda commit: (commit in of.refs.rows, commit not in on_branch))
        origin = _origin(commits[first], commits, of.refs, on_branch)
        origin = origin._replace(is_repeated=subjects[origin.subject] > 1)
        kept = {commits[c].subject for c in those} if first in of.refs.rows else {ALL}
        kept_for = frozenset(() if ALL in kept else kept)
        found.append(Snapshot(first, those, definitions, dict(locks), origin, kept_for))
    place = {commit: i for i, commit in enumerate(commits)}
    return sorted(found, key=lambda each: (each.origin.is_row, place[each.commit]))


def _states(
    top: Path, folder: str, blobs: Blobs, starts: Sequence[str]
) -> tuple[Mapping[str, _Commit], Mapping[str, tuple[_Pairs, _Pairs]]]:
    """Return commits, and what decides the pipeline of each, and its locks."""
    # DVC 0.x had stages in .dvc files, with a command.
    options = ("--stdin", "-z", "--format=", "--name-only", "--diff-merges=separate", "-G^cmd:")
    pattern, text = glob(folder, "**/*.dvc"), _lines(starts)
    listed = os.fsdecode(git("log", *options, "--", pattern, cwd=top, text=text)).split("\0")
    patterns = [glob(folder, f"**/{name}") for name in ("dvc.yaml", "dvc.lock")]
    commits, having = _log(top, starts, [*patterns, *map(_literal, {*listed} - {""})])
    pairs = {pair for files in having.values() for pair in files.items()}
    definitions = [pair for pair in pairs if pair[0].endswith("dvc.yaml")]
    more = {path for pair in definitions for path in _read_besides(blobs, *pair)}
    besides = _log(top, starts, [*map(_literal, more)])[1] if more else {}
    states = {}
    for commit, files in having.items():
        own = sorted({**files, **besides.get(commit, {})}.items())
        locks = tuple(pair for pair in own if pair[0].endswith("dvc.lock"))
        states[commit] = tuple(pair for pair in own if pair not in locks), locks
    return commits, states


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
        if not (joined == "." or leads_out(joined)):
            yield joined


def _log(
    top: Path, starts: Sequence[str], paths: Sequence[str]
) -> tuple[Mapping[str, _Commit], Mapping[str, Mapping[str, str]]]:
    """Return commits and their ancestors, the oldest first, and what each has of these files.

    Each comes after its parents. Git says what it has otherwise than the first of them.
    """
    all_commits = ("--full-history", "--sparse", "--date-order", "--reverse")
    shown = (f"--format={_FORMAT}", "--raw", "--no-abbrev", "--no-renames")
    options = (*all_commits, *shown, "--diff-merges=first-parent", "-z", "--stdin")
    text = _lines([*starts, "--", *paths])
    fields = iter(os.fsdecode(git("log", *options, cwd=top, text=text)).split("\0"))
    commits, having = dict[str, _Commit](), dict[str, dict[str, str]]()
    for field in filter(None, fields):
        if ":" not in field:
            tree, author, time, parents, subject = islice(fields, 5)
            commit, before = field, having.get(parents.partition(" ")[0], {})
            commits[commit] = _Commit(commit, tree, author, int(time), parents.split(), subject)
            having[commit] = before
            continue
        (_, mode, _, blob, _), path = field.split(" "), next(fields)
        if having[commit] is before:
            having[commit] = {**before}
        having[commit].pop(path, None)
        if mode in _FILES:
            having[commit][path] = blob
    return commits, having


def _lines(words: Iterable[str]) -> bytes:
    return os.fsencode("".join(f"{word}\n" for word in words if "\n" not in word))


def _literal(path: str) -> str:
    return f":(top,literal){path}"


def _refs(top: Path) -> _Refs:
    """Return what the refs of a repository name; raises `ProjectError`."""
    refs = _Refs([], defaultdict(list), set())
    form = "--format=%(objectname) %(*objectname) %(refname)"
    head, _ = own_head(top)  # first: once DVC's own looks like a person's, a ref names it
    listed = os.fsdecode(git("for-each-ref", form, *_NAMED, EXPERIMENTS, REFS, cwd=top))
    for line in listed.splitlines():
        *hashes, ref = line.split()
        if ref.startswith(f"{REFS}/"):
            refs.rows.add(hashes[-1])
        elif not ref.startswith(EXPERIMENTS):
            refs.own.append(hashes[-1])
        elif ref.count("/") == 4:  # DVC's own have fewer parts
            refs.experiments[hashes[-1]].append(ref.rpartition("/")[2])
    if head and head not in refs.experiments:
        refs.own.append(head)
    return refs


def _origin(
    commit: _Commit, commits: Mapping[str, _Commit], refs: _Refs, on_branch: Set[str]
) -> Origin:
    is_row = commit.hash in refs.rows and bool(commit.parents)
    of = commits.get(commit.parents[0], commit) if is_row else commit
    base = of.hash if is_row else next(iter(of.parents), "")
    is_committed = not is_row and (commit.hash in on_branch or commit.hash not in refs.experiments)
    subject = of.subject if is_committed or base not in commits else commits[base].subject
    return Origin(
        of.hash,
        next(iter(refs.experiments.get(commit.hash, ())), ""),
        of.author,
        of.time * 1000,
        is_row=is_row,
        is_committed=is_committed,
        kept=KeptTree(commit.hash, commit.tree),
        base=base,
        subject=subject,
    )
