"""A row's name, times and git tags are those of its result's commit or experiment."""

import getpass
from pathlib import Path

import pytest
from mlflow.entities import Run

from support.locked import locked, read, row, trained
from support.pipelines import train
from support.row_content import ran, recorded

pytestmark = pytest.mark.filterwarnings("ignore")  # warnings from MLflow

GIT = ("git.commit", "git.repoURL", "type", "name")


def digits(row: Run) -> str:
    """Return the digits of a row's result."""
    return str(row.data.tags["dvc-mlflow.lock.train"][:7])


STAGES = {"train": {**train("raw.txt"), "params": ["rate", "model", {"other.yaml": ["n.rate"]}]}}
PARAMS = {"rate": 1, "model": {"units": 2, "cell": "gru"}}
FILES = {**trained(), "other.yaml": "n:\n  rate: 1\n  m: 1\n"}


def test_names(tmp_path: Path) -> None:
    """A committed result's row has its digits and subject, and git tags of that commit."""
    project = locked(tmp_path / "project", STAGES, PARAMS, FILES)
    project.add_store()
    project.commit("The results")
    project.git("config", "user.name", "Somebody else")
    project.git("remote", "add", "origin", "https://me:secret@example.org/repository")
    project.git("commit", "-q", "--allow-empty", "-m", "Nothing")
    commit = project.git("rev-parse", "HEAD^")
    project.write({"raw.txt": "1\n\n"})  # it does not change which commit has the result
    found, _ = recorded(project)
    assert found.info.run_name == f"{digits(found)} The results"
    assert {key: found.data.tags.get(f"mlflow.source.{key}") for key in GIT} == {
        "git.commit": commit,
        "git.repoURL": "https://***@example.org/repository",
        "type": "LOCAL",
        "name": STAGES["train"]["cmd"],
    }
    assert found.data.tags["mlflow.user"] == "Tester"
    time = int(project.git("log", "-1", "--format=%ct", "HEAD^")) * 1000
    assert (found.info.start_time, found.info.end_time) == (time, None)  # nobody knows how long


def test_names_before_a_commit(tmp_path: Path) -> None:
    """An uncommitted result is named after the changed params, by their shortest keys."""
    project = locked(tmp_path / "project", STAGES, PARAMS, FILES)
    project.commit("The results")
    other = {"other.yaml": "n:\n  rate: 5\n  m: 2\n"}
    params = {"rate": 2, "model": {"units": 3, "cell": "gru"}}
    project.again({"raw.txt": "1\n\n", "model.txt": "2\n", **other}, params)
    found = row(project)
    start = "rate=2 units=3 other.n.rate=5"
    assert found.words == start
    assert found.name == f"{found.digests['train'][:7]} {start}"
    assert found.tags["mlflow.source.git.commit"] == project.git("rev-parse", "HEAD")
    assert found.tags["mlflow.user"] == getpass.getuser()
    written = (project.path / "dvc.lock").stat().st_mtime
    assert found.time == int(written * 1000)


@pytest.mark.pipeline
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
    assert row.info.run_name == f"{digits(row)} mild-trial"
    tags = row.data.tags
    assert (tags["dvc.exp_name"], tags["mlflow.source.git.commit"]) == ("mild-trial", commit)
    time = int(project.git("log", "-1", "--format=%ct", commit)) * 1000
    assert row.info.start_time == time
    project.git("tag", "v1")
    for name in ("main", "v1", "HEAD"):
        project.record("--rev", name)
        (head,) = [each for each in project.rows() if each.data.params == {"rate": "1"}]
        assert head.info.run_name == f"{digits(head)} The results"
    assert len(project.rows()) == 2


@pytest.mark.parametrize("history", ["no commit", "no branch"])
def test_names_without_history(tmp_path: Path, history: str) -> None:
    """A row has a name even before the first commit, or on a detached HEAD."""
    stages = {"train": train("raw.txt")}
    project = locked(tmp_path / "project", stages, {"rate": 1}, trained())
    if history == "no branch":
        project.commit()
        project.git("checkout", "-q", "--detach")
    every = read(project)
    (found,) = every.rows
    after = f" after {project.git('rev-parse', 'HEAD')[:7]}" if history == "no branch" else ""
    assert found.name == f"{found.digests['train'][:7]}{after}"
    assert (found.notes, every.problems, every.reasons) == ([], [], {})
    assert ("mlflow.source.git.commit" in found.tags) == (history == "no branch")
