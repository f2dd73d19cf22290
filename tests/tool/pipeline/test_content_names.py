"""A row's name, times and git tags are those of its result's commit or experiment."""

import getpass
from pathlib import Path

import pytest

from dvc_mlflow.pipeline.tags import COMMIT, EXPERIMENT, LOCK, REPOSITORY, SOURCE, SOURCE_TYPE, USER
from support.locked import locked, read, row, trained
from support.pipelines import finished, train
from support.rebuilding import recorded

pytestmark = pytest.mark.filterwarnings("ignore")  # warnings from MLflow

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
    project.write({"raw.txt": "1\n\n"})  # it does not change which commit has the result
    found, _ = recorded(project)
    tags = found.data.tags
    assert found.info.run_name == f"{tags[f'{LOCK}train'][:7]} The results"
    assert {key: tags.get(key) for key in (COMMIT, REPOSITORY, SOURCE_TYPE, SOURCE, USER)} == {
        COMMIT: project.git("rev-parse", "HEAD^"),
        REPOSITORY: "https://***@example.org/repository",
        SOURCE_TYPE: "LOCAL",
        SOURCE: STAGES["train"]["cmd"],
        USER: "Tester",
    }
    time = int(project.git("log", "-1", "--format=%ct", "HEAD^")) * 1000
    assert (found.info.start_time, found.info.end_time) == (time, None)  # nobody knows how long


def test_names_before_a_commit(tmp_path: Path) -> None:
    """An uncommitted result is named after the changed params, by their shortest keys.

    It has a name even before the first commit, or on a detached HEAD.
    """
    project = locked(tmp_path / "project", STAGES, PARAMS, FILES)
    found = row(project)
    assert found.name == found.digests["train"][:7]
    assert COMMIT not in found.tags
    project.commit("The results")
    project.git("checkout", "-q", "--detach")
    other = {"other.yaml": "n:\n  rate: 5\n  m: 2\n"}
    params = {"rate": 2, "model": {"units": 3, "cell": "gru"}}
    project.again({"raw.txt": "1\n\n", "model.txt": "2\n", **other}, params)
    every = read(project)
    (found,) = every.rows
    assert (found.notes, every.problems, every.reasons) == ([], [], {})
    start = "rate=2 units=3 other.n.rate=5"
    assert found.words == start
    assert found.name == f"{found.digests['train'][:7]} {start}"
    assert found.tags[COMMIT] == project.git("rev-parse", "HEAD")
    assert found.tags[USER] == getpass.getuser()
    written = (project.path / "dvc.lock").stat().st_mtime
    assert found.time == int(written * 1000)


@pytest.mark.pipeline
def test_experiment(tmp_path: Path) -> None:
    """The row of a DVC experiment has the experiment's name, commit and time."""
    project = finished(tmp_path / "project", {"train": train("raw.txt")}, {"rate": 1})
    project.dvc("exp", "run", "-q", "-n", "mild-trial", "-S", "rate=7")
    project.git("checkout", "-q", "--", ".")
    project.record("--rev", "mild-trial")
    (row,) = project.rows()
    commit = project.git("for-each-ref", "--format=%(objectname)", "refs/exps/*/*/mild-trial")
    tags = row.data.tags
    assert row.data.params == {"rate": "7"}
    assert row.info.run_name == f"{tags[f'{LOCK}train'][:7]} mild-trial"
    assert (tags[EXPERIMENT], tags[COMMIT]) == ("mild-trial", commit)
    time = int(project.git("log", "-1", "--format=%ct", commit)) * 1000
    assert row.info.start_time == time
