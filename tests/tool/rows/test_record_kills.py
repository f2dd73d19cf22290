"""After a kill at any moment, or several `record` at once, the table is complete and the same."""

import inspect
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from dvc_mlflow.pipeline.tags import LOCK, WHOLE, tagged
from support.clone import Clone, environment
from support.histories import history
from support.pipelines import ARTIFACTS, LOADER, Repository, finished
from support.processes import wait
from support.rebuilding import STAGES, contents, in_child, rows_of, store_copied, undisturbed
from support.servers import serving

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.rest,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


SIGNALS = {"kills": signal.SIGKILL, "interrupts": signal.SIGINT}
RECORD_ALL = [sys.executable, "-P", "-m", "dvc_mlflow", "record", "--all"]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline with a model and two evaluations that has run once, without a store: `copy` it."""
    folder = tmp_path_factory.mktemp("made")
    project = finished(folder / "project", STAGES, files={"loader.py": LOADER}, artifacts=ARTIFACTS)
    project.remove_store()
    return project


@pytest.fixture(scope="session")
def expected(made: Repository, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What a store contains after an undisturbed `record` of that pipeline."""
    return undisturbed(made.copy(tmp_path_factory.mktemp("expected") / "project"))


class Stop:
    """Stops this process at the nth event."""

    def __init__(self, at: int, how: str) -> None:
        self._left, self._how, self.seen = at, how, 0

    def __call__(self) -> None:
        """Count an event."""
        self.seen += 1
        self._left -= 1
        if self._left == 0 and self._how == "raises":
            raise MlflowException("database is locked")
        if self._left == 0:
            os.kill(os.getpid(), SIGNALS[self._how])


def at_each_call(stop: Stop) -> None:
    """Let MLflow's client report each call before it begins."""

    def reporting(method: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            stop()
            return method(*arguments, **options)

        return called

    for name, method in inspect.getmembers(MlflowClient, inspect.isfunction):
        if not name.startswith("_"):
            setattr(MlflowClient, name, reporting(method))


def at_each_file(stop: Stop, folder: Path) -> None:
    """Report each file of a repository or its store before it is written, renamed or deleted."""

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        changes = event in ("os.rename", "os.remove", "os.mkdir", "os.symlink", "sqlite3.connect")
        if (writes or changes) and f"{folder}" in f"{arguments[0]}":
            stop()

    sys.addaudithook(hear)


def recording(project: Repository, events: str, at: int, how: str) -> int:
    """Record in another process, stopped at the nth event; return its exit code, or -signal.

    Without being stopped, it leaves the number of events in a file beside the project.
    """

    def work() -> int:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as Python does at its start
        stop = Stop(at, how)
        if events == "calls":
            at_each_call(stop)
        else:
            at_each_file(stop, project.path)
        said = project.record()
        if how == "raises" and said.status:
            assert said.error.count("\n") == 1, said.error
            assert "database is locked; run it again when it is free" in said.error
        project.path.with_name("events").write_text(f"{stop.seen}")
        return said.status

    return in_child(work)


STOPS = [("calls", "raises", 1), ("calls", "interrupts", 130), ("files", "kills", -signal.SIGKILL)]


@pytest.mark.parametrize(("events", "how", "status"), STOPS)
def test_stopped_at_every_event(
    project: Repository, expected: list[Any], events: str, how: str, status: int, slow: bool
) -> None:
    """Wherever `record` is killed or interrupted, or its store fails, the next completes the row.

    Then there is one row, as after an undisturbed `record`, and one model; none stays RUNNING.
    """
    folder = project.path.parent
    first = project.copy(folder / "0" / "project")
    assert recording(first, events, 0, how) == 0
    assert contents(first) == expected
    number = int((folder / "0" / "events").read_text())
    assert number > 15
    for at in range(1, number + 1, 1 if slow else 13):
        stopped = project.copy(folder / f"{at}" / "project")
        assert recording(stopped, events, at, how) == status
        check_half_rows(stopped)
        assert in_child(lambda: stopped.record().status) == 0  # noqa: B023
        assert contents(stopped) == expected, f"after {at} of {number} {events}"
        shutil.rmtree(stopped.path.parent)


def check_half_rows(project: Repository) -> None:
    """Check that no row claims to have all of its stages while it lacks something."""
    if not (project.path / "mlflow.db").exists():
        return
    client = MlflowClient(f"sqlite:///{store_copied(project)}")
    needed = {"train": "train/loss", "a": "a/score", "b": "b/score"}
    for row in client.search_runs([each.experiment_id for each in client.search_experiments()]):
        if WHOLE in row.data.tags:
            assert row.info.status == "FINISHED"
            assert {needed[name] for name in tagged(row.data.tags, LOCK)} <= {*row.data.metrics}


def test_history(tmp_path: Path) -> None:
    """A history that is killed twice, and then recorded by two processes at once, is there once.

    A server gets several rows at once. What a killed process has asked of it can come late: a run
    that is KILLED.
    """
    n_rows, file = 24, tmp_path / "rows.db"
    project = history(tmp_path / "project", n_rows)
    arguments = ("--backend-store-uri", f"sqlite:///{file}", "--workers", "2")
    with serving(Clone(tmp_path), "server", *arguments) as address:
        more = environment(MLFLOW_TRACKING_URI=address)
        with closing(sqlite3.connect(file, timeout=60)) as database:
            for number in (3, 10):
                with subprocess.Popen(RECORD_ALL, cwd=project.path, env=more) as killed:
                    wait(lambda: n_runs(database) > number)  # noqa: B023
                    killed.kill()
        both = [subprocess.Popen(RECORD_ALL, cwd=project.path, env=more) for _ in range(2)]
        assert [process.wait() for process in both] == [0, 0]
        assert project.tool("record", "--all", **more).status == 0
        rows = rows_of(address)
        assert {row.info.status for row in rows} <= {"FINISHED", "KILLED"}
        done = [row for row in rows if row.info.status == "FINISHED"]
        assert sorted(int(row.data.params["rate"]) for row in done) == [*range(n_rows)]
        client = MlflowClient(address)
        for row in done:
            assert row.data.metrics["evaluate/score"] == int(row.data.params["rate"]) / 1000
            assert {*tagged(row.data.tags, LOCK)} == {"train", "evaluate"}
            assert len(client.get_metric_history(row.info.run_id, "train/loss")) == 20


def n_runs(database: sqlite3.Connection) -> int:
    (number,) = database.execute("SELECT COUNT(*) FROM runs").fetchone()
    return int(number)
