"""The first stages of all, while there is no store: which commands wait until it is made."""

import os
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from dvc_mlflow.live.mlflow_callers import may_call
from dvc_mlflow.store.database import check_schema, create
from support.fronts import front, live, unheard
from support.pipelines import Repository, makes

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.versions,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

FILES = {
    "caller.py": "import mlflow",
    "logger.py": "from lightning.pytorch.loggers import MLFlowLogger",
    "plain.py": "import os  # MLflow gets its metrics from DVC",
    "package/model/net.py": "import mlflow.pytorch",
    "package/__init__.py": "",
    "clean/__init__.py": "",
    "data/notes.txt": "mlflow",
}


@pytest.mark.parametrize(
    ("command", "deps", "calls"),
    [
        ("python plain.py", [], False),
        ("python caller.py", [], True),
        ("python ./logger.py --rate=0.1", [], True),
        ("python plain.py", ["caller.py"], True),
        ("python plain.py", ["package"], True),
        ("python plain.py", ["clean", "absent.csv"], False),
        ("python -m package.model.net", [], True),
        ("python -m package", [], True),
        ("python -m clean", [], False),
        ("mlflow run .", [], True),
        ("exec dvc-mlflow run python plain.py", [], False),
        ("cp data/notes.txt out", [], False),
        ("cp $SOURCE out", ["data"], False),
        ("cat /proc/$PPID/cmdline", ["/proc"], False),
        ("python log.py", ["log.py"], False),
        ("python ../outside.py", ["/dev"], False),
        ("python plain.py", ["."], True),
    ],
)
def test_may_call(tmp_path: Path, command: str, deps: list[str], calls: bool) -> None:
    """A command may call MLflow if code that it names or depends on does."""
    Repository(tmp_path / "project").write(FILES)
    (tmp_path / "project/log.py").symlink_to("/proc/kmsg")  # to read it takes for ever
    (tmp_path / "outside.py").write_text("import mlflow")
    assert may_call([command], deps, tmp_path / "project", tmp_path / "project") == calls


SEEN = "import glob; open('seen.txt', 'w').write(str(bool(glob.glob('ml*.db'))))"


def scripted(path: Path, script: str) -> Repository:
    """Make a repository without a store, whose stage runs a script and writes a metric."""
    metric = makes({"s.json": '{"s": 1}'})["cmd"]
    stage = {
        "cmd": f"python script.py; {metric}",
        "deps": ["script.py"],
        "outs": ["seen.txt"],
        "metrics": [{"s.json": {"cache": False}}],
    }
    return unheard(path, {"one": stage}, files={"script.py": script})


@pytest.mark.parametrize("code", ["", "import mlflow"], ids=["waits for nothing", "waits"])
def test_first_stage(tmp_path: Path, code: str) -> None:
    """While there is no store, only a command that may call MLflow waits for it."""
    project = scripted(tmp_path / "project", f"{SEEN}\n{code}")
    assert live(front(project, "repro")) == 1
    assert (project.path / "seen.txt").read_text() == f"{bool(code)}"
    (row,) = project.rows()
    assert row.data.metrics == {"one/s": 1}


HIDDEN = """
flow = __import__("ml" + "flow")
with flow.start_run():
    flow.log_metric("mine", 1)
open("seen.txt", "w").write("1")
"""


def test_hidden_caller(tmp_path: Path) -> None:
    """A script whose MLflow makes the store while the recorder does: both have their rows."""
    project = scripted(tmp_path / "project", HIDDEN)
    done = front(project, "repro")
    assert live(done) == 1, done.stderr
    metrics = [item for row in project.rows() for item in row.data.metrics.items()]
    assert sorted(metrics) == [("mine", 1), ("one/s", 1)]


def get_version(database: Path) -> str:
    """Return the version of MLflow's tables that a database says it has."""
    with closing(sqlite3.connect(database)) as opened:
        (version,) = opened.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(version)


def set_version(database: Path, version: str) -> None:
    """Let a database say that it has another version of MLflow's tables."""
    with closing(sqlite3.connect(database)) as opened, opened:
        opened.execute("UPDATE alembic_version SET version_num = ?", [version])


def test_database_in_the_making(tmp_path: Path) -> None:
    """A database is waited for while somebody makes it, and refused once nobody does."""
    database = tmp_path / "mlflow.db"
    create(database)
    MlflowClient(f"sqlite:///{database}").create_experiment("somebody's own")
    newest = get_version(database)
    older = "451aebb31d03"  # of a migration that MLflow 1 had
    set_version(database, older)
    made = threading.Timer(1, set_version, [database, newest])
    made.start()
    check_schema(f"sqlite:///{database}")
    assert get_version(database) == newest
    made.join()
    set_version(database, older)
    long_ago = time.time() - 60
    os.utime(database, (long_ago, long_ago))
    with pytest.raises(MlflowException, match="out-of-date"):
        check_schema(f"sqlite:///{database}")
