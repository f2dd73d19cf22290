"""A row says which commit has its result, in a column and in its description, and follows it."""

from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run

from support.following import followed, following
from support.locked import locked, trained
from support.pipelines import Repository, Stages, finished, repository, train

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


def test_description(tmp_path: Path) -> None:
    """It says the commit, its subject and author, the commands, and how to restore the row."""
    project = finished(tmp_path / "project", STAGES)
    project.git("commit", "-q", "--amend", "-m", "Raise *the* rate to `2`")
    project.record()
    row = only(project)
    assert row.data.tags["commit"] == f"{short(project)} Raise *the* rate to `2`"
    lead, commands, way = row.data.tags[NOTE].split("\n\n")
    assert lead == f"**{short(project)}** `` Raise *the* rate to `2` ``, by Tester"
    assert commands == f"- `train`: `{STAGES['train']['cmd']}`"
    command = way.split("`")[1]
    assert project.run("sh", "-c", command).returncode == 0
    assert (project.path / "restored" / row.info.run_name / "model.txt").exists()


def test_committed_later(tmp_path: Path) -> None:
    """An uncommitted result says after which commit it was made; `record` lets it follow."""
    project = repository(tmp_path / "project", STAGES)
    project.dvc("repro", "-q")
    project.record()
    row = only(project)
    assert row.data.tags["commit"] == f"after {short(project)} My pipeline"
    start = f"Not committed, made after **{short(project)}** My pipeline, by "
    assert row.data.tags[NOTE].startswith(start)
    project.client.set_tag(row.info.run_id, NOTE, f"{row.data.tags[NOTE]}\n\nMy own words.")
    project.commit("The results")
    assert project.record().out.startswith("nothing to do: MLflow has this result\n")
    tags, commit = only(project).data.tags, project.git("rev-parse", "HEAD")
    assert tags["commit"] == f"{commit[:7]} The results"
    assert (tags["mlflow.source.git.commit"], tags["mlflow.source.git.dirty"]) == (commit, "false")
    assert tags[NOTE].startswith(f"**{commit[:7]}** The results, by Tester\n\n")
    assert tags[NOTE].endswith("\n\nMy own words.")
    assert only(project).info.run_name == row.info.run_name


def test_committed_later_with_the_history(tmp_path: Path) -> None:
    """`record --all` lets uncommitted rows follow as well, and then has nothing to do."""
    project = repository(tmp_path / "project", STAGES)
    for rate in (1, 2):
        project.set({"rate": rate})
        project.dvc("repro", "-q")
        project.record()
        project.commit(f"Rate {rate}")
    project.record("--all")
    commits = [short(project, "HEAD^"), short(project)]
    assert [row.data.tags["commit"] for row in project.rows()] == [
        f"{commits[0]} Rate 1",
        f"{commits[1]} Rate 2",
    ]
    changes = (project.path / "mlflow.db").read_bytes()
    project.record("--all")
    assert (project.path / "mlflow.db").read_bytes() == changes


def test_experiment(tmp_path: Path) -> None:
    """An experiment's own commit is DVC's; its row names the commit that it was made after."""
    project = finished(tmp_path / "project", STAGES)
    project.dvc("exp", "run", "-q", "-n", "mine", "-S", "rate=7")
    project.git("checkout", "-q", ".")
    for arguments in (["--rev", "mine"], ["--experiments"]):
        project.remove_store()
        project.add_store()
        project.record(*arguments)
        assert only(project).data.tags["commit"] == f"after {short(project)} The results"


def test_committed_experiment(tmp_path: Path) -> None:
    """Once somebody has committed an experiment's result, its row names that commit."""
    project = finished(tmp_path / "project", STAGES)
    project.dvc("exp", "run", "-q", "-n", "mine", "-S", "rate=7")
    project.record()
    row = next(row for row in project.rows() if row.data.params["rate"] == "7")
    assert row.data.tags["commit"] == f"after {short(project)} The results"
    project.commit("Rate 7")
    project.record()
    now = project.client.get_run(row.info.run_id)
    assert now.data.tags["commit"] == f"{short(project)} Rate 7"
    assert now.data.tags[NOTE].startswith(
        f"**{short(project)}** `Rate 7`, by Tester".replace("`", "")
    )
    assert project.record("--all").out.startswith("project: 1 row added")
    assert len(project.rows()) == 2


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
    for clone in (two, one, two):
        assert clone.tool("record", "--all", MLFLOW_TRACKING_URI=uri).error == ""
    assert {row.data.tags["commit"] for row in one.rows()} == {
        f"{short(one, 'HEAD^')} Rate 1",
        f"{short(one)} Rate 2",
    }
    changes = (one.path / "mlflow.db").read_bytes()
    for clone in (one, two):
        said = clone.tool("record", "--all", MLFLOW_TRACKING_URI=uri)
        assert said.out.startswith("nothing to do")
    assert (one.path / "mlflow.db").read_bytes() == changes


def test_a_row_s_own_commit(tmp_path: Path) -> None:
    """The commit that keeps a row gives that row, and none of a moment between two stages."""
    items = ["x", "y"]
    each: dict[str, Any] = {"cmd": "echo '{\"n\": '${p}'}' > ${item}.json", "params": ["p"]}
    each["metrics"] = [{"${item}.json": {"cache": False}}]
    compare: dict[str, Any] = {
        "cmd": "cat x.json y.json > all.txt; echo '{\"m\": 1}' > c.json",
        "deps": [f"{item}.json" for item in items],
        "metrics": [{"c.json": {"cache": False}}],
    }
    stages: Stages = {"fit": {"foreach": items, "do": each}, "compare": compare}
    project = finished(tmp_path / "project", stages, {"p": 1})
    project.set({"p": 2})
    with following(project):
        followed(project, "exp", "run", "-q")
    project.record("--all")
    before = {row.info.run_name for row in project.rows()}
    assert len(before) == 6  # x, y and the comparison, twice
    project.run("rm", "-r", "mlflow.db", "mlartifacts")
    project.run("dvc-mlflow", "record", "--all")
    assert len(Repository(project.path.rename(tmp_path / "again")).rows()) == 6
