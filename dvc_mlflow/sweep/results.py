"""The results of a commit's experiments, from their dvc.lock alone."""

import posixpath
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..git import ask, git, text
from ..pipeline.stages import normal
from ..project import Past, Project
from ..rows.origin import Kept, Origin
from ..rows.result import experiment, of
from .node import ANSWERING
from .search import Files

_EVERY = ":(top,glob)**/"  # git's pattern for files in any folder
_Keys = tuple[tuple[str, str], ...]  # of params: each a file and a key in it


class Experiment(NamedTuple):
    """An experiment's commit, and its results."""

    kept: Kept
    rows: Sequence[tuple[str, Mapping[str, str]]]
    """Of each row its MLflow experiment, "" for the default one, and the digests of its results."""


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
        # By a stage and all params that its result depends on, and by their values as text: an
        # experiment with that result.
        self._donors: dict[tuple[str, _Keys], dict[tuple[str | None, ...], str]] = defaultdict(dict)
        self.there: dict[str, Experiment] = {}
        """Those that the remote has, by name."""

    def read(self, *names: str) -> None:
        """Fetch the experiments that the remote has now, or only those with these names."""
        here = f"refs/sweeps/{self._commit}/"  # not among the user's own experiments
        wanted = [f"+{self.refs}{name}*:{here}{name}*" for name in names or [""]]
        how = f"--negotiation-tip={self._commit}" if names else "--prune"  # not all refs
        git("fetch", "-q", how, "--no-tags", "origin", *wanted, seconds=ANSWERING)
        form, own = "--format=%(refname) %(objectname) %(tree)", [here + name for name in names]
        lines = text("for-each-ref", form, *own or [here]).splitlines()
        found = [line.removeprefix(here).split() for line in lines]
        known = {one.kept.commit: one for one in self.there.values()}
        if not names:
            self.there = {}
        others = self._others([commit for _, commit, _ in found if commit not in known])
        with Past(self._project) as past:
            for name, commit, tree in found:
                if commit not in known:
                    definitions = commit if commit in others else self._commit
                    known[commit] = self._experiment(past, name, Kept(commit, tree), definitions)
                self.there[name] = known[commit]

    def donors(self, params: Files) -> dict[str, str]:
        """Return, by stage, an experiment with the same params for it and all stages before it.

        If code or data differ nevertheless, DVC runs the stage.
        """
        own, found = _texts(params.items()), {}
        for (stage, keys), names in self._donors.items():
            if name := names.get(tuple(own.get(key) for key in keys)):
                found[stage] = name
        return found

    def _others(self, commits: Sequence[str]) -> set[str]:
        """Return the commits whose pipeline can differ from the sweep's in more than dvc.lock."""
        pairs = "".join(f"{commit} {self._commit}\n" for commit in commits).encode()
        options = ("--stdin", "-r", "-s", "--", *self._decisive)
        return {*git("diff-tree", *options, text=pairs).decode().split()}

    def _experiment(self, past: Past, name: str, kept: Kept, definitions: str) -> Experiment:
        locks = {lock: f"{kept.commit}:{lock}" for lock in self._locks}
        pipeline = past.at(kept.commit, definitions, locks)
        origin = Origin(kept.commit, "", name, "", 0, is_dirty=False)
        found = of(self._project, pipeline, origin)
        for stage in (s for s in pipeline.stages.values() if s.name in found.digests):
            scope = (*pipeline.upstream(stage), stage)
            made_by = _texts((p.file, p.values) for s in scope for p in s.params)
            self._donors[stage.name, (*made_by,)][(*made_by.values(),)] = name
        results = found.results()
        return Experiment(kept, [(experiment(each.lineage), each.digests) for each in results])


def _texts(params: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[tuple[str, str], str]:
    """Return the values of params as text, the same for 1 and 1.0, by file and key."""
    return {(file, key): f"{normal(value)}" for file, own in params for key, value in own.items()}
