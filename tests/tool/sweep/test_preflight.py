"""A sweep that cannot start, or whose results could not be kept, says why in one line at once."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dvc_mlflow.sweep import preflight
from support.clone import Clone
from support.disks import small_disk
from support.pipelines import Repository, Said
from support.projects import Project, small, stage

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


def reading(path: Path, *deps: str, **files: str) -> Project:
    """Return a project with a stage that reads these files too."""
    own = stage("exec python score.py a.json ${x} 0", "a", "x")
    own["deps"] += deps
    named = {name.replace("__", "/").replace("_", "."): text for name, text in files.items()}
    return small(path, {"dvc.yaml": {"stages": {"a": own}}, **named})


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


def forgotten(path: Path) -> tuple[Project, str]:
    project = reading(path, "raw.csv", raw_csv="1")
    project.git("rm", "-q", "--cached", "raw.csv")
    project.dvc("add", "raw.csv")
    push(project)
    return project, f"raw.csv: not in the DVC remote 'files' ({path}/files): `dvc push` it first"


def half_pushed(path: Path) -> tuple[Project, str]:
    project = reading(path, "raw", raw__a_csv="1")
    project.git("rm", "-q", "-r", "--cached", "raw")
    project.dvc("add", "raw")
    project.dvc("push")
    (project.path / "raw/b.csv").write_text("2")
    project.dvc("add", "raw")
    push(project)
    return project, f"raw: not in the DVC remote 'files' ({path}/files): `dvc push` it first"


def ignored(path: Path) -> tuple[Project, str]:
    project = reading(path, "more/a.csv", _gitignore="more\n", more__a_csv="1")
    return project, "more/a.csv: neither git nor DVC tracks it, so no node would have it"


@pytest.mark.parametrize(
    "spoilt",
    [
        *(uncommitted, not_pushed, no_git_remote, no_dvc_remote),
        *(not_mounted, forgotten, half_pushed, ignored),
    ],
)
def test_not_ready(spoilt: Callable[[Path], tuple[Project, str]], tmp_path: Path) -> None:
    """If a node could not have what a trial needs, or not keep its results, no trial starts."""
    project, line = spoilt(tmp_path)
    assert refused(project, "-S", "x=1") == line
    assert not [*tmp_path.glob("files/*")] or spoilt is half_pushed


def test_full_remote(tmp_path: Path) -> None:
    """A full DVC remote is told before any trial, with its cause and place."""
    project = small(tmp_path)
    with small_disk(tmp_path / "files", "8k") as disk:
        with suppress(OSError), (disk / "all").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        line = refused(project, "-S", "x=1")
    assert line == f"DVC remote 'files' ({disk}): No space left on device"


def test_silent_git_remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A git remote that does not answer in time is told."""
    monkeypatch.setattr(preflight, "ANSWERING", 0.5)
    project = small(tmp_path)
    project.git("remote", "set-url", "origin", "ext::sleep 600")
    allow = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "protocol.ext.allow"}
    line = refused(project, "-S", "x=1", **allow, GIT_CONFIG_VALUE_0="always")
    assert line == "git ls-remote: no answer within 0.5 s"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a result at HEAD, and a stage without one."""
    later = {"cmd": "exec python score.py b.json 1 2", "metrics": ["b.json"], "deps": ["a.json"]}
    stages: dict[str, Any] = {"a": stage("exec python score.py a.json ${x} 0", "a", "x")}
    dvc = {"stages": {**stages, "b": later}}
    project = small(tmp_path_factory.mktemp("measured"), {"dvc.yaml": dvc})
    project.dvc("repro", "a")
    project.commit()
    project.git("push", "-q", "origin", "main")
    return project


def test_metric(measured: Project) -> None:
    """A metric that no stage has is refused, with the name that was meant; a search needs one."""
    meant = {"-a/scroe": "a/score", "score": "a/score", "-rmse": "a/rmse", "c/score": "a/score"}
    for metric, name in meant.items():
        line = refused(measured, "-S", "x=1", f"--metric={metric}")
        rule = f"no stage in dvc.yaml has '{metric.removeprefix('-')}'"
        assert line == f"--metric: {rule}; is it '{name}'?"
    line = refused(measured, "-S", "x=1,2", "-n", "3")
    assert line == "-n: a search needs --metric, such as --metric=-evaluate/loss"


def test_store_that_nodes_do_not_reach(measured: Project) -> None:
    """On a cluster, a store that not every node reaches is refused."""
    for address in ("", "sqlite:///mlflow.db", "/tmp/store"):  # noqa: S108
        line = refused(measured, "-S", "x=1", "--address", "auto", MLFLOW_TRACKING_URI=address)
        assert line.startswith("MLFLOW_TRACKING_URI: must name a server or database")
        assert line.endswith(f"received '{address}'")


@pytest.mark.parametrize("option", ["-n=0", "--timeout=nan", "--cpus=0", "--gpus=-1", "-n=few"])
def test_bad_number(option: str, measured: Project) -> None:
    """A number that no trial could use is refused."""
    with pytest.raises(SystemExit):
        sweep(measured, "-S", "x=1", option)


def test_one_line_of_help(measured: Project) -> None:
    """Without the extra, `--help` has one line of it."""
    said = measured.run("dvc-mlflow", "--help").stdout
    (line,) = [line for line in said.splitlines() if "sweep" in line and "{" not in line]
    assert "dvc-mlflow[sweep]" in line
    assert "optuna" not in said.lower()
