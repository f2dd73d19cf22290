"""Commands that run at the same moment: each result has one row, and each folder is whole."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from dvc_mlflow import processes
from support.clone import environment
from support.pipelines import Repository
from support.promoting import measured, promote, registered, row

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


def at_once(folders: Sequence[Path], *commands: Sequence[str], **more: str) -> list[str]:
    """Run commands at the same moment, each in its folder; return what each has printed."""
    began = [
        subprocess.Popen(
            ["dvc-mlflow", *words],
            cwd=folder,
            env=environment(**more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for folder, words in zip(folders, commands, strict=True)
    ]
    said = [each.communicate(timeout=300)[0] for each in began]
    assert not any("Traceback" in text for text in said), said
    return said


def double(database: Path, run_id: str, name: str) -> str:
    """Add a row that has the same result, as another clone makes it at the same moment."""
    with closing(sqlite3.connect(database)) as store, store:
        for table in ("runs", "tags", "params"):
            columns = [each[1] for each in store.execute(f"PRAGMA table_info({table})")]
            listed = ", ".join(f'"{column}"' for column in columns)
            new = ", ".join("?" if c == "run_uuid" else f'"{c}"' for c in columns)
            query = f"INSERT INTO {table} ({listed}) SELECT {new} FROM {table} WHERE run_uuid = ?"  # noqa: S608
            store.execute(query, [name, run_id])
    return name


OPTIONS: list[list[str]] = [[], ["--all"]]


def test_double_row_that_has_more(made: Repository, tmp_path: Path) -> None:
    """A row to which a script has logged, too, stays where it is."""
    project = made.copy_whole(tmp_path / "project")
    (first,) = project.rows()
    other = double(project.path / "mlflow.db", first.info.run_id, "f" * 32)
    project.client.set_tag(other, "dvc-mlflow.token", "0")
    assert project.record().out.startswith("nothing to do")
    assert len(project.rows()) == 2


def test_late_request(made: Repository, tmp_path: Path) -> None:
    """The run that a server makes for a killed import, after another made the row, is KILLED."""
    for n, options in enumerate(OPTIONS):
        project = made.copy_whole(tmp_path / f"{n}")
        (first,) = project.rows()
        late = double(project.path / "mlflow.db", first.info.run_id, "f" * 32)
        project.client.delete_tag(late, "dvc-mlflow.lock.one")
        project.client.set_tag(late, "dvc-mlflow.process", "1@0")
        project.client.update_run(late, "RUNNING")
        assert project.record(*options).out.startswith("nothing to do")
        states = {run.info.run_id: run.info.status for run in project.rows()}
        assert states == {first.info.run_id: "FINISHED", late: "KILLED"}


def test_row_in_the_making(made: Repository, tmp_path: Path) -> None:
    """A run that a living process is about to complete stays: that process may keep this one."""
    project = made.copy_whole(tmp_path / "project")
    (first,) = project.rows()
    other = double(project.path / "mlflow.db", first.info.run_id, "f" * 32)
    project.client.delete_tag(other, "dvc-mlflow.lock.one")
    project.client.set_tag(other, "dvc-mlflow.process", processes.process(os.getpid()))
    assert project.record().out.startswith("nothing to do")
    assert len(project.rows()) == 2


def test_two_restores(made: Repository, tmp_path: Path) -> None:
    """Two `restore` of one row share one folder: the second finds what the first has made."""
    project = made.copy_whole(tmp_path / "project")
    words = ["restore", project.rows()[-1].info.run_id]
    said = sorted(at_once([project.path] * 2, words, words), key=lambda text: ": created" in text)
    assert [": already exists\n" in said[0], ": created\n" in said[1]] == [True, True], said
    assert all(text.endswith(": restored, with the md5s of its dvc.lock\n") for text in said), said
    (folder,) = (p for p in (project.path / "restored").iterdir() if (p / ".git").exists())
    assert (folder / "d/x").read_text() == "1\n"


KILLED = """
import importlib, os, signal, sys
from dvc_mlflow.__main__ import main

words, places = sys.argv[1].split(), sys.argv[2:]
importlib.import_module("dvc_mlflow.store")
importlib.import_module(f"dvc_mlflow.commands.{words[0]}")

def killed(event, arguments):
    global left
    made = event in ("subprocess.Popen", "os.rename", "os.mkdir", "os.remove", "shutil.rmtree")
    if made or (event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

for place in places:
    n, _, folder = place.partition(":")
    child = os.fork()
    if not child:
        os.chdir(folder)
        left = int(n)
        sys.addaudithook(killed)
        main(words)
        print(-left, flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == (signal.SIGKILL if int(n) else 0), place
"""
"""A command in each folder, killed when it changes something, or starts git, for the nth time."""


def killed_at(projects: Mapping[int, Repository], *words: str) -> str:
    """Run a command in projects, each killed at its nth change, 0 being never; return its words."""
    places = [f"{n}:{project.path}" for n, project in projects.items()]
    script = [sys.executable, "-W", "ignore", "-c", KILLED, " ".join(words)]
    return next(iter(projects.values())).run(*script, *places).stdout


@pytest.mark.rest
def test_killed_restore(made: Repository, tmp_path: Path, slow: bool) -> None:
    """Whenever `restore` is killed, the next one restores the row, in the same folder."""
    whole = made.copy_whole(tmp_path / "whole" / "project")
    run = whole.rows()[-1]
    changes = int(killed_at({0: whole}, "restore", run.info.run_id).split()[-1])
    assert changes > 20
    moments = range(1, changes + 1, 1 if slow else 17)
    projects = {n: made.copy_whole(tmp_path / f"{n}" / "project") for n in moments}
    killed_at(projects, "restore", run.info.run_id)
    for n, project in projects.items():
        said = project.tool("restore", run.info.run_id, **environment())
        folders = [p for p in (project.path / "restored").iterdir() if p.is_dir()]
        assert (said.status, said.error) == (0, ""), (n, said)
        name = str(run.info.run_name).replace(" ", "-")
        assert {path.name for path in folders} - {".dvc"} == {name}, n
        folder = project.path / "restored" / name
        assert (folder / "d/x").read_text() == "1\n"
        assert "up to date" in Repository(folder).dvc("status").stdout


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline with two rows, of which each has a model and is better than the one before."""
    project = measured(tmp_path_factory.mktemp("models"))
    row(project, a=2)
    return project


@pytest.mark.rest
def test_two_promotes(models: Repository, tmp_path: Path) -> None:
    """Two `promote` at the same moment: the better row is the champion, and no tag is alone."""
    project = models.copy_with_rows(tmp_path / "project")
    worse, better = project.rows()
    words = [["promote", run.info.run_id] for run in (worse, better)]
    said = at_once([project.path] * 2, *words)
    champion = project.client.get_model_version_by_alias("clf", "champion")
    assert champion.tags["dvc.row"] == better.info.run_id, said
    tags = project.git("tag").splitlines()
    assert {*registered(project)} == {tag[4:] for tag in tags if "@" in tag}, said
    assert project.record("--all").out.startswith("nothing to do")


@pytest.mark.rest
def test_killed_promote(models: Repository, tmp_path: Path, slow: bool) -> None:
    """Whenever `promote` is killed, the next `record` and `promote` complete what it has begun."""
    whole = models.copy_with_rows(tmp_path / "whole")
    run_id = whole.rows()[-1].info.run_id
    changes = int(killed_at({0: whole}, "promote", run_id).split()[-1])
    moments = range(max(1, changes - 40), changes + 1, 1 if slow else 13)
    projects = {n: models.copy_with_rows(tmp_path / f"{n}") for n in moments}
    killed_at(projects, "promote", run_id)
    for n, project in projects.items():
        said = project.tool("record", **environment())
        assert (said.status, said.error) == (0, ""), (n, said)
        versions = {tag[4:] for tag in project.git("tag").splitlines() if "@" in tag}
        assert {*registered(project)} == versions, n
        said = promote(project, run_id)
        assert "Traceback" not in said.error
        assert [*registered(project)] == ["v0.0.1"], (n, said)
        champion = project.client.get_model_version_by_alias("clf", "champion")
        assert champion.tags["dvc.row"] == run_id, (n, said)
        assert project.git("tag").splitlines() == ["clf#champion#1", "clf@v0.0.1"], (n, said)
