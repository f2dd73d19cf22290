"""What happens to a stage when its store, a disk, git or its parent process fails."""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path

import psutil
import pytest

from support.clone import environment
from support.disks import immutable, small_disk
from support.live_runs import one, recorded, recorders, reproducing, wait
from support.pipelines import LOADER, SERVED, Repository, evaluate, repository, train
from support.servers import serving
from support.stores import rows_of

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A recorded pipeline of two stages that has run, with its row: copy it."""
    stages = recorded({"train": train("raw.txt"), "a": evaluate("a")})
    project = repository(tmp_path_factory.mktemp("made") / "project", stages)
    project.dvc("repro", "-q")
    project.commit("Results")
    return project


@pytest.fixture
def project(made: Repository, tmp_path: Path) -> Repository:
    """A copy of that pipeline with a changed param, so that both stages run again."""
    copy = made.copy_with_rows(tmp_path / "project")
    copy.set({"rate": 2})
    return copy


def check_not_recorded(error: str, reason: str) -> None:
    """Check that both stages say in one line that they are not recorded, and why."""
    lines = re.findall("dvc-mlflow: .*", error)
    assert len(lines) == 2, error
    for line in lines:
        assert "the stage is not recorded: MLflow at sqlite:///" in line
        assert line.endswith(f"{reason}; `dvc-mlflow record` records it later")


def check_record(project: Repository) -> None:
    """Check that `record` adds the result once, and that no row stays RUNNING."""
    wait(lambda: not recorders(project))
    assert project.record().error == ""
    rows = [(row.info.status, row.data.params["rate"]) for row in project.rows()]
    assert rows.count(("FINISHED", "1")) == rows.count(("FINISHED", "2")) == 1
    assert "RUNNING" not in {status for status, _ in rows}


# The store and its disk


@contextmanager
def damaged(database: Path) -> Iterator[None]:
    content = database.read_bytes()
    database.write_bytes(os.urandom(10_000))
    yield
    database.write_bytes(content)


@contextmanager
def locked(database: Path) -> Iterator[None]:
    with closing(sqlite3.connect(database)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        yield


@pytest.mark.parametrize(
    ("breaking", "reason"),
    [
        (damaged, "not a database; restore a backup, or move it away to start a new store"),
        pytest.param(
            locked,
            "database is locked; run it again when it is free",
            marks=pytest.mark.rest,
        ),
        (immutable, "readonly database; make it writable for you"),
    ],
    ids=["damaged", "locked", "read-only"],
)
def test_broken_store(
    project: Repository, breaking: Callable[[Path], AbstractContextManager[None]], reason: str
) -> None:
    """Whatever is wrong with the store, a stage succeeds and says so in one line."""
    with breaking(project.path / "mlflow.db"):
        done = project.dvc("repro")
    check_not_recorded(done.stderr, reason)
    check_record(project)


def test_one_experiment_is_denied(tmp_path: Path) -> None:
    """If a stage's experiment cannot be used, stages of other experiments are recorded."""
    meta = {"mlflow": {"experiment": "denied"}}
    stages = {"a": {**evaluate("a", "raw.txt"), "meta": meta}, "b": evaluate("b", "raw.txt")}
    project = repository(tmp_path / "project", recorded(stages))
    with closing(sqlite3.connect(project.path / "mlflow.db")) as database:
        database.execute(
            "CREATE TRIGGER denied BEFORE INSERT ON experiments WHEN NEW.name = 'denied' "
            "BEGIN SELECT RAISE(ABORT, 'denied'); END"
        )
    (refused,) = re.findall(".* not recorded.*", project.dvc("repro", "a", "b").stderr)
    assert "Experiment(name=denied) already exists" in refused  # MLflow's words for any conflict
    assert [row.data.params for row in project.rows()] == [{"b": "1"}]


def test_full_temporary_folder(project: Repository, tmp_path: Path) -> None:
    """A full TMPDIR costs a stage no more than a line."""
    with small_disk(tmp_path / "disk", "4k") as disk:
        done = project.dvc("repro", TMPDIR=f"{disk}")
    check_not_recorded(done.stderr, "No space left on device; make room on its disk")
    check_record(project)


CURVE = "printf 'step,loss\\n1,2\\n' > c.csv; while [ ! -e go ]; do sleep 0.1; done; echo 1 > out"


@pytest.mark.rest
def test_server_goes_away(tmp_path: Path) -> None:
    """A server that ends in mid-run costs a stage no more than a line, and sees no password."""
    plots = [{"c.csv": {"cache": False, "x": "step"}}]
    stages = one("sh script", deps=["script"], outs=["out"], plots=plots)
    project = repository(tmp_path / "project", stages, files={"script": CURVE})
    project.remove_store()
    own = f"sqlite:///{tmp_path}/server.db"
    store = ["--backend-store-uri", own, "--artifacts-destination", f"{tmp_path}/artifacts"]
    with ExitStack() as reproduced:
        with serving(project, "server", *store, "--workers", "1") as address:
            uri = address.replace("//", "//me:pa55word@")
            dvc = reproduced.enter_context(reproducing(project, MLFLOW_TRACKING_URI=uri))
            wait(lambda: any(row.data.metrics for row in rows_of(own)), 60)
        (project.path / "go").touch()
        out, _ = dvc.communicate(timeout=60)
    assert dvc.returncode == 0, out
    assert "the stage is not recorded: MLflow at http://***@127.0.0.1" in out
    assert out.count("dvc-mlflow: ") == 1
    wait(lambda: not recorders(project))
    with serving(project, "server", *store, "--workers", "1") as address:
        uri = address.replace("//", "//me:pa55word@")
        done = project.run("dvc-mlflow", "record", MLFLOW_TRACKING_URI=uri)
    assert "pa55word" not in out + done.stdout + done.stderr
    new, *others = rows_of(own)
    assert (new.info.status, new.data.metrics) == ("FINISHED", {"one/loss": 2})
    assert not {row.info.status for row in others} & {"FINISHED", "RUNNING"}
    for path in [tmp_path / "server.db", *(tmp_path / "artifacts").rglob("*")]:
        assert not path.is_file() or b"pa55word" not in path.read_bytes(), path
    assert not (project.path / "mlflow.db").exists()


@pytest.mark.rest
def test_stderr_that_nobody_reads(project: Repository) -> None:
    """A stage runs even if nothing can be written to stderr."""
    project.run("bash", "-c", "dvc repro 2> /dev/full")
    project.run("bash", "-c", "dvc repro -f 2> >(true)")
    check_record(project)


def test_no_git(project: Repository) -> None:
    """Without git on PATH a stage runs; its result is recorded now or later, and only once."""
    programs = project.path.parent / "bin"
    programs.mkdir()
    for name in ("dvc", "dvc-mlflow"):
        (programs / name).symlink_to(Path(sys.executable).with_name(name))
    for name in ("sh", "cat", "grep", "sed"):
        (programs / name).symlink_to(shutil.which(name) or "")
    done = project.run("dvc", "repro", PATH=f"{programs}", SHELL="/bin/sh")
    assert "Traceback" not in done.stderr
    check_record(project)


# Its parent process


def test_orphan_from_its_first_moment(tmp_path: Path) -> None:
    """A stage whose `dvc` is killed before the stage's first line does not begin."""
    command = "(sleep 0.5; exec dvc-mlflow run touch begun 2> said; ) &"
    env = environment(DVC_STAGE="one", DVC_ROOT=f"{tmp_path}")
    subprocess.run(["sh", "-c", command], cwd=tmp_path, env=env, check=True, start_new_session=True)
    said = tmp_path / "said"
    wait(lambda: said.exists() and said.read_text())
    assert said.read_text() == "dvc-mlflow: the dvc that started this stage is gone\n"
    assert not (tmp_path / "begun").exists()


def test_killed_dvc_behind_a_shell(tmp_path: Path) -> None:
    """If `dvc` is killed, the command ends, even if a shell is between them."""
    stages = one("sh script", deps=["script"])
    stages["one"]["cmd"] = "dvc-mlflow run sh script; true"
    files = {"script": "touch started; exec sleep 60"}
    project = repository(tmp_path / "project", stages, files=files)
    with reproducing(project) as dvc:
        wait((project.path / "started").exists, 60)
        tree = psutil.Process(dvc.pid).children(recursive=True)
        os.kill(dvc.pid, signal.SIGKILL)
        wait(lambda: not any(p.is_running() and p.status() != "zombie" for p in tree), 15)
    project.record()
    assert {row.info.status for row in project.rows()} <= {"KILLED"}


# Several at once


@pytest.mark.rest
def test_experiments_at_once(tmp_path: Path, slow: bool) -> None:
    """Experiments that start at the same moment, with no store yet, lose no row and no model.

    They wait for DVC's own lock; otherwise one or two of eight would give up. A database with a
    relative path, and its files, outlive DVC's temporary copies.
    """
    project = repository(tmp_path / "project", recorded(SERVED), files={"loader.py": LOADER})
    n = 8 if slow else 3
    command = ["dvc", "--wait-for-lock", "exp", "run", "-q", "--temp", "-S"]
    started = [
        subprocess.Popen(
            [*command, f"rate={rate}"],
            cwd=project.path,
            env=environment(MLFLOW_TRACKING_URI="sqlite:///rows.db"),
        )
        for rate in range(n)
    ]
    assert [experiment.wait() for experiment in started] == [0] * n
    rows = rows_of(f"sqlite:///{project.path}/rows.db")
    assert sorted(row.data.params["rate"] for row in rows) == [f"{rate}" for rate in range(n)]
    for row in rows:
        assert row.info.status == "FINISHED"
        assert row.data.metrics == {"train/loss": 0.25, "a/score": 1}
    models = [*(project.path / "mlartifacts" / "models").glob("*/artifacts/data/model.txt")]
    texts = sorted(path.read_text() for path in models)
    assert texts == [f"1\nrate: {rate}\n" for rate in range(n)]
    assert not list(project.path.rglob("mlruns"))
