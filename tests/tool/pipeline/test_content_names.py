"""A row's name, times and git tags are those of its result's commit or experiment."""

import getpass
from pathlib import Path

import pytest
from mlflow.entities import Run

from support.pipelines import repository, train
from support.row_content import ran, recorded

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


GIT = ("git.commit", "git.branch", "git.dirty", "git.repoURL", "type", "name")


def digits(row: Run) -> str:
    """Return the digits of a row's result."""
    return str(row.data.tags["dvc-mlflow.lock.train"][:7])


def test_names(tmp_path: Path) -> None:
    """A row is named after its changed params; its git tags are those of its result's commit."""
    stages = {
        "train": {**train("raw.txt"), "params": ["rate", "model", {"other.yaml": ["n.rate"]}]}
    }
    params = {"rate": 1, "model": {"units": 2, "cell": "gru"}}
    project = ran(tmp_path, stages, params, {"other.yaml": "n:\n  rate: 1\n  m: 1\n"})
    project.commit("The results")
    project.git("config", "user.name", "Somebody else")
    project.git("remote", "add", "origin", "https://me:secret@example.org/repository")
    project.git("commit", "-q", "--allow-empty", "-m", "Nothing")
    commit = project.git("rev-parse", "HEAD^")
    project.write({"raw.txt": "1\n\n"})  # it does not change which commit has the result
    row, _ = recorded(project)
    assert row.info.run_name == digits(row)
    assert {key: row.data.tags.get(f"mlflow.source.{key}") for key in GIT} == {
        "git.commit": commit,
        "git.branch": "main",
        "git.dirty": "false",
        "git.repoURL": "https://***@example.org/repository",
        "type": "LOCAL",
        "name": stages["train"]["cmd"],
    }
    assert row.data.tags["mlflow.user"] == "Tester"
    time = int(project.git("log", "-1", "--format=%ct", "HEAD^")) * 1000
    assert (row.info.start_time, row.info.end_time) == (time, time)
    # An uncommitted result is named after the changed params, by their shortest keys.
    project.set({"rate": 2, "model": {"units": 3, "cell": "gru"}})
    project.write({"other.yaml": "n:\n  rate: 5\n  m: 2\n"})
    project.dvc("repro", "-q")
    project.record()
    (row,) = [r for r in project.rows() if r.data.params["rate"] == "2"]
    start = "rate=2 units=3 other.n.rate=5 edited code"  # git has raw.txt, so it counts as code
    assert row.info.run_name == f"{start} {digits(row)}"
    head = project.git("rev-parse", "HEAD")
    assert (row.data.tags["mlflow.source.git.commit"], row.data.tags["mlflow.user"]) == (
        head,
        getpass.getuser(),
    )
    assert row.data.tags["mlflow.source.git.dirty"] == "true"  # raw.txt differs from the commit
    written = (project.path / "dvc.lock").stat().st_mtime
    assert row.info.start_time == int(written * 1000)


def test_experiment(tmp_path: Path) -> None:
    """The row of a DVC experiment has the experiment's name and commit."""
    project = ran(tmp_path, {"train": train("raw.txt")}, {"rate": 1})
    project.commit("The results")
    project.dvc("exp", "run", "-q", "-n", "mild-trial", "-S", "rate=7")
    project.git("checkout", "-q", "--", ".")
    project.record("--rev", "mild-trial")
    (row,) = project.rows()
    commit = project.git("for-each-ref", "--format=%(objectname)", "refs/exps/*/*/mild-trial")
    assert row.data.params == {"rate": "7"}
    assert row.info.run_name == f"mild-trial rate=7 {digits(row)}"
    tags = row.data.tags
    assert (tags["dvc.exp_name"], tags["mlflow.source.git.commit"]) == ("mild-trial", commit)
    assert "mlflow.source.git.branch" not in tags
    time = int(project.git("log", "-1", "--format=%ct", commit)) * 1000
    assert row.info.start_time == time
    project.git("tag", "v1")
    for name in ("main", "v1", "HEAD"):
        project.record("--rev", name)
        (head,) = [each for each in project.rows() if each.data.params == {"rate": "1"}]
        assert head.info.run_name == digits(head)
    assert len(project.rows()) == 2


@pytest.mark.parametrize("history", ["no git", "no commit", "no branch"])
def test_names_without_history(tmp_path: Path, history: str) -> None:
    """A row has a name even without git, before the first commit, or on a detached HEAD."""
    project = repository(tmp_path / "project", {"train": train("raw.txt")}, {"rate": 1})
    start = "rate=1 "
    if history == "no branch":
        project.git("checkout", "-q", "--detach")
        start = ""
    else:
        project.run("rm", "-rf", ".git")
        if history == "no git":
            project.write({".dvc/config": "[core]\n    no_scm = true\n"})
        else:
            project.git("init", "-q", "-b", "main")
    project.dvc("repro")
    row, said = recorded(project)
    assert (row.info.run_name, said.error) == (f"{start}{digits(row)}", "")
    assert ("mlflow.source.git.commit" in row.data.tags) == (history == "no branch")
