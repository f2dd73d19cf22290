"""Which commits are read, and which refs name them."""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import ProjectError
from ..git import ask, git, is_experiment
from .kept_trees import REFS

_NAMED = ("refs/heads", "refs/remotes", "refs/tags")
EXPERIMENTS = "refs/exps/"
_REFS = (*_NAMED, EXPERIMENTS, REFS)


class Commits(NamedTuple):
    """Some of git's commits."""

    starts: Sequence[str]
    """They and their ancestors are read."""
    only: frozenset[str] | None = None
    """Those that count, or None if all do."""


def everything(top: Path) -> Commits:
    """Return all commits of HEAD, branches, tags, experiments and rows."""
    return _of_refs(top, _REFS)


def committed(top: Path, commit: str = "") -> Commits:
    """Return the commits of HEAD, branches, tags and experiments, and one more.

    A row's own commit has the outputs of that row only, so it is not asked for other results.
    """
    return _of_refs(top, (*_NAMED, EXPERIMENTS), commit)


def published(top: Path) -> Commits:
    """Return the commits of HEAD, branches and tags, without experiments and rows."""
    return _of_refs(top, _NAMED)


def experiments(top: Path) -> Commits:
    """Return the commits of DVC's experiments."""
    own = _named_by(top, (EXPERIMENTS,))
    return Commits(own, frozenset(own))


def named_experiments(folder: Path) -> dict[str, str]:
    """Return the names of DVC's experiments by their commits; {} if git does not answer."""
    form = "--format=%(objectname) %(refname)"
    lines = ask("for-each-ref", form, EXPERIMENTS, cwd=folder).splitlines()
    found = (line.split(" ", 1) for line in lines)
    return {commit: ref.rpartition("/")[2] for commit, ref in found if is_experiment(ref)}


def _of_refs(top: Path, kinds: tuple[str, ...], commit: str = "") -> Commits:
    """Return the commits of HEAD and of these kinds of refs, and one more."""
    head = ask("rev-parse", "-q", "--verify", "HEAD", cwd=top)
    return Commits([*dict.fromkeys(filter(None, [head, commit, *_named_by(top, kinds)]))])


def _named_by(top: Path, kinds: tuple[str, ...]) -> list[str]:
    found = refs_by_commit(top)
    return [commit for commit, refs in found.items() if any(r.startswith(kinds) for r in refs)]


def between(top: Path, range_: str) -> Commits:
    """Return the commits in a range such as `v1..main`; raises `ProjectError`."""
    starts = os.fsdecode(git("rev-parse", "--revs-only", range_, cwd=top)).split()
    if not starts:
        raise ProjectError(f"--rev: git has no commits {range_!r}")
    only = os.fsdecode(git("rev-list", *starts, cwd=top)).split()
    return Commits([name for name in starts if not name.startswith("^")], frozenset(only))


def refs_by_commit(top: Path) -> dict[str, list[str]]:
    """Return the refs that name each commit."""
    found: dict[str, list[str]] = defaultdict(list)
    form = "--format=%(objectname) %(*objectname) %(refname)"
    for line in os.fsdecode(git("for-each-ref", form, *_REFS, cwd=top)).splitlines():
        *hashes, ref = line.split()
        if not ref.startswith(EXPERIMENTS) or is_experiment(ref):
            found[hashes[-1]].append(ref)
    return found


def short_name(ref: str) -> str:
    """Return what the user calls a ref, or "" if nobody has given it a name."""
    kind, _, name = ref.removeprefix("refs/").partition("/")
    if kind == "exps":
        return ref.rpartition("/")[2]
    return name if kind in ("heads", "tags", "remotes") and not name.endswith("/HEAD") else ""
