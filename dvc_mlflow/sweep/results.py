"""What a commit's experiments have come to, by their dvc.lock alone."""

import posixpath
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .. import state
from ..origin import Origin
from ..project import Past, Project
from ..repository import ask, git, text
from .search import Files, digest

_EVERY = ":(top,glob)**/"  # git's pattern for files in any folder


class Result(NamedTuple):
    """What an experiment has come to."""

    commit: str
    tree: str
    rows: Sequence[tuple[str, Mapping[str, str]]]
    """The MLflow experiment of each row, if dvc.yaml names one, and the digests of its results."""


class Experiments:
    """A commit's experiments in the git remote."""

    def __init__(self, project: Project, commit: str) -> None:
        self._project, self._commit = project, commit
        self.refs = f"refs/exps/{commit[:2]}/{commit[2:]}/"  # where DVC keeps them
        stages = project.pipeline().stages.values()
        folders = {posixpath.join(project.folder, posixpath.dirname(s.group)) for s in stages}
        self._locks = [posixpath.join(folder, "dvc.lock") for folder in folders]
        is_template = ask("grep", "-lF", "${", commit, "--", f"{_EVERY}dvc.yaml")
        kinds = ("*",) if is_template else ("dvc.yaml", "*.dvc", ".dvcignore")
        self._decisive = [_EVERY + kind for kind in kinds]
        self._donors: dict[tuple[str, tuple[tuple[str, str], ...]], dict[str, str]]
        self._donors = defaultdict(dict)
        """By a stage and params, by file and key: by their values, an experiment that has both."""
        self._known: dict[str, Result] = {}  # by commit, also of those that are gone
        self.there: dict[str, Result] = {}
        """By name."""

    def read(self, *names: str) -> None:
        """Look which are there now, or whether those with these names are."""
        here = f"refs/sweeps/{self._commit}/"  # apart from the user's own
        wanted = [f"+{self.refs}{name}*:{here}{name}*" for name in names or [""]]
        how = f"--negotiation-tip={self._commit}" if names else "--prune"  # not through all refs
        git("fetch", "-q", how, "--no-tags", "origin", *wanted)
        form, own = "--format=%(refname) %(objectname) %(tree)", [here + name for name in names]
        lines = text("for-each-ref", form, *own or [here]).splitlines()
        found = [line.removeprefix(here).split() for line in lines]
        if not names:
            self.there = {}
        others = self._others([commit for _, commit, _ in found if commit not in self._known])
        with Past(self._project) as past:
            for name, commit, tree in found:
                if commit not in self._known:
                    definitions = commit if commit in others else self._commit
                    self._known[commit] = self._result(past, name, commit, tree, definitions)
                self.there[name] = self._known[commit]

    def donors(self, params: Files) -> dict[str, str]:
        """Return, by stage, an experiment with the same params for it and all stages before it.

        If code or data differ anyway, DVC runs the stage.
        """
        found = {}
        for (stage, keys), names in self._donors.items():
            own = digest([params.get(file, {}).get(key) for file, key in keys])
            if own in names:
                found[stage] = names[own]
        return found

    def _others(self, commits: Sequence[str]) -> set[str]:
        """Return those of these commits whose pipelines can differ in more than dvc.lock."""
        if not commits:
            return set()
        pairs = "".join(f"{commit} {self._commit}\n" for commit in commits).encode()
        options = ("--stdin", "-r", "-s", "--", *self._decisive)
        return {*git("diff-tree", *options, text=pairs).decode().split()}

    def _result(self, past: Past, name: str, commit: str, tree: str, definitions: str) -> Result:
        pipeline = past.at(commit, definitions, {lock: f"{commit}:{lock}" for lock in self._locks})
        found = state.of(self._project, pipeline, Origin(commit, "", name, "", 0, is_dirty=False))
        for stage in (s for s in pipeline.stages.values() if s.name in found.digests):
            scope = [p for s in (*pipeline.upstream(stage), stage) for p in s.params]
            values = {(p.file, key): value for p in scope for key, value in p.values.items()}
            self._donors[stage.name, (*values,)][digest([*values.values()])] = name
        rows = [(state.experiment(row), found.wanted(row)) for row in found.rows()]
        return Result(commit, tree, rows)
