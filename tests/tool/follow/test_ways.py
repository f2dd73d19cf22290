"""However `dvc` is started, its stages have rows while they run: nothing stands in its way."""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from dvc_mlflow.pipeline.tags import CHANGE, COMMIT, EXPERIMENT
from support.following import (
    BY_API,
    following,
    held_by,
    run_dvc,
    started,
    wait_for_rows,
    wait_for_store,
)
from support.forked import Process
from support.pipelines import Repository, Stages, evaluate, last, prepare, repository, train

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.versions,
]

WAYS = {
    "exp": ["exp", "run"],
    "temp": ["exp", "run", "--temp"],
    "queue": [],
    "folder": ["repro", "-q", "../dvc.yaml"],
    "python": [],
}


def ran(project: Repository, way: str) -> AbstractContextManager[Process]:
    """Start the pipeline in one way."""
    if way == "python":
        return started(project, sys.executable, "-c", BY_API)
    if way == "queue":
        project.dvc("exp", "run", "--queue", "-q")
        return started(project, "sh", "-c", "dvc queue start")  # as its workers start by its path
    return started(project, "dvc", *WAYS[way], folder="inner" if way == "folder" else ".")


def seen(project: Repository, gates: Sequence[Path], way: str, before: int) -> dict[str, Any]:
    """Run the pipeline in one way, and return what its row shows at each moment.

    Its first two stages end when their `gates` are there.
    """
    finished = ["FINISHED"] * before
    with ran(project, way) as process:
        wait_for_rows(project, *finished, "RUNNING")
        begun = last(project)
        gates[0].touch()
        growing = wait_for_store(
            project, lambda: [r for r in [last(project)] if "train/loss" in r.data.metrics]
        )[0]
        if way == "exp":  # what an editor asks for again and again
            for words in (["exp", "show", "--json"], ["data", "status", "--json"], ["status"]):
                run_dvc(project, *words, check=False)
        gates[1].touch()
        wait_for_store(project, lambda: "a/score" in last(project).data.metrics)
        if way == "python":
            process.kill()
    wait_for_rows(project, *finished, "FINISHED")
    row = last(project)
    return {
        "at first": begun.data.params,
        "commit": begun.data.tags[COMMIT],
        "growing": (growing.info.status, growing.data.params),
        "is one": row.info.run_id == begun.info.run_id == growing.info.run_id,
        "params": row.data.params,
        "metrics": row.data.metrics,
        "after": row.data.tags[CHANGE],
        "experiment": bool(row.data.tags.get(EXPERIMENT)),
    }


def test_ways(tmp_path: Path) -> None:
    """The row begins with the first stage, has its curve while it runs, and then its result.

    A stage of several commands goes on with it.
    """
    gates = [tmp_path / name for name in ("prepare", "train")]
    stages: Stages = {"prepare": prepare(), "train": train(), "a": evaluate("a")}
    for gate in gates:
        stages[gate.name]["cmd"] = [f"{stages[gate.name]['cmd']}; sleep 0.5", held_by(gate)]
    project = repository(tmp_path / "project", stages, files={"inner/.keep": ""})
    head, found = project.git("rev-parse", "HEAD"), {}
    subject = project.git("log", "-1", "--format=%s")
    with following(project) as follower:
        for number, way in enumerate(WAYS):
            project.write({"raw.txt": f"{number}\n"})
            project.set({"rate": number})
            found[way] = seen(project, gates, way, number)
            for gate in gates:
                gate.unlink()
            assert project.record().out.startswith("nothing to do")
        assert follower.end() == 0
        assert not [line for line in follower.lines[1:] if " row '" not in line]
        assert sum("is RUNNING" in line for line in follower.lines) == len(WAYS)
    expected = {
        way: {
            "at first": {},  # those of the first stage, which reads none
            "commit": head,
            "growing": ("RUNNING", {"rate": f"{number}"}),
            "is one": True,
            "params": {"rate": f"{number}", "a": "1"},
            "metrics": {"train/loss": 0.25, "a/score": 1},
            "after": f"after {head[:7]} {subject}",
            "experiment": way in ("exp", "temp", "queue"),
        }
        for number, way in enumerate(WAYS)
    }
    assert found == expected
