"""Faults injected into real stages: kills, damaged files, edits mid-run, and crowds."""

import io
import json
import os
import pickle
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import zipfile
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from bridge.run.errors import FileError
from bridge.run.files import md5
from clone import ROOT, Clone, environment
from kills import Ledger, draw
from sections import data_params, model_params
from vanilla_lstm.task.artifacts import MODEL

pytestmark = pytest.mark.pipeline

DATA = data_params(n_steps=4)


def files(folder: Path) -> dict[str, str]:
    """Return the md5 of every file in a clone outside .git, .dvc and __pycache__."""
    return {
        str(path.relative_to(folder)): md5(path)
        for path in folder.rglob("*")
        if path.is_file() and not {".git", ".dvc", "__pycache__"} & {*path.parts}
    }


def rows(clone: Clone) -> list[str]:
    """Return the status of every row in a clone's MLflow store, ordered by start time."""
    path = clone.path / "mlflow.db"
    if not path.exists():
        return []
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)) as store:
        return [row[0] for row in store.execute("SELECT status FROM runs ORDER BY start_time")]


class Started:
    """A command running in a clone, in its own process group."""

    def __init__(self, clone: Clone, *command: str, **more: str) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=clone.path,
            env=environment(PYTHONUNBUFFERED="1", **more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.output = ""

    def until(self, text: str) -> None:
        """Read the command's output up to the first line that contains `text`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            if text in line:
                return
        raise AssertionError(self.output)

    def end(self) -> int:
        """Read the rest of the output and return the exit status."""
        assert self.process.stdout is not None
        with self.process:
            self.output += self.process.stdout.read()
        return self.process.returncode


def wait_for_row(clone: Clone, training: Started) -> None:
    """Wait until the store shows that a training is running."""
    while "RUNNING" not in rows(clone):
        if training.process.poll() is not None:
            training.end()
            raise AssertionError(training.output)
        time.sleep(0.1)


# Killed


@pytest.mark.parametrize("aimed", [False, True])
def test_kills(clone: Clone, slow: bool, aimed: bool) -> None:
    """Whatever is killed at whatever moment, the next `make repro` ends like an undisturbed one.

    No half-written file is taken for a whole one, no result is in MLflow twice, and no row stays
    RUNNING. The kills are drawn from a seed, or aimed at DVC's own writes: tests/kills.py.
    """
    ledger = Ledger(clone, aimed)
    for kill in draw(100, seed=0) if slow else draw(3, seed=6):
        ledger.survive(kill)
    ledger.check_store()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_training(reproduced: Clone, tmp_path: Path, number: signal.Signals) -> None:
    """SIGTERM or Ctrl-C, even twice, ends a training at once: row KILLED, no file touched."""
    clone = reproduced.copy(tmp_path / "clone")
    clone.set({"train.epochs": 100_000})
    before = files(clone.path)
    train = Started(clone, "python", "stages/train.py")
    wait_for_row(clone, train)
    train.process.send_signal(number)
    time.sleep(0.1)
    train.process.send_signal(number)
    assert train.end() == 128 + number, train.output
    assert "Traceback" not in train.output
    assert rows(clone) == ["KILLED"]
    after = files(clone.path)
    assert {path: after[path] for path in before} == before


SIGNAL = """
import os, signal
from bridge.run.stage import run

def main(stage):
    {block}
        os.kill(os.getpid(), signal.{name})
        print("written", flush=True)
    stage.write(stage_file, b"")

import pathlib
stage_file = pathlib.Path("data/file")
run(main)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_signal_while_a_row_is_open(tmp_path: Path, name: str) -> None:
    """While a row is open, a signal lets the block finish; then the stage ends, writing nothing."""
    script = SIGNAL.format(block="with stage.stoppable():", name=name)
    done = Clone(tmp_path).run("python", "-c", script, check=False, PYTHONPATH=f"{ROOT}/stages")
    expected = (128 + signal.Signals[name], "written\n", "")
    assert (done.returncode, done.stdout, done.stderr) == expected
    assert not any((tmp_path / "data").iterdir())


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_signal_while_no_row_is_open(tmp_path: Path, name: str) -> None:
    """Otherwise a signal ends the process at once; it says only which results DVC deleted."""
    script = SIGNAL.format(block="if True:", name=name)
    python = ["python", "-c", script]
    cure = "`dvc checkout && git checkout data` brings them back"
    for more, said in [
        ({}, ""),
        ({"DVC_STAGE": "train"}, f"the earlier results are no longer in data/; {cure}\n"),
    ]:
        done = Clone(tmp_path).run(*python, check=False, PYTHONPATH=f"{ROOT}/stages", **more)
        assert (done.returncode, done.stdout) == (-signal.Signals[name], "")
        assert done.stderr == said
    assert not any((tmp_path / "data").iterdir())


def test_kill_while_the_store_is_made(reproduced: Clone, tmp_path: Path) -> None:
    """MLflow's database is created whole or not at all, as MLflow cannot use a half-made one."""
    clone = reproduced.copy(tmp_path / "clone")
    partial = clone.path / ".mlflow.db.partial"
    for tables in (1, 20, 40):
        train = Started(clone, "python", "stages/train.py")
        while not (partial.exists() and _n_tables(partial) >= tables):
            assert train.process.poll() is None, train.output
        train.process.kill()
        train.end()
        assert partial.exists()
        assert not (clone.path / "mlflow.db").exists()
    clone.run("python", "stages/train.py")
    assert rows(clone) == ["FINISHED"]
    assert not partial.exists()
    assert not clone.git("status", "--porcelain", "--untracked-files=all")


def _n_tables(database: Path) -> int:
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as store:
            return int(store.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    except sqlite3.OperationalError:  # locked, or just replaced by a new one
        return 0


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_orphan_of_a_killed_dvc(reproduced: Clone, tmp_path: Path, shell: str) -> None:
    """A stage whose `dvc` is killed writes nothing more, and its row does not stay RUNNING.

    DVC runs a stage in a shell, which may stay between the two or be replaced by the stage.
    """
    clone = reproduced.copy(tmp_path / "clone")
    clone.set({"train.epochs": 100_000})
    repro = Started(clone, "dvc", "repro", "-f", "-s", "train", SHELL=shell)
    wait_for_row(clone, repro)
    repro.process.kill()
    repro.end()
    assert "the dvc that started this stage is gone" in repro.output
    assert not (clone.path / MODEL).exists()
    assert rows(clone) == ["FAILED"]
    clone.git("checkout", "params.yaml")
    clone.dvc("repro")
    assert clone.lock == reproduced.lock
    assert md5(clone.path / MODEL) == md5(reproduced.path / MODEL)


def test_orphan_from_its_first_moment(reproduced: Clone, tmp_path: Path) -> None:
    """A stage whose `dvc` was killed while Python was starting is an orphan too."""
    clone = reproduced.copy(tmp_path / "clone")
    before = files(clone.path)
    orphan = Started(
        clone, "sh", "-c", "(sleep 1; exec python stages/generate_data.py train) &", DVC_STAGE="x"
    )
    orphan.end()
    assert orphan.output.startswith(
        "the dvc that started this stage is gone; run `dvc repro` again"
    )
    assert files(clone.path) == before


def test_stages_of_one_folder_take_turns(reproduced: Clone, tmp_path: Path) -> None:
    """While one stage works in data/, the next one waits and says so."""
    clone = reproduced.copy(tmp_path / "clone")
    holder = "import fcntl, os, time; fcntl.flock(os.open('data', 0), 2); print(0); time.sleep(3)"
    first = Started(clone, "python", "-c", holder)
    first.until("0")
    second = Started(clone, "python", "stages/generate_data.py", "train")
    second.until("waiting for data: an earlier stage is still at work")
    assert first.process.poll() is None
    assert second.end() == first.end() == 0


def heal(clone: Clone) -> str:
    """Run what `make heal` runs, and return what it says."""
    return clone.run(sys.executable, "tools/heal.py").stdout


def test_files_that_dvc_writes_in_place(reproduced: Clone, tmp_path: Path) -> None:
    """Files that a killed `dvc` truncated are repaired: nothing retrains, no edit is touched."""
    clone = reproduced.copy(tmp_path / "clone")
    clone.dvc("repro")
    (clone.path / "README.md").write_text("an edit")
    kept = files(clone.path)
    tmp = clone.path / ".dvc" / "tmp"
    (tmp / "exps").mkdir(exist_ok=True)
    for length in (0, 100, 3000):
        (clone.path / "dvc.lock").write_text(reproduced.lock[:length])
        for table in (tmp / "rwlock", tmp / "exps" / "rwlock"):
            table.write_text("{"[: length % 99])
        (clone.path / ".git" / "index.lock").write_text("cut off")
        heal(clone)
        assert not (clone.path / ".git" / "index.lock").exists()
        assert "train" not in clone.repro()
        assert clone.lock == reproduced.lock
        (clone.path / "dvc.lock.damaged").unlink(missing_ok=True)
        assert files(clone.path) == kept
    assert heal(clone) == ""


def test_healing_beside_a_live_git(reproduced: Clone, tmp_path: Path) -> None:
    """An index.lock that a running git may have made is left alone."""
    clone = reproduced.copy(tmp_path / "clone")
    (clone.path / ".git" / "index.lock").write_text("in use")
    git = Started(clone, "git", "-c", "alias.wait=!sleep 60", "wait")
    try:
        assert heal(clone) == ""
        assert (clone.path / ".git" / "index.lock").exists()
    finally:
        os.killpg(git.process.pid, signal.SIGKILL)
        git.end()


@pytest.mark.parametrize("content", [b"", b"damaged"], ids=["empty", "bytes"])
def test_damaged_cache(reproduced: Clone, tmp_path: Path, content: bytes) -> None:
    """DVC restores a damaged object from its cache again and again, until `make heal` runs."""
    clone = reproduced.copy(tmp_path / "clone")
    good = md5(clone.path / MODEL)
    cached = clone.path / ".dvc" / "cache" / "files" / "md5" / good[:2] / good[2:]
    cached.chmod(0o644)
    cached.write_bytes(content)
    (clone.path / MODEL).unlink()
    clone.dvc("checkout", "-f", str(MODEL))
    assert (clone.path / MODEL).read_bytes() == content
    assert f"{cached}: is damaged" in heal(clone)
    assert clone.repro() == ["train"]
    assert md5(clone.path / MODEL) == md5(cached) == good
    assert clone.lock == reproduced.lock


def test_rows_are_settled_where_no_stage_runs(reproduced: Clone, tmp_path: Path) -> None:
    """After a kill, DVC may take the result from its cache; then `make repro` ends the row.

    It also says that MLflow lacks the result.
    """
    clone = reproduced.copy(tmp_path / "clone")
    clone.set({"train.epochs": 100_000})
    train = Started(clone, "python", "stages/train.py")
    wait_for_row(clone, train)
    train.process.kill()
    train.end()
    clone.git("checkout", "params.yaml")
    assert clone.repro() == []
    assert rows(clone) == ["RUNNING"]
    done = clone.run(sys.executable, "tools/results.py")
    assert rows(clone) == ["KILLED"]
    cure = "`dvc repro -f -s train evaluate` adds it"
    assert done.stderr == f"MLflow does not have the result in data/; {cure}\n"
    clone.dvc("repro", "-f", "-s", "train", "evaluate")
    assert clone.run(sys.executable, "tools/results.py").stderr == ""


# No reader, and no space


@pytest.mark.parametrize("end", [">/dev/full", "2>/dev/full >/dev/full", "2>&1 | true", ">&-"])
def test_nobody_reads_what_a_stage_says(reproduced: Clone, tmp_path: Path, end: str) -> None:
    """A training continues, without complaint, when nobody can read what it prints."""
    clone = reproduced.copy(tmp_path / "clone")
    (clone.path / MODEL).unlink()
    script = f"(sleep 1; exec python stages/train.py) {end}; exit ${{PIPESTATUS[0]}}"
    done = clone.run("bash", "-c", script, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert rows(clone) == ["FINISHED"]
    assert md5(clone.path / MODEL) == md5(reproduced.path / MODEL)


def test_full_temporary_folder(reproduced: Clone, tmp_path: Path) -> None:
    """A full TMPDIR costs a training at most its record, and the stage says so."""
    clone = reproduced.copy(tmp_path / "clone")
    clone.run("python", "stages/train.py")  # makes the store
    (clone.path / MODEL).unlink()
    clone.set({"train.epochs": 4})
    disk = tmp_path / "disk"
    disk.mkdir()
    command = f"mount -t tmpfs -o size=32k none {disk} && exec python stages/train.py"
    mount = ["unshare", "--mount", "sh", "-c", command]
    done = clone.run(*mount, check=False, TMPDIR=str(disk))
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip("needs the right to mount")
    assert done.returncode == 0, done.stderr
    assert "the training is kept but not recorded" in done.stderr
    assert rows(clone) == ["FINISHED", "FAILED"]
    assert (clone.path / MODEL).exists()
    assert not list(clone.path.glob("data/.*.partial*"))


def test_link_in_the_way(reproduced: Clone, tmp_path: Path) -> None:
    """A link in place of a stage's partial file is not followed."""
    clone = reproduced.copy(tmp_path / "clone")
    (tmp_path / "mine").write_text("mine")
    (clone.path / "data" / ".train.npz.partial").symlink_to(tmp_path / "mine")
    clone.run("python", "stages/generate_data.py", "train")
    assert (tmp_path / "mine").read_text() == "mine"
    assert md5(clone.path / "data" / "train.npz") == md5(reproduced.path / "data" / "train.npz")


# Edited during a run


def test_edits_in_mid_run(reproduced: Clone, tmp_path: Path) -> None:
    """If params, code or data are edited while a stage runs, it fails and dvc.lock stays as it was.

    DVC alone would record the edited files next to a model that they did not make.
    """
    clone = reproduced.copy(tmp_path / "clone")
    for path, old, new in [
        ("params.yaml", b"units: 4", b"units: 5"),
        ("stages/vanilla_lstm/learning/training.py", b"PATIENCE = 2", b"PATIENCE = 3"),
        ("data/train.npz", b"x.npy", b"z.npy"),
    ]:
        file = clone.path / path
        clone.set({"train.epochs": 1000})
        repro = Started(clone, "dvc", "repro", "-f", "-s", "train")
        wait_for_row(clone, repro)
        content = file.read_bytes()
        file.write_bytes(content.replace(old, new))
        assert file.read_bytes() != content
        assert repro.end() != 0
        assert f"{path}: changed while the stage ran" in repro.output
        assert "Traceback" not in repro.output
        assert clone.lock == reproduced.lock
        assert not (clone.path / MODEL).exists()
        assert set(rows(clone)) == {"FAILED"}
        clone.git("checkout", ".")
        clone.dvc("checkout", "-f", "data/train.npz")
    clone.dvc("repro")
    assert clone.lock == reproduced.lock
    assert md5(clone.path / MODEL) == md5(reproduced.path / MODEL)


# Damaged


@pytest.mark.parametrize(
    ("path", "stage"),
    [("data/train.npz", "train.py"), ("data/test.npz", "evaluate.py")],
)
def test_stage_refuses_damaged_data(
    reproduced: Clone, tmp_path: Path, path: str, stage: str
) -> None:
    """On damaged data a stage prints one line, exits with status 1 and touches nothing."""
    clone = reproduced.copy(tmp_path / "clone")
    (clone.path / path).write_bytes(b"damaged")
    before = files(clone.path)
    done = clone.run("python", f"stages/{stage}", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{path}: cannot be read (File is not a zip file); `make heal`")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert files(clone.path) == before
    clone.run(sys.executable, "tools/heal.py")  # the cure that it names
    clone.dvc("repro")
    assert md5(clone.path / path) == md5(reproduced.path / path)


@pytest.mark.parametrize("content", [b"damaged" * 1000, None], ids=["bytes", "folder"])
def test_stage_refuses_damaged_store(
    reproduced: Clone, tmp_path: Path, content: bytes | None
) -> None:
    """On an mlflow.db that is not a database, `train` does the same before it trains."""
    clone = reproduced.copy(tmp_path / "clone")
    store = clone.path / "mlflow.db"
    if content is None:
        store.mkdir()
    else:
        store.write_bytes(content)
    before = files(clone.path)
    done = clone.run("python", "stages/train.py", check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"MLflow at sqlite:///{store}: ")
    cure = "restore a backup, or move it away to start a new store"
    assert line.endswith(f"; {cure}" if content else "; make it writable for you")
    assert files(clone.path) == before


def test_stage_refuses_damaged_model(reproduced: Clone, tmp_path: Path) -> None:
    """On a damaged model `evaluate` does the same and records no row."""
    clone = reproduced.copy(tmp_path / "clone")
    (clone.path / MODEL).write_bytes((clone.path / MODEL).read_bytes()[:-100])
    before = files(clone.path)
    done = clone.run("python", "stages/evaluate.py", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{MODEL}: cannot be read (File is not a zip file); `make heal`")
    assert done.stderr.count("\n") == 1
    after = files(clone.path)
    assert {path: after[path] for path in before} == before
    assert rows(clone) == []


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> zipfile.ZipFile:
    """An intact model file in an otherwise empty working directory."""
    monkeypatch.chdir(tmp_path)
    return zipfile.ZipFile(io.BytesIO(saved()))


def saved(**task: Any) -> bytes:
    """Return the content of a model file with a new model for a task."""
    from making import write_model
    from vanilla_lstm.learning.model import build_model

    write_model(MODEL, build_model(data_params(**task), model_params(units=2), seed=1))
    return MODEL.read_bytes()


def rewritten(model: zipfile.ZipFile, **members: bytes | None) -> bytes:
    """Return a model file with some members replaced (None: removed); `__` stands for a dot."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in model.namelist():
            content = members.get(name.replace(".", "__"), model.read(name))
            if content is not None:
                archive.writestr(name, content)
    return buffer.getvalue()


def with_layer(model: zipfile.ZipFile, layer: dict[str, Any]) -> bytes:
    """Return a model file in which another object replaces one layer."""
    config = json.loads(model.read("config.json"))
    config["config"]["layers"][1] = layer
    return rewritten(model, config__json=json.dumps(config).encode())


def with_lambda() -> bytes:
    """Return a model file that contains executable code."""
    from vanilla_lstm.learning.backend import keras

    def run_code(x: Any) -> Any:
        Path("code-was-run").touch()
        return x

    layer = keras.layers.Lambda(lambda x: run_code(x), output_shape=(3,))  # noqa: PLW0108
    keras.Sequential([keras.Input((3,)), layer]).save(MODEL)
    Path("code-was-run").unlink(missing_ok=True)
    return MODEL.read_bytes()


def test_damaged_models(model: zipfile.ZipFile) -> None:
    """Anything but a model is refused in one line with file and cure; none of its code runs."""
    from vanilla_lstm.learning.model_file import read_model

    good, weights = MODEL.read_bytes(), model.read("model.weights.h5")
    system = {"module": "os", "class_name": "system", "registered_name": None}
    run = {"module": "builtins", "class_name": "exec", "registered_name": "exec"}
    for content in [
        b"",
        good[:-20],
        good[: len(good) // 2],
        good[100:],
        good.replace(weights.rstrip(b"\0")[-8:], bytes(8)),
        os.urandom(len(good)),
        b"actual,predicted\n",
        weights,
        pickle.dumps([1]),
        rewritten(model, config__json=None),
        rewritten(model, config__json=b"{"),
        rewritten(model, config__json=b"[]"),
        rewritten(model, config__json=b"[" * 100_000),
        rewritten(model, model__weights__h5=None),
        rewritten(model, model__weights__h5=b"damaged"),
        with_layer(model, {**system, "config": "touch code-was-run"}),
        with_layer(model, {**run, "config": {"source": "open('code-was-run', 'w')"}}),
        with_layer(model, {"class_name": "Unknown", "config": {}}),
        with_lambda(),
    ]:
        MODEL.write_bytes(content)
        with pytest.raises(FileError) as caught:
            read_model(MODEL)
        line = str(caught.value)
        assert line.startswith(f"{MODEL}: cannot be read (")
        assert line.endswith("); `make heal` and then `dvc repro` make it again")
        assert "\n" not in line
        assert not Path("code-was-run").exists()
    MODEL.unlink()
    with pytest.raises(FileError, match="No such file or directory"):
        read_model(MODEL)
    MODEL.mkdir()
    with pytest.raises(FileError, match="Is a directory"):
        read_model(MODEL)


def test_model_of_other_data(model: zipfile.ZipFile) -> None:
    """A model that does not fit the test data is refused; one with a larger alphabet fits."""
    from vanilla_lstm.learning.backend import keras
    from vanilla_lstm.learning.model_file import check_fit, read_model

    check_fit(MODEL, read_model(MODEL), DATA)
    tasks: list[dict[str, Any]] = [{"n_max": 4}, {"per_step": True}]
    for task in tasks:
        saved(**task)
        with pytest.raises(FileError, match="does not fit the test data: 5 symbols, 5 classes"):
            check_fit(MODEL, read_model(MODEL), DATA)
    with pytest.raises(FileError, match="does not fit"):
        check_fit(MODEL, keras.Sequential([keras.Input((3,)), keras.layers.Dense(5)]), DATA)
    saved(insert=3)
    check_fit(MODEL, read_model(MODEL), DATA)


# Crowds


def test_experiments_at_once(reproduced: Clone, tmp_path: Path, slow: bool) -> None:
    """Experiments that start at the same moment, with no store yet, lose no row and no metric.

    They wait for DVC's own lock; otherwise one or two of eight would give up.
    """
    clone = reproduced.copy(tmp_path / "clone")
    n = 8 if slow else 3
    command = ["dvc", "--wait-for-lock", "exp", "run", "--temp", "-S"]
    experiments = [Started(clone, *command, f"train.seed={seed}") for seed in range(n)]
    for experiment in experiments:
        assert experiment.end() == 0, experiment.output
    assert rows(clone) == ["FINISHED"] * n
    counts = """
        SELECT key, count(*) FROM metrics WHERE key IN ('train/loss', 'val/accuracy', 'test/loss')
        GROUP BY key
    """
    with closing(sqlite3.connect(clone.path / "mlflow.db")) as store:
        epochs = 3 * n
        assert dict(store.execute(counts).fetchall()) == {
            "test/loss": n,
            "train/loss": epochs,
            "val/accuracy": epochs,
        }


def test_look_up_among_many_rows(reproduced: Clone, tmp_path: Path) -> None:
    """A model's row is found among 500; the benchmark says how long that takes."""
    clone = reproduced.copy(tmp_path / "clone")
    shutil.copy(reproduced.path / "mlflow.db", clone.path)
    clone.add_rows(500)
    assert len(rows(clone)) == 501
    done = clone.run("python", ROOT / "tests/benchmarks/look_up.py", md5(clone.path / MODEL))
    assert done.stdout.splitlines()[0] == "found 1"


# Doors


def test_ui_listens_on_this_machine_only(reproduced: Clone, tmp_path: Path) -> None:
    """`make ui` cannot be reached from another machine."""
    clone = reproduced.copy(tmp_path / "clone")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    ui = Started(clone, "make", "-o", ".venv/run", "ui", f"PORT={port}")
    try:
        listening: set[str] = set()
        for _ in range(1200):
            for process in psutil.Process(ui.process.pid).children(recursive=True):
                with suppress(psutil.Error):
                    connections = process.net_connections("tcp")
                    listening |= {c.laddr.ip for c in connections if c.status == "LISTEN"}
            if listening:
                break
            time.sleep(0.1)
        assert listening == {"127.0.0.1"}
    finally:
        os.killpg(ui.process.pid, signal.SIGTERM)
        ui.end()


def test_ui_of_a_port_in_use(reproduced: Clone, tmp_path: Path) -> None:
    """A port in use gives a one-line error, which names another port."""
    clone = reproduced.copy(tmp_path / "clone")
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        done = clone.run("make", "-o", ".venv/run", "ui", f"PORT={port}", check=False)
    assert f"port {port} is in use: `make ui PORT={port + 1}` uses another\n" in done.stderr
    assert "Traceback" not in done.stderr


def test_ui_serves_the_store_of_the_stages(reproduced: Clone, tmp_path: Path) -> None:
    """From a worktree and with MLFLOW_TRACKING_URI `make ui` shows the rows, not an empty store."""
    clone = reproduced.copy(tmp_path / "clone")
    clone.git("worktree", "add", "-q", str(tmp_path / "tree"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    for folder, address in [(tmp_path / "tree", ""), (clone.path, f"sqlite:///{tmp_path}/my.db")]:
        more = {"MLFLOW_TRACKING_URI": address} if address else {}
        ui = Started(Clone(folder), "python", "tools/results.py", "ui", port, **more)
        try:
            ui.until(f"All results: http://127.0.0.1:{port}/#/experiments/1/runs?viewStateShareKey")
            mlflow = psutil.Process(ui.process.pid)
            while "mlflow" not in mlflow.cmdline():  # it replaces tools/results.py
                time.sleep(0.1)
            store = address or f"sqlite:///{clone.path}/mlflow.db"
            assert mlflow.environ()["MLFLOW_BACKEND_STORE_URI"] == store
        finally:
            os.killpg(ui.process.pid, signal.SIGKILL)
            ui.end()
