"""`dvc-mlflow run` leaves its command as it is: streams, status, signals and imports."""

import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from support.clone import environment
from support.live_runs import last, one, recorded, wait
from support.pipelines import Repository, evaluate, repository, train

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.versions,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


def run(*words: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run `dvc-mlflow run` outside of `dvc`."""
    return subprocess.run(
        ["dvc-mlflow", "run", *words],
        env=environment(),
        capture_output=True,
        check=False,
        **options,
    )


def test_outside_of_dvc() -> None:
    """Outside of `dvc` the command runs, and one line says that nothing is recorded."""
    done = run("sh", "-c", "cat; echo error >&2; exit 7", input=b"in\0\xff")
    assert (done.stdout, done.returncode) == (b"in\0\xff", 7)
    assert done.stderr == b"dvc-mlflow: not started by dvc, so nothing is recorded\nerror\n"
    assert run("-c", "echo $0; kill -9 $$").returncode == -signal.SIGKILL
    missing = run("no-such-command")
    assert (missing.returncode, missing.stderr.splitlines()[-1]) == (
        127,
        b"dvc-mlflow: no-such-command: No such file or directory",
    )
    assert b"usage: dvc-mlflow run" in run("--help").stdout
    nothing = run()
    assert nothing.returncode == 2
    assert nothing.stderr.endswith(b"run: the command of the stage is missing\n")


FREE = """
import sqlite3, time
time.sleep(3)  # until the recorder has failed to open the row
sqlite3.connect("mlflow.db").execute("DROP TRIGGER full")
open("m.json", "w").write('{"m": 1}')
"""


def test_store_that_recovers(tmp_path: Path) -> None:
    """If a row can be written only when the stage has ended, nothing is said of a failure."""
    stages = one("python free.py", metrics=[{"m.json": {"cache": False}}])
    project = repository(tmp_path / "project", stages, files={"free.py": FREE})
    with closing(sqlite3.connect(project.path / "mlflow.db")) as database:
        database.execute(
            "CREATE TRIGGER full BEFORE INSERT ON runs BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
    said = project.dvc("repro").stderr
    assert "not recorded" not in said
    assert [row.data.metrics for row in project.rows()] == [{"one/m": 1}]


@pytest.fixture(scope="session")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository whose stage runs the shell text in the file `text`."""
    stages = one("sh text", deps=["text"])
    return repository(tmp_path_factory.mktemp("mirror") / "project", stages, files={"text": ""})


def test_streams_and_status(mirror: Repository) -> None:
    """Streams, arguments and exit status are the command's own; a failure is a FAILED row."""
    mirror.write({"text": "echo out; printf 'no line' >&2; echo ' end' >&2; exit 3\n"})
    done = mirror.dvc("repro", check=False)
    assert "out\n" in done.stdout
    assert "no line end\n" in done.stderr
    assert "failed to run: exec dvc-mlflow run sh text, exited with 3" in done.stderr
    row = last(mirror)
    assert row.info.status == "FAILED"
    said = "**FAILED**: exit status 3: `no line end`\n\n"
    assert row.data.tags["mlflow.note.content"].startswith(said)
    assert not any(key.startswith("dvc-mlflow.lock.") for key in row.data.tags)


def test_left_behind(mirror: Repository) -> None:
    """A process that the command leaves behind can write to stderr for as long as it likes."""
    mirror.write({"text": "(sleep 2; echo late >&2; echo done > late) & echo early >&2\n"})
    began = time.monotonic()
    mirror.run("sh", "-c", "dvc repro 2>errors >/dev/null </dev/null")
    assert wait((mirror.path / "late").exists)
    assert "early" in (mirror.path / "errors").read_text()
    assert wait(lambda: "late" in (mirror.path / "errors").read_text())
    assert time.monotonic() - began < 20


def test_no_signal_is_changed(mirror: Repository) -> None:
    """The command has the signals as `dvc` has them: none blocked, none ignored."""
    mirror.write({"text": "grep ^Sig /proc/self/status > signals\n"})
    mirror.dvc("repro", "-q")
    with_prefix = (mirror.path / "signals").read_text()
    masks = dict(re.findall(r"(\w+):\t(\w+)", with_prefix))
    assert int(masks["SigBlk"], 16) == 0
    assert int(masks["SigIgn"], 16) & (1 << signal.SIGPIPE - 1) == 0


def test_store_is_away(tmp_path: Path) -> None:
    """Without its store a stage succeeds; one line says why, and how to record it later."""
    project = repository(
        tmp_path / "project", recorded({"train": train("raw.txt"), "a": evaluate("a")})
    )
    away = "http://name:secret@127.0.0.1:9"
    done = project.dvc("repro", MLFLOW_TRACKING_URI=away)
    lines = re.findall("dvc-mlflow: .*", done.stderr)
    assert len(lines) == 2
    for line in lines:
        assert "the stage is not recorded: MLflow at http://***@127.0.0.1:9: Failed to" in line
        assert line.endswith("`dvc-mlflow record` records it later")
    assert "secret" not in done.stdout + done.stderr
    assert project.record().status == 0
    assert len(project.rows()) == 1


@pytest.mark.rest
def test_store_hangs(tmp_path: Path) -> None:
    """A store that does not answer costs its time-out once per `dvc` process, not per stage."""
    import socket

    stages = recorded({"train": train("raw.txt"), "a": evaluate("a"), "b": evaluate("b")})
    project = repository(tmp_path / "project", stages)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = project.dvc("repro", MLFLOW_TRACKING_URI=address)
        silent.settimeout(0.1)
        silent.accept()
        with pytest.raises(TimeoutError):  # the other stages have not asked again
            silent.accept()
    assert done.stderr.count(f"MLflow at {address}: Read timed out; start it") == 3
    assert len(project.lock) > 100


def test_modules_of_the_user(tmp_path: Path) -> None:
    """The tool does not import a yaml.py or a folder mlflow/ in the repository."""
    bad = "raise SystemExit('imported')\n"
    files = {"yaml.py": bad, "json/__init__.py": bad, "mlflow/__init__.py": bad, "dvc.py": bad}
    project = repository(tmp_path / "project", recorded({"train": train("raw.txt")}), files=files)
    done = project.dvc("repro", "-q")
    assert "imported" not in done.stdout + done.stderr
    (row,) = project.rows()
    assert row.info.status == "FINISHED"


def test_run_imports_nothing_slow() -> None:
    """`run` and the shell start the command before anything slow is imported."""
    code = (
        "import sys; from dvc_mlflow.live import shell; from dvc_mlflow.commands import run; "
        "slow = {'dvc', 'mlflow', 'psutil', 'argparse', 'yaml'}; print(*slow & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
