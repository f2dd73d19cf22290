"""The store is hostile: whoever can write to MLflow makes no command lead anywhere else."""

import pytest
from mlflow import MlflowClient

from support.clone import environment
from support.hostile import Place, tag
from support.pipelines import Said

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


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
KEYS = ["kept", "tree", "lock.one", "row", "unread", "lacks", "token", "process"]


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
    for text in TEXTS.values():
        tag(project, row.info.run_id, {"folder": text, "dvc-mlflow.stages": text})
        client.update_run(row.info.run_id, name=text or None)
        said_by(place, "restore", row.info.run_id)
        odd = client.create_run(row.info.experiment_id, tags=row.data.tags).info.run_id
        client.set_terminated(odd)
        client.update_run(odd, name=text or None)
        tags = dict.fromkeys([f"dvc-mlflow.{key}.one" for key in KEYS[:6]], text)
        tags |= dict.fromkeys([f"dvc-mlflow.{key}" for key in KEYS[6:]], text)
        tags |= {f"md5.{text}"[:200]: text, "md5.m.json": text, "folder": text, "commit": text}
        tag(project, odd, tags)
        odd_rows.append(odd)
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
        tag(project, run_id, {"dvc-mlflow.kept": value, "dvc-mlflow.tree": tree})
        restored[name] = not said_by(place, "restore", run_id).status
        said_by(place, "forget", run_id)
        project.client.restore_run(run_id)
    assert restored == dict.fromkeys(NAMES, False)
    assert not (project.path / "restored").exists()
    assert project.git("for-each-ref", "refs/stash", "refs/tags", "refs/heads").count("\n") == 2


def test_forget_beside_another_experiment(place: Place) -> None:
    """`forget` keeps a ref that a row needs, whatever experiment of the store the row is in."""
    project = place.project
    (row,) = project.rows()
    commit, tree = (row.data.tags[f"dvc-mlflow.{key}"] for key in ("kept", "tree"))
    project.git("update-ref", f"refs/rows/{commit}", commit)
    shared = f"sqlite:///{project.path.parent}/shared.db"
    more = environment(MLFLOW_TRACKING_URI=shared)
    assert project.tool("record", **more).status == 0
    client = MlflowClient(shared)
    (mine,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    other = client.create_run(client.create_experiment("other"))
    client.set_tag(other.info.run_id, "dvc-mlflow.kept", commit)
    client.set_tag(other.info.run_id, "dvc-mlflow.tree", tree)
    client.set_tag(mine.info.run_id, "dvc-mlflow.kept", commit)
    said = project.tool("forget", mine.info.run_id, **more)
    assert (said.status, said.error) == (0, ""), said
    assert project.git("rev-parse", f"refs/rows/{commit}") == commit
