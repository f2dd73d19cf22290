"""Whatever names and paths a project contains, nothing leads out of it."""

import hashlib
import json
import tempfile
from pathlib import Path

import pytest

from support.clone import STORES, contents
from support.hostile import plain
from support.locked import locked, trained
from support.pipelines import LOADER, MODEL, Repository, train
from support.rebuilding import UNCACHED

pytestmark = pytest.mark.pipeline

NAMES = ["a/b", "..", "/", "a/../../b", "x'y", 'x"y', "x`y", "a\nb", "a\x1b[31mb", "*", "ü"]


def test_names_of_items(tmp_path: Path) -> None:
    """Items may have any name that DVC allows, and each is recorded."""
    scores = {f"{number}.json": '{"score": 1}' for number in range(len(NAMES))}
    each = {name: {"file": file} for name, file in zip(NAMES, scores, strict=True)}
    do = {"cmd": "run ${item.file}", "metrics": [{"${item.file}": UNCACHED}]}
    stages = {"train": train("raw.txt"), "fit": {"foreach": each, "do": do}}
    project = locked(tmp_path / "project", stages, files={**scores, **trained()})
    project.add_store()
    before = contents(tmp_path, *STORES)
    said = project.record()
    assert (said.error, said.status) == ("", 0)
    plain(said)
    assert project.record().out.startswith("nothing to do")
    metrics = [key for row in project.rows() for key in row.data.metrics]
    assert len(metrics) == len(NAMES) + 1
    assert len(project.rows()) == len(NAMES) + 1
    assert contents(tmp_path, *STORES) == before


def test_elsewhere(tmp_path: Path) -> None:
    """Outputs outside the repository are left out, and no file is written there.

    A stage that reads files outside has one row, also from history, and is restored. One of them is
    called as its output is, but for the `..` that DVC leaves out in a commit.
    """
    away = f"{tmp_path}/away"
    outputs, inputs = ["../up.json", f"{away}/far.json"], ["../data.txt", f"{away}/in.txt"]
    stage = {
        "cmd": "run",
        "deps": inputs,
        "metrics": [{path: UNCACHED} for path in ("m.json", *outputs)],
        "outs": ["data.txt", {f"{away}/far.txt": UNCACHED}],
    }
    texts = {
        **dict.fromkeys(["data.txt", *inputs, f"{away}/far.txt"], "1\n"),
        **dict.fromkeys(["m.json", *outputs], '{"score": 1}'),
    }
    project = locked(tmp_path / "project", {"fit": stage}, files=texts)
    project.add_store()
    project.commit("Committed")
    before = contents(tmp_path, *STORES)
    said = project.record("--all")
    left = f"{outputs[0]} is not in the repository; it is left out (and 1 more: {outputs[1]})\n"
    assert (said.status, said.error.partition(": ")[2].partition(": ")[2]) == (0, left)
    assert project.record().out.startswith("nothing to do")
    (row,) = project.rows()
    assert row.data.metrics == {"fit/m/score": 1}
    assert project.artifacts(row) == ["data.txt", "m.json"]
    assert contents(tmp_path, *STORES) == before
    project.write({"restored/data.txt": "1\n"})
    said = project.tool("restore", row.info.run_id)
    assert (said.error, said.status) == ("", 0)


def lists(project: Repository, *paths: str) -> None:
    """Let the list of the folder `out` in DVC's cache, and so dvc.lock, have these paths, too."""
    folder = project.path / ".dvc" / "cache" / "files" / "md5"
    (old,) = folder.rglob("*.dir")
    listed = json.loads(old.read_text())
    content = json.dumps([*listed, *({**listed[0], "relpath": path} for path in paths)])
    new = hashlib.md5(content.encode(), usedforsecurity=False).hexdigest()
    (folder / new[:2]).mkdir(exist_ok=True)
    (folder / new[:2] / f"{new[2:]}.dir").write_text(content)
    project.write({"dvc.lock": project.lock.replace(f"{old.parent.name}{old.stem}", new)})


def test_list_of_files_that_lead_out(tmp_path: Path) -> None:
    """Paths in a folder's list in DVC's cache, which anyone may have written, lead nowhere."""
    artifacts = {"model": {"path": "out", "type": "model", "meta": MODEL}}
    texts = {"out/file": "1\n", "loader.py": LOADER}
    stages = {"fit": {"cmd": "run", "outs": ["out"]}}
    project = locked(tmp_path / "project", stages, files=texts, artifacts=artifacts)
    project.add_store()
    lists(project, "../../evil", "a/../../../evil", "/evil")
    before = contents(tmp_path, *STORES)
    said = project.record()
    assert said.status == 0
    (row,) = project.rows()
    assert project.artifacts(row) == ["out/file"]
    assert contents(tmp_path, *STORES) == before
    assert not any(Path(folder, "evil").exists() for folder in ("/", tempfile.gettempdir()))
