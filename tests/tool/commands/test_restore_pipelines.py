"""Every row has a way back, whatever the pipeline and in whatever order its stages ran."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest

from dvc_mlflow.pipeline.tags import KEPT, LACKS, MD5, STAGE, UNREAD
from support.locked import evaluated, locked, trained
from support.pipelines import (
    TWO_EVALUATIONS,
    Repository,
    evaluate,
    last,
    prepare,
    repository,
    reproduce,
    train,
)
from support.promoting import check_md5s, folder_of, only_folder, restore, restored

pytestmark = pytest.mark.pipeline


def hashed(text: str) -> str:
    """Return the md5 of a text."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def check(project: Repository) -> None:
    """Restore every row, and compare it with what its tags, and dvc.lock, say."""
    for run in project.rows():
        said = restore(project, run)
        assert (said.status, said.error) == (0, ""), said
        folder = folder_of(project, said)
        check_md5s(folder.path, run)
        # The other items of a foreach are other rows' results, and inputs can have changed since.
        status = folder.dvc("status", run.data.tags[STAGE]).stdout
        assert "up to date" in status or LACKS in run.data.tags, status
        assert "changed outs" not in status


def test_any_order(tmp_path: Path) -> None:
    """Rows can be restored after any order of runs, edits and commits.

    Such are rows whose stages were recorded one by one, and those of code that nobody committed.
    """
    own = {"cmd": "sh code.sh > data.txt", "deps": ["raw.txt", "code.sh"], "outs": ["data.txt"]}
    files = {"code.sh": "cat raw.txt\n"}
    project = repository(tmp_path / "project", {**TWO_EVALUATIONS, "prepare": own}, files=files)
    reproduce(project)
    project.set({"a": 2, "b": 2})
    for name in "ba":
        reproduce(project, {}, name)
    assert len(project.rows()) == 3  # between the two, dvc.lock has one old evaluation
    project.commit()
    project.write({"code.sh": "cat raw.txt # edited\n"})
    reproduce(project, {"rate": 2}, "train")
    reproduce(project)
    assert len(project.rows()) == 4
    check(project)


def test_items(tmp_path: Path) -> None:
    """Rows of a foreach are restored; those of one dvc.lock are kept by one commit."""
    do = json.loads(re.sub(r"(model|curve)\.", "${item}.", json.dumps(train())))
    stages = {"prepare": prepare(), "fit": {"foreach": ["one", "two"], "do": do}}
    project = repository(tmp_path / "project", stages)
    reproduce(project)
    first, second = project.rows()
    assert project.git("for-each-ref", "refs/rows").count("\n") == 0
    assert first.data.tags[KEPT] == second.data.tags[KEPT]
    check(project)


def test_several_dvc_yaml(tmp_path: Path) -> None:
    """A row of stages in two dvc.yaml files is restored with both locks, which nobody committed."""
    inner = {
        "cmd": "sh a.sh",
        "wdir": "work",
        "deps": ["../../model.txt", "a.sh"],
        "params": [{"../../params.yaml": ["a"]}],
        "metrics": ["a.json"],
    }
    files = {"inner/dvc.yaml": json.dumps({"stages": {"a": inner}}), "inner/work/a.sh": "run\n"}
    files |= {**trained(), "inner/work/a.json": '{"score": 1}'}
    project = locked(tmp_path / "project", {"train": train("raw.txt")}, files=files)
    project.run("rm", "dvc.lock", "inner/dvc.lock")
    project.add_store()
    project.commit()
    project.ran()
    project.record()
    (run,) = project.rows()
    assert {f"{MD5}model.txt", f"{MD5}inner/work/a.json"} <= run.data.tags.keys()
    folder = restored(project, run)
    assert (folder.path / "inner/dvc.lock").exists()


def test_code_that_a_later_commit_adds(tmp_path: Path) -> None:
    """A script that was committed after its result is restored with it."""
    stage = {"cmd": "sh src/code.sh", "deps": ["src/code.sh"], "outs": ["data.txt"]}
    files = {"src/code.sh": "echo 1 > data.txt\n", "data.txt": "1\n"}
    project = locked(tmp_path / "project", {"prepare": stage}, files=files)
    project.add_store()
    project.git("add", "--all", ":!src")
    project.git("commit", "-q", "-m", "Without the code")
    project.commit("With the code")
    project.record("--all")
    (row,) = project.rows()
    assert (restored(project, row).path / "src/code.sh").read_text() == "echo 1 > data.txt\n"


def test_data_that_git_has_had(tmp_path: Path) -> None:
    """Files that DVC keeps are taken from another commit that has them, if its cache does not.

    A row shows metrics from there, too. A lock of DVC 2 has md5s whatever the line endings.
    """
    files = {"data.txt": "1\r\n", "old.txt": "2\r\n", "m.json": '{"score": 1}\r\n'}
    files["old.json"] = '{"loss": 2}\r\n'
    outs = {"outs": ["data.txt", "old.txt"], "metrics": ["m.json", "old.json"]}
    stage = {"cmd": "run", "deps": ["raw.txt"], **outs}
    project = locked(tmp_path / "project", {"fit": stage}, files=files, tracked=["raw.txt"])
    project.add_store()
    lock = project.lock
    for name in ("old.txt", "old.json"):
        entry = lock[lock.index(f"path: {name}\n") :].partition("size:")[0]
        old = entry.replace(hashed(files[name]), hashed(files[name].replace("\r", "")))
        lock = lock.replace(entry, re.sub(r"\n *hash: md5", "", old))
    project.write({"dvc.lock": lock})
    project.git("add", "-f", "raw.txt", *files)
    project.commit("As git had them")
    project.git("rm", "-q", "--cached", "raw.txt", *files)
    project.commit("As DVC keeps them")
    project.run("rm", "-r", "raw.txt", *files, ".dvc/cache")
    said = project.record("--all")
    assert (said.error, said.status) == ("", 0)
    (row,) = project.rows()
    assert row.data.metrics == {"fit/m/score": 1, "fit/old/loss": 2}
    said = restore(project, row)
    assert (said.error, said.status) == ("", 0)
    folder = folder_of(project, said).path
    for name, text in {**files, "raw.txt": "1\n"}.items():
        assert (folder / name).read_bytes() == text.encode()


def test_uncommitted_code(tmp_path: Path) -> None:
    """Code that nobody has committed is kept: what was edited, scripts, and what is below a dep.

    What git ignores is not; what cannot be kept is named on stderr and in the row.
    """
    stage = {**train("raw.txt"), "deps": ["raw.txt", "src"]}
    files = {"src/train.sh": "old\n"}
    project = repository(tmp_path / "project", {"train": stage}, files=files)
    project.write({".gitignore": "/mlflow.db*\n/secret.py\n"})
    project.commit()
    others = [".env", "notes.txt", "secret.py", "venv/site-packages/x.py", "src/large.bin"]
    project.write({**dict.fromkeys(others, "PASSWORD=x\n"), "src/large.bin": "#" * 1_000_001})
    kept = {"src/train.sh": ". lib/extra.sh\n", "src/new": "1\n", "conf/a.yaml": "a: 1\n"}
    project.write({**kept, "lib/extra.sh": "true\n"})
    project.run("git", "init", "-q", "src/other")
    project.write({"src/other/file": "1"})
    project.dvc("repro", "-q")
    said, run = project.record(), last(project)
    lacks = ["src/large.bin: it is larger than 1,000,000 bytes", "src/other/: it is a git"]
    for line in lacks:
        assert line in said.error
        assert line in run.data.tags[LACKS]
    said = restore(project, run)
    assert said.status == 0, said
    folder = folder_of(project, said).path
    check_md5s(folder, run)
    assert {name: (folder / name).read_text() for name in kept} == kept
    assert (folder / "lib/extra.sh").exists()
    assert not [name for name in [*others, "src/other"] if (folder / name).exists()]


def test_later_dvc_yaml(tmp_path: Path) -> None:
    """A committed result is restored if dvc.yaml has become another since."""
    project = locked(tmp_path / "project", TWO_EVALUATIONS, files=evaluated())
    project.add_store()
    project.commit()
    project.record()
    (run,) = project.rows()
    project.write({"dvc.yaml": json.dumps({"stages": {"b": evaluate("b", "raw.txt")}})})
    project.commit()
    assert restore(project, run).status == 0


def test_nested_project(tmp_path: Path) -> None:
    """A nested project is restored, also if its row comes from a git worktree."""
    project = repository(tmp_path / "project", {}, files={"inner/raw.txt": "1\n"})
    project.git("rm", "-rq", ".dvc", "dvc.yaml")
    shutil.rmtree(project.path / ".dvc")
    nested = Repository(project.path / "inner")
    nested.dvc("init", "-q", "--subdir")
    stages = {"stages": {"train": train("raw.txt")}}
    ignored = {".gitignore": "/mlflow.db*\n/mlartifacts/\n"}
    nested.write({"dvc.yaml": json.dumps(stages), "params.yaml": "rate: 1\n", **ignored})
    nested.add_store()
    project.commit("A nested project")
    project.git("worktree", "add", "-q", "../tree")
    reproduce(nested)
    said = restore(nested, last(nested))
    assert (said.status, said.error) == (0, ""), said
    assert "up to date" in folder_of(nested, said).dvc("status").stdout
    tree = Repository(tmp_path / "tree/inner")
    tree.dvc("cache", "dir", "-q", "--local", f"{nested.path}/.dvc/cache")  # as DVC recommends
    reproduce(tree, {"rate": 2})
    assert len(nested.rows()) == 2
    assert restore(nested, last(nested)).status == 0


REMOTES = {
    "": "and there is no default DVC remote; `dvc exp pull` or `dvc repro` may help",
    "gdrive://folder": "dvc-gdrive",
    "../nowhere": "and it did not come from the DVC remote 'store'",
}
"""Remotes that cannot be used, and what `restore` says of them."""


def test_as_far_as_it_goes(tmp_path: Path) -> None:
    """A row is restored but for what nothing has, and a line says where `restore` looked."""
    stages = {"train": train("raw.txt"), "a": evaluate("a", cache=True)}
    stages["train"]["outs"] = ["model.txt", "big"]
    files = {**evaluated(), "big": "0" * 2_000_000}
    project = locked(tmp_path / "project", stages, files=files)
    project.add_store()
    project.commit()
    md5s = {name: hashed(files[name]) for name in ("big", "a.json")}
    for name, md5 in md5s.items():
        (project.path / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).unlink()
        (project.path / name).unlink()
    assert project.record("--all").status == 0
    (run,) = project.rows()
    assert run.data.tags[UNREAD] == "a.json"
    for remote, reason in REMOTES.items():
        if remote:
            project.dvc("remote", "add", "-q", "-f", "-d", "store", remote)
        said = restore(project, run)
        assert said.status == 1
        first, second = said.error.splitlines()
        nowhere = "is missing: neither git nor DVC's cache has it, "
        assert f": big (md5 {md5s['big']}) {nowhere}" in first
        assert reason in first
        assert second.endswith(f": a.json (md5 {md5s['a.json']}) is missing: as above")
        folder = only_folder(project)
        assert (folder / "model.txt").exists()
        assert (folder / "curve.csv").exists()
