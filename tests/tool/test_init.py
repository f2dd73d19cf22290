"""`dvc-mlflow init` and `deinit` change the commands of a pipeline, and not a byte more."""

from pathlib import Path
from typing import Any

import pytest

from init_projects import MARK, Terminal, changed_lines
from pipelines import Repository, repository

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from DVC and MLflow
]


PIPELINE = """\
# Made by hand
stages:
  prepare:
    cmd: cat raw.txt > data.txt  # no metrics
    deps: [raw.txt]
    outs: [data.txt]
  train: &train
    cmd:
    - echo
    - "exec sh train.sh\t${rate}"
    deps: [data.txt, train.sh]
    params: [rate]
    outs: [model.txt]
    plots: [curve.csv: {cache: false, x: step}]
  evaluate:
    foreach: [a, b]
    do:
      cmd: >-
        grep -q .* model.txt &&
        echo '{"score":' ${rate}'}'
        > ${item}.json
      deps: [model.txt]
      metrics:
        - ${item}.json:
            cache: false
"""

PART = """\
stages:
  check:
    matrix: {size: [1, 2], kind: [x]}
    cmd: |
      mkdir -p out
      echo '{"size":${item.size}}' > out/${item.size}.json
    metrics:
    - out/${item.size}.json: {cache: false}
"""

SCRIPT = "cat data.txt > model.txt; printf 'step,loss\\n1,0.5\\n2,0.25\\n' > curve.csv\n"
FILES = {
    "dvc.yaml": PIPELINE,
    "train.sh": SCRIPT,
    "part/dvc.yaml": PART.replace("\n", "\r\n").removesuffix("\r\n"),
}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline that has run, with its results committed; `copy` it."""
    project = repository(tmp_path_factory.mktemp("made") / "project", {}, {"rate": 1})
    for path, text in FILES.items():
        (project.path / path).parent.mkdir(exist_ok=True)
        (project.path / path).write_bytes(text.encode())
    (project.path / ".gitignore").write_text("/mlartifacts/")
    project.dvc("repro", "-q", "-P")
    project.commit("The results")
    return project


@pytest.fixture
def project(made: Repository, tmp_path: Path) -> Repository:
    """A copy of that pipeline."""
    return made.copy(tmp_path / "project")


def status(project: Repository) -> str:
    """Return the status of git and of DVC."""
    return project.git("status", "--porcelain") + project.dvc("status").stdout


def test_init_and_deinit(project: Repository) -> None:
    """`init` adds the prefix, in dvc.lock too, so that nothing runs; `deinit` removes it again."""
    clean = "Data and pipelines are up to date.\n"
    (project.path / "dvc.yaml").chmod(0o640)
    assert status(project) == clean
    said = project.tool("init", "--yes")
    assert (said.status, said.error) == (0, ""), said
    assert changed_lines(project, "dvc.yaml", "part/dvc.yaml") == [
        '+    - "exec dvc-mlflow run sh train.sh\t${rate}"',
        "+        dvc-mlflow run -c 'grep -q .* model.txt &&",
        """+        echo '\\''{"score":'\\'' ${rate}'\\''}'\\''""",
        "+        > ${item}.json'",
        "+      dvc-mlflow run -c 'echo '\\''{\"size\":${item.size}}'\\'' > out/${item.size}.json'",
    ]
    assert project.dvc("status").stdout == clean
    assert project.repro("-P") == []
    assert len(changed_lines(project, "dvc.lock", "part/dvc.lock")) == 5
    assert (project.path / "dvc.yaml").stat().st_mode & 0o777 == 0o640
    ignored = (project.path / ".gitignore").read_text()
    assert ignored.endswith(f"/model.txt\n{MARK}/mlflow.db*\n/restored/\n")
    for line in ("dvc.lock has the new commands", "record --all", "`dvc repro` records"):
        assert line in said.out
    before = status(project)
    again = project.tool("init")
    assert again.out.splitlines()[-1] == "nothing to do: these stages have the prefix"
    assert (again.status, status(project)) == (0, before)
    assert project.tool("deinit", "--dry-run").status == 0
    assert status(project) == before
    assert project.tool("deinit", "--yes").status == 0
    assert status(project) == clean
    assert "nothing to do" in project.tool("deinit").out


@pytest.mark.parametrize("fails", [1, 2, 3])
def test_no_file_is_lost(project: Repository, fails: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a file cannot be written or was edited meanwhile, no file is changed or lost."""
    before = status(project)
    calls = []

    def failing(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == fails:
            raise OSError(28, "No space left on device", "dvc.yaml")

    with monkeypatch.context() as patched:
        patched.setattr("shutil.copymode", failing)
        said = project.tool("init", "--yes")
    assert said.error == "dvc-mlflow: dvc.yaml: No space left on device; nothing was lost\n"
    assert (said.status, status(project)) == (1, before)

    def edited(prompt: str) -> str:
        project.write({"part/dvc.yaml": PART + "# An edit\n"})
        return "y"

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", edited)
    said = project.tool("init")
    assert said.error.endswith("part/dvc.yaml has changed meanwhile\n")
    assert project.git("status", "--porcelain") == "M part/dvc.yaml"


@pytest.mark.rest
def test_results_from_before(project: Repository) -> None:
    """Results from before `init` stay valid: nothing runs again, and `record` makes their rows."""
    table = project.copy(project.path.with_name("other"))
    assert table.tool("record").status == 0
    assert project.tool("init", "--yes").status == 0
    assert project.tool("record").status == 0
    assert project.table() == table.table()
    assert project.repro() == []
    project.set({"rate": 2})
    assert len(project.repro()) == 3
    assert "nothing to do" in project.record().out
