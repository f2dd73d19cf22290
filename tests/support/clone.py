"""Temporary clones of this repository, in which tests run the real pipelines, or light ones."""

import atexit
import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from functools import cache
from pathlib import Path
from tempfile import gettempdir
from typing import Any, Self

from filelock import FileLock
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "stages"))  # also for programs that pytest does not run

from support import forked
from support.params import RECIPE
from support.processes import wait
from vanilla_lstm.task.params_file import flatten

TINY: dict[str, Any] = {
    "train_data.n_samples": 40,
    "test_data.n_samples": 20,
    "model.units": 4,
    "train.epochs": 3,
    "train.batch_size": 8,
    "evaluate.batch_size": 20,
}
"""Params so small that the pipeline takes little longer than its imports."""

Done = subprocess.CompletedProcess[str]
STORES = (".git", "tmp", "cache", "mlflow.db", "mlartifacts")
"""Where git, DVC and MLflow keep what is theirs."""


def contents(folder: Path, *left_out: str) -> dict[str, object]:
    """Return by path what each file below a folder holds, or where a link leads.

    Left out is what has one of these names, or is in a folder that has one.
    """
    paths = {path.relative_to(folder): path for path in folder.rglob("*")}
    return {
        f"{name}": path.readlink() if path.is_symlink() else path.is_file() and path.read_bytes()
        for name, path in paths.items()
        if not {*left_out} & {*name.parts}
    }


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment without its settings for DVC, MLflow and git."""
    inherited = {
        k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_", "GIT_"))
    }
    identity = {
        f"GIT_{role}_{field}": value
        for role in ("AUTHOR", "COMMITTER")
        for field, value in [("NAME", "Tester"), ("EMAIL", "tester@example.org")]
    }
    return inherited | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{inherited['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GIT_CONFIG_GLOBAL": os.devnull,
        **identity,
        **more,
    }


class Clone:
    """A clone in `path`, with its own git history, DVC cache and MLflow store."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, *command: str | Path, check: bool = True, **more: str) -> Done:
        """Run a command in the clone, with `more` added to its environment.

        With `check`, a non-zero status fails the test and shows the command's output.
        """
        done = forked.run(command, self.path, environment(**more))
        if check and done.returncode:
            shown = " ".join(map(str, command))
            raise AssertionError(f"{shown}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def dvc(self, *arguments: str, check: bool = True, **more: str) -> Done:
        """Run `dvc`."""
        return self.run("dvc", *arguments, check=check, **more)

    def repro(self, *arguments: str) -> list[str]:
        """Run `dvc repro` and return the stages that it ran, or with `--dry` would run."""
        return re.findall(r"^Running stage '(.+)':", self.dvc("repro", *arguments).stdout, re.M)

    def run_queue(self) -> None:
        """Run the queued experiments two at a time, and wait until all have ended.

        The workers' output is discarded: a worker that DVC fails to end would keep a pipe open.
        """
        self.run("sh", "-c", "dvc queue start -j 2 >/dev/null 2>&1")
        self.wait_for_queue()

    def wait_for_queue(self) -> None:
        """Wait until no experiment is queued or running, ten minutes at most."""

        def has_ended() -> bool:
            status = self.dvc("queue", "status", check=False)
            print(status.stderr)  # pytest shows it if the test fails
            # It fails if a worker is just writing a file of the queue: "Expecting value: line 1".
            tasks = status.stdout.partition("Worker")[0]
            return not status.returncode and not re.search("Queued|Running", tasks)

        wait(has_ended, 600)

    def git(self, *arguments: str) -> str:
        """Run `git` and return what it prints."""
        return self.run("git", *arguments).stdout.strip()

    def commit(self, message: str = "Change something") -> None:
        """Commit all changes, a second or more after the last commit: rows are in that order."""
        self.git("add", "--all")
        last = self.run("git", "log", "-1", "--format=%ct", check=False).stdout
        date = max(int(time.time()), int(last or 0) + 1)
        commit = ("git", "commit", "-q", "--allow-empty", "-m", message)
        self.run(*commit, GIT_COMMITTER_DATE=f"@{date}")

    def set(self, params: dict[str, Any]) -> None:
        """Set values in params.yaml by dotted key, leaving the rest of the file unchanged."""
        file, yaml = self.path / "params.yaml", YAML()
        document = yaml.load(file)
        for dotted, value in params.items():
            *sections, key = dotted.split(".")
            section = document
            for name in sections:
                section = section[name]
            section[key] = value
        yaml.dump(document, file)

    @property
    def lock(self) -> str:
        """The text of dvc.lock, with the md5 of everything that the pipeline has read and made."""
        return (self.path / "dvc.lock").read_text()

    def copy(self, path: Path) -> Self:
        """Copy the clone with its results, for tests that change what others share.

        Its rows are left out, because their paths are absolute.
        """
        ignored = shutil.ignore_patterns("mlflow.db*", "mlartifacts")
        copied = type(self)(Path(shutil.copytree(self.path, path, ignore=ignored, symlinks=True)))
        if (self.path / "mlflow.db").exists():
            copied.add_store()
        return copied

    def copy_whole(self, path: Path) -> Self:
        """Copy the clone with its store as it is: its rows keep their absolute paths."""
        return type(self)(Path(shutil.copytree(self.path, path, symlinks=True)))

    def add_store(self) -> None:
        """Add an empty MLflow store, which the first row would otherwise take a second to make."""
        (self.path / "mlflow.db").write_bytes(_empty_store())

    def remove_store(self) -> None:
        """Delete the clone's MLflow store, which this process may have open."""
        if store := sys.modules.get("mlflow.store.tracking.sqlalchemy_store"):
            for engine in getattr(store.SqlAlchemyStore, "_engine_map", {}).values():
                engine.dispose()
        for path in self.path.glob("*mlflow.db*"):
            path.unlink()
        shutil.rmtree(self.path / "mlartifacts", ignore_errors=True)


@cache
def _empty_store() -> bytes:
    """Return MLflow's database without rows, made once for all workers of a test run."""
    from dvc_mlflow.store.database import create

    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", f"{os.getpid()}")
    file = Path(gettempdir(), f"empty-store-{run}.db")
    lock = FileLock(f"{file}.lock")
    for path in (file, Path(lock.lock_file)):
        atexit.register(path.unlink, missing_ok=True)
    with lock, warnings.catch_warnings(action="ignore"):
        if not file.exists():
            create(file)
        return file.read_bytes()


def make_clone(path: Path, params: dict[str, Any] = TINY) -> Clone:
    """Clone the working tree, uncommitted changes included, and set some params."""
    subprocess.run(["git", "clone", "-q", ROOT, path], env=environment(), check=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.split("\0")[:-1]:
        source, target = ROOT / name, path / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
        elif not source.exists():
            target.unlink(missing_ok=True)
    clone = Clone(path)
    clone.set(flatten(RECIPE) | params)  # whatever is in params.yaml now
    clone.add_store()
    clone.commit("The working tree, with the params of a test")
    return clone


EXAMPLE = ROOT / "examples" / "digits"


def plain_example(path: Path) -> Clone:
    """Make a repository with the example, without results; nothing is committed."""
    results = ("cache", "tmp", "dvc.lock", "model.pkl", "train", "validation", "test")
    project = Clone(shutil.copytree(EXAMPLE, path, ignore=shutil.ignore_patterns(*results)))
    project.git("init", "-q", "-b", "main")
    return project


def add_prefix(project: Clone) -> None:
    """Put the prefix before two commands of the example."""
    file = project.path / "dvc.yaml"
    text = file.read_text()
    for stage in ("train", "evaluate"):
        command = f"python scripts/{stage}.py"
        text = text.replace(command, f"dvc-mlflow run {command}")
    file.write_text(text)


TOOL = ROOT / "dvc_mlflow"


def copied_repository(path: Path) -> str:
    """Make a git repository that has the tool where this one does; return its address.

    It lacks what an installation leaves in the tool's folder.
    """
    path.mkdir()
    made = Clone(path)
    ignored = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    shutil.copytree(TOOL, path / "dvc_mlflow", ignore=ignored)
    made.git("init", "-q")
    made.commit("The tool")
    return path.as_uri()


_GENERATE = """
import sys
from pathlib import Path

import yaml

(name,) = sys.argv[1:]
params = yaml.safe_load(Path("params.yaml").read_text())
Path(f"data/{name}.npz").write_text(f"{params['data']}\\n{params[f'{name}_data']}\\n")
"""

_TRAIN = """
import time
from pathlib import Path

import yaml

params = yaml.safe_load(Path("params.yaml").read_text())
with Path("data/training.csv").open("w", buffering=1) as file:
    file.write("epoch,n_steps,loss,accuracy,val_loss,val_accuracy\\n")
    for epoch in range(1, params["train"]["epochs"] + 1):
        time.sleep(0.5)
        file.write(f"{epoch},10,{1 / epoch},0.5,{1 / epoch},0.5\\n")
Path("data/model.keras").write_text(f"{params['model']}\\n{params['train']}\\n")
Path("data/model_summary.txt").write_text("no layers\\n")
"""

_EVALUATE = """
import json
import zlib
from pathlib import Path

n_samples = len(Path("data/test.npz").read_text())
loss = zlib.crc32(Path("data/model.keras").read_bytes()) / 2**32  # another for each model
metrics = {"loss": loss, "accuracy": 1.0, "correctly_classified": n_samples}
Path("data/metrics.json").write_text(json.dumps({**metrics, "n_samples": n_samples}))
Path("data/predictions.csv").write_text("actual,predicted\\n1,1\\n")
Path("data/confusion_matrix.html").write_text("<table><th>actual \\\\ predicted</table>\\n")
"""

SCRIPTS = {
    "stages/generate_data.py": _GENERATE,
    "stages/train.py": _TRAIN,
    "stages/evaluate.py": _EVALUATE,
}
"""Their texts, by path."""
