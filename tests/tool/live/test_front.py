"""`dvc-mlflow dvc` runs `dvc`, records its stages, and leaves what plain `dvc` would have left."""

import signal
import subprocess
from contextlib import chdir
from pathlib import Path
from shlex import quote

import pytest

from dvc_mlflow.live import notes
from dvc_mlflow.live.plain_text import plans
from dvc_mlflow.live.program import install
from support.clone import environment
from support.fronts import NEW, content, front, live, said, shells, twins, unheard
from support.live_runs import recorders, wait
from support.pipelines import TWO_EVALUATIONS, Repository, evaluate, makes, prepare, results, train

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.versions,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


def test_as_plain_dvc(tmp_path: Path) -> None:
    """A pipeline has its row, and every file, stream and status is what plain `dvc` has left."""
    ours, twin = twins(tmp_path, TWO_EVALUATIONS)
    # Whether DVC says `git add dvc.lock .gitignore` or the reverse is otherwise random.
    done, plain = front(ours, "repro", PYTHONHASHSEED="0"), twin.dvc("repro", PYTHONHASHSEED="0")
    assert live(done) == 3
    assert done.stdout == plain.stdout
    assert said(done) == plain.stderr
    assert content(ours) == content(twin)
    (row,) = ours.rows()
    assert row.info.status == "FINISHED"
    assert row.data.metrics == {"train/loss": 0.25, "a/score": 1, "b/score": 1}
    assert results(row) == {"train", "a", "b"}
    assert ours.repro() == []
    assert ours.record().out.startswith("nothing to do")
    exclude = (ours.path / ".git" / "info" / "exclude").read_text()
    assert exclude.endswith("/mlflow.db*\n/mlartifacts/\n/restored/\n")


@pytest.fixture
def stub(tmp_path: Path) -> Repository:
    """A project whose `dvc` is a script that shows how it is started."""
    project = Repository(tmp_path / "project")
    (project.path / ".dvc").mkdir(parents=True)
    (project.path / "bin").mkdir()
    dvc = project.path / "bin" / "dvc"
    dvc.write_text('#!/bin/sh\necho "$PPID $$ $SHELL $@"; read line; exit ${line:-7}\n')
    dvc.chmod(0o755)
    return project


def start(stub: Repository, *words: str) -> "subprocess.Popen[str]":
    """Start `dvc-mlflow dvc` with the script as `dvc`."""
    path = f"{stub.path / 'bin'}:{environment()['PATH']}"
    return subprocess.Popen(
        ["dvc-mlflow", "dvc", *words],
        cwd=stub.path,
        env=environment(PATH=path, SHELL="/bin/sh"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("words", "runs_stages"),
    [
        ("repro", True),
        ("-q --cd . repro train", True),
        ("--cd=. exp -v run --temp", True),
        ("experiments run", True),
        ("queue start -j2", True),
        ("stage add --run -n repro true", True),
        ("stage add -n repro true", False),
        ("exp show", False),
        ("--cd repro status", False),
        ("queue status", False),
        ("status repro", False),
        ("--version", False),
        ("commit", False),
    ],
)
def test_which_commands(stub: Repository, words: str, *, runs_stages: bool) -> None:
    """`dvc` has the tool's shell only if it runs stages; else the tool becomes `dvc`."""
    with start(stub, *words.split()) as process:
        assert process.stdout
        parent, own, shell, *given = process.stdout.readline().split()
        assert given == words.split()
        assert (int(own) == process.pid) is not runs_stages
        assert shell.endswith("/dvc-mlflow-shell") is runs_stages
        assert (int(parent) == process.pid) is runs_stages
        process.communicate("")
    assert process.returncode == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGKILL])
def test_signals(stub: Repository, number: signal.Signals) -> None:
    """A signal to the tool reaches `dvc`, and the tool ends as `dvc` does."""
    with start(stub, "repro") as process:
        assert process.stdout
        own = int(process.stdout.readline().split()[1])
        process.send_signal(number)
        assert process.wait(10) == -number
    wait(lambda: not Path(f"/proc/{own}").exists(), 10)


def test_not_recorded(tmp_path: Path) -> None:
    """A stage that is not recorded becomes its command in the user's shell, and nothing else."""
    stage = makes({"m.json": "1"}, metrics=["m.json"])
    text = "env | grep -v ^_= | sort > environment; echo $PPID > parent"
    ours, twin = twins(tmp_path, {"plain": {"cmd": text, "outs": ["environment"]}, "rest": stage})
    shell = f"{shells(tmp_path / 'bin', 'zsh')}"
    for project in (ours, twin):
        run = project.run if project is twin else None
        command = ["dvc", "repro", "plain"]
        done = run(*command, SHELL=shell) if run else front(project, *command[1:], SHELL=shell)
        assert NEW not in done.stderr
    environments = [
        (project.path / "environment").read_text().replace(f"{project.path}", "")
        for project in (ours, twin)
    ]
    assert environments[0] == environments[1]
    assert (tmp_path / "bin" / "log").read_text() == f"--no-rcs -c {text}\n" * 2
    assert not (ours.path / "mlflow.db").exists()


@pytest.mark.parametrize("is_stage", [True, False])
@pytest.mark.parametrize("own", ["SHELL=/bin/bash", ""])
def test_other_programs(tmp_path: Path, own: str, *, is_stage: bool) -> None:
    """A program that starts its SHELL below `dvc` gets the user's shell, whatever it asks of it."""
    text = """printenv SHELL || echo none; printenv DVC_MLFLOW_USER || echo "$0 $1" """
    more = {"DVC_MLFLOW_USER": own, **({"DVC_STAGE": "a"} if is_stage else {})}
    more |= {"PROGRAM": install(tmp_path), "TEXT": text}
    program = "$PROGRAM -e -c \"$TEXT\" name one; $PROGRAM -c 'exit 5'"
    done = Repository(tmp_path).run("sh", "-c", program, check=False, **more)
    assert done.stdout == f"{own.partition('=')[2] or 'none'}\nname one\n"
    assert done.stderr == ""
    assert done.returncode == 5


def test_imports(tmp_path: Path) -> None:
    """What DVC starts for each command imports next to nothing, once there is a recorder."""
    stages = {name: evaluate(name, "raw.txt") for name in "ab"}
    project, log = unheard(tmp_path / "project", stages), tmp_path / "log"
    program = Path(install(tmp_path))
    leave = f"import os; os._exit = lambda _: print(*sys.modules, file=open({f'{log}'!r}, 'a'))"
    program.write_text(program.read_text().replace("sys.path.pop()", quote(leave)[1:-1]))
    with chdir(project.path):
        notes.write(f"{tmp_path}/notes", plans(project.path, ["dvc.yaml"]))
    more = {"SHELL": f"{program}", "DVC_MLFLOW_USER": "", notes.VARIABLE: f"{tmp_path}/notes"}
    subprocess.run(["dvc", "repro"], cwd=project.path, env=environment(**more), check=True)
    assert len(project.rows()) == 2
    slow = {"contextlib", "ctypes", "enum", "json", "pathlib", "re", "site", "socket", "threading"}
    slow |= {"collections", "signal", "subprocess", "typing", "yaml"}
    first, second = log.read_text().splitlines()
    assert slow & {*first.split()}  # it starts the recorder
    assert not slow & {*second.split()}


def test_recorder_starts_with_dvc(tmp_path: Path) -> None:
    """The recorder starts with `dvc repro`, and ends with it."""
    plain = {"cmd": 'ls "$DVC_ROOT"/.dvc/tmp/dvc-m* > seen', "outs": ["seen"]}
    project = unheard(tmp_path / "project", {"plain": plain, "a": evaluate("a", "seen")})
    assert live(front(project, "repro")) == 1
    assert ".early" in (project.path / "seen").read_text()
    assert front(project, "repro").stderr == ""  # nothing runs
    wait(lambda: not recorders(project), 10)
    left = {path.name for path in (project.path / ".dvc" / "tmp" / "dvc-mlflow").iterdir()}
    assert left == {"dvc-mlflow-shell", "experiments"}


@pytest.mark.rest
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("bash", "--noprofile --norc "),
        ("ZSH", "--no-rcs "),
        ("fish", "--no-config "),
        ("my shell", ""),
        ("", ""),
    ],
)
def test_users_shell(tmp_path: Path, name: str, options: str) -> None:
    """The user's shell runs a recorded command as DVC would start it, with the user's SHELL."""
    text = 'echo "{\\"m\\": 1}" > m.json; (printenv SHELL || echo none) > shell'
    stage = {"cmd": text, "metrics": [{"m.json": {"cache": False}}]}
    project = unheard(tmp_path / "project", {"one": stage})
    shell = f"{shells(tmp_path / 'bin', name)}" if name else "none"
    command = ["dvc-mlflow", "dvc", "repro"]
    if name:
        assert live(project.run(*command, SHELL=shell)) == 1
        assert (tmp_path / "bin" / "log").read_text() == f"{options}-c {text}\n"
    else:
        assert live(project.run("env", "-u", "SHELL", *command)) == 1
    # A fish or bash may set SHELL itself: the one here is a script for sh.
    assert (project.path / "shell").read_text() == f"{shell}\n"
    assert [row.data.metrics for row in project.rows()] == [{"one/m": 1}]


def test_unsure(tmp_path: Path) -> None:
    """Where dvc.yaml's text leaves it open, the recorder says which stages are recorded."""
    stages = {
        "prepare": prepare(),
        "train": {**train(), "plots": [{"curve.csv": {"cache": False, "template": "confusion"}}]},
        "a": {**evaluate("a"), "metrics": []},
        "plain": {"cmd": "env > plain.txt", "deps": ["raw.txt"], "outs": ["plain.txt"]},
    }
    stages["a"]["outs"] = [{"a.json": {"cache": False}}]
    top = {"metrics": ["a.json"], "plots": [{"plain.txt": {"template": "scatter"}}]}
    project = unheard(tmp_path / "project", stages, **top)
    assert live(front(project, "repro")) == 1
    (row,) = project.rows()
    assert results(row) == {"a"}
    assert row.data.metrics == {"a/score": 1}
    assert "MLFLOW_TRACKING_URI" not in (project.path / "plain.txt").read_text()


def test_prefix_in_the_command(tmp_path: Path) -> None:
    """A command that has the prefix itself is recorded once, and its stage's others are not."""
    command = evaluate("a", "raw.txt")["cmd"].replace("'", "'\\''")
    stages = {
        "a": {**evaluate("a", "raw.txt"), "cmd": ["true", f"dvc-mlflow run -c '{command}'"]},
        "b": evaluate("b", "raw.txt"),
    }
    project = unheard(tmp_path / "project", stages)
    done = front(project, "repro")
    (row,) = project.rows()
    assert row.data.metrics == {"a/score": 1}
    assert done.stderr.count("row '") == 1


@pytest.mark.rest
def test_input_changes(tmp_path: Path) -> None:
    """If an input of a recorded stage changes while it runs, the stage fails and names it."""
    stage = evaluate("a", "raw.txt")
    stage["cmd"] = f"echo 2 > raw.txt; {stage['cmd']}"
    project = unheard(tmp_path / "project", {"a": stage})
    done = front(project, "repro", check=False)
    assert done.returncode == 255
    assert f"{NEW}raw.txt changed while the stage ran; run `dvc repro` again\n" in done.stderr
    assert [row.info.status for row in project.rows()] == ["FAILED"]
    assert not (project.path / "dvc.lock").exists()


def test_no_project(tmp_path: Path) -> None:
    """Outside of a DVC project `dvc` itself says what is wrong, and without `dvc` the tool does."""
    done = front(Repository(tmp_path), "repro", check=False)
    assert done.returncode == 253
    assert done.stderr.startswith("ERROR: you are not inside of a DVC repository")
    done = Repository(tmp_path).run("dvc-mlflow", "dvc", check=False)
    assert "usage: dvc [" in done.stdout + done.stderr
    tool = [path for path in environment()["PATH"].split(":") if Path(path, "dvc-mlflow").exists()]
    script = Path(tool[0], "dvc-mlflow")
    done = Repository(tmp_path).run(script, "dvc", "repro", check=False, PATH="/nowhere")
    assert done.returncode == 127
    assert done.stderr == f"{NEW}dvc is not on PATH: install it, or add its folder to PATH\n"


@pytest.mark.parametrize(
    "text",
    [
        "stages: [",
        "stages:\n- a",
        f"stages: {'[' * 9999}",
        "stages: {a: {cmd: 'true', outs: 3}}",
        'stages: {a: {cmd: "true", wdir: "\\0"}}',
    ],
)
def test_broken(tmp_path: Path, text: str) -> None:
    """What is wrong with dvc.yaml, `dvc` says."""
    ours, twin = twins(tmp_path, {"a": evaluate("a", "raw.txt")})
    for project in (ours, twin):
        project.write({"dvc.yaml": text})
    done, plain = front(ours, "repro", check=False), twin.dvc("repro", check=False)
    assert done.returncode == plain.returncode != 0
    assert done.stderr == plain.stderr.replace("/twin/", "/ours/")


def test_no_such_folder(tmp_path: Path) -> None:
    """What is wrong with `--cd`, `dvc` says."""
    project = unheard(tmp_path / "project", {"a": evaluate("a", "raw.txt")})
    done = front(project, "--cd", "typo", "repro", check=False)
    plain = project.run("dvc", "--cd", "typo", "repro", check=False)
    assert (done.returncode, done.stderr) == (plain.returncode, plain.stderr)


def test_no_store_possible(tmp_path: Path) -> None:
    """Where there can be no store, one line says why, and `dvc` runs as it would."""
    project = unheard(tmp_path / "what?", {"a": evaluate("a", "raw.txt")})
    project.write({"sub/file": ""})
    done = front(project, "--cd", "sub", "repro", "-q", "-R", "..")
    assert done.stderr.startswith(f"{NEW}MLflow at {project.path}: the path of the repository must")
    assert done.stderr.count("\n") == 1
    assert project.repro() == []
