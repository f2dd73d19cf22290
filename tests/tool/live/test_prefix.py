"""The prefix, put into dvc.yaml and removed again by hand, as the manual says."""

import os
import re
import sys
from pathlib import Path

import pytest

from dvc_mlflow.pipeline.prefix import is_prefixed
from support.clone import environment
from support.live_runs import one
from support.pipelines import Repository, repository

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.versions,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

PREFIX = "dvc-mlflow run "
PIPELINE = """\
stages:
  prepare:
    cmd: cat raw.txt > data.txt
    deps: [raw.txt]
    outs: [data.txt]
  train:
    cmd:
    - echo begun
    - sh train
    deps: [data.txt, train]
    params: [rate]
    outs: [model.txt]
    plots: [curve.csv: {cache: false, x: step}]
  evaluate:
    foreach: [a, b]
    do:
      cmd: "sh score ${rate} > ${item}.json"
      deps: [model.txt]
      metrics: ["${item}.json": {cache: false}]
"""
PART = """\
stages:
  check:
    matrix: {size: [1, 2]}
    cmd: sh ../score ${item.size} > ${item.size}.json
    metrics: ["${item.size}.json": {cache: false}]
"""
FILES = {
    "dvc.yaml": PIPELINE,
    "part/dvc.yaml": PART,
    "train": "cat data.txt > model.txt; printf 'step,loss\\n1,0.5\\n2,0.25\\n' > curve.csv\n",
    "score": """echo "{\\"score\\": $1}"\n""",
}
CLEAN = "Data and pipelines are up to date.\n"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline without the prefix, with two results in DVC's run cache, and one in git."""
    path = tmp_path_factory.mktemp("made") / "project"
    project = repository(path, {}, {"rate": 2}, FILES, ["raw.txt"])
    project.dvc("repro", "-q", "-P")
    project.set({"rate": 1})
    project.dvc("repro", "-q", "-P")
    project.commit("The results")
    return project


def edit(project: Repository, old: str, new: str) -> None:
    """Change the beginning of the recorded commands; `dvc commit -f` then changes only these."""
    for name in ("dvc.yaml", "part/dvc.yaml"):
        file = project.path / name
        file.write_text(file.read_text().replace(f"{old}sh ", f"{new}sh "))
    assert len(project.repro("-P", "--dry")) == 5
    project.dvc("commit", "-f")
    assert project.dvc("status").stdout == CLEAN
    assert project.repro("-P") == []
    diff = project.git("diff", "-U0", "--", "*.lock")
    for sign, start in (("-", old), ("+", new)):
        lines = re.findall(rf"^[{sign}](?![{sign}]).*", diff, re.M)
        assert len(lines) == 5
        assert all(re.match(rf". +(cmd:|-) {start}sh ", line) for line in lines)


def test_added_and_removed(project: Repository) -> None:
    """Neither adding the prefix nor removing it runs a stage, or changes more than commands."""
    plain = project.copy(project.path.with_name("plain"))
    plain.record()
    assert project.dvc("status").stdout == CLEAN
    edit(project, "", PREFIX)
    project.record()
    assert project.table() == plain.table()
    project.commit("Add the prefix")
    for each, runs in ((plain, 0), (project, 3)):  # the run cache has it without the prefix
        each.set({"rate": 2})
        assert len(each.repro("-P")) == runs
    assert project.record().out.startswith("nothing to do")
    project.commit("Another result")
    edit(project, PREFIX, "")
    assert project.record().out.startswith("nothing to do")
    assert project.git("diff", "--stat", "HEAD~2", "--", "dvc.yaml", "part") == ""


@pytest.mark.rest
def test_without_the_tool(project: Repository, tmp_path: Path) -> None:
    """Somebody without the tool needs it only where a stage runs, and reads what was not found."""
    (tmp_path / "dvc").symlink_to(Path(sys.executable).with_name("dvc"))
    folders = [f"{tmp_path}", *environment()["PATH"].split(os.pathsep)]
    path = os.pathsep.join(each for each in folders if not Path(each, "dvc-mlflow").exists())
    edit(project, "", PREFIX)
    assert project.dvc("repro", PATH=path).stdout.endswith(CLEAN)
    project.set({"rate": 3})
    done = project.dvc("repro", check=False, PATH=path, SHELL="/bin/bash")
    assert done.returncode
    assert "dvc-mlflow: command not found" in done.stderr


@pytest.mark.parametrize(
    ("command", "prefixed"),
    [
        ("dvc-mlflow run python x", True),
        ("exec dvc-mlflow run -c 'a; b'", True),
        ("exec .venv/bin/dvc-mlflow run -- python x", True),
        ("cd x && dvc-mlflow  run python y", True),
        ("(A=1 dvc-mlflow run python x)", True),
        ("a\ndvc-mlflow run python x", True),
        ("dvc-mlflow record", False),
        ("dvc-mlflow runs", False),
        ("my-dvc-mlflow run x", False),
    ],
)
def test_which_commands_have_it(command: str, prefixed: bool) -> None:
    """A command has the prefix wherever that is in it, with any path and any spaces."""
    assert is_prefixed(command) == prefixed


def test_not_of_the_tool(tmp_path: Path) -> None:
    """A file `.ran` of the user's, and a project that a stale DVC_ROOT names, stay as they are."""
    other = tmp_path / "other"
    other.mkdir()
    stage = one("sh -c 'echo {} > m.json'", metrics=[{"m.json": {"cache": False}}])
    project = repository(tmp_path / "project", stage, files={".ran": "mine\n"})
    done = project.dvc("repro", DVC_ROOT=f"{other}")
    assert "dvc-mlflow: row " in done.stderr
    assert (project.path / ".ran").read_text() == "mine\n"
    assert [*other.iterdir()] == []
