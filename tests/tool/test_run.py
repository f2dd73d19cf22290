"""`dvc-mlflow run` before a stage's command: the command as before, its row while it runs."""

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow.entities import Run

from clone import environment
from pipelines import TWO_EVALUATIONS, Repository, Stages, evaluate, prepare, repository, train

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # what MLflow warns of in the test's process
]


def recorded(stages: Stages, *names: str, start: str = "exec ") -> Stages:
    """Return stages with the prefix before the commands of some of them, by default of all."""
    return {
        name: {**stage, "cmd": f"{start}dvc-mlflow run -c {shlex.quote(stage['cmd'])}"}
        if name in (names or stages)
        else stage
        for name, stage in stages.items()
    }


def one(command: str, **more: Any) -> Stages:
    """Return a pipeline of one recorded stage with this command."""
    return {"one": {"cmd": f"exec dvc-mlflow run {command}", "params": ["rate"], **more}}


def wait(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """Wait until a condition holds, and return its value."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return found


def recorders(project: Repository) -> list[psutil.Process]:
    """Return the recorders that are at work for a repository."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if "dvc_mlflow.recorder" in process.cmdline() and f"{project.path}" in process.cwd():
                found.append(process)
    return found


def last(project: Repository) -> Run:
    """Return the newest row."""
    return project.rows()[-1]


@contextmanager
def reproducing(project: Repository, **more: str) -> Iterator[subprocess.Popen[str]]:
    """Run `dvc repro` in the block, in a process group of its own."""
    with subprocess.Popen(
        ["dvc", "repro"],
        cwd=project.path,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as dvc:
        yield dvc
        with suppress(ProcessLookupError):
            os.killpg(dvc.pid, signal.SIGKILL)


# The command itself


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
    assert row.data.tags["mlflow.note.content"] == "exit status 3: no line end"
    assert not any(key.startswith("lock.") for key in row.data.tags)


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


# Rows


@pytest.mark.parametrize("start", ["exec ", ""], ids=["exec", "shell"])
def test_rows_are_those_of_record(tmp_path: Path, start: str) -> None:
    """Live rows are those that `record` makes, plus the machine, the time and the counts."""
    stages = recorded(TWO_EVALUATIONS, "train", "a", "b", start=start)
    live = repository(tmp_path / "live", stages)
    for params in ({}, {"a": 2}, {"rate": 2}, {"rate": 1, "b": 3}):
        live.set(params)
        live.dvc("repro", "-q")
        live.commit("Results")
    assert "nothing to do" in live.record().out
    assert len(live.rows()) == 4
    later = live.copy(tmp_path / "later")
    for revision in reversed(later.git("log", "-4", "--format=%H").split()):
        later.record("--rev", revision)
    assert live.table() == later.table()
    assert {row.info.status for row in live.rows()} == {"FINISHED"}
    assert not any(recorders(live))
    assert not list((live.path / ".dvc/tmp/dvc-mlflow").iterdir())


def test_again(tmp_path: Path) -> None:
    """A result that is made again adds no row; the tag `reproduced` counts."""
    project = repository(tmp_path / "project", recorded(TWO_EVALUATIONS, "train", "a", "b"))
    project.dvc("repro", "-q")
    before = project.table()
    project.dvc("repro", "-q", "-f", "-s", "train")
    project.dvc("repro", "-q", "-f", "-s", "train")
    assert project.table() == before
    (row,) = project.rows()
    assert row.data.tags["reproduced"] == "2"
    project.client.delete_run(row.info.run_id)
    project.dvc("repro", "-q", "-f", "-s", "a")
    assert [r.info.run_id for r in project.rows()] == [row.info.run_id]


@pytest.fixture(scope="session")
def prefixed(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A recorded pipeline of two stages that has run and is committed: `copy` it."""
    stages = {"prepare": prepare(), **recorded({"train": train(), "a": evaluate("a")})}
    project = repository(tmp_path_factory.mktemp("prefixed") / "project", stages)
    project.dvc("repro", "-q")
    project.commit("Results")
    return project


def test_experiments(prefixed: Repository, tmp_path: Path) -> None:
    """`exp run`, `--temp` and a queue of two at a time record into the repository's own store."""
    project = prefixed.copy(tmp_path / "project")
    project.dvc("exp", "run", "-q", "-S", "rate=2", "-n", "here")
    project.dvc("exp", "run", "-q", "--temp", "-S", "rate=3", "-n", "copy")
    project.dvc("exp", "run", "-q", "--queue", "-S", "rate=4,5")
    project.run_queue()
    found = {row.data.params["rate"]: row for row in project.rows()}
    assert {*found} == {"2", "3", "4", "5"}
    for rate, row in found.items():
        assert row.info.status == "FINISHED"
        assert row.info.run_name == f"rate={rate}"
        assert row.data.metrics["a/score"] == 1
        assert row.data.tags["dvc.exp_name"]
    assert found["3"].data.tags["dvc.exp_name"] == "copy"
    assert len(project.rows()) == 4


def test_places(tmp_path: Path) -> None:
    """A project below git's root, `wdir`, foreach, dvc.yaml and `dvc` in subfolders, a worktree."""
    project = repository(tmp_path / "project", {}, files={"sub/raw.txt": "1\n", "w/keep": ""})
    inner = {
        **recorded({"train": train("raw.txt")}),
        "each": {
            "foreach": ["x", "y"],
            "do": {
                "wdir": "../w",
                "cmd": "dvc-mlflow run -c 'echo 1 > ${item}.txt'",
                "deps": ["../sub/raw.txt"],
                "outs": ["${item}.txt"],
            },
        },
    }
    project.write({"sub/dvc.yaml": json.dumps({"stages": inner}), "sub/params.yaml": "rate: 1\n"})
    project.commit("Stages in a folder")
    project.run("sh", "-c", "cd sub && dvc repro -q")
    table = project.table()
    found = [sorted(row["results"]) for row in table]
    assert sorted(found) == [["lock.sub/each"], ["lock.sub/each"], ["lock.sub/train"]]
    assert "nothing to do" in project.record().out
    project.commit("Results")
    project.git("worktree", "add", "-q", "../tree")
    tree = Repository(tmp_path / "tree")
    tree.write({"sub/params.yaml": "rate: 2\n"})
    tree.dvc("repro", "-q", "sub/dvc.yaml")
    assert len(project.rows()) == 4
    assert not (tree.path / "mlflow.db").exists()


def test_nested_dvc(tmp_path: Path) -> None:
    """A stage that runs `dvc` itself has a row, and so have the stages of that `dvc`."""
    stages = one("-c 'cd inner && dvc repro -q && cp out.txt ../outer.txt'", outs=["outer.txt"])
    inner = {"two": {"cmd": "dvc-mlflow run -c 'echo 1 > out.txt'", "outs": ["out.txt"]}}
    project = repository(tmp_path / "project", {}, files={"inner/keep": ""})
    project.run("sh", "-c", "cd inner && dvc init -q --subdir")
    project.write(
        {
            "dvc.yaml": json.dumps({"stages": stages}),
            "inner/dvc.yaml": json.dumps({"stages": inner}),
        }
    )
    project.dvc("repro", "-q")
    found = {row.data.tags.get("folder", ""): row for row in project.rows()}
    assert {*found} == {"", "inner"}
    assert {row.info.status for row in found.values()} == {"FINISHED"}


# Curves


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_live_curves(tmp_path: Path, kind: str) -> None:
    """A growing file shows in MLflow within two seconds, each line once and when it is whole."""
    line = {"csv": "{0},{1}\\n", "tsv": "{0}\\t{1}\\n", "jsonl": '{{"step": {0}, "loss": {1}}}\\n'}
    head = {"csv": "step,loss\\n", "tsv": "step\\tloss\\n", "jsonl": ""}
    script = f"""
import time, pathlib
with open("curve.{kind}", "w", buffering=1) as file:
    file.write({head[kind]!r}.encode().decode("unicode_escape"))
    for i in range(1, 100):
        text = {line[kind]!r}.encode().decode("unicode_escape").format(i, i / 8)
        file.write(text[:4]); file.flush(); time.sleep(0.01); file.write(text[4:]); file.flush()
        pathlib.Path("at").write_text(str(i))
        while i == 50 and not pathlib.Path("go").exists():
            time.sleep(0.05)
        time.sleep(0.02)
"""
    plot = {f"curve.{kind}": {"cache": False, "x": "step"}}
    project = repository(
        tmp_path / "project",
        one("python script.py", deps=["script.py"], plots=[plot]),
        files={"script.py": script},
    )
    at, newest = project.path / "at", 0.0
    with reproducing(project) as dvc:
        wait(lambda: at.exists() and at.read_text() == "50", 60)
        began = time.monotonic()
        while newest < 50 / 8 and time.monotonic() - began < 20:
            rows = project.rows()
            newest = rows[0].data.metrics.get("one/loss", 0.0) if rows else 0.0
            time.sleep(0.05)
        assert time.monotonic() - began < 2 + 5  # the first row waits for imports
        assert newest == 50 / 8
        assert project.rows()[0].info.status == "RUNNING"
        (project.path / "go").touch()
        assert dvc.wait(60) == 0
    (row,) = project.rows()
    history = project.client.get_metric_history(row.info.run_id, "one/loss")
    assert [(m.step, m.value) for m in history] == [(i, i / 8) for i in range(1, 100)]


def test_curve_that_is_written_anew(tmp_path: Path) -> None:
    """If what was sent is no part of the final file, the row is made anew."""
    script = (
        "printf 'step,loss\\n1,9\\n2,9\\n' > c.csv; sleep 6; printf 'step,loss\\n1,1\\n' > c.csv"
    )
    project = repository(
        tmp_path / "project",
        one("sh script", deps=["script"], plots=[{"c.csv": {"cache": False, "x": "step"}}]),
        files={"script": script},
    )
    project.dvc("repro", "-q")
    (row,) = project.rows()
    history = project.client.get_metric_history(row.info.run_id, "one/loss")
    assert [(m.step, m.value) for m in history] == [(1, 1)]
    assert project.record().out.startswith("nothing to do")


# Plain MLflow


SCRIPT = """
import mlflow
with mlflow.start_run():
    mlflow.log_param("mine", 1)
    mlflow.log_param("rate", "theirs")
    mlflow.log_metric("score", 0.5, step=3)
    mlflow.log_text("text", "note.txt")
with mlflow.start_run(run_name="second"):
    mlflow.log_metric("score", 0.7)
open("out.txt", "w").write("1")
"""


@pytest.mark.parametrize("first", [True, False], ids=["first", "adopted"])
def test_plain_mlflow(tmp_path: Path, first: bool) -> None:
    """A script's own MLflow calls land in the stage's row; its further runs are children."""
    meta = {"meta": {"mlflow": {"open": "first"}}} if first else {}
    stages = one("python script.py", deps=["script.py"], outs=["out.txt"], **meta)
    project = repository(tmp_path / "project", stages, files={"script.py": SCRIPT})
    project.dvc("repro", "-q")
    rows = project.rows()
    (row,) = [r for r in rows if "lock.one" in r.data.tags]
    (child,) = [r for r in rows if r.info.run_id != row.info.run_id]
    assert row.data.params == {"mine": "1", "rate": "theirs"}
    assert row.data.metrics == {"score": 0.5}
    assert "note.txt" in project.artifacts(row)
    assert row.data.tags["mlflow.source.git.commit"] == project.git("rev-parse", "HEAD")
    assert child.data.tags["mlflow.parentRunId"] == row.info.run_id
    assert child.data.metrics == {"score": 0.7}
    project.dvc("repro", "-q", "-f")
    again = [r for r in project.rows() if r.data.tags.get("reproduces") == row.info.run_id]
    assert [r.data.params["mine"] for r in again] == ["1"]
    assert project.client.get_run(row.info.run_id).data.tags["reproduced"] == "1"


LOGGING = """
import mlflow
mlflow.set_experiment("theirs")
mlflow.sklearn.autolog()
from sklearn.linear_model import LinearRegression
with mlflow.start_run():
    model = LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])
    mlflow.log_metric("mine", 2)
    mlflow.sklearn.log_model(model, name="again", serialization_format="pickle")
open("out.txt", "w").write("1")
"""


def test_autolog_and_set_experiment(tmp_path: Path) -> None:
    """What autolog and log_model log, in an experiment that the script chooses, is the row."""
    stages = one("python script.py", deps=["script.py"], outs=["out.txt"])
    project = repository(tmp_path / "project", stages, files={"script.py": LOGGING})
    project.dvc("repro", "-q")
    (row,) = [run for run in project.rows() if "lock.one" in run.data.tags]
    assert project.client.get_experiment(row.info.experiment_id).name == "theirs"
    assert row.data.params["fit_intercept"] == "True"
    assert row.data.params["rate"] == "1"
    assert row.data.metrics["mine"] == 2
    assert row.outputs.model_outputs
    assert len(project.rows()) == 1
    assert project.record().out.startswith("nothing to do")


DVCLIVE = """
import json, pathlib, time
folder = pathlib.Path("dvclive/plots/metrics/train")
folder.mkdir(parents=True)
with open(folder / "loss.tsv", "w", buffering=1) as file:
    file.write("step\\tloss\\n")
    for i in range(4):
        file.write(f"{i}\\t{8 - i}\\n")
pathlib.Path("dvclive/metrics.json").write_text(json.dumps({"train": {"loss": 5}, "step": 3}))
"""


def test_dvclive(tmp_path: Path) -> None:
    """What DVCLive writes shows as curves; its summary is at their last step."""
    stages = one("python script.py", deps=["script.py"], outs=["dvclive"])
    project = repository(
        tmp_path / "project",
        stages,
        files={"script.py": DVCLIVE},
        metrics=["dvclive/metrics.json"],
        plots=[{"dvclive/plots/metrics": {"x": "step"}}],
    )
    project.dvc("repro", "-q")
    (row,) = project.rows()
    history = project.client.get_metric_history(row.info.run_id, "one/train/loss")
    assert sorted({(m.step, m.value) for m in history}) == [(0, 8), (1, 7), (2, 6), (3, 5)]
    assert row.data.metrics == {"one/train/loss": 5, "one/step": 3}


# Faults


SLEEP = "touch started; exec sleep 60"


@pytest.mark.parametrize("who", ["terminal", "dvc", "group", "run"])
def test_stopped(tmp_path: Path, who: str) -> None:
    """Ctrl-C in a terminal, or SIGTERM to `dvc`, `run` or the group: all ends, the row KILLED."""
    project = repository(
        tmp_path / "project", one("sh script", deps=["script"]), files={"script": SLEEP}
    )
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(project.path)
        os.execvpe("dvc", ["dvc", "repro"], environment())  # noqa: S606
    wait((project.path / "started").exists, 60)
    wait(project.rows)
    tree = psutil.Process(pid).children(recursive=True)
    runner = next(p for p in tree if any("dvc-mlflow" in word for word in p.cmdline()))
    if who == "terminal":
        os.write(terminal, b"\x03")
    elif who == "group":
        os.killpg(pid, signal.SIGTERM)
    else:
        os.kill({"dvc": pid, "run": runner.pid}[who], signal.SIGTERM)
    with suppress(OSError):
        while os.read(terminal, 1024):
            pass
    os.waitpid(pid, 0)
    wait(lambda: not any(p.is_running() and p.status() != "zombie" for p in tree), 15)
    wait(lambda: last(project).info.status == "KILLED", 15)
    wait(lambda: not recorders(project), 10)


@pytest.mark.parametrize("who", ["run", "recorder", "dvc"])
def test_killed(tmp_path: Path, who: str) -> None:
    """SIGKILL: the command does not live on, nor the recorder; no row stays RUNNING."""
    project = repository(
        tmp_path / "project", one("sh script", deps=["script"]), files={"script": SLEEP}
    )
    with reproducing(project) as dvc:
        wait((project.path / "started").exists, 60)
        wait(project.rows)
        tree = psutil.Process(dvc.pid).children(recursive=True)
        runner = next(p for p in tree if any("dvc-mlflow" in word for word in p.cmdline()))
        (recorder,) = recorders(project)
        pid = {"run": runner.pid, "recorder": recorder.pid, "dvc": dvc.pid}[who]
        os.kill(pid, signal.SIGKILL)
        if who == "recorder":
            os.kill(runner.pid, signal.SIGTERM)
        wait(lambda: not any(p.is_running() and p.status() != "zombie" for p in tree), 15)
        wait(lambda: not recorders(project), 10)
    project.record()
    assert {row.info.status for row in project.rows()} == {"KILLED"}


def test_recorder_lost(tmp_path: Path) -> None:
    """A stage whose recorder is lost succeeds, and one line says how it is recorded later."""
    script = "touch started; while [ ! -e go ]; do sleep 0.1; done; echo 1 > out.txt"
    project = repository(
        tmp_path / "project",
        one("sh script", deps=["script"], outs=["out.txt"]),
        files={"script": script},
    )
    with reproducing(project) as dvc:
        wait((project.path / "started").exists, 60)
        wait(project.rows)
        os.kill(recorders(project)[0].pid, signal.SIGKILL)
        (project.path / "go").touch()
        out, _ = dvc.communicate(timeout=60)
    assert dvc.returncode == 0
    assert out.count("dvc-mlflow: ") == 1
    assert "the stage is not recorded, as its recorder was lost: " in out
    assert "; `dvc-mlflow record` records it later" in out
    project.record()
    assert last(project).info.status == "FINISHED"


@pytest.mark.parametrize("when", ["early", "late"])
@pytest.mark.parametrize("what", ["dep", "param", "touch", "other"])
def test_input_changes(tmp_path: Path, what: str, when: str) -> None:
    """An input whose content changes while the stage runs fails it; a touch or another file not."""
    sleep = "2" if when == "early" else "8"
    script = f"touch started; sleep {sleep}; echo 1 > out.txt"
    project = repository(
        tmp_path / "project",
        one("sh script", deps=["script", "raw.txt"], outs=["out.txt"]),
        files={"script": script, "other.txt": "1\n"},
    )
    project.dvc("repro", "-q")
    rows = len(project.rows())
    (project.path / "started").unlink()
    project.set({"rate": 2})
    with reproducing(project) as dvc:
        wait((project.path / "started").exists, 60)
        if when == "late":
            time.sleep(5)
        if what == "param":
            project.set({"rate": 3, "a": 9})
        elif what == "touch":
            (project.path / "raw.txt").touch()
            project.set({"a": 9})
        else:
            project.write({{"dep": "raw.txt", "other": "other.txt"}[what]: "other\n"})
        out, _ = dvc.communicate(timeout=60)
    if what in ("dep", "param"):
        name = {"dep": "raw.txt", "param": "params.yaml"}[what]
        assert dvc.returncode != 0
        assert f"dvc-mlflow: {name} changed while the stage ran; run `dvc repro` again" in out
        assert last(project).info.status == "FAILED"
    else:
        assert dvc.returncode == 0, out
        assert last(project).info.status == "FINISHED"
    assert len(project.rows()) == rows + 1


def test_store_is_away(tmp_path: Path) -> None:
    """Without its store a stage succeeds; one line says why, and how it is recorded later."""
    project = repository(
        tmp_path / "project", recorded({"train": train("raw.txt"), "a": evaluate("a")})
    )
    away = "http://name:secret@127.0.0.1:9"
    done = project.dvc("repro", MLFLOW_TRACKING_URI=away)
    lines = re.findall("dvc-mlflow: .*", done.stderr)
    assert len(lines) == 2
    for line in lines:
        assert "the stage is not recorded: MLflow at http://***@127.0.0.1:9" in line
        assert line.endswith("`dvc-mlflow record` records it later")
    assert "secret" not in done.stdout + done.stderr
    assert project.record().status == 0
    assert len(project.rows()) == 1


def test_store_hangs(tmp_path: Path) -> None:
    """A store that does not answer costs its time-out once a `dvc` process, not in each stage."""
    import socket

    stages = recorded({"train": train("raw.txt"), "a": evaluate("a"), "b": evaluate("b")})
    project = repository(tmp_path / "project", stages)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        project.dvc("repro", MLFLOW_TRACKING_URI=f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - began < 8 + 10
    assert len(project.lock) > 100


def test_modules_of_the_user(tmp_path: Path) -> None:
    """A yaml.py or a folder mlflow/ in the repository is not what the tool imports."""
    bad = "raise SystemExit('imported')\n"
    files = {"yaml.py": bad, "json/__init__.py": bad, "mlflow/__init__.py": bad, "dvc.py": bad}
    project = repository(tmp_path / "project", recorded({"train": train("raw.txt")}), files=files)
    done = project.dvc("repro", "-q")
    assert "imported" not in done.stdout + done.stderr
    (row,) = project.rows()
    assert row.info.status == "FINISHED"


def test_run_imports_nothing_slow() -> None:
    """`run` starts the command before anything slow is imported."""
    code = (
        "import sys; from dvc_mlflow.commands import run; "
        "slow = {'dvc', 'mlflow', 'psutil', 'argparse', 'yaml'}; print(*slow & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_input_changes_while_the_store_is_away(tmp_path: Path) -> None:
    """A result that nobody could use fails its stage, whether MLflow answers or not."""
    script = "touch started; sleep 6; echo 1 > out.txt"
    project = repository(
        tmp_path / "project",
        one("sh script", deps=["script", "raw.txt"], outs=["out.txt"]),
        files={"script": script},
    )
    with reproducing(project, MLFLOW_TRACKING_URI="http://127.0.0.1:9") as dvc:
        wait((project.path / "started").exists, 60)
        time.sleep(4)
        project.write({"raw.txt": "other\n"})
        out, _ = dvc.communicate(timeout=60)
    assert dvc.returncode != 0
    assert "raw.txt changed while the stage ran; run `dvc repro` again" in out
