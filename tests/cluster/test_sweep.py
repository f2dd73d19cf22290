"""Sweeps before anything starts: their trials, and the mistakes that are told in one line."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clone import ROOT, Clone, Done, make_clone
from services import repository
from sweeps.errors import SweepError
from sweeps.grid import expand
from sweeps.report import Report
from sweeps.repository import Repository

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone for all tests, which leave it as it is."""
    folder = tmp_path_factory.mktemp("sweep")
    return repository(folder, f"{folder}/files")


def sweep(clone: Clone, *arguments: str, **more: str) -> Done:
    return clone.run(sys.executable, "cluster/sweep.py", *arguments, check=False, **more)


def test_grid_is_that_of_dvc(tmp_path: Path) -> None:
    """A grid has the trials that `dvc exp run --queue` makes of the same overrides."""
    overrides = ["train.learning_rate=0.001,0.003", "model.units=range(5,30,5)"]
    clone = make_clone(tmp_path / "clone")
    options = [option for override in overrides for option in ("-S", override)]
    said = clone.dvc("exp", "run", "--queue", *options).stdout
    trials = expand(overrides, "c0ffee", ROOT)
    assert len(trials) == 10
    for trial in trials:
        assert f"{{'params.yaml': {list(trial.overrides)}}}" in said


def test_names() -> None:
    """A name says commit and values, however they are written, and never changes."""

    def names(commit: str, *overrides: str) -> list[str]:
        return [trial.name for trial in expand(overrides, commit, ROOT)]

    (name,) = names("c0ffee", "model.units=5", "train.learning_rate=0.001")
    assert name == "sweep-6c0ba2575d2f"
    assert names("c0ffee", "train.learning_rate=1e-3", "model.units=5") == [name]
    assert names("c0ffee", "train.learning_rate=1e-3", "model.units=5,5") == [name]
    assert names("facade", "train.learning_rate=1e-3", "model.units=5") != [name]
    assert names("c0ffee", "train.learning_rate=1e-3", "model.units=6") != [name]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.unit=3", "Could not override 'model.unit'"),
        ("model.units", "missing EQUAL"),
        ("model.units=3,", "mismatched input"),
        ("model.units=glob(*)", "not supported"),
        ("nowhere.yaml:model.units=3", "nowhere.yaml"),
    ],
)
def test_bad_overrides(override: str, words: str) -> None:
    """An override that no trial could use is told in one line, with its text."""
    with pytest.raises(SweepError) as error:
        expand([override], "c0ffee", ROOT)
    assert words in str(error.value)
    assert f"-S '{override}'" in str(error.value)
    assert "\n" not in str(error.value)


def uncommitted(clone: Clone) -> None:
    clone.set({"model.units": 7})


def not_pushed(clone: Clone) -> None:
    clone.commit()


def no_dvc_remote(clone: Clone) -> None:
    clone.dvc("remote", "remove", "team")
    clone.commit()
    clone.git("push", "-q", "origin", "main")


def no_git_remote(clone: Clone) -> None:
    clone.git("remote", "remove", "origin")


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (uncommitted, "params.yaml: not committed, so no node would have it"),
        (not_pushed, "is not in the git remote 'origin': `git push` it first"),
        (no_dvc_remote, "no DVC remote: `dvc remote add -d NAME URL` first"),
        (no_git_remote, "git remote: error: No such remote 'origin'"),
    ],
)
def test_repository_not_ready(spoil: Callable[[Clone], Any], line: str, tmp_path: Path) -> None:
    """What nodes could not clone or push to stops a sweep before it starts, in one line."""
    clone = repository(tmp_path, f"{tmp_path}/files")
    spoil(clone)
    done = sweep(clone, "-S", "model.units=3")
    assert done.returncode == 1
    assert line in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


@pytest.mark.parametrize("address", ["", "sqlite:///mlflow.db", "/tmp/store"])  # noqa: S108
def test_store_that_nodes_do_not_reach(clone: Clone, address: str) -> None:
    """On a cluster the rows need a store that every node reaches."""
    done = sweep(clone, "-S", "model.units=3", "--address", "auto", MLFLOW_TRACKING_URI=address)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("MLFLOW_TRACKING_URI: must name a server or database")
    assert f"received '{address}'" in line


def test_masked() -> None:
    """A password in an address is not shown."""
    assert f"{SweepError('no https://ann:secret@git.example.org/a')}" == (
        "no https://***@git.example.org/a"
    )


def test_found(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the experiments in the git remote those that are asked for come with their metrics."""
    monkeypatch.chdir(clone.path)
    commit = clone.git("rev-parse", "HEAD")
    folder = f"refs/exps/{commit[:2]}/{commit[2:]}"
    for name in ("sweep-a", "sweep-b", "another"):
        clone.git("push", "-q", "origin", f"HEAD:{folder}/{name}")
    metrics = json.loads((clone.path / "data" / "metrics.json").read_text())
    found = Repository("origin").found({"sweep-a", "sweep-b", "sweep-c"})
    assert found == {"sweep-a": metrics, "sweep-b": metrics}
    assert Repository("origin").found({"sweep-c"}) == {}


def test_no_cluster(clone: Clone) -> None:
    """An address without a cluster is told in one line."""
    pytest.importorskip("ray", reason="not installed: the extra `cluster` (make cluster-setup)")
    store = "http://user:secret@127.0.0.1:9"
    where = ("--address", "127.0.0.1:9")
    done = sweep(clone, "-S", "model.units=3", *where, MLFLOW_TRACKING_URI=store)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Ray at 127.0.0.1:9: ")
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stdout + done.stderr


def test_report(capsys: pytest.CaptureFixture[str]) -> None:
    """What is seen: how many trials are where, the best so far, and all of them at the end."""
    trials = expand(["model.units=1,2,3,4"], "c0ffee", ROOT)
    names = [trial.name for trial in trials]
    report = Report(trials, "-loss")
    report.found(names[0], {"loss": 0.5})
    report.state(2)
    ended = {"host": "a", "seconds": 2.0, "message": ""}
    report.event({"name": names[1], "status": "again", "message": "lost", "metrics": {}})
    report.event({"name": names[1], "status": "done", "metrics": {"loss": 0.25}, **ended})
    report.state(2)
    fault = {"metrics": {}, **ended, "message": "model.units: too small"}
    report.event({"name": names[2], "status": "failed", **fault})
    report.table()
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "  1 done, 2 running, 0 failed, 1 left, best 0.5 (model.units=1)"
    assert said[1] == f"{names[1]} again, begins once more: lost"
    assert said[2] == f"{names[1]} done on a in 2.0 s, 0.25"
    assert said[3].startswith("  2 done, 2 running, 0 failed, 0 left, best 0.25 (model.units=2), ")
    assert said[4] == f"{names[2]} failed on a in 2.0 s, -: model.units: too small"
    table = said[said.index("") + 1 :]
    assert table[0].split() == ["experiment", "loss", "status", "overrides"]
    assert [line.split()[1] for line in table[1:4]] == ["0.25", "0.5", "-"]
    assert table[4] == f"{names[2]}: model.units: too small"
    assert report.failed
