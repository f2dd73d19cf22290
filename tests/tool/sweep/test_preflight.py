"""A sweep that cannot start, or whose results could not be kept, says why in one line at once."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from dvc_mlflow.arguments import parser
from support.clone import Clone
from support.disks import small_disk
from support.pipelines import Repository, Said
from support.projects import Project, small

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow and DVC
]


def sweep(project: Clone, *arguments: str, **more: str) -> Said:
    """Run the command in this process, which has already imported DVC and MLflow."""
    return Repository(project.path).tool("sweep", *arguments, **more)


def refused(project: Clone, *arguments: str, **more: str) -> str:
    """Return the only line that a refused sweep prints."""
    done = sweep(project, *arguments, **more)
    assert (done.status, done.out) == (1, "")
    (line,) = done.error.splitlines()
    return line.removeprefix("dvc-mlflow: ")


def push(project: Project) -> None:
    project.commit()
    project.git("push", "-q", "origin", "main")


def uncommitted(path: Path) -> tuple[Project, str]:
    project = small(path)
    (project.path / "params.yaml").write_text("x: 7\n")
    return project, "params.yaml: not committed, so no node would have it"


def not_pushed(path: Path) -> tuple[Project, str]:
    project = small(path)
    project.commit()
    head = project.git("rev-parse", "--short=7", "HEAD")
    return project, f"{head} is not in the git remote 'origin': `git push` it first"


def no_git_remote(path: Path) -> tuple[Project, str]:
    project = small(path)
    project.git("remote", "remove", "origin")
    return project, "git remote: error: No such remote 'origin'"


def no_dvc_remote(path: Path) -> tuple[Project, str]:
    project = small(path)
    project.dvc("remote", "remove", "files")
    push(project)
    return project, "no DVC remote: `dvc remote add -d NAME URL` first"


def not_mounted(path: Path) -> tuple[Project, str]:
    (project := small(path)).dvc("push")
    (path / "files").rmdir()
    return project, f"DVC remote 'files' ({path}/files): it is not there: mount it, or make it"


@pytest.mark.parametrize(
    "spoilt", [uncommitted, not_pushed, no_git_remote, no_dvc_remote, not_mounted]
)
def test_not_ready(spoilt: Callable[[Path], tuple[Project, str]], tmp_path: Path) -> None:
    """If a node could not clone what is here, or not keep its results, no trial starts."""
    project, line = spoilt(tmp_path)
    assert refused(project, "-S", "x=1") == line
    assert not [*tmp_path.glob("files/*")]


def test_full_remote(tmp_path: Path) -> None:
    """A full DVC remote is told before any trial, with its cause and place."""
    project = small(tmp_path)
    with small_disk(tmp_path / "files", "8k") as disk:
        with suppress(OSError), (disk / "all").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        line = refused(project, "-S", "x=1")
    assert line == f"DVC remote 'files' ({disk}): No space left on device"


def test_refused(tmp_path: Path) -> None:
    """What is wrong in the command is named: a search without a metric, an override, a store."""
    project = small(tmp_path)
    line = refused(project, "-S", "x=1,2", "-n", "3")
    assert line == "-n: a search needs --metric, such as --metric=-evaluate/loss"
    assert refused(project, "-S", "x=1,2,").startswith("'x=1,2,': mismatched input")
    for address in ("", "sqlite:///mlflow.db", "/tmp/store"):  # noqa: S108
        line = refused(project, "-S", "x=1", "--address", "auto", MLFLOW_TRACKING_URI=address)
        assert line.startswith("MLFLOW_TRACKING_URI: must name a server or database")
        assert line.endswith(f"received '{address}'")


@pytest.mark.parametrize("option", ["-n=0", "--timeout=nan", "--cpus=0", "--gpus=-1", "-n=few"])
def test_bad_number(option: str) -> None:
    """A number that no trial could use is refused."""
    with pytest.raises(SystemExit):
        parser().parse_args(["sweep", "-S", "x=1", option])


def test_one_line_of_help() -> None:
    """Without the extra, `--help` has one line of it."""
    said = parser().format_help()
    (line,) = [line for line in said.splitlines() if "sweep" in line and "{" not in line]
    assert "dvc-mlflow[sweep]" in line
    assert "optuna" not in said.lower()
