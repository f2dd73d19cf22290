"""`dvc-mlflow dvc` in all the ways in which DVC runs a stage, beside plain `dvc`."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from support.clone import environment
from support.fronts import NEW, content, front, live, twins, unheard
from support.pipelines import PARAMS, Repository, Stages, evaluate, prepare, train
from support.stores import experiments

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.rest,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

STAGES = {"prepare": prepare(), "train": train(), "a": evaluate("a")}
SCORE = """echo "{\\"score\\": %s}" > m_%s.json"""


def scores(project: Repository) -> list[float]:
    """Return the scores of the rows, in order; all must be complete."""
    assert {row.info.status for row in project.rows()} == {"FINISHED"}
    return sorted(v for row in project.rows() for k, v in row.data.metrics.items() if "score" in k)


def test_experiments(tmp_path: Path) -> None:
    """Experiments in the workspace and in a temporary copy have their rows, and nothing differs."""
    ours, twin = twins(tmp_path, STAGES)
    for rate, more in (("2", ()), ("3", ("--temp",))):
        words = ("exp", "run", "-q", "-n", f"exp-{rate}", *more, "-S", f"rate={rate}")
        assert live(front(ours, *words)) == 2
        twin.dvc(*words)
        assert content(ours) == content(twin)
    rows = {row.data.params["rate"]: row for row in ours.rows()}
    assert {rate: row.info.status for rate, row in rows.items()} == {
        "2": "FINISHED",
        "3": "FINISHED",
    }
    assert [rows[rate].data.tags["dvc.exp_name"] for rate in "23"] == ["exp-2", "exp-3"]


def test_queue(tmp_path: Path) -> None:
    """Two workers that `dvc-mlflow dvc queue start` starts record the experiments that they run."""
    project = unheard(tmp_path / "project", STAGES)
    for rate in (2, 3, 4):
        front(project, "exp", "run", "-q", "--queue", "-S", f"rate={rate}")
    project.run("sh", "-c", "dvc-mlflow dvc queue start -j 2 >said 2>&1")
    project.wait_for_queue()
    assert NEW not in (project.path / "said").read_text()
    rows = project.rows()
    assert sorted(row.data.params["rate"] for row in rows) == ["2", "3", "4"]
    assert {row.info.status for row in rows} == {"FINISHED"}
    (project.path / "said").unlink()
    assert project.git("status", "--short") == ""


def test_worker_of_plain_dvc(tmp_path: Path) -> None:
    """If a worker of plain `dvc` is at work, one line says how its rows are recorded."""
    stage = {**evaluate("a", "raw.txt")}
    stage["cmd"] = f"while [ ! -e {tmp_path}/go ]; do sleep 0.1; done; {stage['cmd']}"
    project = unheard(tmp_path / "project", {"a": stage})
    project.dvc("exp", "run", "-q", "--queue")
    project.run("sh", "-c", "dvc queue start >/dev/null 2>&1")
    try:
        done = project.run("sh", "-c", "dvc-mlflow dvc queue start 2>said >/dev/null")
        said = (project.path / "said").read_text()
        (project.path / "said").unlink()
    finally:
        (tmp_path / "go").touch()
    project.wait_for_queue()
    line = "a queue worker of plain dvc runs; `dvc-mlflow record --experiments` adds its rows"
    assert said.count(f"{NEW}{line}\n") == 1, done
    assert project.rows() == []
    project.record("--experiments")
    assert scores(project) == [1]


def test_foreach_matrix_and_folders(tmp_path: Path) -> None:
    """Items of a foreach and a matrix, a `wdir`, and a dvc.yaml in a subfolder are recorded."""
    item = "a-${item}.json"
    stages: Stages = {
        "each": {
            "foreach": ["x", "y"],
            "do": {
                "cmd": f"echo '{{\"score\": 1}}' > {item}",
                "metrics": [{item: {"cache": False}}],
            },
        },
        "grid": {
            "matrix": {"n": [1, 2]},
            "cmd": ["true", "echo '{\"score\": ${item.n}}' > b-${item.n}.json"],
            "metrics": [{"b-${item.n}.json": {"cache": False}}],
        },
        "there": {
            "wdir": "some folder",
            "cmd": 'exec sh -c \'echo "{\\"score\\": 5}" > m.json\'',
            "metrics": [{"m.json": {"cache": False}}],
        },
    }
    below = {"below": {"cmd": "echo '{\"score\": 6}' > n.json", "metrics": ["n.json"]}}
    files = {"sub/dvc.yaml": json.dumps({"stages": below}), "some folder/file": ""}
    ours, twin = twins(tmp_path, stages, files=files)
    assert live(front(ours, "repro", "-q", "-P")) == 6
    twin.dvc("repro", "-q", "-P")
    assert content(ours) == content(twin)
    assert scores(ours) == [1, 1, 1, 2, 5, 6]
    before = ours.table()
    ours.remove_store()
    ours.record()
    assert ours.table() == before
    twin.set({"a": 1})
    done = front(Repository(twin.path / "some folder"), "repro", "-f", "../sub/dvc.yaml:below")
    assert live(done) == 1
    assert scores(twin) == [6]
    done = front(twin, "--cd", "sub", "repro", "-f", "below")
    assert live(done) == 1


def test_hydra(tmp_path: Path) -> None:
    """Params that Hydra composes at the start of an experiment are in the row."""
    project = unheard(tmp_path / "project", STAGES)
    project.write({"conf/config.yaml": "rate: 1\na: 5\nb: 1\n"})
    project.dvc("config", "hydra.enabled", "True")
    project.commit("Hydra")
    assert live(front(project, "exp", "run", "-q", "-S", "rate=7")) == 2
    (row,) = project.rows()
    assert row.data.params == {"rate": "7", "a": "5"}


def test_worktree_and_nested_project(tmp_path: Path) -> None:
    """From a worktree and a nested project, rows go to the main repository's store."""
    project = unheard(tmp_path / "project", STAGES)
    inner = Repository(project.path / "inner")
    for name in ("dvc.yaml", "params.yaml", "raw.txt"):
        project.write({f"inner/{name}": (project.path / name).read_text()})
    inner.dvc("init", "-q", "--subdir")
    project.commit("A nested project")
    tree = Repository(tmp_path / "tree")
    project.git("worktree", "add", "-q", f"{tree.path}")
    tree.set({"a": 2})
    assert live(front(tree, "repro", "-q")) == 2
    assert live(front(project, "repro", "-q", folder="inner")) == 2
    assert scores(project) == [1, 2]
    assert experiments(project) == ["project", "project/inner"]
    for each in (project, tree):
        assert "mlflow" not in each.git("status", "--short")
    assert not list(tmp_path.glob("*/*/mlflow.db"))


def test_long_path(tmp_path: Path) -> None:
    """The tool works where its own path, and the project's, are long and have spaces."""
    folder = tmp_path / ("a long name with spaces " * 8).strip()
    project = unheard(folder / "project", {"a": evaluate("a", "raw.txt")})
    (folder / "venv").symlink_to(Path(sys.prefix))
    programs = folder / "bin"
    programs.mkdir()
    script = Path(sys.executable).with_name("dvc-mlflow").read_text().partition("\n")[2]
    # As pip writes a script whose interpreter's path is too long for its first line.
    start = f"#!/bin/sh\n'''exec' \"{folder}/venv/bin/python\" \"$0\" \"$@\"\n' '''\n"
    (programs / "dvc-mlflow").write_text(start + script)
    (programs / "dvc-mlflow").chmod(0o755)
    done = front(project, "repro", PATH=f"{programs}:{environment()['PATH']}")
    assert live(done) == 1
    assert scores(project) == [1]
    program = project.path / ".dvc" / "tmp" / "dvc-mlflow" / "dvc-mlflow-shell"
    assert f"{folder}/venv/bin/python" in program.read_text()


def test_make(tmp_path: Path) -> None:
    """`make` that calls it, and a stage that calls `make`, are recorded."""
    stage = {**evaluate("a", "raw.txt")}
    command = stage["cmd"].replace("$", "$$")
    stage["cmd"] = "make score"
    files = {"Makefile": f"all:\n\tdvc-mlflow dvc repro -q\nscore:\n\t{command}\n"}
    project = unheard(tmp_path / "project", {"a": stage}, files=files)
    assert live(project.run("make", "-s", "all")) == 1
    assert scores(project) == [1]


@pytest.mark.parametrize("outer", ["outer", "a"])
def test_nested(tmp_path: Path, outer: str) -> None:
    """A stage that runs `dvc-mlflow dvc` in another project: each stage has its own row."""
    other = unheard(tmp_path / "other", {"a": evaluate("a", "raw.txt")}, params={**PARAMS, "a": 3})
    text = f"cd {other.path} && dvc-mlflow dvc repro -q; cd - && printenv SHELL > shell"
    text += "; echo '{\"score\": 4}' > m.json"
    metrics = [{"m.json": {"cache": False}}]
    stage: dict[str, Any] = {"cmd": text, "outs": ["shell"], "metrics": metrics}
    project = unheard(tmp_path / "project", {outer: stage})
    assert live(front(project, "repro", "-q", SHELL="/bin/sh")) == 2
    assert (project.path / "shell").read_text() == "/bin/sh\n"
    assert scores(project) == [3, 4]
    assert "a.json" in json.dumps(other.lock)


def test_one_recorder_says_what_is_recorded(tmp_path: Path) -> None:
    """Many stages of which the text says nothing are asked about, and DVC is opened once."""
    stages = {f"s{i}": {"cmd": f"echo 1 > p{i}.png", "plots": [f"p{i}.png"]} for i in range(5)}
    project = unheard(tmp_path / "project", {**stages, "a": evaluate("a", "raw.txt")})
    log = tmp_path / "opened"
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import sys\n"
        "if any('dvc_mlflow.live.recorder' in word for word in sys.orig_argv):\n"
        "    from dvc.repo import Repo\n"
        "    own = Repo.__init__\n"
        "    def opened(*a, **k):\n"
        f"        open({f'{log}'!r}, 'a').write('1')\n"
        "        own(*a, **k)\n"
        "    Repo.__init__ = opened\n"
    )
    done = front(project, "repro", *stages, PYTHONPATH=f"{site}")
    assert NEW not in done.stderr
    assert log.read_text() == "1"
    assert project.rows() == []
