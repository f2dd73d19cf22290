"""A sweep's trials are DVC's points, and errors say whom to blame; nothing here needs Ray.

A sweep that cannot start, or whose results could not be kept, says why in one line at once.
"""

import errno
from contextlib import chdir, suppress
from itertools import pairwise
from pathlib import Path

import pytest
from dvc.exceptions import InvalidArgumentError, ReproductionError, UploadError
from dvc.stage.exceptions import MissingDataSource, StageCmdFailedError
from hydra.errors import ConfigCompositionException

from dvc_mlflow.arguments import parser
from dvc_mlflow.errors import ProjectError
from dvc_mlflow.project.default_remote import Remote
from dvc_mlflow.project.experiments import blame, uses_run_cache
from dvc_mlflow.project.project import Project
from dvc_mlflow.sweep.trials import Grid
from support.clone import Clone
from support.kills import small_disk
from support.pipelines import Repository
from support.projects import small

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.versions,
]


def grid(*overrides: str, commit: str = "c0ffee", folder: str = "") -> Grid:
    return Grid(commit, folder, overrides)


def test_grid_is_that_of_dvc(tmp_path: Path) -> None:
    """A grid has the trials that `dvc exp run --queue` makes from the same overrides."""
    overrides = ["x=0.001,0.003", "model.units=range(5,15,5)"]
    project = small(tmp_path, {"params.yaml": {"x": 0, "model": {"units": 0}}})
    options = [option for override in overrides for option in ("-S", override)]
    said = project.dvc("exp", "run", "--queue", *options).stdout
    found = grid(*overrides)
    assert len(found.trials) == 4
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
        ([FAILED, StageCmdFailedError("python a.py", 137)], False),
        ([InvalidArgumentError("Invalid value"), ConfigCompositionException("No x")], True),
        ([ValueError("Invalid endpoint: s3")], False),
        ([UploadError(3)], False),
        ([FAILED, OSError(errno.ENOSPC, "No space left on device")], False),
        ([FAILED, NoCredentialsError("none at s3://ann:secret@bucket")], False),
    ],
)
def test_blame(errors: list[BaseException], is_own: bool) -> None:
    """What DVC decides is the trial's own; the message has all causes, and no password."""
    for error, cause in pairwise(errors):
        error.__cause__ = cause
    said = ": ".join(map(str, errors)).replace("ann:secret", "***")
    assert blame(errors[0]) == (is_own, said)


def test_other_remote(tmp_path: Path) -> None:
    """A node says so if the DVC remote's folder is another one there; others may do the trial."""
    project = small(tmp_path)
    with chdir(project.path), Project() as opened:
        remote = Remote(opened)
        remote.sign("ours")
        remote.check_sign("ours")
        with pytest.raises(ProjectError) as raised:
            remote.check_sign("theirs")
    why = "not that of the driver; is its disk mounted here?"
    assert blame(raised.value) == (False, f"DVC remote 'files' ({tmp_path}/files): {why}")


def refused(project: Clone, *arguments: str, **more: str) -> str:
    """Return the only line that a refused sweep prints, in this process."""
    done = Repository(project.path).tool("sweep", "-S", "x=1", *arguments, **more)
    assert (done.status, done.out) == (1, "")
    (line,) = done.error.splitlines()
    return line.removeprefix("dvc-mlflow: ")


def test_not_ready(tmp_path: Path) -> None:
    """If a node could not clone what is here, or not keep its results, no trial starts."""
    project, files = small(tmp_path), tmp_path / "files"
    (project.path / "params.yaml").write_text("x: 7\n")
    assert refused(project) == "params.yaml: not committed, so no node would have it"
    project.commit()
    head = project.git("rev-parse", "--short=7", "HEAD")
    assert refused(project) == f"{head} is not in the git remote 'origin': `git push` it first"
    project.git("push", "-q", "origin", "main")
    assert not [*files.iterdir()]
    with small_disk(files, "8k") as disk:
        with suppress(OSError), (disk / "all").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        assert refused(project) == f"DVC remote 'files' ({disk}): No space left on device"
    files.rmdir()
    why = "it is not there: mount it, or make it"
    assert refused(project) == f"DVC remote 'files' ({files}): {why}"
    project.dvc("remote", "remove", "files")
    project.commit()
    project.git("push", "-q", "origin", "main")
    assert refused(project) == "no DVC remote: `dvc remote add -d NAME URL` first"


def test_refused(tmp_path: Path) -> None:
    """What is wrong in the command is named: a search without a metric, an override, a store."""
    project = small(tmp_path)
    line = refused(project, "-n", "3")
    assert line == "-n: a search needs --metric, such as --metric=-evaluate/loss"
    assert "'x=1,2,': OverrideParseException: mismatched" in refused(project, "-S", "x=1,2,")
    for address in ("", "sqlite:///mlflow.db", "/tmp/store"):  # noqa: S108
        line = refused(project, "--address", "auto", MLFLOW_TRACKING_URI=address)
        assert line.startswith("MLFLOW_TRACKING_URI: must name a server or database")
        assert line.endswith(f"received '{address}'")
    for option in ("-n=0", "--timeout=nan", "--cpus=0", "--gpus=-1", "-n=few"):
        with pytest.raises(SystemExit):
            parser().parse_args(["sweep", "-S", "x=1", option])
