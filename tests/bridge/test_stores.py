"""Broken stores, opened by real stages: each error names its own cure."""

import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from clone import Clone, environment, make_clone

pytestmark = [pytest.mark.pipeline, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def made(reproduced: Clone, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone with results in data/ and no store; each test gives its stages a store."""
    return reproduced.copy(tmp_path_factory.mktemp("made") / "clone")


def rows(address: str) -> list[Run]:
    """Return the rows of a store, newest first."""
    client = MlflowClient(address)
    return list(client.search_runs([e.experiment_id for e in client.search_experiments()]))


def error_of(clone: Clone, address: str, stage: str = "evaluate") -> str:
    """Return the one-line error with which a stage refuses a store."""
    done = clone.run(sys.executable, f"stages/{stage}.py", check=False, MLFLOW_TRACKING_URI=address)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


# Databases


def test_locked_database(made: Clone, tmp_path: Path) -> None:
    """If another process holds the database, the cure is to wait, not to move it away."""
    address = f"sqlite:///{tmp_path}/rows.db"
    made.run(sys.executable, "stages/evaluate.py", MLFLOW_TRACKING_URI=address)
    with closing(sqlite3.connect(tmp_path / "rows.db")) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        line = error_of(made, address)
    assert "locked" in line
    assert line.endswith("; run it again when it is free")
    assert len(rows(address)) == 1


def test_read_only_database(made: Clone, tmp_path: Path) -> None:
    """If the database is read-only, the cure is to make it writable."""
    address = f"sqlite:///{tmp_path}/rows.db"
    made.run(sys.executable, "stages/evaluate.py", MLFLOW_TRACKING_URI=address)
    read_only = f"sqlite:///file:{tmp_path}/rows.db?mode=ro&uri=true"
    line = error_of(made, read_only, "train")
    assert line.endswith("; make it writable for you")


def test_full_disk_under_the_store(made: Clone, tmp_path: Path) -> None:
    """If the disk is full, the cure is to make room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = f"mount -t tmpfs -o size=256k none {disk} && exec {sys.executable} stages/evaluate.py"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command],
        cwd=made.path,
        env=environment(MLFLOW_TRACKING_URI=f"sqlite:///{disk}/rows.db"),
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip("needs the right to mount")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("; make room on its disk")


def test_database_gets_its_files_beside_it(reproduced: Clone, tmp_path: Path) -> None:
    """If the store is a database, models outlive the temporary copy of an experiment."""
    clone = reproduced.copy(tmp_path / "clone")
    clone.dvc(
        *("exp", "run", "--temp", "-S", "train.epochs=2"), MLFLOW_TRACKING_URI="sqlite:///rows.db"
    )
    assert (clone.path / "rows.db").is_file()  # relative to the main repository
    (run,) = rows(f"sqlite:///{clone.path}/rows.db")
    client = MlflowClient(f"sqlite:///{clone.path}/rows.db")
    model = client.get_logged_model(run.outputs.model_outputs[0].model_id)
    folder = Path(model.artifact_location.removeprefix("file://"))
    assert folder.is_relative_to(clone.path / "mlartifacts")
    assert (folder / "data" / "model.keras").is_file()
    assert not list(clone.path.rglob("mlruns"))


# Servers

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def server(answer: Answer) -> Iterator[str]:
    """Run a web server that answers every request in the same way; yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def text(content: bytes) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def trickle(handler: BaseHTTPRequestHandler) -> None:
    """Begin a long answer, and send one byte of it per second."""
    try:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b" ")
            time.sleep(1)
    except OSError:
        pass


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        (text(b"2.17.0"), "its version is 2.17.0, older than 3.0; upgrade it, or unset"),
        (text(b"[]"), "; check that its address is that of an MLflow store"),
        (text(b"null"), "; check that its address is that of an MLflow store"),
        (text(b'{"experiment": {"experiment_id": []}}'), "; check that its address is that of"),
        (text(b'{"experiments": 7, "experiment": 7}'), "; check that its address is that of an"),
        (text(b"<html>"), "; check that its address is that of an MLflow store"),
        (trickle, "start it, or unset MLFLOW_TRACKING_URI"),
    ],
    ids=["2.17", "list", "null", "types", "numbers", "page", "trickle"],
)
def test_server_that_is_none(made: Clone, answer: Answer, end: str) -> None:
    """A server that is not MLflow, or too old, is refused in one line, before training."""
    with server(answer) as address:
        started = time.monotonic()
        line = error_of(made, address)
        assert time.monotonic() - started < 60  # the whole answer takes 100 s
    assert line.startswith(f"MLflow at {address}: ")
    assert end in line


def test_no_secret_of_an_address_is_shown(made: Clone) -> None:
    """Neither a password nor a token in an address is shown."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{closed.getsockname()[1]}"
    for secret in ("?token=s3cret", "?user=me&passwd=s3cret", "?PWD=s3cret", "?api_key=s3cret"):
        line = error_of(made, f"http://{host}/{secret}")
        assert "s3cret" not in line
        assert "=***" in line


# Rows of processes


def running_row(address: str, **tags: str) -> str:
    """Add a RUNNING row with these tags; return its id."""
    client = MlflowClient(address)
    experiment = client.get_experiment_by_name("vanilla-lstm")
    assert experiment
    return str(client.create_run(experiment.experiment_id, tags=tags).info.run_id)


def test_whose_rows_are_ended(made: Clone, tmp_path: Path) -> None:
    """A stage ends the rows of dead processes of its clone, and no others, whatever tags hold."""
    address = f"sqlite:///{tmp_path}/rows.db"
    made.run(sys.executable, "stages/evaluate.py", MLFLOW_TRACKING_URI=address)
    (result,) = rows(address)
    own = {key: result.data.tags[key] for key in ("host", "clone", "system", "process")}
    boot, container = own["system"].split()
    me = (Path("/proc") / str(os.getpid()) / "stat").read_text().rpartition(")")[2].split()[19]
    expected = {
        running_row(address, **own): "KILLED",
        running_row(address, **own | {"system": f"another-boot {container}"}): "KILLED",
        running_row(address, **own | {"process": f"{os.getpid()}@{me}"}): "RUNNING",
        running_row(address, **own | {"process": f"{os.getpid()}@1"}): "KILLED",
        running_row(address, **own | {"system": f"{boot} pid:[1]"}): "RUNNING",
        running_row(address, **own | {"host": "another"}): "RUNNING",
        running_row(address, **own | {"clone": "another"}): "RUNNING",
        running_row(address, **own | {"process": "abc"}): "RUNNING",
        running_row(address, **own | {"process": "-5@1"}): "RUNNING",
        running_row(address, **own | {"process": f"{'9' * 5000}@1"}): "KILLED",
        running_row(address, clone=own["clone"]): "RUNNING",
        running_row(address): "RUNNING",
    }
    made.run(sys.executable, "stages/evaluate.py", MLFLOW_TRACKING_URI=address)
    found = {run.info.run_id: run.info.status for run in rows(address)}
    assert {run_id: found[run_id] for run_id in expected} == expected


LOG_THE_SAME = """
import os, sys, time
sys.path.insert(0, "stages")
from bridge.record.files import Data
from bridge.record.rows import training
from bridge.record.store import Store
from bridge.run.stage import Stage
from vanilla_lstm.task.artifacts import MODEL, TRAIN_DATA
model = MODEL.with_name(sys.argv[1])
model.write_text(sys.argv[1])
time.sleep(max(0, float(sys.argv[2]) - time.time()))
store, stage = Store("vanilla-lstm"), Stage([])
with training(store, stage, model, Data(TRAIN_DATA), params={}):
    pass
"""


def test_two_checkouts_on_one_database(reproduced: Clone, tmp_path: Path) -> None:
    """Two clones that log the same new data at the same time both get their rows."""
    address = f"sqlite:///{tmp_path}/rows.db"
    clones = [reproduced.copy(tmp_path / name) for name in ("one", "two")]
    clones[0].run(sys.executable, "stages/evaluate.py", MLFLOW_TRACKING_URI=address)
    moment = str(time.time() + 8)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", LOG_THE_SAME, f"{clone.path.name}{i}", moment],
            cwd=clone.path,
            env=environment(MLFLOW_TRACKING_URI=address),
            stderr=subprocess.PIPE,
            text=True,
        )
        for clone in clones
        for i in range(3)
    ]
    for process in started:
        output = process.communicate()[1]
        assert process.returncode == 0, output
        assert all(line.startswith("waiting for ") for line in output.splitlines()), output
    assert [run.info.status for run in rows(address)] == ["FINISHED"] * 7


# Places


def store_of(folder: Path, git_dir: str = "") -> Path:
    """Return where a stage in `folder` finds its store, with this GIT_DIR."""
    code = "import sys; sys.path.insert(0, 'stages')\n"
    code += "from dvc_mlflow.repository import main_repository\n"
    code += "from bridge.record.store import address; print(address(main_repository()))"
    set_git_dir = [f"GIT_DIR={git_dir}"] if git_dir else []
    done = Clone(folder).run("env", *set_git_dir, sys.executable, "-c", code)
    return Path(done.stdout.strip().removeprefix("sqlite:///"))


def test_where_the_store_is(tmp_path: Path) -> None:
    """The store is in the main repository's project, however git keeps it, whatever GIT_DIR is."""
    clone = make_clone(tmp_path / "clone")
    assert store_of(clone.path) == clone.path / "mlflow.db"
    assert store_of(clone.path, f"{tmp_path}/none") == clone.path / "mlflow.db"
    clone.git("worktree", "add", "-q", str(tmp_path / "tree"))
    assert store_of(tmp_path / "tree") == clone.path / "mlflow.db"

    bare = tmp_path / "bare.git"
    clone.git("clone", "-q", "--bare", str(clone.path), str(bare))
    clone.git("-C", str(bare), "worktree", "add", "-q", str(tmp_path / "of-bare"))
    assert store_of(tmp_path / "of-bare") == tmp_path / "of-bare" / "mlflow.db"

    apart = tmp_path / "apart"
    git_dir = f"--separate-git-dir={tmp_path}/git-dir"
    clone.git("clone", "-q", git_dir, str(clone.path), str(apart))
    assert store_of(apart) == apart / "mlflow.db"

    outer = Clone(tmp_path / "outer")
    outer.path.mkdir()
    outer.git("init", "-q")
    outer.git(
        *("-c", "protocol.file.allow=always", "submodule", "add", "-q"), str(clone.path), "module"
    )
    assert store_of(outer.path / "module") == outer.path / "module" / "mlflow.db"
    copy = clone.copy(outer.path / "folder")
    clone.run("rm", "-rf", str(copy.path / ".git"))
    assert store_of(copy.path) == copy.path / "mlflow.db"
    outer.commit()
    outer.git("worktree", "add", "-q", str(tmp_path / "outer-tree"))
    assert store_of(tmp_path / "outer-tree" / "folder") == copy.path / "mlflow.db"


@pytest.mark.parametrize("name", ["what?", "100%20", "a#b"])
def test_path_that_mlflow_would_misread(reproduced: Clone, tmp_path: Path, name: str) -> None:
    """A path that MLflow would misread in an address is refused, and nothing is created."""
    clone = reproduced.copy(tmp_path / name)
    done = clone.run(sys.executable, "stages/evaluate.py", check=False)
    assert done.returncode == 1
    assert re.search(r"must not contain \?, # or %; move it", done.stderr)
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.rglob("mlflow.db"))


# Damage


def test_damaged_artifacts(reproduced: Clone, tmp_path: Path) -> None:
    """An empty params.yaml does not keep a result out; an empty model is stored again."""
    clone = reproduced.copy(tmp_path / "clone")
    clone.dvc("repro", "-f", "-s", "train")
    address = f"sqlite:///{clone.path}/mlflow.db"
    (run,) = rows(address)
    params = Path(run.info.artifact_uri.removeprefix("file://")) / "params.yaml"
    params.write_bytes(b"")
    clone.dvc("repro", "-f", "-s", "evaluate")
    (run,) = rows(address)
    assert run.data.metrics["test/n_samples"] == 20
    assert "batch_size: 20" in params.read_text()

    model = MlflowClient(address).get_logged_model(run.outputs.model_outputs[0].model_id)
    stored = Path(model.artifact_location.removeprefix("file://")) / "data" / "model.keras"
    whole = stored.read_bytes()
    stored.write_bytes(b"")
    clone.dvc("repro", "-f", "-s", "train")
    assert stored.read_bytes() == whole
    (run,) = rows(address)
    assert run.data.tags["reproduced"] == "1"
    assert len(run.outputs.model_outputs) == 1
    (Path(run.info.artifact_uri.removeprefix("file://")) / "params.yaml").unlink()
    clone.set({"test_data.n_samples": 30})
    clone.dvc("repro")
    assert rows(address)[0].data.metrics["test/n_samples"] == 30
