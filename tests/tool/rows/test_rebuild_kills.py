"""After a kill at any moment, or several `record` at once, the table is complete and the same."""

import inspect
import os
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from support.pipelines import LOADER, Repository, finished
from support.rebuilding import STAGES, contents, in_child, started, store_copied, undisturbed
from support.servers import serving

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.rest,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline with a model and two evaluations that has run once, without a store: `copy` it."""
    folder = tmp_path_factory.mktemp("made")
    project = finished(folder / "project", STAGES, files={"loader.py": LOADER})
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
            os.kill(os.getpid(), signal.SIGKILL)


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
    ("events", "how"), [("calls", "kills"), ("calls", "raises"), ("files", "kills")]
)
def test_stopped_at_every_event(
    made: Repository, tmp_path: Path, expected: list[Any], events: str, how: str, slow: bool
) -> None:
    """Wherever `record` is killed or its store fails, the next `record` completes the row.

    Then there is one row, as after an undisturbed `record`, and one model; none stays RUNNING.
    """
    first = made.copy(tmp_path / "0" / "project")
    assert recording(first, events, 0, how) == 0
    assert contents(first) == expected
    number = int((tmp_path / "0" / "events").read_text())
    assert number > 15
    for at in range(1, number + 1, 1 if slow else 4):
        project = made.copy(tmp_path / f"{at}" / "project")
        assert recording(project, events, at, how) == (1 if how == "raises" else -signal.SIGKILL)
        check_half_rows(project)
        assert in_child(lambda: project.record().status) == 0  # noqa: B023
        assert contents(project) == expected, f"after {at} of {number} {events}"
        shutil.rmtree(project.path.parent)


def check_half_rows(project: Repository) -> None:
    """Check that no row claims to have all of a stage while it lacks something."""
    if not (project.path / "mlflow.db").exists():
        return
    with closing(sqlite3.connect(store_copied(project))) as store:
        complete = store.execute(
            "SELECT run_uuid, key FROM tags WHERE key LIKE 'lock.%'"
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


def test_killed_at_any_time(project: Repository, expected: list[Any], slow: bool) -> None:
    """After a SIGKILL at any time, the next `record` completes the row."""
    began = time.monotonic()
    project.run("dvc-mlflow", "record")
    seconds = time.monotonic() - began
    moments = 40 if slow else 8
    for moment in range(moments):
        project.remove_store()
        with started(project) as record:
            time.sleep(seconds * (0.3 + 0.7 * moment / moments))
            record.kill()
        check_half_rows(project)
        done = project.run("dvc-mlflow", "record")
        assert done.stderr == ""
        assert contents(project) == expected


def test_interrupted(project: Repository, expected: list[Any]) -> None:
    """Ctrl-C ends `record` without a word; the next one completes the row."""
    for seconds in (1.0, 2.0, 2.5):
        with started(project) as record:
            time.sleep(seconds)
            record.send_signal(signal.SIGINT)
            _, error = record.communicate()
        assert error == ""
        # Python has no handler of its own before it has started, and once it ends.
        assert record.returncode in (0, 130, -signal.SIGINT)
    assert project.run("dvc-mlflow", "record").stderr == ""
    assert contents(project) == expected


@pytest.mark.parametrize("number", [2, 4])
@pytest.mark.parametrize("store", ["empty", "used", "server"])
def test_at_once(
    project: Repository, expected: list[Any], tmp_path: Path, store: str, number: int
) -> None:
    """Several `record` at once: one adds the row, the others have nothing to do."""
    if store == "used":
        project.set({"rate": 2})
        project.dvc("repro", "-q")
        assert in_child(lambda: project.record().status) == 0
        project.git("checkout", "-q", ".")
        project.dvc("checkout", "-q")
    shelf = Repository(tmp_path / "shelf")
    shelf.path.mkdir()
    database = f"sqlite:///{shelf.path}/rows.db"
    with ExitStack() as opened:
        address = ""
        if store == "server":
            serve = serving(shelf, "server", "--backend-store-uri", database, "--workers", "2")
            address = opened.enter_context(serve)
        more = {"MLFLOW_TRACKING_URI": address} if address else {}
        records = [opened.enter_context(started(project, **more)) for _ in range(number)]
        said = [record.communicate() for record in records]
        assert [record.returncode for record in records] == [0] * number, said
        assert [error for _, error in said] == [""] * number
        nothing = "nothing to do: MLflow has this result\n"
        assert sorted(out.startswith(nothing) for out, _ in said) == [False] + [True] * (number - 1)
        found = contents(project, address)
    assert [row for row in found if row["params"]["rate"] == "1"] == expected
    assert len(found) == (2 if store == "used" else 1)
