"""Whatever names, paths and texts a project or a store contains, nothing leads out of it."""

import hashlib
import json
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from dvc_mlflow.pipeline.tags import CLONE, HOST, LOCK, PROCESS, SYSTEM, WHOLE
from support.locked import locked
from support.pipelines import LOADER, MODEL, Repository, Stages, makes, repository, train
from support.refusals import SECRET, files, is_plain, recorded_once

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline that has run once and has a row, for all tests: copy it."""
    return recorded_once(tmp_path_factory.mktemp("made"))


@pytest.fixture
def recorded(made: Repository, tmp_path: Path) -> Repository:
    """A copy of that repository with its store."""
    return made.copy_with_rows(tmp_path / "project")


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


@pytest.mark.rest
def test_names_of_items(tmp_path: Path) -> None:
    """Items may have any name that DVC allows, and each is recorded."""
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
    """Outputs outside the repository are left out, and no file is written there."""
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
    left = [f"dvc-mlflow: {path} is not in the repository; it is left out" for path in paths]
    assert (said.error.splitlines(), said.status) == (left, 0)
    (row,) = project.rows()
    assert row.data.metrics == {}
    assert project.artifacts(row) == []
    assert files(tmp_path) == before


def test_inputs_elsewhere(tmp_path: Path) -> None:
    """A stage that reads files outside the repository has one row, also from history.

    One of them is called as its output is, but for the `..` that DVC leaves out in a commit.
    """
    away = tmp_path / "away.txt"
    away.write_text("1\n")
    (tmp_path / "data.txt").write_text("1\n")
    stage = {
        "cmd": f"cat ../data.txt {away} > data.txt; echo '{{\"score\": 1}}' > m.json",
        "deps": ["../data.txt", f"{away}"],
        "outs": ["data.txt"],
        "metrics": [{"m.json": {"cache": False}}],
    }
    project = repository(tmp_path / "project", {"fit": stage})
    project.dvc("repro", "-q")
    project.commit("Committed")
    said = project.record("--all")
    assert (said.error, said.status) == ("", 0)
    assert project.record().out.startswith("nothing to do")
    (row,) = project.rows()
    assert row.data.metrics == {"fit/score": 1}
    (tmp_path / "project" / "restored").mkdir()
    (tmp_path / "project" / "restored" / "data.txt").write_text("1\n")
    said = project.tool("restore", row.info.run_id)
    assert (said.error, said.status) == ("", 0)


def test_list_of_files_that_lead_out(tmp_path: Path) -> None:
    """Paths in a folder's list in DVC's cache, which anyone may have written, lead nowhere."""
    stage = {"cmd": "mkdir out; echo 1 > out/file", "outs": ["out"]}
    artifacts = {"model": {"path": "out", "type": "model", "meta": MODEL}}
    stages, loader = {"fit": stage}, {"loader.py": LOADER}
    project = repository(tmp_path / "project", stages, files=loader, artifacts=artifacts)
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


def test_links_that_lead_out(tmp_path: Path) -> None:
    """Files outside the project that links in `code_paths` lead to are not stored in MLflow."""
    away = tmp_path / "away"
    (away / "code").mkdir(parents=True)
    for name in ("code/inner.py", "loader.py", "requirements.txt"):
        (away / name).write_text(SECRET)
    links = {"one": "code/inner.py", "two": "code", "three": "loader.py"}
    stages: Stages = {}
    texts: dict[str, str] = {}
    artifacts: dict[str, Any] = {}
    for name in links:
        model = {**MODEL, "code_paths": [f"{name}/loader.py", f"{name}/code"]}
        stages[name] = makes({f"{name}.txt": name}, outs=[f"{name}.txt"])
        artifacts[name] = {"path": f"{name}.txt", "type": "model", "meta": model}
        texts |= {f"{name}/{path}": LOADER for path in ("loader.py", "code/inner.py", "code/x.py")}
        texts[f"{name}.txt"] = name
    project = locked(tmp_path / "project", stages, files=texts, artifacts=artifacts)
    project.add_store()
    for name, link in links.items():
        path = project.path / name / link
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.symlink_to(away / link)
    said = project.record()
    assert said.status == 0
    assert is_plain(said.error)
    assert len(project.rows()) == len(links)
    stored = [p for p in (project.path / "mlartifacts").rglob("*") if p.is_file()]
    assert stored
    assert not [p for p in stored if SECRET.encode() in p.read_bytes()]


ODD_TEXTS = [
    *("", " ", "\x1b[31mred\x07", "a\nb", "'; DROP TABLE runs; --", "../../etc", "٣@٣", "%s{}"),
    *("x" * 5000, "9" * 5000, "\u202e", "🙂", '{"', "`", "-1@-1"),
]


@pytest.mark.rest
def test_hostile_store(recorded: Repository, tmp_path: Path) -> None:
    """Whatever names and tags a store has, `record` works and prints no control characters."""
    (row,) = recorded.rows()
    database = recorded.path / "mlflow.db"
    own = {k: v for k, v in row.data.tags.items() if k.startswith((LOCK, WHOLE, CLONE))}
    with closing(sqlite3.connect(database)) as store, store:
        columns = [column[1] for column in store.execute("PRAGMA table_info(runs)")]
        (values,) = store.execute("SELECT * FROM runs").fetchall()
        for number, odd in enumerate(ODD_TEXTS):
            for status in ("RUNNING", "FINISHED"):
                run_id = f"{number:031x}{status[0]}"
                run = {
                    **dict(zip(columns, values, strict=True)),
                    **{"run_uuid": run_id, "name": odd[:250], "status": status, "end_time": None},
                    "artifact_uri": row.info.artifact_uri.replace(row.info.run_id, run_id),
                }
                marks = ", ".join("?" * len(columns))
                store.execute(f"INSERT INTO runs VALUES ({marks})", [*run.values()])  # noqa: S608
                tags = dict(own) if number % 2 else dict.fromkeys(own, odd)
                tags |= dict.fromkeys([PROCESS, HOST, SYSTEM, "mlflow.user", odd[:250]], odd)
                tags |= {
                    f"dvc-mlflow.lock.{odd[:200]}": odd,
                    "reproduced": odd,
                }
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
        said = recorded.record()
        assert (said.status, said.error) == (0, "")
        assert is_plain(said.out)
    client = MlflowClient(f"sqlite:///{database}")
    (trashed,) = [r for r in recorded.rows() if r.data.params.get("rate") == "2"]
    client.delete_run(trashed.info.run_id)
    assert recorded.record().out.startswith("left in MLflow's trash")
    ours = [r for r in recorded.rows() if r.data.params]
    assert [r.data.params["a"] for r in ours if r.info.status == "FINISHED"] == ["1", "2"]
    changed = {path for path, md5 in files(tmp_path).items() if before.get(path) != md5}
    written = ["params.yaml", "dvc.lock", "model.txt", "curve.csv", "a.json"]
    assert changed <= {f"project/{name}" for name in written}
