"""Wait for what other processes do, and end the followers that `dvc-mlflow run` has started."""

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil


def wait(condition: Callable[[], Any], seconds: float = 120) -> Any:
    """Wait until a condition holds, and return its value."""
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        if found := condition():
            return found
        now = time.monotonic()
        assert now < deadline, "it did not happen"
        # A search in MLflow takes time from what it awaits.
        time.sleep(max(0.05, 2 * (now - began)))


def followers(folder: Path) -> list[psutil.Process]:
    """Return those of the repositories in a folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if "--until-idle" in process.cmdline() and Path(process.cwd()).is_relative_to(folder):
                found.append(process)
    return found


def end_followers(folder: Path) -> None:
    """Kill them."""
    for process in followers(folder):
        with suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)
