"""Commands that are killed whenever they change something: the next one completes their work."""

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from dvc_mlflow.pipeline.tags import ROW
from support.clone import environment
from support.pipelines import Repository
from support.promoting import measured, promote, registered, row

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


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


@pytest.mark.rest
def test_killed_promote(tmp_path: Path, slow: bool) -> None:
    """Whenever `promote` is killed, the next `record` and `promote` complete what it has begun."""
    models = measured(tmp_path / "models")
    run_id = row(models, a=2).info.run_id
    whole = models.copy_with_rows(tmp_path / "whole")
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
        assert champion.tags[ROW] == run_id, (n, said)
        assert project.git("tag").splitlines() == ["clf#champion#1", "clf@v0.0.1"], (n, said)
