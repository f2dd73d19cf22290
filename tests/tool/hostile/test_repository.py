"""The repository is hostile: a line or the right result, in time, and nothing of it runs."""

import io
import json
import os
import subprocess
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from dvc_mlflow.errors import say
from support.clone import environment
from support.hostile import plain
from support.pipelines import TWO_EVALUATIONS, Repository, finished, repository

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


def test_refused(made: Repository, tmp_path: Path) -> None:
    """What cannot be read is named in one line by `record`, and nothing runs."""
    before, wrong = made.table(), {}
    for n, (what, (change, part)) in enumerate(REFUSED.items()):
        project = made.copy_whole(tmp_path / f"{n}")
        change(project)
        said = plain(project.record())
        is_line = said.error.count("\n") == 1 and part in said.error
        if not is_line or (said.status, said.out) != (1, "") or project.table() != before:
            wrong[what] = said
        assert not (project.path / "ran").exists(), what
    assert wrong == {}


RIGHT: list[list[Change]] = [
    [
        link("raw.txt", "/dev/zero"),
        link("a.json", "/dev/zero"),
        text("b.json", '{"score": 2, "k": [' + "1," * 1_000_000 + "1]}"),
        text("params.yaml", OWN + '"k\\e[31m": "\\e]0;x\\a"\n'),
    ],
    [
        link("raw.txt", "raw.txt"),
        link("a.json", "a.json"),
        text("b.json", '{"score": NaN, "x": 1e999, "y": "\\u001b"}'),
    ],
]


@pytest.mark.parametrize("changes", RIGHT, ids=["devices", "circles"])
def test_right(made: Repository, tmp_path: Path, changes: list[Change]) -> None:
    """What is not as in dvc.lock costs at most a line: no row gets another number."""
    project, table = made.copy(tmp_path / "project"), made.table()
    for change in changes:
        change(project)
    plain(project.record())
    plain(project.record("--all"))
    for row in project.table():
        kept = [each for each in table if row["params"].items() <= each["params"].items()]
        assert any(row["metrics"].items() <= each["metrics"].items() for each in kept)


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
        "keys.json cannot be read: it has more than 10,000 keys",
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


def test_lock_that_lies(made: Repository, tmp_path: Path) -> None:
    """A dvc.lock that nobody can have made leads nowhere; each command ends with a line."""
    for n, change in enumerate(LIES.values()):
        project = made.copy_whole(tmp_path / f"{n}")
        change(project)
        around = {*tmp_path.iterdir()}
        for words in (["record"], ["record", "--all"]):
            plain(project.tool(*words))
        assert {*tmp_path.iterdir()} == around


NAMES = ["a;touch$IFS''ran", "$(touch$IFS''ran)", "-x", "\u00fc", "clf@v1..0", "clf#", "@v1.0.0"]
NAMES += ["clf@v1.0.0#x", "#1", "clf@v99999999999999999999.0.0", "clf#champion#" + "9" * 30]
NAMES += ["a@b@v1.0.0", "clf@v1.0.0!", "clf!", "clf#x#1!", "a/../b@v1.0.0"]
NAMES += ["clf@v1.0.0-rc.1+\u00fc"]


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
    project.add_store()
    for words in (["record"], ["record", "--all"]):
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
    project.add_store()
    for options in ([], ["--all"]):
        said = plain(project.record(*options))
        assert (said.status, said.error) == (0, ""), said
        assert project.table() == before
    (row,) = project.rows()
    assert "?" in row.data.tags["git.names"]


def test_stdout_that_takes_nothing(project: Repository) -> None:
    """If nobody can read what a command says, that is one line, and what it did is there."""
    project.remove_store()
    project.add_store()
    done = project.run("bash", "-c", "dvc-mlflow record > /dev/full", check=False)
    line = "dvc-mlflow: standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, line)
    assert len(project.rows()) == 1


def test_stdout_of_few_letters() -> None:
    """A name that standard output cannot show is shown with `?`."""
    with redirect_stdout(io.TextIOWrapper(io.BytesIO(), "ascii")) as shown:
        say("added 'rate=\u00fc\u2026'")
    shown.seek(0)
    assert shown.read() == "added 'rate=??'\n"
