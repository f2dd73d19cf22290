"""After a kill at any moment, or several `record` at once, the table is complete and the same."""

import inspect
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from dvc_mlflow.pipeline.tags import LOCK, ROW, WHOLE, tagged
from support.clone import Clone, environment
from support.following import started
from support.histories import history
from support.pipelines import ARTIFACTS, LOADER, Repository, finished
from support.processes import wait
from support.promoting import measured, promote, registered, row
from support.rebuilding import STAGES, contents, in_child, rows_of, store_copied, undisturbed
from support.servers import serving

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.rest(minutes=2),
]


RECORD_ALL = ("dvc-mlflow", "record", "--all")


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


CALL = "mlflow.client"
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.symlink", "shutil.rmtree", "sqlite3.connect")


def report_calls() -> None:
    """Let MLflow's client report each call before it begins."""

    def reporting(method: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            sys.audit(CALL)
            return method(*arguments, **options)

        return called

    for name, method in inspect.getmembers(MlflowClient, inspect.isfunction):
        if not name.startswith("_"):
            setattr(MlflowClient, name, reporting(method))


def stopped(project: Repository, at: int, how: signal.Signals, *words: str) -> int:
    """Run a command in another process, with a signal at its nth step; return its exit code.

    It is -signal after a kill. A step is a call of MLflow's client; to be killed, also a start of a
    program, and any change of a file. What has ended leaves the number of its steps in a file.
    """
    steps = count(1)

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        changes = (writes or event in CHANGES) and f"{project.path}" in f"{arguments[0]}"
        is_step = event == CALL or (
            how == signal.SIGKILL and (changes or event == "subprocess.Popen")
        )
        if is_step and next(steps) == at:
            os.kill(os.getpid(), how)

    def work() -> int:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as Python does at its start
        report_calls()
        sys.addaudithook(hear)
        status = project.tool(*words, **environment()).status
        project.path.with_name("steps").write_text(f"{next(steps) - 1}")
        return status

    return in_child(work)


def moments(project: Repository, slow: bool, how: signal.Signals, *words: str) -> range:
    """Run a command undisturbed, and return at which of its steps to stop it."""
    assert stopped(project, 0, how, *words) == 0
    n_steps = int(project.path.with_name("steps").read_text())
    assert n_steps > 15
    return range(1, n_steps + 1, 1 if slow else 17)


@pytest.mark.parametrize(("how", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_stopped_at_every_step(
    project: Repository, expected: list[Any], how: signal.Signals, status: int, slow: bool
) -> None:
    """Wherever `record` is killed or interrupted, the next one completes the row.

    Then there is one row, as after an undisturbed `record`, and one model; none stays RUNNING.
    """
    folder = project.path.parent
    first = project.copy(folder / "0" / "project")
    every = moments(first, slow, how, "record")
    assert contents(first) == expected
    for at in every:
        half = project.copy(folder / f"{at}" / "project")
        assert stopped(half, at, how, "record") == status
        check_half_rows(half)
        assert in_child(lambda: half.record().status) == 0  # noqa: B023
        assert contents(half) == expected, f"after {at} of {every}"
        shutil.rmtree(half.path.parent)


def check_half_rows(project: Repository) -> None:
    """Check that no row claims to have all of its stages while it lacks something."""
    if not (project.path / "mlflow.db").exists():
        return
    client = MlflowClient(f"sqlite:///{store_copied(project)}")
    needed = {"train": "train/loss", "a": "a/score", "b": "b/score"}
    for run in client.search_runs([each.experiment_id for each in client.search_experiments()]):
        if WHOLE in run.data.tags:
            assert run.info.status == "FINISHED"
            assert {needed[name] for name in tagged(run.data.tags, LOCK)} <= {*run.data.metrics}


def test_restore(project: Repository, tmp_path: Path, slow: bool) -> None:
    """Whenever `restore` is killed, the next one restores the row, in the same folder."""
    project.record()
    (run,) = project.rows()
    words = ("restore", run.info.run_id)
    whole = project.copy_whole(tmp_path / "0" / "project")
    for at in moments(whole, slow, signal.SIGKILL, *words):
        half = project.copy_whole(tmp_path / f"{at}" / "project")
        assert stopped(half, at, signal.SIGKILL, *words) == -signal.SIGKILL
        said = half.tool(*words, **environment())
        assert (said.status, said.error) == (0, ""), (at, said)
        above = half.path / "restored"
        folder = above / str(run.info.run_name).replace(" ", "-")
        assert {p for p in above.iterdir() if p.is_dir()} - {above / ".dvc"} == {folder}, at
        assert (folder / "model.txt").read_text() == "1\nrate: 1\n"
        assert "up to date" in Repository(folder).dvc("status").stdout


def test_promote(tmp_path: Path, slow: bool) -> None:
    """Whenever `promote` is killed, the next `record` and `promote` complete what it has begun."""
    models = measured(tmp_path / "models")
    words = ("promote", row(models, a=2).info.run_id)
    every = moments(models.copy_with_rows(tmp_path / "0/whole"), slow, signal.SIGKILL, *words)
    for at in every[-40 // every.step :]:
        project = models.copy_with_rows(tmp_path / f"{at}/half")
        assert stopped(project, at, signal.SIGKILL, *words) == -signal.SIGKILL
        said = project.tool("record", **environment())
        assert (said.status, said.error) == (0, ""), (at, said)
        versions = {tag[4:] for tag in project.git("tag").splitlines() if "@" in tag}
        assert {*registered(project)} == versions, at
        said = promote(project, words[1])
        assert "Traceback" not in said.error
        assert [*registered(project)] == ["v0.0.1"], (at, said)
        champion = project.client.get_model_version_by_alias("clf", "champion")
        assert champion.tags[ROW] == words[1], (at, said)
        assert project.git("tag").splitlines() == ["clf#champion#1", "clf@v0.0.1"], (at, said)


def test_history(tmp_path: Path) -> None:
    """A history that is killed twice, and then recorded by two processes at once, is there once.

    A server gets several rows at once. What a killed process has asked of it can come late: a run
    that is KILLED.
    """
    n_rows, file = 24, tmp_path / "rows.db"
    project = history(tmp_path / "project", n_rows)
    store = f"sqlite:///{file}"
    with serving(Clone(tmp_path), "server", "--backend-store-uri", store) as address:
        # Of a busy server, MLflow asks again.
        more = {"MLFLOW_TRACKING_URI": address, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3"}
        with closing(sqlite3.connect(file, timeout=60)) as database:
            for number in (3, 10):
                with started(project, *RECORD_ALL, **more) as killed:
                    wait(lambda: n_runs(database) > number, 120)  # noqa: B023
                    killed.kill()
        with ExitStack() as opened:
            both = [opened.enter_context(started(project, *RECORD_ALL, **more)) for _ in range(2)]
            assert [process.wait(300) for process in both] == [0, 0]
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
