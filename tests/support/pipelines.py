"""DVC pipelines made for a test, with real `dvc`, a real store and nothing of this repository.

Their commands are one-line shell scripts, so that a pipeline runs in the time of `dvc` itself.
"""

import atexit
import json
import logging
import os
import re
import shlex
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, chdir, redirect_stderr, redirect_stdout
from functools import cache
from importlib import reload
from io import StringIO
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple, Self
from unittest.mock import patch

import yaml
from dvc.cli import main as dvc
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

import support.unsynced  # noqa: F401
from dvc_mlflow.__main__ import main
from dvc_mlflow.pipeline.tags import LOCK, MD5, tagged
from dvc_mlflow.store import mlflow_settings
from support.clone import Clone, Done, environment

Stages = dict[str, dict[str, Any]]


def prepare() -> dict[str, Any]:
    """Return a stage that makes data.txt from raw.txt."""
    return {"cmd": "cat raw.txt > data.txt", "deps": ["raw.txt"], "outs": ["data.txt"]}


def train(data: str = "data.txt") -> dict[str, Any]:
    """Return a stage that makes model.txt from data and the param `rate`, and draws a curve."""
    return {
        "cmd": f"(cat {data}; grep ^rate: params.yaml) > model.txt; "
        "printf 'step,loss\\n1,0.5\\n2,0.25\\n' > curve.csv",
        "deps": [data],
        "params": ["rate"],
        "outs": ["model.txt"],
        "plots": [{"curve.csv": {"cache": False, "x": "step"}}],
    }


def evaluate(name: str, *deps: str, cache: bool = False) -> dict[str, Any]:
    """Return a stage whose score, in a file of its name, is the param of its name."""
    return {
        "cmd": f"""echo "{{\\"score\\": $(sed -n 's/^{name}: //p' params.yaml)}}" > {name}.json""",
        "deps": [*(deps or ("model.txt",))],
        "params": [name],
        "metrics": [{f"{name}.json": {"cache": cache}}],
    }


def makes(files: Mapping[str, str], **more: Any) -> dict[str, Any]:
    """Return a stage that writes these files; `more` is the rest of it."""
    folders = {str(Path(path).parent) for path in files} - {"."}
    commands = [f"mkdir -p {shlex.quote(folder)}" for folder in sorted(folders)]
    for path, text in files.items():
        # DVC runs each line of a command by itself.
        escaped = text.replace("\\", r"\\").replace("\n", r"\n").replace("\r", r"\r")
        commands.append(f"printf %b {shlex.quote(escaped)} > {shlex.quote(path)}")
    return {"cmd": "; ".join(commands), **more}


TWO_EVALUATIONS: Stages = {
    "prepare": prepare(),
    "train": train(),
    "a": evaluate("a"),
    "b": evaluate("b"),
}
"""Two evaluations of one model."""
PARAMS = {"rate": 1, "a": 1, "b": 1}

LOADER = """
class Model:
    def __init__(self, path):
        self.text = open(path).read()

    def predict(self, given, params=None):
        return [self.text] * len(given)


def _load_pyfunc(path):
    return Model(path)
"""
"""The content of loader.py, with which MLflow serves a model.txt: it predicts its text."""
MODEL = {"loader_module": "loader", "code_paths": ["loader.py"], "pip_requirements": ["mlflow"]}
ARTIFACTS = {"clf": {"path": "model.txt", "type": "model", "meta": MODEL}}
"""The `artifacts` of a dvc.yaml whose model.txt MLflow can serve."""
SERVED: Stages = {"train": train("raw.txt"), "a": evaluate("a")}
"""A pipeline that makes this model."""


class Said(NamedTuple):
    """What a command printed, and its exit status."""

    out: str
    error: str
    status: int


class Repository(Clone):
    """A git repository with a DVC project and its own MLflow store."""

    def record(self, *arguments: str, folder: str = ".") -> Said:
        """Run `dvc-mlflow record` in this process, as the console script does."""
        return self.tool("record", *arguments, folder=folder)

    def tool(self, *arguments: str, folder: str = ".", **more: str) -> Said:
        """Run `dvc-mlflow` in this process, with `more` added to its environment."""
        # For a new database, Alembic configures logging: it would end TensorFlow's handler, and
        # that close pytest's own stderr.
        with patch("logging.shutdown"):
            return self._call(main, arguments, folder, environment(**more) if more else None)

    def dvc(self, *arguments: str, check: bool = True, **more: str) -> Done:
        """Run `dvc` in this process, as its console script does, in a tenth of the time.

        A follower sees it as a program that calls DVC: where that matters, `run("dvc", ...)`.
        """
        said = self._call(_dvc, arguments, ".", environment(**more))
        if check and said.status:
            raise AssertionError(f"dvc {' '.join(arguments)}: {said}")
        return Done(["dvc", *arguments], said.status, said.out, said.error)

    def repro(self, *arguments: str) -> list[str]:
        """Run `dvc repro` in a process, whose log is whole, and return the stages that it ran."""
        return Clone(self.path).repro(*arguments)

    def _call(
        self,
        program: Callable[[list[str]], int],
        arguments: Sequence[str],
        folder: str,
        environment: Mapping[str, str] | None,
    ) -> Said:
        out, error = StringIO(), StringIO()
        with (
            patch("sys.argv", [program.__module__, *arguments]),  # DVC reads it in a temporary copy
            patch.dict(os.environ, environment or {}, clear=environment is not None),
            chdir(self.path / folder),
            redirect_stdout(out),
            redirect_stderr(error),
            warnings.catch_warnings(action="ignore"),  # pytest would raise them; a program does not
        ):
            if environment is not None:
                reload(mlflow_settings)  # a program begins with them
            status = program([*arguments])
        return Said(out.getvalue(), error.getvalue(), status)

    def copy_with_rows(self, path: Path) -> Self:
        """Copy it with its store, and let `record` correct the paths of its rows."""
        copied = self.copy_whole(path)
        assert copied.record().out.startswith("nothing to do")
        return copied

    def choose(self, *names: str) -> None:
        """Let dvc.yaml say that these stages are recorded, and no others."""
        file = self.path / "dvc.yaml"
        given = yaml.safe_load(file.read_text())
        for name, stage in given["stages"].items():
            stage["meta"] = {"mlflow": {"record": name in names}}
        file.write_text(json.dumps(given))

    def write(self, files: Mapping[str, str]) -> None:
        """Write files by path."""
        for path, text in files.items():
            (self.path / path).parent.mkdir(parents=True, exist_ok=True)
            (self.path / path).write_text(text)

    def set(self, params: Mapping[str, Any]) -> None:
        """Set values at the top of params.yaml."""
        file = self.path / "params.yaml"
        for key, value in params.items():
            line = f"{key}: {json.dumps(value)}"
            file.write_text(re.sub(rf"(?m)^{key}: .*$", line, file.read_text()))

    @property
    def client(self) -> MlflowClient:
        """A client of the repository's own store."""
        return MlflowClient(f"sqlite:///{self.path}/mlflow.db")

    def rows(self, deleted: bool = False) -> list[Run]:
        """Return the rows of all experiments, oldest first."""
        if not (self.path / "mlflow.db").exists():
            return []
        client = self.client
        ids = [experiment.experiment_id for experiment in client.search_experiments()]
        kind = ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY
        return [*reversed(client.search_runs(ids, "", kind))]

    def models(self, run: Run) -> list[str]:
        """Return the ids of a row's models."""
        outputs = self.client.get_run(run.info.run_id).outputs
        return [output.model_id for output in outputs.model_outputs] if outputs else []

    def table(self) -> list[dict[str, Any]]:
        """Return the content of the rows, in an order that does not depend on their age."""
        found = [
            {
                "params": run.data.params,
                "metrics": run.data.metrics,
                "results": {k: v for k, v in run.data.tags.items() if k.startswith(LOCK)},
                "md5s": {k: v for k, v in run.data.tags.items() if k.startswith(MD5)},
                "status": run.info.status,
            }
            for run in self.rows()
        ]
        return sorted(found, key=lambda row: json.dumps(row, sort_keys=True))

    def artifacts(self, run: Run, path: str = "") -> list[str]:
        """Return the paths of a row's artifacts."""
        listed = self.client.list_artifacts(run.info.run_id, path)
        inside = [p for file in listed if file.is_dir for p in self.artifacts(run, file.path)]
        return sorted([file.path for file in listed if not file.is_dir] + inside)


def _dvc(arguments: list[str]) -> int:
    """Run DVC with its log, as in a process of its own.

    DVC logs to the streams that it was imported with; the tool's modules switch logging off; and
    Alembic, where MLflow makes a database, disables each logger that there is.
    """
    for name in [*logging.root.manager.loggerDict]:
        if name.partition(".")[0] == "dvc":
            logging.getLogger(name).disabled = False
    for name in ("dvc", "dvc_objects", "dvc_data"):
        logging.getLogger(name).setLevel(logging.INFO)
    with ExitStack() as stack:
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.NOTSET)
        for handler in logging.getLogger("dvc").handlers:
            if isinstance(handler, logging.StreamHandler):
                is_error = handler.level >= logging.WARNING
                stream = handler.setStream(sys.stderr if is_error else sys.stdout)
                stack.callback(handler.setStream, stream)
        return int(dvc(arguments))


def repository(
    path: Path,
    stages: Stages,
    params: Mapping[str, Any] = PARAMS,
    files: Mapping[str, str] = {},
    data: Sequence[str] = (),
    **top: Any,
) -> Repository:
    """Make a repository with these stages, in which nothing has run.

    `data` are the files that DVC tracks; `top` is the rest of dvc.yaml.
    """
    made = Repository(Path(shutil.copytree(initialized(), path)))
    texts = {"raw.txt": "1\n", "dvc.yaml": json.dumps({"stages": stages, **top}), **files}
    made.write({**texts, ".gitignore": "/mlflow.db*\n/mlartifacts/\n"})
    made.write({"params.yaml": "".join(f"{k}: {json.dumps(v)}\n" for k, v in params.items())})
    made.add_store()
    if data:
        made.dvc("add", "-q", *data)
    made.commit("My pipeline")
    return made


def finished(path: Path, stages: Stages, *arguments: Any, **more: Any) -> Repository:
    """Make a repository with these stages, which have run, and commit the results."""
    made = repository(path, stages, *arguments, **more)
    made.dvc("repro", "-q")
    made.commit("The results")
    return made


@cache
def initialized() -> Path:
    """Return an empty repository, for all tests of this process to copy."""
    made = Repository(Path(mkdtemp()))
    atexit.register(shutil.rmtree, made.path)
    made.git("init", "-q", "-b", "main")
    made.dvc("init", "-q")
    return made.path


@cache
def served() -> Repository:
    """Return a pipeline of `SERVED` that has run, for all tests of this process to `copy`."""
    folder = Path(mkdtemp())
    atexit.register(shutil.rmtree, folder)
    files = {"loader.py": LOADER}
    return finished(folder / "project", SERVED, files=files, artifacts=ARTIFACTS)


def reproduce(project: Repository, params: Mapping[str, Any] = {}, *arguments: str) -> None:
    """Run the pipeline with these params, and record it."""
    project.set(params)
    project.dvc("repro", "-q", *arguments)
    project.record()


def results(run: Run) -> set[str]:
    """Return the names of the stages whose results a row has."""
    return {*tagged(run.data.tags, LOCK)}


def last(project: Repository) -> Run:
    """Return the newest row."""
    return project.rows()[-1]


def twins(folder: Path, stages: Stages, **more: Any) -> list[Repository]:
    """Make two repositories that have never heard of the tool: no store, and nothing hides one.

    They have the same path below their folders.
    """
    both = [repository(folder / name / "project", stages, **more) for name in ("ours", "twin")]
    for made in both:
        made.remove_store()
        (made.path / ".gitignore").unlink()
        made.commit("Without the tool")
    return both


def content(project: Repository) -> dict[str, object]:
    """Return all that a `dvc` leaves behind: each file's bytes and mode, and what git and DVC have.

    Not compared are what DVC and git write anew in each run: temporary files, times and hashes of
    commits.
    """
    found: dict[str, object] = {}
    for path in sorted(project.path.rglob("*")):
        name = f"{path.relative_to(project.path)}"
        if path.is_file() and not re.match(r"\.git/|\.dvc/tmp/|mlflow\.db|mlartifacts/", name):
            found[name] = path.read_bytes(), path.stat().st_mode
    found["index"] = project.git("ls-files", "-s")
    found["status"] = project.git("status", "--short")
    found["config"] = (project.path / ".git" / "config").read_text()
    form = "--format=%(refname:lstrip=-1) %(tree)"
    found["experiments"] = project.git("for-each-ref", form, "refs/exps/*/*/*")
    found["branches"] = project.git("for-each-ref", "--format=%(refname) %(tree)", "refs/heads")
    return found
