"""After a kill at any moment, or several `record` at once, the table is complete and the same."""

import inspect
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from support.clone import Clone, environment
from support.histories import history
from support.pipelines import ARTIFACTS, LOADER, Repository, finished
from support.rebuilding import STAGES, contents, in_child, started, store_copied, undisturbed
from support.servers import serving
from support.waiting import wait

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.rest,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


SIGNALS = {"kills": signal.SIGKILL, "interrupts": signal.SIGINT}
STATUSES = {"raises": 1, "kills": -signal.SIGKILL, "interrupts": 130}
"""What `record` returns that is stopped, by how."""
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
    for name, method in inspect.getmembers(MlflowClient, inspect.isfunction):
        if not name.startswith("_"):
            setattr(MlflowClient, name, _reporting(stop, method))


def _reporting(stop: Stop, method: Callable[..., Any]) -> Callable[..., Any]:
    def reporting(*arguments: Any, **options: Any) -> Any:
        stop()
        return method(*arguments, **options)

    return reporting


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


@pytest.mark.parametrize(
    ("events", "how"), [("calls", "raises"), ("calls", "interrupts"), ("files", "kills")]
)
def test_stopped_at_every_event(
    made: Repository, tmp_path: Path, expected: list[Any], events: str, how: str, slow: bool
) -> None:
    """Wherever `record` is killed or interrupted, or its store fails, the next completes the row.

    Then there is one row, as after an undisturbed `record`, and one model; none stays RUNNING.
    """
    first = made.copy(tmp_path / "0" / "project")
    assert recording(first, events, 0, how) == 0
    assert contents(first) == expected
    number = int((tmp_path / "0" / "events").read_text())
    assert number > 15
    for at in range(1, number + 1, 1 if slow else 13):
        project = made.copy(tmp_path / f"{at}" / "project")
        assert recording(project, events, at, how) == STATUSES[how]
        check_half_rows(project)
        assert in_child(lambda: project.record().status) == 0  # noqa: B023
        assert contents(project) == expected, f"after {at} of {number} {events}"
        shutil.rmtree(project.path.parent)


def check_half_rows(project: Repository) -> None:
    """Check that no row claims to have all of its stages while it lacks something."""
    if not (project.path / "mlflow.db").exists():
        return
    with closing(sqlite3.connect(store_copied(project))) as store:
        complete = store.execute(
            "SELECT run_uuid, key FROM tags WHERE key LIKE 'dvc-mlflow.lock.%' "
            "AND run_uuid IN (SELECT run_uuid FROM tags WHERE key = 'dvc-mlflow.row')"
        ).fetchall()
        logged = {*store.execute("SELECT run_uuid, key FROM latest_metrics")}
        ended = {
            run_id
            for (run_id,) in store.execute("SELECT run_uuid FROM runs WHERE status = 'FINISHED'")
        }
    needed = {
        "dvc-mlflow.lock.train": "train/loss",
        "dvc-mlflow.lock.a": "a/score",
        "dvc-mlflow.lock.b": "b/score",
    }
    for run_id, key in complete:
        assert run_id in ended
        assert (run_id, needed[key]) in logged


@pytest.mark.parametrize("store", ["own", "server"])
def test_at_once(project: Repository, expected: list[Any], store: str) -> None:
    """Two `record` at once: one adds the row, the other has nothing to do."""
    with store_of(project, store) as (address, _):
        more = {"MLFLOW_TRACKING_URI": address} if address else {}
        with ExitStack() as opened:
            records = [opened.enter_context(started(project, **more)) for _ in range(2)]
            said = [record.communicate() for record in records]
        assert [record.returncode for record in records] == [0] * 2, said
        assert [error for _, error in said] == [""] * 2
        nothing = "nothing to do: MLflow has this result"
        assert sorted(out.startswith(nothing) for out, _ in said) == [False, True]
        assert contents(project, address) == expected


@pytest.mark.parametrize(("store", "n_rows"), [("own", 20), ("server", 40)])
def test_history(tmp_path: Path, store: str, n_rows: int) -> None:
    """A history that is killed twice, and then recorded by two processes at once, is there once.

    They begin at the same moment, when another program ends to write to a server's database. On a
    server they are two clones, whose rows of one moment are there twice.
    """
    project = history(tmp_path / "project", n_rows)  # a server gets several at once
    with store_of(project, store) as (address, file):
        more = environment(**({"MLFLOW_TRACKING_URI": address} if address else {}))
        with closing(sqlite3.connect(file, timeout=60)) as database:
            for number in (3, 10):
                with subprocess.Popen(RECORD_ALL, cwd=project.path, env=more) as killed:
                    wait(lambda: n_runs(database) > number)  # noqa: B023
                    killed.kill()
            assert n_runs(database) < n_rows
            other = project.copy(tmp_path / "other" / "project") if address else project
            both = [
                subprocess.Popen(RECORD_ALL, cwd=clone.path, env=more) for clone in (project, other)
            ]
            if address:
                database.execute("BEGIN IMMEDIATE")
                port = int(address.rpartition(":")[2])
                wait(lambda: all(is_connected(each.pid, port) for each in both), 60)
                database.rollback()
        assert [process.wait() for process in both] == [0, 0]
        # A server can carry out late what a killed one has asked for.
        subprocess.run(RECORD_ALL, cwd=project.path, env=more, check=True)
        client = MlflowClient(address) if address else project.client
        rows = client.search_runs([e.experiment_id for e in client.search_experiments()])
        rates = sorted(int(row.data.params["rate"]) for row in rows)
        assert (sorted({*rates}) if address else rates) == [*range(n_rows)]
        for row in rows:
            score = int(row.data.params["rate"]) / 1000
            assert (row.info.status, row.data.metrics["evaluate/score"]) == ("FINISHED", score)
            assert {"dvc-mlflow.lock.train", "dvc-mlflow.lock.evaluate"} <= row.data.tags.keys()
            assert len(client.get_metric_history(row.info.run_id, "train/loss")) == 20


def is_connected(pid: int, port: int) -> bool:
    """Whether a process has asked a server on this machine for something."""
    connections = psutil.Process(pid).net_connections("tcp")
    return any(each.raddr and each.raddr.port == port for each in connections)


def n_runs(database: sqlite3.Connection) -> int:
    (number,) = database.execute("SELECT COUNT(*) FROM runs").fetchone()
    return int(number)


@contextmanager
def store_of(project: Repository, kind: str) -> Iterator[tuple[str, Path]]:
    """Yield the address and the database of a server, or "" and the project's own database."""
    if kind == "own":
        yield "", project.path / "mlflow.db"
        return
    file = project.path.with_name("rows.db")
    arguments = ("--backend-store-uri", f"sqlite:///{file}", "--workers", "2")
    with serving(Clone(file.parent), "server", *arguments) as address:
        yield address, file
