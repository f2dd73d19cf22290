"""Inputs that change while a stage runs: it ends as it would, and its result has no row."""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run

from support.following import (
    following,
    run_dvc,
    started,
    statuses,
    wait_for_rows,
    wait_for_store,
)
from support.pipelines import Repository, evaluate, last, prepare, repository, train
from support.waiting import wait

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

GATE = "touch began; until test -e go; do sleep 0.1; done; "


def gated(stage: dict[str, Any]) -> dict[str, Any]:
    """Return a stage that waits for a file `go`."""
    return {**stage, "cmd": f"{GATE}{stage['cmd']}"}


def pipeline(path: Path, **more: Any) -> Repository:
    """A pipeline whose training waits."""
    fit = {**gated(train()), "deps": ["data.txt", "code", "table.txt"]}
    stages = {"prepare": prepare(), "train": fit, "a": evaluate("a")}
    files = {"code/train.sh": "1\n", "code/more.sh": "1\n", "other.txt": "1\n", "table.txt": "1\n"}
    return repository(path, {**stages, **more}, files=files)


def touched(project: Repository) -> None:
    for name in ("data.txt", "code/train.sh"):
        (project.path / name).touch()


def same_bytes(project: Repository) -> None:
    project.write({"data.txt": "2\n"})
    project.write({"data.txt": "1\n", "code/train.sh": "1\n"})


CACHES = {"code/__pycache__/train.pyc": "1", "code/.cache/x": "1", "code/a.pyc": "1"}
HARMLESS: dict[str, Callable[[Repository], object]] = {
    "other param": lambda project: project.set({"b": 5}),
    "other file": lambda project: project.write({"other.txt": "2\n"}),
    "touch": touched,
    "same bytes": same_bytes,
    "caches": lambda project: project.write(CACHES),
}
CHANGES: dict[str, tuple[str, Callable[[Repository], object]]] = {
    "param": ("params.yaml", lambda project: project.set({"rate": 5})),
    "dep": ("table.txt", lambda project: project.write({"table.txt": "2\n"})),
    "comment": ("code", lambda project: project.write({"code/train.sh": "1\n# a comment\n"})),
    "new file": ("code", lambda project: project.write({"code/new.sh": "1\n"})),
}
"""What changes, with the input that a row then names."""


def ran(
    project: Repository, change: Callable[[Repository], object], *before: str, force: bool = False
) -> Run:
    """Run the pipeline, change something meanwhile, and return the row of the training."""
    for name in ("began", "go"):
        (project.path / name).unlink(missing_ok=True)
    with started(project, "dvc", "repro", *(["-f"] if force else [])) as dvc:
        wait_for_rows(project, *before, "RUNNING")
        wait((project.path / "began").exists)
        wait_for_store(project, lambda: "rate" in last(project).data.params)
        change(project)
        project.write({"go": ""})
        assert dvc.wait(60) == 0  # nothing is in its way
    wait(lambda: statuses(project)[-1] != "RUNNING")
    return last(project)


def refused(project: Repository, *words: str) -> None:
    """Assert that `record` leaves the result out, and says what to do."""
    before = project.table()
    said = project.record(*words)
    assert said.status == 1
    (line,) = [line for line in said.error.splitlines() if "changed while it ran" in line]
    assert line.startswith("dvc-mlflow: the result of train is not recorded, as ")
    assert line.endswith("; `dvc-mlflow run dvc repro -f train` makes it again")
    assert project.table() == before


def test_changed(tmp_path: Path) -> None:
    """The row is FAILED and names the file; no clone records the result until it is made again."""
    project = pipeline(tmp_path / "project")
    found, failed = {}, ["FAILED"] * len(CHANGES)
    with following(project) as follower:
        for number, (what, (name, change)) in enumerate(CHANGES.items()):
            row = ran(project, change, *failed[:number], force=True)
            is_claimed = any(key.startswith("dvc-mlflow.lock") for key in row.data.tags)
            why = f"{name} changed while the stage ran"
            is_named = why in row.data.tags["mlflow.note.content"]
            found[what] = (row.info.status, is_named, is_claimed)
            line = f"train is FAILED: row {row.info.run_name!r}; {why}; `dvc-mlflow run dvc"
            follower.wait_for(line)
            refused(project)
        assert found == dict.fromkeys(CHANGES, ("FAILED", True, False))
    project.commit("The result")
    refused(project, "--all")
    clone = project.copy(tmp_path / "clone" / "project")
    uri = f"sqlite:///{project.path}/mlflow.db"
    said = clone.tool("record", MLFLOW_TRACKING_URI=uri)
    assert (said.status, said.out) == (1, "")
    assert "`dvc-mlflow run dvc repro -f train` makes it again" in said.error
    with following(project):
        ran(project, lambda _: None, *failed, force=True)
        wait_for_rows(project, *failed, "FINISHED")
        run_dvc(project, "repro", "-q")
        said = project.record()
        assert (said.status, said.error) == (0, "")
    assert statuses(project) == [*failed, "FINISHED"]
    assert last(project).data.metrics == {"train/loss": 0.25, "a/score": 1}
    said = clone.tool("record", MLFLOW_TRACKING_URI=uri)
    assert said.status == 0


def test_not_changed(tmp_path: Path) -> None:
    """The same bytes, what no stage reads, and what code leaves beside itself are no alarm.

    If it is what another stage has made, dvc.lock contradicts itself, and that is said, too.
    """
    project = pipeline(tmp_path / "project")

    def change(project: Repository) -> None:
        for each in HARMLESS.values():
            each(project)

    with following(project):
        row = ran(project, change)
        assert row.info.status == "FINISHED", row.data.tags.get("mlflow.note.content")
        assert project.record().status == 0
        assert last(project).data.metrics == {"train/loss": 0.25, "a/score": 1}
        project.set({"rate": 2})
        made = ran(project, lambda project: project.write({"data.txt": "2\n"}), "FINISHED")
        assert made.info.status == "FAILED"
        refused(project)
        run_dvc(project, "repro", "-q")
        wait_for_rows(project, "FINISHED", "FAILED", "FINISHED")
        assert project.record().status == 0


def prepare_while(project: Repository, files: Mapping[str, str], *words: str) -> None:
    """Run the pipeline, and write files while `prepare` waits."""
    for name in ("began", "go"):
        (project.path / name).unlink(missing_ok=True)
    with started(project, "dvc", "repro", *words) as dvc:
        wait((project.path / "began").exists)
        project.tool("record")  # it has been looked at
        project.write({**files, "go": ""})
        assert dvc.wait(60) == 0


def test_before_the_recorded_stages(tmp_path: Path) -> None:
    """If it is a stage that is not recorded itself, the rows of what is made from it wait.

    There is one FAILED row, also if several rows share the stage.
    """
    each = {**train(), "cmd": train()["cmd"].replace("model.txt", "${item}.txt")}
    each["cmd"] = each["cmd"].replace("curve.csv", "${item}.csv")
    each |= {"outs": ["${item}.txt"], "plots": [{"${item}.csv": {"cache": False, "x": "step"}}]}
    for items in (["x"], ["x", "y"]):
        stages = {"prepare": gated(prepare()), "fit": {"foreach": items, "do": each}}
        project = repository(tmp_path / f"project{len(items)}", stages)
        with following(project) as follower:
            prepare_while(project, {"raw.txt": "2\n"})
            follower.wait_for("prepare is FAILED: row ")
            said = project.record()
            assert said.status == 1
            assert "the result of prepare is not recorded, as raw.txt changed" in said.error
            assert statuses(project) == ["FAILED"]
            prepare_while(project, {}, "-f", "prepare")
            assert project.record().status == 0
            wait_for_rows(project, "FAILED", *["FINISHED"] * len(items))


def test_under_the_prefix(tmp_path: Path) -> None:
    """The prefix changes nothing of that; what the stage made stays."""
    fit = train("raw.txt")
    cmd = f"dvc-mlflow run -c {shlex.quote(GATE + fit['cmd'] + '; sleep 1')}"  # long enough
    project = repository(tmp_path / "project", {"train": {**fit, "cmd": cmd}})
    with started(project, "dvc", "repro") as dvc:
        wait(lambda: (project.path / "began").exists() and statuses(project), 60)
        project.write({"raw.txt": "2\n", "go": ""})
        assert dvc.wait(60) == 0
    said = project.record()
    assert said.status == 1
    assert "raw.txt changed while it ran" in said.error
    assert (project.path / "model.txt").read_text() == "2\nrate: 1\n"
    project.run("dvc-mlflow", "run", "dvc", "repro", "-q", "-f", "train")
    assert project.record().status == 0
    assert statuses(project) == ["FAILED", "FINISHED"]
