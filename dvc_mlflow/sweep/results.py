"""The experiments of a sweep in the git remote, whether they are complete, and their rows."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from ..git import git
from ..pipeline.row_stages import divided, recorded
from ..pipeline.tags import IN_SWEEP, SWEEP
from ..project.at_commits import ProjectAt
from ..project.default_remote import Remote, elsewhere
from ..project.definitions import read_pipeline
from ..project.project import Project
from ..record.recording import Options, Recording
from ..rows.commits import Commits, snapshots
from ..rows.result import State, chosen_columns, experiment_of, state_of
from ..store import table_view
from .node import ANSWERING, CLONING


class Results:
    """The experiments of one commit that the git remote has, and their rows in MLflow."""

    def __init__(self, project: Project, root: Path, commit: str, title: str) -> None:
        """Raise `ToolError` if MLflow's store cannot be used."""
        self._project, self._commit, self._title = project, commit, title
        self.refs = f"refs/exps/{commit[:2]}/{commit[2:]}/"  # where DVC keeps them
        self.commits: dict[str, str] = {}
        """Of the complete experiments, by name."""
        self.incomplete: dict[str, str] = {}
        """Of those whose outputs the DVC remote lacks."""
        self.metrics: dict[str, list[tuple[str, Mapping[str, float]]]] = {}
        """Of each row of an experiment, its run's id and its metrics."""
        self._recording = Recording(project, root, Options(fetch=True))
        pipeline = read_pipeline(project)
        for each in divided(pipeline, recorded(pipeline)):
            self._recording.stores.of(experiment_of(each), chosen_columns(each))

    def collect(self, names: Collection[str], remote: Remote) -> None:
        """Fetch those experiments that the git remote has, look at their outputs, make their rows.

        Raises `ToolError`, and whatever the DVC remote's library raises.
        """
        asked = [self.refs + name for name in names] if len(names) < 20 else [f"{self.refs}*"]
        lines = git("ls-remote", "origin", *asked, seconds=ANSWERING).decode().splitlines()
        there = {ref.removeprefix(self.refs): sha for sha, ref in map(str.split, lines)}
        new = {n: there[n] for n in names if n in there and n not in self.metrics}
        wanted = "".join(f"+{self.refs}{name}:{self.refs}{name}\n" for name in new).encode()
        if new:
            git("fetch", "-q", "--no-tags", "--stdin", "origin", text=wanted, seconds=CLONING)
        states, others = dict(self._states(new)), elsewhere(self._project)
        outputs = {
            name: {
                o.md5
                for s in state.pipeline.stages.values()
                for o in s.outs
                if o.cached and o.md5 and o.path not in others
            }
            for name, state in states.items()
        }
        lacking = remote.lacking({md5 for own in outputs.values() for md5 in own})
        done = {name: new[name] for name, own in outputs.items() if not own & lacking}
        known = {**self.incomplete, **new}.items()
        self.incomplete = {name: sha for name, sha in known if name not in done}
        self.commits |= done
        self._recording.record_commits(self._only(done))
        for name in done:
            self._take(name, states[name])

    def _take(self, name: str, state: State) -> None:
        """Take note of the rows of an experiment, and tag them as the sweep's."""
        found, key = [], f"{IN_SWEEP}{self._title}"
        for store, row in self._recording.rows_of(state.results()):
            with store.errors_reported():
                data = store.client.get_run(row.run_id).data
                sweeps = " ".join(filter(None, [data.tags.get(SWEEP), self._title]))
                for tag, value in {SWEEP: sweeps, key: self._title}.items():
                    if key not in data.tags:
                        store.client.set_tag(row.run_id, tag, value)
            found.append((row.run_id, data.metrics))
        if len(found) == len(state.results()):
            self.metrics[name] = found

    @property
    def notes(self) -> Mapping[str, list[str]]:
        """What could not be read of rows, with the commits."""
        return self._recording.notes

    def tables(self, shown: Collection[str]) -> Iterator[str]:
        """Yield the addresses of the sweep's rows with these columns, sorted by the first."""
        query = f"tags.`{IN_SWEEP}{self._title}` = '{self._title}'"
        for store in self._recording.stores:
            with store.errors_reported():
                for key, value in table_view.view_tags([*shown], self._title, query).items():
                    store.tag(key, value)
            where = "" if store.is_served else ", with `dvc-mlflow ui`"
            yield f"In MLflow{where}: {store.url(table=self._title)}"

    def _states(self, commits: Mapping[str, str]) -> Iterator[tuple[str, State]]:
        """Yield the results of experiments, by name, as DVC has them."""
        project, own = self._project, self._only(commits)
        with ProjectAt(project) as past:
            for each in snapshots(project.top, project.folder, project.blobs, own):
                pipeline = past.at(each.commit, each.definitions, each.locks)
                state = state_of(project, pipeline, each.origin)
                yield from ((name, state) for name in each.names if name in commits)

    def _only(self, commits: Mapping[str, str]) -> Commits:
        shas = [*commits.values()]
        return Commits([*shas, f"^{self._commit}"] if shas else [], frozenset(shas))
