"""`record --all` records every result of git's history once, and makes a lost store again."""

import hashlib
import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from support.following import followed, following
from support.histories import FIRST, by, history
from support.pipelines import TWO_EVALUATIONS, Repository, repository
from support.servers import serving

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


NOTHING = "nothing to do: MLflow has all results that can be read\n"


def state_of(project: Repository) -> list[str]:
    """Return git's status, refs and stash."""
    return [project.git("status", "--porcelain"), project.git("for-each-ref"), project.git("stash")]


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A history of thirty results, all recorded."""
    made = history(tmp_path_factory.mktemp("long") / "project", 30)
    made.git("tag", "v1", "HEAD~20")
    (made.path / "README.md").write_text("More\n")
    made.commit("Add a README")
    made.git("tag", "-a", "v2", "-m", "Second")
    before = state_of(made)
    said = made.record("--all")
    assert (said.status, said.error) == (0, "")
    assert said.out.startswith("project: 30 rows added\nall rows: run `dvc-mlflow ui`")
    assert state_of(made) == before
    return made


def test_each_result_is_a_row(long: Repository) -> None:
    """A row has its commit's params, metrics and curve, and names the commit."""
    rows = by("rate", long)
    assert len(rows) == 30
    row = rows["9"]
    assert row.data.params == {"rate": "9", "threshold": "0"}
    assert row.data.metrics["evaluate/score"] == 0.009
    points = long.client.get_metric_history(row.info.run_id, "train/loss")
    assert [(p.step, p.value) for p in points] == [(step, 1 / (step + 9)) for step in range(1, 21)]
    commit = long.git("log", "--format=%H", "--grep=^Result 9$")
    tags = row.data.tags
    assert tags["mlflow.source.git.commit"] == tags["dvc-mlflow.kept"] == commit
    assert tags["dvc-mlflow.tree"] == long.git("rev-parse", f"{commit}^{{tree}}")
    assert tags["mlflow.user"] == "A. Uthor"
    assert (row.info.start_time, row.info.end_time) == (1000 * (FIRST + 60 * 9), None)
    assert row.info.status == "FINISHED"
    assert tags["git.names"] == "v1"
    # The README was added after the result.
    assert rows["29"].data.tags["git.names"] == "main, v2"
    assert "git.names" not in rows["12"].data.tags


def test_nothing_is_recorded_twice(long: Repository) -> None:
    """A second import adds nothing, nor does `record` of a commit or of the workspace."""
    assert long.record("--all").out == NOTHING
    assert long.record("--rev", "v1..v2").out == NOTHING
    assert long.record("--rev", "v1").out.startswith("nothing to do: MLflow has this result")
    assert long.record().out.startswith("nothing to do: MLflow has this result")
    assert len(long.rows()) == 30


def test_part_of_history(tmp_path: Path) -> None:
    """A range records the results of its commits; `--dry-run` only reports how many there are."""
    project = history(tmp_path / "project", 10)
    project.remove_store()
    assert "10 rows would be added" in project.record("--all", "--dry-run").out
    assert not (project.path / "mlflow.db").exists()
    project.record("--rev", "HEAD~5..HEAD~2")
    assert sorted(by("rate", project)) == ["5", "6", "7"]
    said = project.record("--rev", "HEAD~99..HEAD")
    assert said.status == 1
    assert "HEAD~99" in said.error
    project.record("--all")
    assert len(by("rate", project)) == 10


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline that was recorded live: in commits, on a branch, and as an experiment."""
    path = tmp_path_factory.mktemp("lived") / "project"
    made = repository(path, TWO_EVALUATIONS)
    with following(made):
        for i, params in enumerate([{}, {"rate": 2}, {"a": 5}, {"rate": 1, "a": 1}, {"b": 7}]):
            made.git("switch", "-q", "-C", "side" if i == 1 else "main", "HEAD")
            made.set(params)
            followed(made, "repro", "-q")
            made.commit(f"Result {i}")
        followed(made, "exp", "run", "-q", "-n", "wide", "-S", "rate=9")
        made.git("checkout", "-q", ".")
        followed(made, "exp", "run", "-q", "--temp", "-n", "temporary", "-S", "rate=10")
        made.set({"rate": 11})
        followed(made, "repro", "-q")  # which nobody commits
        made.git("checkout", "-q", ".")
        made.dvc("checkout", "-q")
    return made


@pytest.mark.rest
def test_what_was_recorded_live(lived: Repository) -> None:
    """Results that were recorded live are not recorded again."""
    table = lived.table()
    assert len(table) == 7
    assert lived.record("--all").out == NOTHING
    assert lived.table() == table


@pytest.mark.rest
def test_the_store_is_a_view(lived: Repository, tmp_path: Path) -> None:
    """If the store is lost, `record --all` makes the same table, uncommitted results included."""
    copy = lived.copy(tmp_path / "project")
    said = copy.record("--all")
    assert (said.status, said.error) == (0, "")
    assert copy.table() == lived.table()
    assert {r.info.run_name for r in copy.rows()} == {r.info.run_name for r in lived.rows()}
    names = {r.data.tags.get("dvc.exp_name") for r in copy.rows()}
    assert {"wide", "temporary"} <= names
    (uncommitted,) = [r for r in copy.rows() if r.data.params["rate"] == "11"]
    assert uncommitted.data.tags["mlflow.source.git.commit"] == copy.git("rev-parse", "HEAD")
    copy.run("dvc-mlflow", "restore", uncommitted.info.run_id)
    params = next((copy.path / "restored").glob("*/params.yaml"))
    assert "rate: 11" in params.read_text()


def test_one_tree_kept_twice(tmp_path: Path) -> None:
    """If several stages had ended when each was kept, one tree is that of each one's commit."""
    project = repository(tmp_path / "project", TWO_EVALUATIONS)
    project.dvc("repro", "-q")
    project.record()
    (ref,) = project.git("for-each-ref", "--format=%(refname)", "refs/rows").split()
    words = ("commit-tree", f"{ref}^{{tree}}", "-p", f"{ref}^", "-m", "train")
    older = "GIT_COMMITTER_DATE=1999-01-01T00:00:00Z"
    commit = project.run("env", older, "git", *words).stdout.strip()
    project.git("update-ref", f"refs/rows/{commit}", commit)
    copy = project.copy(tmp_path / "copy")
    copy.record("--all")
    assert len(copy.rows()) == 1
    assert copy.table() == project.table()


@pytest.mark.rest
def test_as_dvc_shows_it(lived: Repository, tmp_path: Path) -> None:
    """Params and metrics are those of `dvc exp show --all-commits`."""
    copy = lived.copy(tmp_path / "project")
    copy.record("--all")
    rows = {row.data.tags["dvc-mlflow.kept"]: row for row in copy.rows()}
    shown = json.loads(copy.run("dvc", "exp", "show", "--all-commits", "--json").stdout)
    compared = 0
    for entry in shown:
        if (row := rows.get(entry["rev"])) and (data := entry.get("data")):
            params = data["params"]["params.yaml"]["data"]
            assert row.data.params == {key: str(value) for key, value in params.items()}
            for file, found in data["metrics"].items():
                for key, value in found["data"].items():
                    assert row.data.metrics[f"{Path(file).stem}/{key}"] == value
            compared += 1
    assert compared >= 4


def test_nothing_new(tmp_path: Path) -> None:
    """An import that has nothing to do writes nothing."""
    project = history(tmp_path / "project", 3)
    project.record("--all")
    first = (project.path / "mlflow.db").read_bytes()
    assert project.record("--all").out == NOTHING
    assert (project.path / "mlflow.db").read_bytes() == first


@pytest.mark.rest
def test_nothing_new_on_a_server(tmp_path: Path) -> None:
    """On a server, too, an import that has nothing to do says so, also if a row lacks a file."""
    project = history(tmp_path / "project", 3)
    md5 = hashlib.md5((project.path / "metrics.json").read_bytes(), usedforsecurity=False)
    lock = project.path / "dvc.lock"
    lock.write_text(lock.read_text().replace(md5.hexdigest(), "0" * 32))
    project.git("commit", "-qam", "Metrics that nobody has")
    with serving(Repository(tmp_path), "server", "--workers", "1") as server:

        def record(*options: str) -> str:
            return project.tool("record", "--all", *options, MLFLOW_TRACKING_URI=server).out

        assert "4 rows added" in record()
        assert record() == NOTHING
        client = MlflowClient(server)
        (experiment,) = client.search_experiments(filter_string="name = 'project'")
        client.delete_run(client.search_runs([experiment.experiment_id])[0].info.run_id)
        assert record() == NOTHING  # the trash is the user's
