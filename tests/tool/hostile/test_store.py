"""The store is hostile: whoever can write to MLflow makes no command lead anywhere else."""

import sqlite3
from contextlib import closing

import pytest
from mlflow.entities import Run

from dvc_mlflow.pipeline import tags
from dvc_mlflow.place import why_not_in_tree
from support.hostile import Place, tag
from support.pipelines import Repository, Said
from support.rebuilding import rows_of
from support.servers import hostile_server

pytestmark = pytest.mark.pipeline


TEXTS = {
    "path": "../../../outside/x",
    "absolute": "/etc/x",
    "escape": "\x1b]0;title\x07\x1b[31m\u202e",
    "lines": "a\nb\r\nc",
    "option": "--upload-pack=touch ran",
    "shell": "$(touch ran); `touch ran`",
    "nothing": "",
    "git": ".git",
    "long": "\U0001d4b3" * 1000,
    "nul": "a\0b",
}
KEYS = [
    tags.KEPT,
    tags.TREE,
    tags.WHOLE,
    tags.UNREAD,
    tags.LACKS,
    tags.FOUND_BY,
    tags.TOKEN,
    tags.PROCESS,
    tags.FOLDER,
    tags.CHANGE,
]


def said_by(place: Place, *words: str) -> Said:
    """Run a command in this process; check what it prints, and that git's refs stay."""
    refs, before = place.project.git("for-each-ref"), place.untouched()
    said = place.tool(*words)
    assert (said.error.count("\n") >= 1) == bool(said.status), said
    assert not [*place.project.path.parent.rglob("ran")]
    assert place.untouched() == before
    if words[0] != "forget":
        assert place.project.git("for-each-ref") == refs
    return said


def test_tags(place: Place) -> None:
    """Whatever rows say of themselves, commands end, with a line, and touch nothing else."""
    project, client, (row,) = place.project, place.project.client, place.project.rows()
    odd_rows = []
    for n, text in enumerate(TEXTS.values()):
        tag(project, row.info.run_id, {tags.FOLDER: text})
        client.update_run(row.info.run_id, name=text or None)
        said_by(place, "restore", row.info.run_id)
        odd = client.create_run(row.info.experiment_id, tags=row.data.tags).info.run_id
        client.set_terminated(odd)
        client.update_run(odd, name=text or None)
        keys = [
            *KEYS,
            f"{tags.MD5}m.json",
            f"{tags.MD5}{text}"[:200],
            *([f"{tags.LOCK}one"] if n % 2 else ()),
        ]
        tag(project, odd, dict.fromkeys(keys, text))
        odd_rows.append(odd)
    tag(project, row.info.run_id, {tags.FOLDER: "../project"})
    line = ": its folder '../project' leads out of the repository\n"
    assert said_by(place, "restore", row.info.run_id).error.endswith(line)
    for words in (["record"], ["record", "--all"]):
        said_by(place, *words)
    for odd in odd_rows:
        said_by(place, "restore", odd)
    for odd in odd_rows[::4]:
        said_by(place, "promote", odd)
        said_by(place, "forget", odd)
    assert "refs/heads/main" in project.git("for-each-ref")


NAMES = ["HEAD", "HEAD^{tree}", "main", "stash@{0}", "{short}", "{blob}", "{object}", "{stash}"]
NAMES += ["f" * 40]


def test_hashes(place: Place) -> None:
    """A tag that is no hash of a commit under a ref that shares results leads to no commit."""
    project = place.project
    project.write({"secret.txt": "s"})
    project.git("add", "secret.txt")
    project.git("stash", "-q")
    project.git("tag", "-a", "-m", "x", "note", "HEAD:raw.txt")
    given = {
        "short": project.git("rev-parse", "--short", "HEAD"),
        "blob": project.git("rev-parse", "HEAD:raw.txt"),
        "object": project.git("rev-parse", "note"),
        "stash": project.git("rev-parse", "stash"),
    }
    run_id, restored = project.rows()[-1].info.run_id, {}
    for name in NAMES:
        value = given.get(name.strip("{}"), name)
        tree = project.git("rev-parse", "stash^{tree}") if "stash" in name else value
        tag(project, run_id, {tags.KEPT: value, tags.TREE: tree})
        restored[name] = not said_by(place, "restore", run_id).status
        said_by(place, "forget", run_id)
        project.client.restore_run(run_id)
    assert restored == dict.fromkeys(NAMES, False)
    assert not (project.path / "restored").exists()
    assert project.git("for-each-ref", "refs/stash", "refs/tags", "refs/heads").count("\n") == 2


def change(project: Repository, statement: str, value: str) -> None:
    """Change the database of a store past MLflow's own checks."""
    with closing(sqlite3.connect(project.path / "mlflow.db")) as store, store:
        store.execute(statement, [value])


def rows_in_git(project: Repository) -> list[Run]:
    """Return the rows of the store in git's folder."""
    return rows_of(f"sqlite:///{project.path}/.git/dvc-mlflow/mlflow.db")


def test_tracked_store(place: Place) -> None:
    """A store that git tracks is left alone: the tool's own is in git's folder, and a line says so.

    There `run` sends what scripts log.
    """
    project = place.project
    project.git("add", "-f", "mlflow.db")
    project.git("commit", "-q", "-m", "A store")
    before, store = place.untouched(), (project.path / "mlflow.db").read_bytes()
    own = project.path / ".git/dvc-mlflow"
    said = place.tool("record")
    (line,) = (line for line in said.error.splitlines() if "tracked" in line)
    assert f"mlflow.db is tracked by git, so MLflow's store is {own}/mlflow.db" in line
    assert said.status == place.tool("record", "--all").status == 0
    (row,) = rows_in_git(project)
    assert row.info.artifact_uri.startswith((own / "mlartifacts").as_uri())
    assert place.tool("restore", row.info.run_id).status == 0
    scripts = place.run("run", "printenv", "MLFLOW_TRACKING_URI").out
    assert scripts == f"sqlite:///{own}/mlflow.db\n"
    assert (project.path / "mlflow.db").read_bytes() == store
    assert place.untouched() == before


def test_linked_store(place: Place) -> None:
    """A store that is a link, as to another project's, is left alone in the same way."""
    project = place.project
    project.set({"rate": 2})
    project.dvc("repro", "-q")
    for name in ("mlflow.db-journal", "mlartifacts", "mlflow.db"):
        here, there = project.path / name, place.outside / name
        if here.exists():
            here.rename(there)
        here.symlink_to(there)
        assert why_not_in_tree(project.path) == f"{name} is a link"
        if name != "mlflow.db":
            here.unlink()
    before, content = place.untouched(), (project.path / "mlflow.db").read_bytes()
    assert "mlflow.db is a link, so MLflow's store is " in place.tool("record").error
    assert place.tool("record", "--all").status == 0
    assert [row.data.params["rate"] for row in rows_in_git(project)] == ["2", "1"]
    assert place.untouched() == before
    assert (project.path / "mlflow.db").read_bytes() == content


def test_run_that_is_elsewhere(place: Place) -> None:
    """A run whose files would be elsewhere than its experiment's is not joined."""
    (row,) = place.project.rows()
    dead = f"{row.data.tags[tags.PROCESS].rpartition(' ')[0]} 1@1"
    tag(place.project, row.info.run_id, {tags.PROCESS: dead})  # as if its recording was killed
    change(place.project, "DELETE FROM tags WHERE key = ?", f"{tags.LOCK}one")
    change(place.project, "UPDATE runs SET artifact_uri = ?", place.outside.as_uri())
    before = place.untouched()
    assert place.tool("record").status == 0
    (other,) = (r for r in place.project.rows() if r.info.run_id != row.info.run_id)
    assert not other.info.artifact_uri.startswith(place.outside.as_uri())
    assert place.untouched() == before


def test_experiment_that_is_elsewhere(place: Place) -> None:
    """In the own store, an experiment elsewhere gets rows without files, and a line says why."""
    project = place.project
    shelf = (place.outside / "files").as_uri()
    project.client.create_experiment("other", artifact_location=shelf)
    (row,) = project.rows()
    project.client.delete_run(row.info.run_id)
    project.set({"rate": 2})
    project.dvc("repro", "-q")
    said = place.tool("record", MLFLOW_EXPERIMENT_NAME="other")
    assert "a row's files are left out: its experiment keeps files elsewhere" in said.error
    assert [row.data.params["rate"] for row in project.rows()] == ["2"]
    assert not (place.outside / "files").exists()


def test_hostile_server(place: Place) -> None:
    """A server that names a place of this machine gets no files; one without an end is left."""
    where, before = place.outside.as_uri(), place.untouched()
    ids = {"f" * 32: "a row's files are left out: MLflow", "../../outside/x": "Invalid value"}
    for run_id, line in ids.items():
        with hostile_server(where, run_id) as address:
            said = place.tool("record", MLFLOW_TRACKING_URI=address)
        assert said.error.count(line) == 1, said
        assert place.untouched() == before
    with hostile_server("mlflow-artifacts:/1", next_page="again") as address:
        said = place.tool("record", "--all", MLFLOW_TRACKING_URI=address)
    (line,) = said.error.splitlines()
    assert "the server sends the same page of runs again and again" in line
