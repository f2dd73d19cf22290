"""This machine's processor, and others that QEMU emulates."""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

from support.clone import ROOT, environment

QEMU = shutil.which("qemu-x86_64")
"""Emulates other processors, caches included; it is in Debian's package qemu-user."""


def processor() -> str:
    """Return the name of this machine's processor and the sizes of its caches."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":")[1].strip() for line in info.splitlines() if "model name" in line]
    caches = [
        f"L{level.read_text().strip()} {(level.parent / 'size').read_text().strip()}"
        for level in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/level"))
        if (level.parent / "type").read_text().strip() != "Instruction"
    ]
    return ", ".join([names[0] if names else platform.processor(), *caches])


def run(code: str, *arguments: str, on: str = "") -> str:
    """Run Python code in the repository and return what it prints; `on` names another processor."""
    # TensorFlow's code fills the emulator's own cache, which it then empties: a fifth of the time.
    emulator = [str(QEMU), "-tb-size", "512", "-cpu", on] if on else []
    done = subprocess.run(
        [*emulator, sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
