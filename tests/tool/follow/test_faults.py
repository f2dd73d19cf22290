"""Whatever befalls the follower or its store, `dvc` and git notice nothing, and no row is lost."""

import json
import random
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from dvc_mlflow.pipeline.tags import COMMIT
from support.following import (
    following,
    held_by,
    run_dvc,
    started,
    statuses,
    wait_for_rows,
    wait_for_store,
)
from support.pipelines import Repository, evaluate, last, prepare, repository, results, train
from support.processes import wait
from support.rebuilding import rows_of
from support.servers import free_port, serving

pytestmark = pytest.mark.pipeline


def server(project: Repository, port: int) -> AbstractContextManager[str]:
    """Run MLflow's server on a port."""
    return serving(project, "server", "--backend-store-uri", "sqlite:///served.db", port=port)


def test_git_beside(tmp_path: Path) -> None:
    """No `git commit` fails because the follower looks."""
    project = repository(tmp_path / "project", {"a": evaluate("a", "raw.txt")})
    with following(project):
        text = "for i in $(seq 60); do echo new $i > raw.txt; git commit -qam $i || exit 1; done"
        project.run("sh", "-c", text)
        run_dvc(project, "repro", "-q")
        project.commit("The result")
        head = project.git("rev-parse", "HEAD")
        wait_for_rows(project, "FINISHED")
        wait_for_store(project, lambda: last(project).data.tags[COMMIT] == head)


def test_lost_files(tmp_path: Path) -> None:
    """That rows lack files is said once, in a few lines, which say how to see the others."""
    item = {"cmd": "echo '{\"n\": 1}' > ${item}.json", "metrics": ["${item}.json"]}
    several = {"stages": {"each": {"foreach": [*"uvwxyz"], "do": item}}}
    project = repository(tmp_path / "project", {"a": evaluate("a", "raw.txt", cache=True)})
    project.write({"inner/dvc.yaml": json.dumps(several)})
    inner = Repository(project.path / "inner")
    inner.dvc("init", "-q", "--subdir")
    for place in (project, inner):
        place.dvc("repro", "-q")
    project.commit("Two projects")
    for place in (project, inner):
        for file in place.path.glob("?.json"):
            file.unlink()
        shutil.rmtree(place.path / ".dvc" / "cache" / "files")
    with following(project) as follower:
        follower.wait_for("2 more such lines; `dvc-mlflow record --all` prints them")
        project.write({"note": "The same results"})
        project.commit("A note")
        project.set({"a": 2})
        project.dvc("repro", "-q")
        wait_for_rows(project, *["FINISHED"] * 8)
        said = [line for line in follower.lines if "not as in dvc.lock" in line]
        assert [line[0] in "uvwxyz" for line in said] == [True] * 4
        assert sum("rows that lack files: 1;" in line for line in follower.lines) == 1
    error = project.record("--all", folder="inner").error
    assert error.count("not as in dvc.lock") == 1
    assert all(f"{item}.json" in error for item in "uvwxyz")


@contextmanager
def hanging(port: int) -> Iterator[None]:
    """Let the server on a port accept connections in the block, and answer none."""
    every = [p for p in psutil.process_iter(["cmdline"]) if f"{port}" in (p.info["cmdline"] or ())]
    for process in every:
        process.suspend()
    try:
        yield
    finally:
        for process in every:
            process.resume()


@pytest.mark.rest(minutes=3)
def test_server_that_hangs(tmp_path: Path) -> None:
    """A server that hangs, or stops while a stage runs, holds up nothing; its rows come later."""
    gate, port = tmp_path / "go", free_port()
    stage = {**train("raw.txt"), "cmd": f"{held_by(gate)}; {train('raw.txt')['cmd']}"}
    project = repository(tmp_path / "project", {"train": stage})
    address = f"http://127.0.0.1:{port}"

    def has(*statuses: str) -> bool:
        found = [(row.info.status, row.data.metrics) for row in rows_of(address)]
        return found == [(status, {"train/loss": 0.25}) for status in statuses]

    more = {"MLFLOW_TRACKING_URI": address, "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
    with ExitStack() as first:
        first.enter_context(server(project, port))
        with following(project, **more) as follower:
            with started(project, "dvc", "repro") as dvc:
                follower.wait_for("is RUNNING")
                with hanging(port):
                    gate.touch()
                    assert dvc.wait(180) == 0
                    follower.wait_for("timed out")
            wait(lambda: has("FINISHED"), 90)
            gate.unlink()
            project.set({"rate": 2})
            with started(project, "dvc", "repro") as dvc:
                follower.wait_for("is RUNNING", 2)
                first.close()
                gate.touch()
                assert dvc.wait(180) == 0
            follower.wait_for("refused")
            with server(project, port):
                wait(lambda: has("FINISHED", "FINISHED"), 90)


@pytest.mark.rest
def test_killed_followers(tmp_path: Path, slow: bool) -> None:
    """A follower is killed at any moment of several runs, 40 of them with `--slow`.

    Afterwards `record` has each result in one row, and none is RUNNING.
    """
    stages = {
        "prepare": {**prepare(), "cmd": f"sleep 0.5; {prepare()['cmd']}"},
        "train": {**train(), "cmd": f"sleep 0.5; {train()['cmd']}; sleep 0.5"},
        "a": {**evaluate("a"), "cmd": f"sleep 0.5; {evaluate('a')['cmd']}"},
    }
    project = repository(tmp_path / "project", stages)
    dice = random.Random(1)  # noqa: S311
    for number in range(2, 42 if slow else 6):
        project.set({"a": number, "rate": number})
        with following(project) as follower, started(project, "dvc", "repro", "-f"):
            time.sleep(dice.random() * 3)  # the moment, not a wait for anything
            follower.end(signal.SIGKILL)
        project.record()
        rows = [row for row in project.rows() if row.data.params.get("a") == f"{number}"]
        found = [(row.info.status, results(row)) for row in rows]
        assert found == [("FINISHED", {"train", "a"})]
        assert "RUNNING" not in statuses(project)
