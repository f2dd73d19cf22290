"""The followers that `dvc-mlflow run` has started."""

import signal
from contextlib import suppress
from pathlib import Path

import psutil


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
