"""DVC projects with remotes that are folders, to sweep over."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from support.clone import Clone, Done
from support.pipelines import Repository

SCORE = """
import json, sys
x, y = (float(value) for value in sys.argv[2:4])
with open(sys.argv[1], "w") as file:
    json.dump({"score": (x - 2) ** 2 + y}, file)
"""
"""score.py FILE X Y."""


class Project(Clone):
    """A DVC project in a git repository, with remotes that are folders."""

    def __init__(self, path: Path, files: Mapping[str, object], folder: str = "") -> None:
        super().__init__(path / "flowers" / folder)
        self.path.mkdir(parents=True)
        (path / "files").mkdir()
        self.top = Clone(path / "flowers")
        self.top.git("init", "-q", "-b", "main")
        self.dvc("init", "-q", *(["--subdir"] if folder else []))
        self.dvc("remote", "add", "-q", "-d", "files", f"{path}/files")
        for name, content in files.items():
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            text = content if isinstance(content, str) else json.dumps(content, indent=1)
            (self.path / name).write_text(text)
        subprocess.run(["git", "init", "-q", "--bare", path / "flowers.git"], check=True)
        self.top.git("remote", "add", "origin", f"{path}/flowers.git")
        self.top.commit("A project")
        self.top.git("push", "-q", "origin", "main")
        self.clones = path / "clones"

    def dvc(self, *arguments: str, check: bool = True, **more: str) -> Done:
        """Run `dvc` in this process."""
        return Repository(self.path).dvc(*arguments, check=check, **more)

    def sweep(self, *words: str, check: bool = True, **more: str) -> str:
        """Run a sweep with `more` added to its environment, and return what was printed."""
        command = ["dvc-mlflow", "sweep", *words, "--clones", f"{self.clones}"]
        done = self.run(*command, check=check, **more)
        return done.stdout + done.stderr

    def rows(self) -> list[Run]:
        """Return the rows that a sweep has left, in any experiment."""
        client = MlflowClient(f"sqlite:///{self.path}/mlflow.db")
        ids = [experiment.experiment_id for experiment in client.search_experiments()]
        return list(client.search_runs(ids))


def stage(command: str, name: str, *params: Any, **more: Any) -> dict[str, Any]:
    """Return a stage that writes its score to a metrics file of its name."""
    metrics = [{f"{name}.json": {"cache": False}}]
    return {"cmd": command, "deps": ["score.py"], "params": [*params], "metrics": metrics, **more}


def small(path: Path, files: Mapping[str, object] = {}) -> Project:
    """Return a project with a stage without the prefix, a param, and these files."""
    dvc = {"stages": {"a": stage("exec python score.py a.json ${x} 0", "a", "x")}}
    return Project(path, {"dvc.yaml": dvc, "score.py": SCORE, "params.yaml": {"x": 0}, **files})
