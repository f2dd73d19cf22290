"""The experiments of a sweep in the git remote, whether they are complete, and their rows."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from ..git import git
from ..pipeline.tags import IN_SWEEP, SWEEP
from ..place import main_repository
from ..project import Project
from ..project.default_remote import Remote
from ..record.recording import Recording, record_experiments
from ..rows.result import Result, first_table, read_state
from ..store import table_view
from .node import ANSWERING, CLONING


class Results:
    """The experiments of one commit that the git remote has, and their rows in MLflow."""

    def __init__(self, project: Project, remote: Remote, refs: str, title: str) -> None:
        """Raise `ToolError` if MLflow's store cannot be used."""
        self._project, self._remote, self._refs, self._title = project, remote, refs, title
        self.complete: set[str] = set()
        """The experiments whose outputs the DVC remote has, by name."""
        self.incomplete: dict[str, str] = {}
        """The commits of the others, by name."""
        self.metrics: dict[str, list[tuple[str, Mapping[str, float]]]] = {}
        """Of each row of an experiment, its run's id and its metrics."""
        self._recording = self._record([])
        self._recording.stores.of(*first_table(project))

    def collect(self, names: Collection[str]) -> None:
        """Fetch those experiments that the git remote has, look at their outputs, make their rows.

        Raises `ToolError`.
        """
        refs = self._refs
        asked = [refs + name for name in names] if len(names) < 20 else [f"{refs}*"]
        lines = git("ls-remote", "origin", *asked, seconds=ANSWERING).decode().splitlines()
        there = {ref.removeprefix(refs): sha for sha, ref in map(str.split, lines)}
        new = {n: there[n] for n in names if n in there and n not in self.metrics}
        if not new:
            return
        wanted = "".join(f"+{refs}{name}:{refs}{name}\n" for name in new).encode()
        git("fetch", "-q", "--no-tags", "--stdin", "origin", text=wanted, seconds=CLONING)
        outputs, results = dict[str, set[str]](), dict[str, list[Result]]()
        for name, sha in new.items():
            with self._project.at(sha):
                outputs[name] = self._remote.outputs()
                results[name] = read_state(self._project, sha).results()
        lacking = self._remote.lacking(set[str]().union(*outputs.values()))
        done = [name for name in new if not outputs[name] & lacking]
        self.complete.update(done)
        known = {**self.incomplete, **new}
        self.incomplete = {n: sha for n, sha in known.items() if n not in self.complete}
        self._recording = self._record([new[name] for name in done])
        for name in done:
            self._take(name, results[name])

    def _record(self, commits: Sequence[str]) -> Recording:
        return record_experiments(self._project, main_repository(), commits)

    def _take(self, name: str, results: Sequence[Result]) -> None:
        """Take note of the rows of an experiment, and tag them as the sweep's."""
        found, key = [], f"{IN_SWEEP}{self._title}"
        for store, row in self._recording.rows_of(results):
            with store.errors_reported():
                data = store.client.get_run(row.run_id).data
                sweeps = " ".join(filter(None, [data.tags.get(SWEEP), self._title]))
                for tag, value in {SWEEP: sweeps, key: self._title}.items():
                    if key not in data.tags:
                        store.client.set_tag(row.run_id, tag, value)
            found.append((row.run_id, data.metrics))
        if len(found) == len(results):
            self.metrics[name] = found

    def tables(self, shown: Collection[str]) -> Iterator[str]:
        """Yield the addresses of the sweep's rows with these columns, sorted by the first."""
        query = f"tags.`{IN_SWEEP}{self._title}` = '{self._title}'"
        for store in self._recording.stores:
            with store.errors_reported():
                for key, value in table_view.tags([*shown], self._title, query).items():
                    store.tag(key, value)
            where = "" if store.is_served else ", with `dvc-mlflow ui`"
            yield f"In MLflow{where}: {store.url(table=self._title)}"
