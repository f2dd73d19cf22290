"""What one process costs."""

import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from support.clone import ROOT, environment


class Run(NamedTuple):
    """One process: what it printed and what it cost."""

    printed: list[str]
    wall: float
    cpu: float
    peak: float
    """Gigabytes, of the process or of its largest child."""

    @property
    def value(self) -> float:
        """The number that the process printed last."""
        return float(self.printed[-1])


def run(*command: str | Path, cwd: Path = ROOT, **more: str) -> Run:
    """Run a command to its end and measure it; `more` is added to its environment."""
    with tempfile.TemporaryFile("w+") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=cwd, env=environment(**more), stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        printed = output.read().splitlines()
    if process.returncode:
        raise SystemExit("\n".join([f"{command} failed:", *printed[-20:]]))
    return Run(printed, wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e9)
