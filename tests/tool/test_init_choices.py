"""`dvc-mlflow init` asks first, edits the chosen stages, and names those it leaves alone."""

from pathlib import Path

import pytest

from init_projects import MARK, PREFIXED, SCORE, Terminal, changed_lines, command, one
from pipelines import prepare, repository

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from DVC and MLflow
]


def test_nested_project(tmp_path: Path) -> None:
    """A nested project's store is in the outermost project, whose ignore file gets the lines."""
    project = repository(tmp_path / "project", {"train": one({"cmd": SCORE})})
    project.run("sh", "-c", "mkdir inner && cd inner && dvc init -q --subdir && cp ../dvc.yaml .")
    project.commit("A project in it")
    assert project.tool("init", "--yes", folder="inner").status == 0
    assert command(project) == SCORE
    assert command(project, folder="inner") == PREFIXED
    assert MARK in (project.path / ".gitignore").read_text()


@pytest.mark.parametrize("typed", ["y\n", "Y\n", "yes\n", "\n", ""])
def test_asks(tmp_path: Path, typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are written only after `y`, or with --yes where there is no terminal."""
    project = repository(tmp_path / "project", {"train": one({"cmd": SCORE})})
    said = project.tool("init")
    assert said.error == (
        "dvc-mlflow: nothing was written: there is no terminal to ask at; add --yes\n"
    )
    assert said.status == 1
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    assert project.tool("init", "--dry-run").status == 0
    assert project.git("status", "--porcelain") == ""
    said = project.tool("init")
    assert "Write this? [y/N] " in said.out
    assert (said.status, command(project)) == ((0, PREFIXED) if typed == "y\n" else (1, SCORE))


def test_stages(tmp_path: Path) -> None:
    """`--stages` chooses other stages than those with metrics, curves or a model."""
    stages = {"prepare": prepare(), "train": one({"cmd": SCORE})}
    project = repository(tmp_path / "project", stages)
    assert "no stage is named 'x'" in project.tool("init", "--stages", "x").error
    said = project.tool("init", "--yes", "--stages", "prepare")
    assert said.out.splitlines()[:3] == [
        "The stages of this project; those with a * are recorded:",
        "* prepare",
        "  train: metrics",
    ]
    assert command(project) == SCORE
    assert command(project, "prepare") == "dvc-mlflow run cat raw.txt > data.txt"
    project = repository(tmp_path / "other", {"prepare": prepare()})
    said = project.tool("init")
    assert said.error.endswith("name the stages to record: --stages prepare\n")
    assert said.status == 1


SHARED = """\
vars: [{text: "it's", lines: "a\nb"}]
stages:
  prepare: {cmd: &copy cp raw.txt a.txt, outs: [a.txt]}
  train: {cmd: *copy, metrics: [m.json: {cache: false}]}
  base: &base {cmd: "echo 1", metrics: [b.json: {cache: false}]}
  merged: {<<: *base, metrics: [c.json: {cache: false}]}
  quotes: {cmd: "cd x && echo '${text}'", metrics: [d.json: {cache: false}]}
  bash: {cmd: "source x && y", metrics: [e.json]}
  spaces: {cmd: "python train.py  --rate 1  --width 2  --depth 3  --layers 4 --x 5  6  7",
    metrics: [g.json: {cache: false}]}
  escape: {cmd: "echo \\u0031", metrics: [f.json: {cache: false}]}
"""


def test_left_to_the_user(tmp_path: Path) -> None:
    """A command that is shared or cannot be edited safely is left alone, and reported."""
    project = repository(tmp_path / "project", {}, files={"dvc.yaml": SHARED})
    said = project.tool("init", "--yes")
    assert said.status == 1
    assert [line.split(" stays as it is: ") for line in said.error.splitlines()] == [
        [f"dvc-mlflow: stage {name}", f"{reason}; put `dvc-mlflow run` there by hand"]
        for name, reason in {
            "train": "prepare has the same command, in the same place",
            "quotes": "the values in its command change how a shell reads it",
            "spaces": "DVC would break its long command at two spaces, and lose one",
            "escape": "a command is written in a way that `deinit` could not restore",
        }.items()
    ]
    assert changed_lines(project, "dvc.yaml") == [
        """+  base: &base {cmd: "dvc-mlflow run -c 'echo 1'", metrics: [b.json: {cache: false}]}""",
        """+  bash: {cmd: "dvc-mlflow run -c 'source x && y'", metrics: [e.json]}""",
    ]
    assert command(project, "merged") == "dvc-mlflow run -c 'echo 1'"
    project.tool("init", "--yes", "--stages", "prepare,train,merged,base")
    assert command(project, "train") == "dvc-mlflow run cp raw.txt a.txt"
    assert project.tool("deinit", "--yes").status == 0
    assert project.git("status", "--porcelain") == ""


def test_result_that_is_not_of_this_command(tmp_path: Path) -> None:
    """dvc.lock is edited only where it has the stage's command; a changed stage still runs."""
    stages = {"train": one({"cmd": SCORE}), "other": {"cmd": "echo 2"}}
    project = repository(tmp_path / "project", stages)
    project.dvc("repro", "-q")
    lock = project.lock
    project.write({"dvc.yaml": (project.path / "dvc.yaml").read_text().replace("echo 1", "echo 3")})
    assert project.tool("init", "--yes").status == 0
    assert project.lock == lock
    assert command(project) == PREFIXED.replace("1", "3")
    assert "Next: " in project.tool("init", "--stages", "other", "--yes").out
