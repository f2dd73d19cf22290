"""The experiments of a sweep in the git remote, whether they are complete, and their rows."""

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from ..git import git
from ..pipeline.tags import SWEEP
from ..place import main_repository
from ..project.default_remote import Remote
from ..project.project import Project
from ..record.recording import Recording
from ..rows.commits import exactly
from ..rows.result import Result, first_table, pipeline_now, read_state
from ..store import table_view
from .trials import ANSWERING, CLONING

if TYPE_CHECKING:
    from mlflow.entities import Run


class Results:
    """The experiments of one commit that the git remote has, and their rows in MLflow."""

    def __init__(self, project: Project, remote: Remote, refs: str, title: str) -> None:
        """Raise `ToolError` if MLflow's store cannot be used."""
        self._project, self._remote, self._refs, self._title = project, remote, refs, title
        self.commits: dict[str, str] = {}
        """Their commits, by name."""
        self.incomplete: set[str] = set()
        """Those of which the DVC remote lacks outputs."""
        self.rows: dict[str, list[Run]] = {}
        """The rows of the others."""
        self._recording = Recording(project, main_repository(), fetch=True)
        self._recording.stores.of(*first_table(pipeline_now(project)))

    def collect(self, names: Collection[str]) -> None:
        """Fetch those experiments that the git remote has, look at their outputs, make their rows.

        Raises `ToolError`.
        """
        refs, project, missing = self._refs, self._project, [*{*names} - self.rows.keys()]
        if not missing:
            return
        asked = [refs + name for name in missing] if len(missing) < 20 else [f"{refs}*"]
        lines = git("ls-remote", "origin", *asked, seconds=ANSWERING).decode().splitlines()
        there = {ref.removeprefix(refs): sha for sha, ref in map(str.split, lines)}
        new = {name: there[name] for name in missing if name in there}
        if not new:
            return
        wanted = "".join(f"+{refs}{name}:{refs}{name}\n" for name in new).encode()
        git("fetch", "-q", "--no-tags", "--stdin", "origin", text=wanted, seconds=CLONING)
        outputs, results = dict[str, set[str]](), dict[str, list[Result]]()
        for name, sha in new.items():
            with project.at(sha):
                outputs[name] = self._remote.outputs()
                results[name] = read_state(project, sha).results()
        lacking = self._remote.lacking(set[str]().union(*outputs.values()))
        incomplete = {name for name in new if outputs[name] & lacking}
        self.commits |= new
        self.incomplete = self.incomplete - new.keys() | incomplete
        if complete := [name for name in new if name not in incomplete]:
            commits = exactly(project.top, [new[name] for name in complete])
            self._recording.record_commits(commits)
            for name in complete:
                self._take(name, results[name])

    def _take(self, name: str, results: Sequence[Result]) -> None:
        """Take note of the rows of an experiment, and tag them as the sweep's."""
        rows = []
        for store, row in self._recording.rows_of(results):
            with store.errors_reported():
                store.client.set_tag(row.run_id, f"{SWEEP}{self._title}", self._title)
                rows.append(store.client.get_run(row.run_id))
        if len(rows) == len(results):
            self.rows[name] = rows

    def tables(self, measures: Sequence[str]) -> Iterator[str]:
        """Yield the addresses of the sweep's rows, sorted by the first of these measures."""
        query = f"tags.`{SWEEP}{self._title}` = '{self._title}'"
        rows = [run.data for runs in self.rows.values() for run in runs]
        view = table_view.by_default(rows, measures, self._title, query)
        for store in self._recording.stores:
            with store.errors_reported():
                for key, value in view.items():
                    store.tag(key, value)
            where = "" if store.is_served else ", with `dvc-mlflow ui`"
            yield f"In MLflow{where}: {store.url(table=self._title)}"
