"""A sweep's trials are DVC's points, their names never change, and errors say whom to blame."""

import errno
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from dvc.exceptions import ReproductionError, UploadError
from dvc.repo import Repo as DvcRepo
from dvc.stage.exceptions import MissingDataSource, StageCmdFailedError

from dvc_mlflow.errors import ProjectError
from dvc_mlflow.project import Project
from dvc_mlflow.project.experiments import blame
from dvc_mlflow.sweep.points import Grid, Points, column
from support.clone import ROOT, Clone, make_clone
from support.imports import imported_names

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.versions,
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),  # DVC's index
]


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in this repository, whose params the trials have."""
    monkeypatch.chdir(ROOT)


def grid(*overrides: str, commit: str = "c0ffee") -> Grid:
    with Project() as project:
        return Grid([*overrides], Points(project, commit))


def test_grid_is_that_of_dvc(tmp_path: Path) -> None:
    """A grid has the trials that `dvc exp run --queue` makes from the same overrides."""
    overrides = ["train.learning_rate=0.001,0.003", "model.units=range(5,15,5)"]
    clone = make_clone(tmp_path / "clone")
    options = [option for override in overrides for option in ("-S", override)]
    said = clone.dvc("exp", "run", "--queue", *options).stdout
    found = grid(*overrides)
    assert len(found.trials) == 4
    assert found.varied == ["train.learning_rate", "model.units"]
    for trial in found.trials.values():
        assert f"{{'params.yaml': {list(trial.overrides)}}}" in said


def test_names() -> None:
    """A name depends on commit and params, not on what was typed: equal params are one trial."""
    ((name, _),) = grid("model.units=5", "train.learning_rate=0.001").trials.items()
    for same in (
        ["train.learning_rate=1e-3", "model.units=5"],
        ["model.units=5"],  # the rate is as committed
        ["model.units=5.0", "train.seed=1234"],
        ["train.learning_rate=1e-3", "model.units=5,5"],
    ):
        assert [*grid(*same).trials] == [name]
    assert [*grid("model.units=5", commit="facade").trials] != [name]
    assert [*grid("model.units=6").trials] != [name]


def test_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of trials never change; otherwise existing trials would run again."""
    (tmp_path / "params.yaml").write_text("model: {units: 3, cell: lstm}\ntrain: {rate: 1e-3}\n")
    (tmp_path / "more.toml").write_text("[data]\nrows = 4\n")
    monkeypatch.chdir(tmp_path)
    Clone(tmp_path).git("init", "-q")
    DvcRepo.init().close()
    assert [*grid("model.units=5").trials] == ["sweep-3eb67749912f"]
    assert [*grid("model.units=5", "more.toml:data.rows=4").trials] == ["sweep-3eb67749912f"]
    found = grid("model.units=5", "more.toml:data.rows=5,6")
    assert "sweep-fab1a09501bc" in found.trials
    assert found.varied == ["more.toml:data.rows"]
    assert column("more.toml:data.rows") == "more.data.rows"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.unit=3", "Could not override 'model.unit'"),
        ("model.units", "missing EQUAL"),
        ("model.units=3,", "mismatched input"),
        ("model.units=glob(*)", "not supported"),
        ("nowhere.yaml:model.units=3", "nowhere.yaml"),
    ],
)
def test_bad_overrides(override: str, words: str) -> None:
    """An override that no trial could use is refused."""
    with pytest.raises(ProjectError, match=words.replace("*", r"\*")):
        grid(override)


class NoCredentialsError(Exception):
    """As that of botocore."""


FAILED = ReproductionError("failed to reproduce 'a'")
FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("errors", "status", "at_remote"),
    [
        ([FAILED, MissingDataSource(["raw.csv"])], "failed", "unfit"),
        ([FAILED, StageCmdFailedError("python a.py", 1)], "failed", ""),
        ([FAILED, StageCmdFailedError("python a.py", -9)], "again", "again"),
        ([FAILED, StageCmdFailedError("python a.py", 137)], "again", "again"),
        ([UploadError(3)], "again", "again"),
        ([FAILED, ConnectionError("no route")], "again", "again"),
        ([FAILED, FULL], "unfit", "full"),
        ([FAILED, ImportError("gs is supported, but requires 'dvc-gs'")], "unfit", "unfit"),
        ([FAILED, NoCredentialsError("none")], "unfit", "unfit"),
    ],
)
def test_blame(errors: list[BaseException], status: str, at_remote: str) -> None:
    """Only what may pass is tried again; the message has all causes, as on DVC's command line."""
    for error, cause in pairwise(errors):
        error.__cause__ = cause
    assert blame(errors[0]) == (status, ": ".join(map(str, errors)))
    if status != "failed":
        found, line = blame(errors[0], at_remote="s3://ann:secret@bucket")
        assert (found, "s3://***@bucket: " in line) == (at_remote, True)


def test_what_nodes_need() -> None:
    """The code that Ray sends to nodes needs only Python and Ray there; one module imports Ray."""
    modules = sorted((ROOT / "dvc_mlflow").rglob("*.py"))
    tops = {path: {name.partition(".")[0] for name in imported_names(path)} for path in modules}
    assert [path.name for path in modules if "ray" in tops[path]] == ["cluster.py", "node.py"]
    (node,) = (path for path in modules if path.name == "node.py")
    assert tops[node] <= {*sys.stdlib_module_names, "ray"}
