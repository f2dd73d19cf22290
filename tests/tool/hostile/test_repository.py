"""The repository is hostile: a line or the right result, in time, and nothing of it runs."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.clone import environment
from support.pipelines import TWO_EVALUATIONS, Repository, Said, finished, repository

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

Change = Callable[[Repository], None]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A recorded pipeline whose results are committed, for all tests: copy it."""
    project = finished(tmp_path_factory.mktemp("made") / "project", TWO_EVALUATIONS)
    project.record()
    return project


@pytest.fixture
def project(made: Repository, tmp_path: Path) -> Repository:
    """A copy of that pipeline with its store."""
    return made.copy_whole(tmp_path / "project")


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    """End a test that waits for what never comes; the machine can be loaded."""

    def late(*_: object) -> None:
        raise AssertionError("it has not ended in time")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(300)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def text(path: str, content: str | bytes) -> Change:
    def change(project: Repository) -> None:
        file = project.path / path
        file.unlink(missing_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def link(path: str, target: str) -> Change:
    def change(project: Repository) -> None:
        (project.path / path).unlink(missing_ok=True)
        (project.path / path).symlink_to(target)

    return change


def locked(old: str, new: str) -> Change:
    def change(project: Repository) -> None:
        file = project.path / "dvc.lock"
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    return change


OWN = "rate: 1\na: 1\nb: 1\n"
RUNS = '!!python/object/apply:os.system ["touch ran"]'
SELF = {"vars": [{"x": "${x}"}], "stages": {"s": {"cmd": "echo ${x}"}}}

REFUSED: dict[str, tuple[Change, str]] = {
    "alias of itself": (text("params.yaml", "a: &a [*a]\n"), "nested too deeply"),
    "deep params": (text("params.yaml", f"rate: {'[' * 3000}{']' * 3000}"), "nested too deeply"),
    "python object": (text("params.yaml", f"rate: {RUNS}\n"), "unable to read: 'params.yaml'"),
    "python in dvc.yaml": (text("dvc.yaml", f"x: {RUNS}\n"), "unable to read: 'dvc.yaml'"),
    "reference to itself": (text("dvc.yaml", json.dumps(SELF)), "interpolating is not allowed"),
    "thousands of digits": (text("params.yaml", f"rate: {'9' * 5000}\n"), "4300 digits"),
    "invalid UTF-8": (text("params.yaml", b"rate: \xff\xfe\n"), "is not valid utf-8"),
    "device as dvc.lock": (link("dvc.lock", "/dev/zero"), "dvc.lock"),
    "circle as dvc.lock": (link("dvc.lock", "dvc.lock"), "dvc.lock"),
    "control characters": (text("dvc.yaml", '"a\\e[31m": {"b\\e": 1}\n'), "dvc.yaml"),
    "no .dvc file": (text("x.dvc", b"\xff\x00outs: ["), "x.dvc"),
}


def plain(said: Said) -> Said:
    """Check what a command has printed: no traceback and no control characters."""
    assert "Traceback" not in said.error
    assert (said.out + said.error).replace("\n", "").isprintable()
    return said


@pytest.mark.parametrize("what", REFUSED)
def test_refused(project: Repository, what: str) -> None:
    """What cannot be read is named in one line by `record`, and nothing runs."""
    change, part = REFUSED[what]
    change(project)
    before = project.table()
    said = plain(project.record())
    assert (said.status, said.out) == (1, ""), said
    (line,) = said.error.splitlines()
    assert part in line
    assert not (project.path / "ran").exists()
    assert project.table() == before


RIGHT: dict[str, Change] = {
    "device as a dep": link("raw.txt", "/dev/zero"),
    "device as metrics": link("a.json", "/dev/zero"),
    "circle as a dep": link("raw.txt", "raw.txt"),
    "circle as metrics": link("a.json", "a.json"),
    "large metrics": text("a.json", '{"score": 2, "k": [' + "1," * 1_000_000 + "1]}"),
    "metrics that are no numbers": text("a.json", '{"score": NaN, "x": 1e999, "y": "\\u001b"}'),
    "other params": text("params.yaml", OWN + '"k\\e[31m": "\\e]0;x\\a"\n'),
}


@pytest.mark.parametrize("what", RIGHT)
def test_right(made: Repository, project: Repository, what: str) -> None:
    """What is not as in dvc.lock costs at most a line: no row gets another number."""
    RIGHT[what](project)
    table = made.table()
    project.remove_store()
    said = plain(project.record())
    assert said.status in (0, 1)
    said = plain(project.record("--all"))
    assert said.status in (0, 1)
    for row in project.table():
        kept = [each for each in table if row["params"].items() <= each["params"].items()]
        assert any(row["metrics"].items() <= each["metrics"].items() for each in kept), said


HUGE = """
import json
keys = range(1_000_000)
json.dump({f"k{i}": i for i in keys}, open("keys.json", "w"))
open("keys.yaml", "w").write("".join(f"k{i}: {i}\\n" for i in keys))
open("huge.json", "w").write("1" * 200_000_000)
open("m.json", "w").write('{"n": 1}')
"""


@pytest.mark.rest
def test_huge_metrics(tmp_path: Path) -> None:
    """Metrics of a million keys, or of 200 MB, cost a line each; the row has the others."""
    names = ("keys.json", "keys.yaml", "huge.json", "m.json")
    metrics = [{name: {"cache": False}} for name in names]
    stages = {"one": {"cmd": "python make.py", "deps": ["make.py"], "metrics": metrics}}
    project = repository(tmp_path / "project", stages, files={"make.py": HUGE})
    project.dvc("repro", "-q")
    said = plain(project.record())
    assert [line.removeprefix("dvc-mlflow: ") for line in said.error.splitlines()] == [
        "not kept for `dvc-mlflow restore`: huge.json: it is larger than 50,000,000 bytes",
        "metrics keys.json cannot be read: it has more than 10,000 keys",
        "keys.yaml has more than 5 MB; it is left out",
        "huge.json has more than 50 MB; it is left out",
    ]
    assert [row["metrics"] for row in project.table()] == [{"one/m/n": 1}]


LIES: dict[str, Change] = {
    "paths that lead out": locked("md5: ", "md5: ../../"),
    "negative sizes": locked("size: ", "size: -"),
    "special numbers": locked("rate: 1", "rate: .nan"),
    "infinite": locked("rate: 1", "rate: -.inf"),
}


@pytest.mark.rest
@pytest.mark.parametrize("what", LIES)
def test_lock_that_lies(project: Repository, what: str) -> None:
    """A dvc.lock that nobody can have made leads nowhere; each command ends with a line."""
    LIES[what](project)
    around = {*project.path.parent.iterdir()}
    for words in (["record"], ["record", "--all"]):
        assert plain(project.tool(*words)).status in (0, 1)
    assert {*project.path.parent.iterdir()} == around


NAMES = ["a;touch$IFS''ran", "$(touch$IFS''ran)", "-x", "\u00fc", "clf@v1..0", "clf#", "@v1.0.0"]
NAMES += ["clf@v1.0.0#x", "#1", "clf@v99999999999999999999.0.0", "clf#champion#" + "9" * 30]
NAMES += [
    "a@b@v1.0.0",
    "clf@v1.0.0!",
    "clf!",
    "clf#x#1!",
    "a/../b@v1.0.0",
    "clf@v1.0.0-rc.1+\u00fc",
]


def test_refs(made: Repository, project: Repository) -> None:
    """Refs, authors and messages of any form run nothing, and break no line."""
    head, blob = project.git("rev-parse", "HEAD"), project.git("rev-parse", "HEAD:dvc.yaml")
    for name in NAMES:
        for kind in ("heads", "tags"):
            project.run("git", "update-ref", f"refs/{kind}/{name}", head, check=False)
        project.run("git", "tag", "-f", "-a", "-m", "x\n\x1b[31m$(x)", "--", name, check=False)
    for ref in (f"exps/{head[:2]}/{head[2:]}/x;y", "exps/aa/bb/cc", "rows/x", "sweeps/a"):
        for target in (head, blob):
            project.git("update-ref", f"refs/{ref}-{target[:1]}", target)
    for target in (blob, project.git("rev-parse", "HEAD^{tree}")):
        project.git("tag", f"of-{target[:4]}", target)
    author = "A;\x1b[31m$(touch ran)"
    message = "s\x1b[31m\x07\n\n$(touch ran)"
    more = {"GIT_AUTHOR_NAME": author, "GIT_COMMITTER_NAME": author}
    project.write({"raw.txt": "2\n"})
    project.git("add", "raw.txt")
    project.run("git", "commit", "-q", "-m", message, **more)  # type: ignore[arg-type]
    (row, *_), before = made.rows(), made.table()
    project.remove_store()
    for words in (["record"], ["record", "--all"], ["record", "--experiments"]):
        said = plain(project.tool(*words, **environment()))
        assert said.status == 0, (words, said)
    assert project.table() == before
    said = plain(project.tool("restore", row.info.run_name or ""))
    assert said.status == 0, said
    assert not [*project.path.rglob("ran")]


def test_no_utf8(made: Repository, project: Repository) -> None:
    """An author, a message, a branch and a tag that are no UTF-8 are recorded with `?`."""
    names = {f"GIT_{who}_NAME".encode(): b"Ren\xe9 \xff" for who in ("AUTHOR", "COMMITTER")}
    env = {**{os.fsencode(k): os.fsencode(v) for k, v in environment().items()}, **names}
    commands = [
        [b"commit", b"-q", b"--amend", b"--reset-author", b"-m", b"Caf\xe9 \xff"],
        [b"branch", b"-m", b"main\xff"],
        [b"tag", b"-a", b"-m", b"\xff", b"clf\xff@v1.0.0"],
    ]
    for words in commands:
        subprocess.run([b"git", *words], cwd=project.path, env=env, check=True, capture_output=True)
    before = made.table()
    project.remove_store()
    for options in ([], ["--all"]):
        said = plain(project.record(*options))
        assert (said.status, said.error) == (0, ""), said
        assert project.table() == before
    (row,) = project.rows()
    assert row.data.tags["mlflow.source.git.branch"] == "main?"


@pytest.mark.parametrize(
    ("command", "reason"),
    [("record > /dev/full", "No space left on device"), ("record | true", "Broken pipe")],
)
def test_stdout_that_takes_nothing(project: Repository, command: str, reason: str) -> None:
    """If nobody can read what a command says, that is one line, and what it did is there."""
    project.remove_store()
    done = project.run("bash", "-c", f"set -o pipefail; dvc-mlflow {command}", check=False)
    assert (done.returncode, done.stderr) == (1, f"dvc-mlflow: standard output: {reason}\n")
    assert len(project.rows()) == 1


def test_stdout_of_few_letters(project: Repository) -> None:
    """A name that standard output cannot show is shown with `?`."""
    project.git("branch", "-m", "\u00fc\u2026")
    project.write({"params.yaml": OWN.replace("rate: 1", "rate: \u00fc\u2026")})
    project.dvc("repro", "-q")
    done = project.run("dvc-mlflow", "record", PYTHONIOENCODING="ascii")
    assert "added 'rate=??" in done.stdout
