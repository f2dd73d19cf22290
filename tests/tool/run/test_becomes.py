"""`dvc-mlflow run` becomes the command: nothing that this sees or says is another."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import psutil
import pytest

from support.clone import environment
from support.following import following, started, wait_for_rows
from support.pipelines import Repository, content, evaluate, repository, train, twins
from support.processes import followers, wait

pytestmark = pytest.mark.pipeline

ODDITIES = r"""
echo 1 out; echo 2 err >&2; printf '3 no line end'; printf ' 4 of both\n' >&2
echo 5 "$#"; for word; do printf '6 <%s>\n' "$word"; done
echo "7 $0"; echo "8 $PWD"; echo "9 $(pwd -P)"
echo "10 $(umask)"; echo "11 $(ulimit -n) $(ulimit -f) $(ulimit -c) $(ulimit -s)"
echo "12 $(nice)"; echo "13 $SHLVL"; echo "14 $(taskset -p $$ | sed 's/.*: //')"
env | grep -v '^MLFLOW_\|^_=\|^DVC_ROOT=\|^PWD=\|^OLDPWD=' | sort | sed 's/^/15 /'
grep '^Sig[BIC]\|^ShdPnd' /proc/self/status | sed 's/^/16 /'
ls /proc/self/fd | wc -l | sed 's/^/17 /'
[ -t 0 ] && echo 18 tty || echo 18 no tty; [ -t 1 ] && echo 19 tty || echo 19 no tty
read -r line && echo "20 <$line>" || echo 20 end of file
[ "$(ps -o pgid= -p $$ | tr -d ' ')" = "$(ps -o pgid= -p $PPID | tr -d ' ')" ] && echo 21 one group
echo "22 $DVC_STAGE" | tee odd.txt
exit 7
"""
WORDS = ["", "two words", "*", "$HOME", "-c", "--", "\\", "'", "\u00e4", "a\tb", "--help"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """A project with a store and a script of oddities, which is followed, so `run` starts none."""
    made = repository(tmp_path_factory.mktemp("odd") / "project", {}, files={"odd.sh": ODDITIES})
    made.write({"noexec": "#!/bin/sh\n", "text": 'echo no first line "$@"\n'})
    (made.path / "text").chmod(0o755)
    with following(made):
        yield made


def said(project: Repository, words: list[str], *start: str) -> list[tuple[bytes, int]]:
    """Return what a command prints, and how it ends, without and under `run`."""
    found = []
    for front in ([], ["dvc-mlflow", "run"]):
        done = subprocess.run(
            [*start, *front, *words],
            cwd=project.path,
            env=environment(),
            input=b"a line\n",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,  # so that their order counts
            check=False,
        )
        found.append((done.stdout, done.returncode))
    return found


def shell(text: str) -> list[str]:
    """Return the start of a command that a shell with other settings begins."""
    return ["sh", "-c", f'{text}; exec "$@"', "sh"]


STARTS = [
    [],
    ["nohup", "env", "LC_ALL="],
    ["setsid", "-w", "nice", "-n", "5", "env", "-u", "LANG", "-u", "LC_ALL", "-u", "LC_CTYPE"],
    shell("umask 077; ulimit -n 64; ulimit -c 0; exec 9</dev/null; trap '' INT TERM USR1"),
]


def test_oddities(project: Repository) -> None:
    """All that a command is given, prints and returns is what it is without it, and in order."""
    words = ["sh", f"{project.path}/odd.sh", *WORDS]
    found = {" ".join(start): said(project, words, *start) for start in STARTS}
    assert {key: ours for key, (_, ours) in found.items()} == {
        key: plain for key, (plain, _) in found.items()
    }


TERMINAL = """
import os, pty, sys
status = pty.spawn(sys.argv[1:])
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_terminal(project: Repository) -> None:
    """In a terminal it has the terminal, as the command has."""
    code = "import os, sys; print(os.isatty(0), os.isatty(1), os.tcgetpgrp(0) == os.getpgrp())"
    plain, ours = said(project, [sys.executable, "-c", code], sys.executable, "-c", TERMINAL)
    assert ours == plain


def test_what_cannot_run(project: Repository) -> None:
    """Where there is no such command, or none that can run, the status is a shell's."""
    for words in (["./nothing"], ["nothing"], ["./noexec"], ["/"]):
        quoted = project.run("sh", "-c", 'exec "$@"', "sh", *words, check=False)
        done = project.run("dvc-mlflow", "run", *words, check=False)
        assert (done.returncode, done.stdout) == (quoted.returncode, quoted.stdout), words
        if done.returncode:
            (line,) = done.stderr.splitlines()
            assert line.startswith(f"dvc-mlflow: {words[0]}: ")


def test_how_it_is_called(project: Repository) -> None:
    """It takes a shell's text, `--` and `--help`, and names a mistake.

    In a folder that is gone, and in one without a project, it becomes the command, too.
    """
    run = ("dvc-mlflow", "run")
    assert project.run(*run, "-c", "echo $((1 + 1)) | cat").stdout == "2\n"
    assert project.run(*run, "--", "echo", "--", "x").stdout == "-- x\n"
    assert "usage: dvc-mlflow run COMMAND" in project.run(*run, "--help").stdout
    assert project.run(*run, check=False).stderr.endswith("run: the command is missing\n")
    gone = "mkdir gone; cd gone; rmdir ../gone; exec dvc-mlflow run echo here"
    assert project.run("sh", "-c", gone).stdout == "here\n"
    done = project.run("sh", "-c", "cd /; dvc-mlflow run sh -c 'echo here; exit 3'", check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "here\n", 1)


def sleeps(pid: int) -> bool:
    """Whether a process has become `sleep`."""
    return str(psutil.Process(pid).name()) == "sleep"


def test_is_the_command(project: Repository) -> None:
    """The process is the command: what ends it, ends it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL):
        with subprocess.Popen(["dvc-mlflow", "run", "sleep", "60"], cwd=project.path) as process:
            wait(partial(sleeps, process.pid))
            process.send_signal(number)
            assert process.wait(10) == -number


def test_nothing_changes(tmp_path: Path) -> None:
    """A pipeline that is watched, and has `run` before a command, prints what it does without.

    It leaves the same files, and `run` starts no second follower.
    """
    slow = {**train("raw.txt"), "cmd": f"sleep 1; {train('raw.txt')['cmd']}"}
    odd = {"cmd": "true; sh odd.sh a 'b c' '*'; true", "deps": ["model.txt"], "outs": ["odd.txt"]}
    ours, plain = twins(tmp_path, {"train": slow, "odd": odd}, files={"odd.sh": ODDITIES})
    text = (ours.path / "dvc.yaml").read_text()
    before, after = "true; sh odd.sh", "dvc-mlflow run true; dvc-mlflow run sh odd.sh"
    (ours.path / "dvc.yaml").write_text(text.replace(before, after))  # the second without Python
    ours.add_store()
    found = []
    for project in (ours, plain):
        with following(project) if project is ours else nullcontext():
            done = subprocess.run(
                ["dvc", "repro"],
                cwd=project.path,
                env=environment(PYTHONHASHSEED="0"),  # DVC prints the files of a set
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
            )
            if project is ours:
                wait_for_rows(project, "FINISHED")
                assert followers(project.path) == []
        text = done.stdout.decode(errors="replace").replace(f"{project.path.parent}", "")
        found.append((text.replace("dvc-mlflow run ", ""), done.returncode))
    assert found[0] == found[1]
    left, others = content(ours), content(plain)
    differ = {key for key in left.keys() | others.keys() if left.get(key) != others.get(key)}
    differ = {key for key in differ if not key.startswith(".dvc/cache/runs/")}  # by the command
    assert differ == {"dvc.yaml", "dvc.lock", "status"}


@pytest.mark.rest
def test_modules_of_the_user(tmp_path: Path) -> None:
    """Neither `run` nor its follower imports a yaml.py or a folder mlflow/ in the repository."""
    files = {"yaml.py": "raise SystemExit(3)\n", "mlflow/__init__.py": "raise SystemExit(3)\n"}
    project = repository(tmp_path / "project", {"a": evaluate("a", "raw.txt")}, files=files)
    project.run("dvc-mlflow", "run", "dvc", "repro", "-q")
    assert project.record().status == 0
    wait_for_rows(project, "FINISHED")
    assert "Error" not in (project.path / ".git/dvc-mlflow/follow.log").read_text()


BY_API = """
import os, pathlib, sys
from dvc.repo import Repo
from dvc_mlflow.processes import process
follower = int(sys.argv[1])
for stages in ("abc", "bc", "d", "cb", "a"):
    for stage in stages:
        Repo().reproduce(stage, force=True)
    if stages == "abc":
        pathlib.Path("dvc.yaml").touch()
    elif stages == "cb":
        os.kill(follower, 9)
        while process(follower):
            pass
"""


def test_python_starts_once(tmp_path: Path) -> None:
    """Of a `dvc`, its first stage's `run` starts Python; the others' commands get the same.

    Python is asked again once dvc.yaml has changed, for other variables, and without a follower.
    """
    starts, tool = tmp_path / "starts", shutil.which("dvc-mlflow")
    shutil.copy(f"{tool}", tmp_path)
    python = f'#!/bin/sh\necho "$DVC_STAGE" >>{starts}\nexec {tool}-python "$@"\n'
    (tmp_path / "dvc-mlflow-python").write_text(python)
    (tmp_path / "dvc-mlflow-python").chmod(0o755)
    fronts = {"a": "exec ", "b": "exec ", "c": "true && ", "d": "MLFLOW_EXPERIMENT_NAME=x "}
    stages = {
        name: {"cmd": f"{front}dvc-mlflow run env >{name}.txt", "outs": [f"{name}.txt"]}
        for name, front in fronts.items()
    }
    project = repository(tmp_path / "project", stages)
    path, shell = f"{tmp_path}:{environment()['PATH']}", f"{shutil.which('bash')}"
    with following(project) as follower:
        api = (sys.executable, "-c", BY_API, f"{follower.process.pid}")
        for words in (("dvc", "repro", "-q", "a"), api):
            project.run(*words, PATH=path, SHELL=shell)
    assert starts.read_text().split() == ["a", *"abdca"]
    given = {}
    for name in stages:
        lines = (project.path / f"{name}.txt").read_text().splitlines()
        given[name] = sorted(
            line.replace(f" {name}", " a") for line in lines if line.startswith("MLFLOW_")
        )
    assert given["b"] == given["c"] == given["a"] != given["d"]
    assert len({line.partition("=")[0] for line in given["a"]} - {*environment()}) == 3


@pytest.mark.parametrize("before", ["true", "dvc-mlflow run true"])  # then it starts no Python
def test_ends_with_its_dvc(tmp_path: Path, before: str) -> None:
    """A command of a stage ends when its `dvc` is killed; a `dvc` outlives what has started it."""
    stage = {"cmd": [before, "exec dvc-mlflow run sh wait.sh"], "deps": ["raw.txt"]}
    files = {"wait.sh": "echo $$ > pid; exec sleep 600"}
    project = repository(tmp_path / "project", {"one": stage}, files=files)
    file = project.path / "pid"

    def sleeping() -> int:
        return int(wait(lambda: file.exists() and file.read_text()))

    with following(project):
        with started(project, "dvc", "repro") as dvc:
            pid = sleeping()
            dvc.kill()
            wait(lambda: not psutil.pid_exists(pid))
        file.unlink()
        parent = subprocess.Popen(
            ["sh", "-c", "dvc-mlflow run sh wait.sh & wait"], cwd=project.path
        )
        pid = sleeping()
        parent.kill()
        parent.wait()
        wait(lambda: psutil.Process(pid).ppid() != parent.pid)
        wait(partial(sleeps, pid))
        os.kill(pid, signal.SIGKILL)
