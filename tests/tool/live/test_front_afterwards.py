"""What `dvc-mlflow dvc` records when `dvc` has ended: results that no command of it made."""

import json
import subprocess
from pathlib import Path

import pytest

from support.fronts import NEW, content, front, live, started, twins, unheard, unheard_below
from support.live_runs import recorders, wait
from support.pipelines import Repository, evaluate, prepare, results, train

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

STAGES = {"train": train("raw.txt"), "a": evaluate("a"), "other": evaluate("b", "raw.txt")}
"""Two rows: `train` with `a`, and `other`."""


def from_run_cache(project: Repository) -> None:
    """Run the pipeline at two rates with plain `dvc`, so that its run cache has both."""
    for rate in (1, 2):
        project.set({"rate": rate})
        project.dvc("repro", "-q")
    project.commit("The results")


def rates(project: Repository) -> list[str | None]:
    """Return the rates of the rows, oldest first."""
    return [row.data.params.get("rate") for row in project.rows()]


def test_run_cache(tmp_path: Path) -> None:
    """Results of the run cache are recorded when `dvc` has ended, and no others are."""
    ours, twin = twins(tmp_path, STAGES)
    for project in (ours, twin):
        from_run_cache(project)
        project.set({"rate": 1})
    done, plain = front(ours, "repro"), twin.dvc("repro")
    assert done.stdout == plain.stdout
    assert "is cached - skipping run" in done.stdout
    assert content(ours) == content(twin)
    (row,) = ours.rows()
    assert results(row) == {"train", "a"}
    assert row.data.params == {"rate": "1", "a": "1"}
    (line,) = done.stderr.splitlines()
    assert line == f"{NEW}row {row.info.run_name!r}"
    again = front(ours, "repro")
    assert again.stderr == ""
    assert len(ours.rows()) == 1


@pytest.mark.rest
def test_run_cache_in_experiments(tmp_path: Path) -> None:
    """Results of the run cache in new experiments are recorded, each under its experiment."""
    project = unheard(tmp_path / "project", STAGES)
    from_run_cache(project)
    project.dvc("exp", "run", "-q", "-n", "old", "-S", "a=3")
    project.git("checkout", "-q", ".")
    front(project, "exp", "run", "-q", "-n", "here", "-S", "rate=1")
    front(project, "exp", "run", "-q", "-n", "there", "--temp", "-S", "rate=2", "-S", "a=7")
    assert rates(project) == ["1", "2"]
    here, there = project.rows()
    assert here.data.tags["dvc.exp_name"] == "here"
    assert there.data.metrics == {"train/loss": 0.25, "a/score": 7}
    for row in (here, there):
        assert row.data.tags["dvc-mlflow.tree.train"]
    # As a queue worker does, beside or after the command that has started it.
    project.dvc("exp", "run", "-q", "-n", "plain", "--temp", "-S", "a=9")
    front(project, "repro")
    assert [row.data.metrics["a/score"] for row in project.rows()] == [1, 7, 9]


@pytest.mark.rest
def test_run_cache_below_the_root(tmp_path: Path) -> None:
    """The same is so in a project below git's root; nothing is said if a baseline is not there."""
    outer = Repository(tmp_path / "outer")
    outer.path.mkdir()
    outer.git("init", "-q", "-b", "main")
    inner = unheard_below(outer, "inner", STAGES)
    from_run_cache(inner)
    front(inner, "exp", "run", "-q", "-n", "here", "-S", "rate=1")
    (row,) = inner.rows()
    assert row.data.tags["dvc.exp_name"] == "here"
    assert (results(row), row.data.params["rate"]) == ({"train", "a"}, "1")
    inner.git("checkout", "-q", ".")
    inner.dvc("exp", "run", "-q", "-n", "fetched", "-S", "a=9")
    fetched = outer.git("for-each-ref", "--format=%(objectname)", "refs/exps/**/fetched")
    (outer.path / ".git/shallow").write_text(f"{fetched}\n")  # as with `git fetch --depth 1`
    assert front(inner, "repro", "-q").stderr == ""


@pytest.mark.rest
def test_run_cache_in_the_queue(tmp_path: Path) -> None:
    """What a queue worker takes from the run cache is recorded by the next `dvc-mlflow dvc`."""
    project = unheard(tmp_path / "project", STAGES)
    from_run_cache(project)
    front(project, "exp", "run", "-q", "--queue", "-S", "rate=1")
    project.run("sh", "-c", "dvc-mlflow dvc queue start >/dev/null 2>&1")
    project.wait_for_queue()
    assert project.rows() == []
    project.set({"rate": 3})
    front(project, "repro", "-q")  # runs the stage that the worker took from the run cache
    assert sorted(f"{rate}" for rate in rates(project)) == ["1", "3"]


@pytest.mark.rest
def test_costs_nothing(tmp_path: Path) -> None:
    """If all that is new was recorded while it ran, neither DVC nor MLflow is opened afterwards."""
    site, log = tmp_path / "site", tmp_path / "imported"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import atexit, sys\n"
        "if sys.orig_argv[1].endswith('/dvc-mlflow'):\n"
        "    atexit.register(lambda: print({'dvc', 'mlflow'} & {*sys.modules},\n"
        f"                    file=open({f'{log}'!r}, 'a')))\n"
    )
    project = unheard(tmp_path / "project", {"prepare": prepare(), **STAGES})
    assert live(front(project, "repro", PYTHONPATH=f"{site}")) == 3
    front(project, "repro", PYTHONPATH=f"{site}")
    assert live(front(project, "exp", "run", "-S", "a=2", PYTHONPATH=f"{site}")) == 1
    front(project, "exp", "run", "-S", "a=1", PYTHONPATH=f"{site}")
    opened = "{'dvc', 'mlflow'}", "{'mlflow', 'dvc'}"
    *first, last = log.read_text().splitlines()
    assert first == ["set()"] * 3
    assert last in opened  # `a` is in the run cache


STORES = ["http://127.0.0.1:9", "sqlite:////nowhere/mlflow.db"]


@pytest.mark.rest
@pytest.mark.parametrize("store", STORES)
def test_store_fails(tmp_path: Path, store: str) -> None:
    """A store that cannot be used costs one line, and never `dvc`'s exit status."""
    project = unheard(tmp_path / "project", STAGES)
    from_run_cache(project)
    project.set({"rate": 1})
    done = front(project, "repro", MLFLOW_TRACKING_URI=store)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{NEW}results of DVC's run cache are not recorded: MLflow at {store}")
    assert line.endswith("`dvc-mlflow record` records it later")


@pytest.mark.rest
def test_failed_dvc(tmp_path: Path) -> None:
    """If a stage fails, what `dvc` took from the run cache before it is recorded all the same."""
    fails = f"grep -q 'a: 1' params.yaml && {evaluate('a')['cmd']}"
    stages = {**STAGES, "a": {**evaluate("a"), "cmd": fails}}
    project = unheard(tmp_path / "project", stages)
    from_run_cache(project)
    project.set({"rate": 1, "a": 2})
    assert front(project, "repro", check=False).returncode == 255
    rows = {row.info.status: results(row) for row in project.rows()}
    assert rows == {"FAILED": set(), "FINISHED": {"train"}}


@pytest.mark.rest
def test_not_after_ctrl_c(tmp_path: Path) -> None:
    """After Ctrl-C nothing more is recorded: the tool ends with `dvc`."""
    stages = {**STAGES, "a": {**evaluate("a"), "cmd": "touch started; sleep 60"}}
    project = unheard(tmp_path / "project", {"train": STAGES["train"]})
    from_run_cache(project)
    project.set({"rate": 1})
    project.write({"dvc.yaml": json.dumps({"stages": stages})})
    with started(project, "repro", "a") as process:
        wait((project.path / "started").exists, 60)
        subprocess.run(["kill", "-INT", "--", f"-{process.pid}"], check=True)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 255
    assert "row '" not in out
    wait(lambda: not recorders(project))
    assert {row.info.status for row in project.rows()} <= {"KILLED"}


def test_elsewhere(tmp_path: Path) -> None:
    """Where a system lacks what live rows need, as macOS does, they are there when `dvc` has ended.

    A stage that fails has none there.
    """
    site = tmp_path / "site"
    site.mkdir()
    taken = "signal.sigtimedwait, signal.sigwaitinfo, os.pidfd_open"
    (site / "sitecustomize.py").write_text(f"import os, signal\ndel {taken}\n")
    project = unheard(tmp_path / "project", {**STAGES, "a": {**STAGES["a"], "cmd": "exit 3"}})
    done = front(project, "repro", "--keep-going", PYTHONPATH=f"{site}", check=False)
    assert done.returncode == 255
    assert done.stderr.count(NEW) == 2
    assert [row.info.status for row in project.rows()] == ["FINISHED"] * 2
    assert sorted(name for row in project.rows() for name in results(row)) == ["other", "train"]
    assert done.stderr.count(f"{NEW}row '") == 2
    assert front(project, "status", PYTHONPATH=f"{site}", check=False).stderr == ""
