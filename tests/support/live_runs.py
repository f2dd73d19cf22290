"""Stages with the prefix, and the processes that record them while they run."""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
from mlflow.entities import Run

from support.clone import environment
from support.pipelines import Repository, Stages


def recorded(stages: Stages, *names: str, start: str = "exec ") -> Stages:
    """Return stages with the prefix before the commands of some of them, by default of all."""
    return {
        name: {**stage, "cmd": f"{start}dvc-mlflow run -c {shlex.quote(stage['cmd'])}"}
        if name in (names or stages)
        else stage
        for name, stage in stages.items()
    }


def one(command: str, **more: Any) -> Stages:
    """Return a pipeline of one recorded stage with this command."""
    return {"one": {"cmd": f"exec dvc-mlflow run {command}", "params": ["rate"], **more}}


def wait(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """Wait until a condition holds, and return its value."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return found


def recorders(project: Repository) -> list[psutil.Process]:
    """Return a repository's running recorders."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if (
                "dvc_mlflow.live.recorder" in process.cmdline()
                and f"{project.path}" in process.cwd()
            ):
                found.append(process)
    return found


def last(project: Repository) -> Run:
    """Return the newest row."""
    return project.rows()[-1]


@contextmanager
def reproducing(project: Repository, **more: str) -> Iterator[subprocess.Popen[str]]:
    """Run `dvc repro` in the block, in its own process group."""
    with subprocess.Popen(
        ["dvc", "repro"],
        cwd=project.path,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as dvc:
        try:
            yield dvc
        finally:
            with suppress(ProcessLookupError):
                os.killpg(dvc.pid, signal.SIGKILL)
