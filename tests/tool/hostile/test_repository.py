"""The repository is hostile: a line or the right result, in time, and nothing of it runs."""

import io
import json
import os
import subprocess
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from dvc_mlflow.errors import say
from dvc_mlflow.pipeline import tags
from support.clone import environment
from support.hostile import Place, plain
from support.pipelines import Repository

pytestmark = pytest.mark.pipeline


@pytest.fixture
def project(place: Place) -> Repository:
    """A copy of the pipeline with its store."""
    return place.project


Files = Mapping[str, str | bytes | Path]


def put(project: Repository, files: Files) -> None:
    """Let files have these contents, or be links to these paths."""
    for name, content in files.items():
        file = project.path / name
        file.unlink(missing_ok=True)
        if isinstance(content, Path):
            file.symlink_to(content)
        else:
            file.write_bytes(content if isinstance(content, bytes) else content.encode())


RUNS = '!!python/object/apply:os.system ["touch ran"]'
DEEP = f"stages: {{a: {{cmd: b, meta: {'[' * 900}{']' * 900}}}}}"
SELF = {"vars": [{"x": "${x}"}], "stages": {"s": {"cmd": "echo ${x}"}}}
CLOUD = {"stages": {"s": {"cmd": "get x", "deps": ["gs://bucket/x"], "outs": ["x"]}}}

REFUSED: list[tuple[str, str | bytes | Path, str]] = [
    ("params.yaml", "a: &a [*a]\n", "nested too deeply"),
    ("params.yaml", f"rate: {RUNS}\n", "unable to read: 'params.yaml'"),
    ("params.yaml", f"rate: {'9' * 5000}\n", "4300 digits"),
    ("params.yaml", b"rate: \xff\xfe\n", "is not valid utf-8"),
    ("dvc.yaml", f"x: {RUNS}\n", "unable to read: 'dvc.yaml'"),
    ("dvc.yaml", json.dumps(SELF), "interpolating is not allowed"),
    ("dvc.yaml", "stages: {a: {cmd: b, deps: [c], outs: [c]}}", "stages depend on one another"),
    ("dvc.yaml", DEEP, "DVC's files cannot be read: it is nested too deeply"),
    ("params.yaml", "? - ?", "DVC's files cannot be read: TypeError: unhashable type: 'dict'"),
    ("dvc.lock", "", "'dvc.lock' validation failed: required key not provided"),
    (".dvc/config", "[[[", "config file error"),
    (".git/HEAD", "", "git ls-files: "),
    ("dvc.yaml", json.dumps(CLOUD), "requires 'dvc-gs'"),
    ("dvc.lock", Path("/dev/zero"), "dvc.lock"),
    ("x.dvc", b"\xff\x00outs: [", "x.dvc"),
]


def test_refused(made: Repository, tmp_path: Path) -> None:
    """What cannot be read is named in one line by `record`, and nothing runs."""
    before = made.table()
    for n, (name, content, part) in enumerate(REFUSED):
        project = made.copy_whole(tmp_path / f"{n}")
        put(project, {name: content})
        said = plain(project.record())
        assert (said.status, said.out, said.error.count("\n")) == (1, "", 1), (n, said)
        assert part in said.error, n
        assert project.table() == before, n
        assert not (project.path / "ran").exists(), n


RIGHT: list[Files] = [
    {"raw.txt": Path("/dev/zero"), "m.json": Path("/dev/zero")},
    {"raw.txt": Path("raw.txt"), "m.json": Path("m.json")},
    {"m.json": '{"n": 2, "k": [' + "1," * 1_000_000 + "1]}"},
    {"m.json": '{"n": NaN, "x": 1e999, "y": "\\u001b"}'},
    {"params.yaml": 'rate: 1\n"k\\e[31m": "\\e]0;x\\a"\n'},
]
LIES = [("md5: ", "md5: ../../"), ("size: ", "size: -")]


def test_right(made: Repository, tmp_path: Path) -> None:
    """What is not as in dvc.lock costs at most a line: no row gets another number.

    A dvc.lock that nobody can have made leads nowhere.
    """
    (whole,) = made.table()
    lies: list[Files] = [{"dvc.lock": made.lock.replace(*lie)} for lie in LIES]
    assert {"dvc.lock": made.lock} not in lies
    for n, files in enumerate([*RIGHT, *lies]):
        project = made.copy(tmp_path / f"{n}")
        put(project, files)
        plain(project.record())
        plain(project.record("--all"))
        assert {f"{k}" for k in range(n + 1)} == {path.name for path in tmp_path.iterdir()}
        for row in project.table():
            assert row["params"].items() <= whole["params"].items()
            assert row["metrics"].items() <= whole["metrics"].items()


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
    assert row.data.tags[tags.USER] == "René ÿ"


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
