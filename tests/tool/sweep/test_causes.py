"""A sweep says what is wrong before a trial starts, or with the cause that DVC names."""

import errno
import re
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
from dvc.exceptions import ReproductionError, UploadError
from dvc.stage.exceptions import MissingDataSource, StageCmdFailedError

from dvc_mlflow.errors import ProjectError
from dvc_mlflow.project.experiments import FinalError, UnfitError, classified
from support.clone import Clone
from support.disks import small_disk
from support.projects import SCORE, Project, small, stage

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
    pytest.mark.skipif(not find_spec("ray"), reason="needs Ray (make cluster-setup)"),
]


def reading(path: Path, *deps: str, **files: str) -> Project:
    """Return a project with a stage that reads these files too."""
    own = stage("exec python score.py a.json ${x} 0", "a", "x")
    own["deps"] += deps
    dvc: dict[str, object] = {"dvc.yaml": {"stages": {"a": own}}, "params.yaml": {"x": 0}}
    named = {name.replace("__", "/").replace("_", "."): text for name, text in files.items()}
    return Project(path, {**dvc, "score.py": SCORE, **named})


def add(project: Project, path: str) -> None:
    """Let DVC track a file or a folder, and push the commit."""
    project.dvc("add", path)
    project.commit()
    project.git("push", "-q", "origin", "main")


def forgotten(path: Path) -> tuple[Project, str]:
    project = reading(path, "raw.csv", raw_csv="1")
    project.git("rm", "-q", "--cached", "raw.csv")
    add(project, "raw.csv")
    return project, "raw.csv: not in the DVC remote 'files': `dvc push` it first"


def half_pushed(path: Path) -> tuple[Project, str]:
    project = reading(path, "raw", raw__a_csv="1")
    project.git("rm", "-q", "-r", "--cached", "raw")
    add(project, "raw")
    project.dvc("push")
    (project.path / "raw/b.csv").write_text("2")
    add(project, "raw")
    return project, "raw: not in the DVC remote 'files': `dvc push` it first"


def ignored(path: Path) -> tuple[Project, str]:
    project = reading(path, "more/a.csv", _gitignore="more\n", more__a_csv="1")
    return project, "more/a.csv: neither git nor DVC tracks it, so no node would have it"


@pytest.mark.parametrize("spoilt", [forgotten, half_pushed, ignored])
def test_inputs(spoilt: Callable[[Path], tuple[Project, str]], tmp_path: Path) -> None:
    """An input that a node could not get is named, and how to change that, before any trial."""
    project, line = spoilt(tmp_path)
    said = project.sweep("-S", "x=1", "--metric=-a/score", check=False)
    assert said.splitlines() == [f"dvc-mlflow: {line}"]


def test_pushed_inputs_and_submodules(tmp_path: Path) -> None:
    """Inputs in the DVC remote, and those of a submodule, are there in each trial."""
    project = reading(tmp_path, "raw", "theirs/rows.csv", raw__a_csv="1")
    other = Clone(tmp_path / "other")
    other.path.mkdir()
    other.git("init", "-q")
    (other.path / "rows.csv").write_text("3")
    other.commit()
    allow = ("-c", "protocol.file.allow=always")
    project.git(*allow, "submodule", "add", "-q", f"{other.path}", "theirs")
    project.git("rm", "-q", "-r", "--cached", "raw")
    add(project, "raw")
    project.dvc("push")
    said = project.sweep(
        *("-S", "x=1,2", "--metric=-a/score"),
        GIT_CONFIG_COUNT="1",
        GIT_CONFIG_KEY_0="protocol.file.allow",
        GIT_CONFIG_VALUE_0="always",
    )
    assert "2 done, 0 running, 0 failed, 0 left" in said


def chained(*errors: BaseException) -> BaseException:
    """Return the first of these errors, each caused by the next."""
    for error, cause in pairwise(errors):
        error.__cause__ = cause
    return errors[0]


class NoCredentialsError(Exception):
    """As that of botocore."""


FAILED = ReproductionError("failed to reproduce 'a'")


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        ([FAILED, MissingDataSource(["raw.csv"])], FinalError),
        ([FAILED, StageCmdFailedError("python a.py", 1)], FinalError),
        ([FAILED, StageCmdFailedError("python a.py", -9)], ProjectError),
        ([FAILED, StageCmdFailedError("python a.py", 137)], ProjectError),
        ([UploadError(3)], ProjectError),
        ([FAILED, ConnectionError("no route")], ProjectError),
        ([FAILED, OSError(errno.ENOSPC, "No space left on device")], UnfitError),
        ([FAILED, ImportError("gs is supported, but requires 'dvc-gs'")], UnfitError),
        ([FAILED, NoCredentialsError("none")], UnfitError),
    ],
)
def test_classes(errors: list[BaseException], kind: type[ProjectError]) -> None:
    """Only what may pass is tried again; the message has all causes, as on DVC's command line."""
    with pytest.raises(ProjectError) as raised, classified():
        raise chained(*errors)
    assert raised.type is kind
    assert str(raised.value) == ": ".join(map(str, errors))


def test_failing_trials(tmp_path: Path) -> None:
    """A failed trial is told once, with params and log; without a metric, no trial is best."""
    project = small(tmp_path, {"score.py": f"{SCORE}\nassert x < 2, 'too large'"})
    said = project.sweep("-S", "x=1,2,3", check=False).splitlines()
    failed = [re.fullmatch(LINE, line) for line in said]
    assert sorted(match["x"] for match in failed if match) == ["2", "3"]
    logs = [Path(match["log"]).read_text() for match in failed if match]
    assert all("AssertionError: too large" in log for log in logs)
    assert len([line for line in said if "too large" in line]) == 2
    assert "  1 done, 0 running, 2 failed, 0 left" in said
    assert any(re.fullmatch(r"failed: sweep-\w+ \(x=\d\), sweep-\w+ \(x=\d\)", x) for x in said)


def test_full_disk(tmp_path: Path) -> None:
    """If the disk is full when a command fails, the node is to blame: it gets no more trials."""
    project = small(tmp_path, {"score.py": f"{SCORE}\nopen('large', 'wb').write(bytes(9_000_000))"})
    with small_disk(project.clones, "4m"):
        said = project.sweep("-S", "x=1,2", check=False)
    # Git in the other clone, too, can be the first to find it full.
    full = r" gets no more trials: .*(no space left|disk is full).* \(clones are in (\S+)/"
    assert [found[2] for found in re.finditer(full, said, re.I)] == [f"{project.clones}"]
    assert said.endswith("dvc-mlflow: no node is left that can run trials\n")
    assert " failed" not in said


LINE = (
    r"sweep-\w+ \(x=(?P<x>\d)\) failed on \S+ in [\d.]+ s: .*; AssertionError: too large; "
    r"failed to reproduce 'a': failed to run: .*, exited with 1 \(its log: \S+:(?P<log>\S+)\)"
)


def test_metric(tmp_path: Path) -> None:
    """A metric that only resembles one of HEAD's is refused; without one, the first is taken."""
    project = small(tmp_path)
    project.dvc("repro")
    project.commit()
    project.git("push", "-q", "origin", "main")
    said = project.sweep("-S", "x=1", "--metric=-a/scroe", check=False)
    assert said.splitlines() == ["dvc-mlflow: --metric: no row has 'a/scroe'; is it 'a/score'?"]
    assert "2 done, 0 running, 0 failed, 0 left, best 1 (x=1)" in project.sweep("-S", "x=1,2")
