"""A row says which commit has its result, in a column and in its description, and follows it."""

import shlex
from pathlib import Path

import pytest
from mlflow.entities import Run

from support.locked import Locked, locked, trained
from support.pipelines import Repository, Stages, evaluate, finished, train

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

STAGES = {"train": train("raw.txt")}
NOTE = "mlflow.note.content"


def short(project: Repository, commit: str = "HEAD") -> str:
    """Return the first digits of a commit."""
    return project.git("rev-parse", commit)[:7]


def only(project: Repository) -> Run:
    """Return the only row."""
    (row,) = project.rows()
    return row


def uncommitted(path: Path) -> Locked:
    """Return a pipeline whose result nobody has committed."""
    project = locked(path, STAGES, files=trained())
    result = project.lock
    (project.path / "dvc.lock").unlink()
    project.commit("My pipeline")
    project.write({"dvc.lock": result})
    project.add_store()
    return project


def test_committed_later(tmp_path: Path) -> None:
    """An uncommitted result says after which commit it was made; `record` lets it follow.

    Its description says the commit, its subject and author, the commands, and how to restore it.
    """
    project = uncommitted(tmp_path / "project")
    project.record()
    row = only(project)
    assert row.data.tags["commit"] == f"after {short(project)} My pipeline"
    start = f"Not committed, made after **{short(project)}** My pipeline, by "
    assert row.data.tags[NOTE].startswith(start)
    project.client.set_tag(row.info.run_id, NOTE, f"{row.data.tags[NOTE]}\n\nMy own words.")
    before = short(project)
    project.commit("Raise *the* rate to `2`")
    assert project.record().out.startswith("nothing to do: MLflow has this result")
    tags, commit = only(project).data.tags, project.git("rev-parse", "HEAD")
    assert tags["commit"] == f"{commit[:7]} Raise *the* rate to `2`"
    assert tags["mlflow.source.git.commit"] == commit
    assert row.info.run_name[8:] == f"after {before}"
    name = f"{row.info.run_name[:7]} Raise *the* rate to `2`"
    assert only(project).info.run_name == name
    lead, commands, way, own = tags[NOTE].split("\n\n")
    assert lead == f"**{commit[:7]}** `` Raise *the* rate to `2` ``, by Tester"
    assert commands == f"- `train`: `{STAGES['train']['cmd']}`"
    assert own == "My own words."
    program, *words = shlex.split(way.split("`")[1])
    assert (program, project.tool(*words).status) == ("dvc-mlflow", 0)
    (folder,) = (project.path / "restored").glob(f"{name[:7]}-Raise-*")
    assert (folder / "model.txt").exists()


def test_experiment(tmp_path: Path) -> None:
    """An experiment's own commit is DVC's; its row names the commit that it was made after.

    Once somebody has committed the result, the row names that commit. `record --all` then has
    nothing to do.
    """
    project = finished(tmp_path / "project", STAGES)
    project.dvc("exp", "run", "-q", "-n", "mine", "-S", "rate=7")
    project.record("--all")
    (row,) = [run for run in project.rows() if run.data.params["rate"] == "7"]
    assert row.data.tags["commit"] == f"after {short(project)} The results"
    project.commit("Rate 7")
    project.record("--all")
    assert {run.data.params["rate"]: run.data.tags["commit"] for run in project.rows()} == {
        "1": f"{short(project, 'HEAD^')} The results",
        "7": f"{short(project)} Rate 7",
    }
    now = project.client.get_run(row.info.run_id)
    assert now.data.tags[NOTE].startswith(f"**{short(project)}** Rate 7, by Tester")
    changes = (project.path / "mlflow.db").read_bytes()
    project.record("--all")
    assert (project.path / "mlflow.db").read_bytes() == changes


def test_commits_of_two_clones(tmp_path: Path) -> None:
    """Two clones that have committed the same result come to rest: the row names the older one."""
    one = locked(tmp_path / "one" / "project", STAGES, files=trained())
    one.commit("Rate 1")
    two = one.copy(tmp_path / "two" / "project")
    one.again(trained(2), {"rate": 2})
    one.commit("Rate 2")
    two.again(trained(2), {"rate": 2})
    two.git("add", "--all")
    two.run("git", "commit", "-q", "-m", "Later", GIT_COMMITTER_DATE="2033-05-18T00:00:00Z")
    one.add_store()
    uri = f"sqlite:///{one.path}/mlflow.db"
    for clone in (two, one):
        assert clone.tool("record", "--all", MLFLOW_TRACKING_URI=uri).error == ""
    assert {row.data.tags["commit"] for row in one.rows()} == {
        f"{short(one, 'HEAD^')} Rate 1",
        f"{short(one)} Rate 2",
    }
    changes = (one.path / "mlflow.db").read_bytes()
    for clone in (two, one):
        said = clone.tool("record", "--all", MLFLOW_TRACKING_URI=uri)
        assert said.out.startswith("nothing to do")
    assert (one.path / "mlflow.db").read_bytes() == changes


def test_a_row_s_own_commit(tmp_path: Path) -> None:
    """The commit that keeps a row gives that row, and none of a moment between two stages."""
    each = evaluate("${item}", "raw.txt") | {"params": ["rate"]}
    stages: Stages = {
        "fit": {"foreach": ["x", "y"], "do": each},
        "compare": evaluate("a", "x.json", "y.json"),
    }

    def scores(x: int, y: int) -> dict[str, str]:
        found = {"x": x, "y": y, "a": x + y}
        return {f"{name}.json": f'{{"score": {score}}}\n' for name, score in found.items()}

    project = locked(tmp_path / "project", stages, files=scores(1, 1))
    project.commit("The results")
    project.add_store()
    project.set({"rate": 2})
    for name, written in {"fit@x": (2, 1), "fit@y": (2, 2), "compare": (2, 2)}.items():
        project.again(scores(*written), {}, name)
        project.record()
    assert len(project.git("for-each-ref", "refs/rows").splitlines()) > 1
    project.record("--all")
    before = {row.info.run_name for row in project.rows()}
    assert len(before) == 6  # x, y and the comparison, twice
    again = project.copy(tmp_path / "again")
    said = again.record("--all")
    assert {row.info.run_name for row in again.rows()} == before, said
