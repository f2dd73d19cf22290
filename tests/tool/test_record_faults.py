"""What `dvc-mlflow record` says when it cannot record, and what it withstands."""

import hashlib
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient

from clone import Done, environment
from pipelines import LOADER, MODEL, SERVED, Repository, finished, repository, train
from servers import answers, free_port, running

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # what MLflow warns of in the test's process
]

SECRET = "s3cret"  # noqa: S105
SCRIPT = Path(sys.executable).with_name("dvc-mlflow")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline that has run once and has a row, for all tests: `shutil.copytree` it."""
    folder = tmp_path_factory.mktemp("made")
    project = finished(folder / "project", SERVED, files={"loader.py": LOADER})
    project.run("dvc-mlflow", "record")
    return project


@pytest.fixture
def recorded(made: Repository, tmp_path: Path) -> Repository:
    """A copy of that repository with its store, which follows it."""
    copy = Repository(shutil.copytree(made.path, tmp_path / "project", symlinks=True))
    assert copy.record().out.startswith("nothing to do")
    return copy


def record(project: Repository, *arguments: str | Path, **more: str) -> Done:
    """Run the console script."""
    return project.run(SCRIPT, "record", *arguments, check=False, **more)


def refused(project: Repository, *arguments: str, **more: str) -> str:
    """Return the one line with which `record` ends, within twenty seconds of a free machine."""
    began = time.monotonic()
    done = record(project, *arguments, **more)
    assert time.monotonic() - began < 40
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.endswith("\n")
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stderr
    assert is_plain(done.stderr)
    return done.stderr.removeprefix("dvc-mlflow: ").removesuffix("\n")


def is_plain(text: str) -> bool:
    """Whether a terminal obeys nothing in a text."""
    return text.replace("\n", "").isprintable()


def files(folder: Path) -> dict[str, str]:
    """Return the md5 of each file below a folder, but of what belongs to git, DVC and MLflow."""
    own = re.compile(r"(^|/)(\.git|\.dvc/(tmp|cache)|mlartifacts)(/|$)|(^|/)mlflow\.db")
    found = {f"{path.relative_to(folder)}": path for path in folder.rglob("*")}
    return {
        name: hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        if path.is_file()
        else ""
        for name, path in found.items()
        if not own.search(name)
    }


# Databases


BACKUP = "; restore a backup, or move it away to start a new store"


def test_missing_folder(project: Repository, tmp_path: Path) -> None:
    """A database in a folder that is not there, as of a disk that is not mounted, is not made."""
    line = refused(project, MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/none/rows.db")
    assert line == (
        f"MLflow at sqlite:///{tmp_path}/none/rows.db: there is no folder {tmp_path}/none; "
        "make it, or correct MLFLOW_TRACKING_URI"
    )
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("damage", ["random", "truncated", "empty", "folder"])
def test_damaged_database(recorded: Repository, damage: str) -> None:
    """A damaged database is left as it is."""
    database = recorded.path / "mlflow.db"
    if damage == "random":
        database.write_bytes(os.urandom(10_000))
    elif damage == "truncated":
        os.truncate(database, database.stat().st_size // 3)
    else:
        database.unlink()
        database.mkdir() if damage == "folder" else database.touch()
    before = database.read_bytes() if damage != "folder" else b""
    line = refused(recorded)
    assert line.startswith(f"MLflow at sqlite:///{database}: ")
    assert line.endswith("; make it writable for you" if damage == "folder" else BACKUP)
    assert damage == "folder" or database.read_bytes() == before


def test_locked_database(recorded: Repository) -> None:
    """If another process holds the database, the cure is to wait."""
    recorded.set({"a": 2})
    recorded.dvc("repro", "-q")
    with closing(sqlite3.connect(recorded.path / "mlflow.db")) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        line = refused(recorded)
    assert line.endswith(": database is locked; run it again when it is free")
    assert record(recorded).returncode == 0
    assert [row.data.metrics["a/score"] for row in recorded.rows()] == [1, 2]


def test_writer(recorded: Repository) -> None:
    """Beside a process that writes to the database, `record` waits for it."""
    recorded.set({"a": 2})
    recorded.dvc("repro", "-q")
    with closing(sqlite3.connect(recorded.path / "mlflow.db", check_same_thread=False)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        threading.Timer(6, holder.rollback).start()
        done = record(recorded)
        assert (done.returncode, done.stderr) == (0, "")
    assert [row.data.metrics["a/score"] for row in recorded.rows()] == [1, 2]


@contextmanager
def immutable(path: Path) -> Iterator[None]:
    """Let nobody, not even root, write to a file or a folder."""
    chattr = shutil.which("chattr") or "false"
    if subprocess.run([chattr, "+i", path], capture_output=True, check=False).returncode:
        pytest.skip("needs chattr")
    try:
        yield
    finally:
        subprocess.run([chattr, "-i", path], check=True)


def test_read_only_database(recorded: Repository) -> None:
    """A read-only store needs no writing if it has all; else the cure is to make it writable."""
    database = recorded.path / "mlflow.db"
    with immutable(database):
        done = record(recorded)
        assert (done.returncode, done.stderr) == (0, "")
    recorded.set({"a": 2})
    recorded.dvc("repro", "-q")
    with immutable(database):
        line = refused(recorded)
    assert line.startswith(f"MLflow at sqlite:///{database}: ")
    assert line.endswith("; make it writable for you")


@pytest.mark.parametrize("folder", [".", ".dvc/tmp"])
def test_read_only_folder(project: Repository, folder: str) -> None:
    """If the repository itself is read-only, `record` says so."""
    shutil.rmtree(project.path / ".dvc" / "tmp")
    (project.path / ".dvc" / "tmp").mkdir()
    with immutable(project.path / folder):
        line = refused(project)
    assert re.search("unable to open|not permitted|denied", line)


def on_small_disk(project: Repository, size: str, place: Path, **more: str) -> Done:
    """Record with a small file system at a place."""
    place.mkdir()
    command = f"mount -t tmpfs -o size={size} none '{place}' && '{SCRIPT}' record"
    command += f" || {{ ls -A '{place}'; exit 1; }}"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command],
        cwd=project.path,
        env=environment(**more),
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip("needs the right to mount")
    return done


def test_full_disk(project: Repository, tmp_path: Path) -> None:
    """A full disk below the database, or the artifacts, is said; there is one row in the end."""
    address = f"sqlite:///{tmp_path}/disk/rows.db"
    done = on_small_disk(project, "256k", tmp_path / "disk", MLFLOW_TRACKING_URI=address)
    assert (done.returncode, done.stdout) == (1, "")  # nothing is left there
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith("; make room on its disk\n")
    done = on_small_disk(project, "4k", project.path / "mlartifacts")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith("; make room on its disk\n")
    assert record(project).returncode == 0
    (row,) = project.rows()
    assert row.info.status == "FINISHED"
    assert "model.txt" in project.artifacts(row)


@pytest.mark.parametrize(
    ("version", "cure"),
    [
        ("abcdef012345", "use the version of MLflow that last wrote to it"),
        ("6953534de441", "back it up, and run `mlflow db upgrade` on it"),  # of MLflow 3.0
        ("cfd24bdc0731", "back it up, and run `mlflow db upgrade` on it"),  # of MLflow 1
    ],
    ids=["newer", "older", "oldest"],
)
def test_other_schema(recorded: Repository, version: str, cure: str) -> None:
    """A database of another MLflow is not touched; which one it needs is said."""
    with closing(sqlite3.connect(recorded.path / "mlflow.db")) as store, store:
        (own,) = store.execute("SELECT version_num FROM alembic_version").fetchone()
        if version == own:
            pytest.skip("it is this MLflow's own")
        store.execute("UPDATE alembic_version SET version_num = ?", [version])
        store.execute("DROP TABLE logged_model_tags")  # then MLflow would migrate it
    before = (recorded.path / "mlflow.db").read_bytes()
    line = refused(recorded)
    assert f"(found version {version}, " in line
    assert line.endswith(f"; {cure}")
    assert (recorded.path / "mlflow.db").read_bytes() == before


# Servers

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def server(answer: Answer) -> Iterator[str]:
    """Run a web server that answers every request in the same way; yield its host and port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(OSError):
                answer(self)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        http.block_on_close = False
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{http.server_port}"
        http.shutdown()


def text(content: str, status: int = 200) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content.encode())))
        handler.end_headers()
        handler.wfile.write(content.encode())

    return answer


def trickle(handler: BaseHTTPRequestHandler) -> None:
    """Begin a long answer, and send one byte of it per second."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b" ")
        time.sleep(1)


def hang(handler: BaseHTTPRequestHandler) -> None:
    """Do not answer."""
    time.sleep(100)


def version(number: str, then: Answer) -> Answer:
    """Answer with a version first, and then in another way."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        (text(number) if handler.path.endswith("/version") else then)(handler)

    return answer


START = "; start it, or unset MLFLOW_TRACKING_URI"
CHECK = "; check that its address is that of an MLflow store"
LOGIN = "; check its user name and password"
ODD = '{"experiment": {"experiment_id": "1\\u001b[31m", "name": "\\u0007\\n\\n"}}'


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        (text("2.9.0"), "its version is 2.9.0, older than 3.0; upgrade it, or unset MLFLOW_TRACK"),
        (text("[]"), CHECK),
        (text("null"), CHECK),
        (text('{"experiments": 7, "experiment": 7}'), CHECK),
        (text("<html>\x1b[31m\n\n</html>"), CHECK),
        (text("\x1b[31m\nno", 401), LOGIN),
        (version("3.5.0", text("You are not authenticated\n", 401)), LOGIN),
        (version("3.5.0", text("\x1b]0;title\x07\n\n", 403)), LOGIN),
        (version("3.5.0", text("no\n", 500)), START),
        (text(ODD), ""),
        (hang, START),
        (trickle, START),
        (version("3.5.0", hang), START),
    ],
    ids=[
        *("2.9", "list", "null", "numbers", "page", "401", "401-later", "403", "500", "odd"),
        *("hang", "trickle", "hang-later"),
    ],
)
def test_server_that_is_none(project: Repository, answer: Answer, end: str) -> None:
    """A server that is not MLflow, too old, or does not answer is refused in one line."""
    before = files(project.path.parent)
    with server(answer) as host:
        line = refused(project, MLFLOW_TRACKING_URI=f"http://me:{SECRET}@{host}")
    assert line.startswith(f"MLflow at http://***@{host}: ")
    assert end in line
    assert files(project.path.parent) == before


def test_web_server(project: Repository, tmp_path: Path) -> None:
    """A plain web server is no MLflow."""
    port = free_port()
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", f"{port}"]
    with running(command, lambda: answers(f"http://127.0.0.1:{port}"), cwd=tmp_path):
        line = refused(project, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{port}")
    assert line.endswith(CHECK)


@pytest.mark.parametrize(
    "address",
    [
        "http://me:{}@{}",
        "http://me:/{}@{}",
        "http://me:a@{}@{}",
        "http://{1}/?token={0}",
        "postgresql://me:{}@{}/rows",
        "postgresql://me:a/{}@{}/rows",
        "mysql://me:{}@{}/rows",
        "nothing://me:{}@{}/rows",
    ],
)
def test_no_secret_is_shown(project: Repository, address: str) -> None:
    """Neither a password nor a token of an address is shown when nothing listens there."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{closed.getsockname()[1]}"
        line = refused(project, MLFLOW_TRACKING_URI=address.format(SECRET, host))
    assert "***" in line


def test_file_store(project: Repository, tmp_path: Path) -> None:
    """Where MLflow has given up its folders of files, what to do is said."""
    done = record(project, MLFLOW_TRACKING_URI=f"file://{tmp_path}/runs")
    if done.returncode:
        assert done.stderr.endswith(
            "; set MLFLOW_TRACKING_URI to a database or a server, or unset it\n"
        )
    assert done.stderr.count("\n") == done.returncode


# Projects


@pytest.mark.parametrize(
    ("file", "content", "start"),
    [
        ("dvc.yaml", "stages: [", "unable to read: 'dvc.yaml'"),
        ("dvc.yaml", "stages: 7", "'./dvc.yaml' validation failed"),
        ("dvc.yaml", "\0\x1b[31m", "unable to read: 'dvc.yaml'"),
        ("dvc.yaml", "stages: {a: {cmd: b, deps: [c], outs: [c]}}", "stages depend on one another"),
        ("dvc.lock", "stages: [", "unable to read: 'dvc.lock'"),
        ("dvc.lock", "schema: '9'", "'./dvc.lock' validation failed"),
        ("dvc.lock", "", "'./dvc.lock' validation failed"),
        (".dvc/config", "[[[", "config file error"),
        (".git/HEAD", "", "git rev-parse: "),
    ],
)
def test_broken_file(project: Repository, file: str, content: str, start: str) -> None:
    """A file that neither DVC nor git can read is named; nothing is recorded."""
    project.write({file: content})
    assert refused(project).startswith(start)
    assert not (project.path / "mlflow.db").exists()


def test_no_project(project: Repository, tmp_path: Path) -> None:
    """Outside of a DVC project, or of any repository, `record` says so."""
    shutil.rmtree(project.path / ".dvc")
    assert refused(project).startswith("you are not inside of a DVC repository")
    shutil.rmtree(project.path / ".git")
    assert refused(project).startswith("you are not inside of a DVC repository")
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run(
        ["sh", "-c", f"rmdir '{gone}'; exec '{SCRIPT}' record"],
        cwd=gone,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == (
        "dvc-mlflow: the working directory does not exist any more; go to another one\n"
    )


@pytest.mark.parametrize("revision", ["nothing", "--help", "HEAD~99", "a\x1b[31mb\nc", "/"])
def test_unknown_revision(project: Repository, revision: str) -> None:
    """A revision that git does not know is named, without what a terminal would obey."""
    assert "revision" in refused(project, f"--rev={revision}")


def test_git_is_missing(project: Repository) -> None:
    """Without git, or if git refuses the checkout, no row is made that would lack its commit."""
    assert refused(project, PATH="/nowhere").startswith("git is not on PATH")
    if os.getuid() == 0:
        os.chown(project.path, 12345, 12345)
        os.chown(project.path / ".git", 12345, 12345)
        assert "safe.directory" in refused(project)
    assert not (project.path / "mlflow.db").exists()


# Code and content of the user's


@pytest.mark.parametrize("folder", [".", "inner"])
@pytest.mark.parametrize("as_module", [False, True], ids=["script", "module"])
def test_modules_of_the_repository(project: Repository, folder: str, as_module: bool) -> None:
    """Nothing in the checkout is imported, whatever it is called and PYTHONPATH says."""
    (project.path / "inner").mkdir()
    trap = f"open({f'{project.path}/ran'!r}, 'w'); raise SystemExit('ran')"
    names = ["yaml.py", "json/__init__.py", "mlflow/__init__.py", "argparse.py", "subprocess.py"]
    for name in names:
        project.write({name: trap, f"inner/{name}": trap})
    command = [sys.executable, "-m", "dvc_mlflow"] if as_module else [str(SCRIPT)]
    for path in (".", f"..{os.pathsep}{project.path}/inner/../inner/{os.pathsep}{project.path}"):
        done = subprocess.run(
            [*command, "record"],
            cwd=project.path / folder,
            env=environment(PYTHONPATH=path),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert not (project.path / "ran").exists()
    assert len(project.rows()) == 1


NAMES = [
    "a/b",
    "..",
    "../..",
    "/",
    "a/../../b",
    "x'y",
    'x"y',
    "x`y",
    "a\nb",
    "a\x1b[31mb",
    "*",
    "ü",
]


def test_names_of_items(tmp_path: Path) -> None:
    """Items may have any name that DVC allows: each is recorded, in rows of their own or shared."""
    scores = {name: f"{number}.json" for number, name in enumerate(NAMES)}
    do = {
        "cmd": "echo '{\"score\": 1}' > ${item.file}",
        "metrics": [{"${item.file}": {"cache": False}}],
    }
    each = {name: {"file": file} for name, file in scores.items()}
    for number, more in enumerate([{}, {"deps": ["model.txt"]}]):
        stages = {"train": train("raw.txt"), "fit": {"foreach": each, "do": {**do, **more}}}
        project = repository(tmp_path / f"{number}" / "project", stages)
        project.dvc("repro", "-q")
        before = files(tmp_path)
        said = project.record()
        assert (said.error, said.status) == ("", 0)
        assert is_plain(said.out)
        assert project.record().out.startswith("nothing to do")
        metrics = [key for row in project.rows() for key in row.data.metrics]
        assert len(metrics) == len(NAMES) + 1
        assert len(project.rows()) == (1 if more else len(NAMES) + 1)
        assert files(tmp_path) == before


def test_outputs_elsewhere(tmp_path: Path) -> None:
    """Metrics above the project or under an absolute path are recorded, and no file is written."""
    away = tmp_path / "away"
    away.mkdir()
    paths = ["../up.json", f"{away}/far.json"]
    stage = {
        "cmd": "; ".join(
            f"echo '{{\"score\": 1}}' > {path}; echo 1 > {path}.txt" for path in paths
        ),
        "metrics": [{path: {"cache": False}} for path in paths],
        "outs": [{f"{path}.txt": {"cache": False}} for path in paths],
    }
    project = repository(tmp_path / "project", {"fit": stage})
    project.dvc("repro", "-q")
    before = files(tmp_path)
    said = project.record()
    assert (said.error, said.status) == ("", 0)
    (row,) = project.rows()
    assert {*row.data.metrics.values()} == {1}
    assert len(row.data.metrics) == 2
    assert project.artifacts(row) == []
    assert files(tmp_path) == before


def test_list_of_files_that_lead_out(tmp_path: Path) -> None:
    """Paths in a folder's list in DVC's cache, which anybody can have written, lead nowhere."""
    stage = {"cmd": "mkdir out; echo 1 > out/file", "outs": ["out"]}
    model = {**MODEL, "path": "out"}
    stages = {"fit": {**stage, "meta": {"mlflow": {"model": model}}}}
    project = repository(tmp_path / "project", stages, files={"loader.py": LOADER})
    project.dvc("repro", "-q")
    folder = project.path / ".dvc" / "cache" / "files" / "md5"
    (old,) = folder.rglob("*.dir")
    listed = json.loads(old.read_text())
    evil = [{**listed[0], "relpath": path} for path in ("../../evil", "a/../../../evil", "/evil")]
    content = json.dumps([*listed, *evil])
    new = hashlib.md5(content.encode(), usedforsecurity=False).hexdigest()
    (folder / new[:2]).mkdir(exist_ok=True)
    (folder / new[:2] / f"{new[2:]}.dir").write_text(content)
    lock = project.lock.replace(f"{old.parent.name}{old.stem}", new)
    project.write({"dvc.lock": lock})
    before = files(tmp_path)
    said = project.record()
    assert said.status == 0
    (row,) = project.rows()
    assert project.artifacts(row) == ["out/file"]
    assert files(tmp_path) == before
    assert not any(Path(folder, "evil").exists() for folder in ("/", tempfile.gettempdir()))


@pytest.mark.parametrize("link", ["code/inner.py", "code", "loader.py"])
def test_links_that_lead_out(tmp_path: Path, link: str) -> None:
    """What a link in `code_paths` leads to outside of the project is not stored in MLflow."""
    away = tmp_path / "away"
    (away / "code").mkdir(parents=True)
    for name in ("code/inner.py", "loader.py", "requirements.txt"):
        (away / name).write_text(SECRET)
    model = {**MODEL, "code_paths": ["loader.py", "code"]}
    stages = {"train": {**train("raw.txt"), "meta": {"mlflow": {"model": model}}}}
    texts = {"loader.py": LOADER, "code/inner.py": "", "code/other.py": ""}
    project = repository(tmp_path / "project", stages, files=texts)
    path = project.path / link
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.symlink_to(away / link)
    project.dvc("repro", "-q")
    said = project.record()
    assert said.status == 0
    assert is_plain(said.error)
    stored = [p for p in (project.path / "mlartifacts").rglob("*") if p.is_file()]
    assert stored
    assert not [p for p in stored if SECRET.encode() in p.read_bytes()]


ODD_TEXTS = [
    *("", " ", "\x1b[31mred\x07", "a\nb", "'; DROP TABLE runs; --", "../../etc", "٣@٣", "%s{}"),
    *("x" * 5000, "9" * 5000, "\u202e", "🙂", '{"', "`", "-1@-1"),
]


def test_hostile_store(recorded: Repository, tmp_path: Path) -> None:
    """Whatever the names and tags in a store are, `record` works, and a terminal obeys nothing."""
    (row,) = recorded.rows()
    database = recorded.path / "mlflow.db"
    own = {k: v for k, v in row.data.tags.items() if k.startswith(("begun.", "lock.", "clone"))}
    with closing(sqlite3.connect(database)) as store, store:
        columns = [column[1] for column in store.execute("PRAGMA table_info(runs)")]
        (values,) = store.execute("SELECT * FROM runs").fetchall()
        for number, odd in enumerate(ODD_TEXTS):
            for status in ("RUNNING", "FINISHED"):
                run_id = f"{number:031x}{status[0]}"
                run = {
                    **dict(zip(columns, values, strict=True)),
                    **{"run_uuid": run_id, "name": odd[:250], "status": status, "end_time": None},
                }
                marks = ", ".join("?" * len(columns))
                store.execute(f"INSERT INTO runs VALUES ({marks})", [*run.values()])  # noqa: S608
                tags = dict(own) if number % 2 else dict.fromkeys(own, odd)
                tags |= dict.fromkeys(["process", "host", "system", "mlflow.user", odd[:250]], odd)
                tags |= {f"begun.{odd[:200]}": odd, f"lock.{odd[:200]}": odd, "reproduced": odd}
                for key, value in tags.items():
                    store.execute("INSERT INTO tags VALUES (?, ?, ?)", [key, value, run_id])
        for odd in ODD_TEXTS:
            statement = "INSERT INTO experiment_tags VALUES (?, ?, 1)"
            store.execute(statement, [odd[:250], odd])
        store.execute("UPDATE experiments SET name = ? WHERE experiment_id = 1", ["\x1b[31m\n"])
        store.execute("UPDATE runs SET name = ? WHERE run_uuid = ?", ["\x07", row.info.run_id])
    before = files(tmp_path)
    for params in ({}, {"a": 2}, {"rate": 2}):
        recorded.set(params)
        recorded.dvc("repro", "-q")
        done = record(recorded)
        assert (done.returncode, done.stderr) == (0, "")
        assert is_plain(done.stdout)
    client = MlflowClient(f"sqlite:///{database}")
    (trashed,) = [r for r in recorded.rows() if r.data.params.get("rate") == "2"]
    client.delete_run(trashed.info.run_id)
    done = record(recorded)
    assert done.stdout.startswith("left in MLflow's trash")
    ours = [r for r in recorded.rows() if r.data.params]
    assert [r.data.params["a"] for r in ours if r.info.status == "FINISHED"] == ["1", "2"]
    changed = {path for path, md5 in files(tmp_path).items() if before.get(path) != md5}
    written = ["params.yaml", "dvc.lock", "model.txt", "curve.csv", "a.json"]
    assert changed <= {f"project/{name}" for name in written}
