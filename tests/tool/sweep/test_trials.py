"""A sweep's trials are DVC's points, named by what they run, and errors say whom to blame."""

import errno
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from dvc.exceptions import ReproductionError, UploadError
from dvc.stage.exceptions import MissingDataSource, StageCmdFailedError

from dvc_mlflow.errors import ProjectError
from dvc_mlflow.project.experiments import blame, uses_run_cache
from dvc_mlflow.sweep.trials import Grid, column
from support.clone import ROOT, make_clone
from support.imports import imported_names

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.versions,
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),  # DVC's index
]


def grid(*overrides: str, commit: str = "c0ffee", folder: str = "") -> Grid:
    return Grid(commit, folder, overrides)


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
    """A name is a hash of commit, folder and overrides, in any order, and never changes."""
    (name,) = grid("model.units=5", "more.toml:data.rows=4").trials
    assert name == "sweep-ea8b80827cbf"
    assert [*grid("more.toml:data.rows=4", "model.units=5,5").trials] == [name]
    others = [grid("model.units=6"), grid("model.units=5", folder="a")]
    others += [grid("model.units=5", "more.toml:data.rows=4", commit="facade")]
    assert name not in {name for other in others for name in other.trials}
    assert column("more.toml:data.rows") == "more.data.rows"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.units", "missing EQUAL"),
        ("model.units=3,", "mismatched input"),
        ("model.units=glob(*)", r"not supported"),
    ],
)
def test_bad_overrides(override: str, words: str) -> None:
    """An override that DVC cannot read is refused."""
    with pytest.raises(ProjectError, match=words):
        grid(override)


def test_run_cache() -> None:
    """Params that the run cache leaves out of its key are known at any depth, in any file."""
    for override in ("size=1,2", "a.toml:model.nfiles=3", "b.size.train=1", "model={size: 3}"):
        assert not uses_run_cache(["x=1", override])
    assert uses_run_cache(["batch_size=1,2", "model.sizes=3"])


class NoCredentialsError(Exception):
    """As that of botocore."""


FAILED = ReproductionError("failed to reproduce 'a'")


@pytest.mark.parametrize(
    ("errors", "is_own"),
    [
        ([FAILED, MissingDataSource(["raw.csv"])], True),
        ([FAILED, StageCmdFailedError("python a.py", 1)], True),
        ([FAILED, StageCmdFailedError("python a.py", -9)], False),
        ([FAILED, StageCmdFailedError("python a.py", 137)], False),
        ([UploadError(3)], False),
        ([FAILED, OSError(errno.ENOSPC, "No space left on device")], False),
        ([FAILED, ImportError("gs is supported, but requires 'dvc-gs'")], False),
        ([FAILED, NoCredentialsError("none at s3://ann:secret@bucket")], False),
    ],
)
def test_blame(errors: list[BaseException], is_own: bool) -> None:
    """What DVC decides is the trial's own; the message has all causes, and no password."""
    for error, cause in pairwise(errors):
        error.__cause__ = cause
    said = ": ".join(map(str, errors)).replace("ann:secret", "***")
    assert blame(errors[0]) == (is_own, said)


def test_what_nodes_need() -> None:
    """The code that Ray sends to nodes needs only Python and Ray there; one module imports Ray."""
    modules = sorted((ROOT / "dvc_mlflow").rglob("*.py"))
    tops = {path: {name.partition(".")[0] for name in imported_names(path)} for path in modules}
    assert [path.name for path in modules if "ray" in tops[path]] == ["driver.py", "node.py"]
    (node,) = (path for path in modules if path.name == "node.py")
    assert tops[node] <= {*sys.stdlib_module_names, "ray"}
