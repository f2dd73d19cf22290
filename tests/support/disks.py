"""Disks of a few kB, and folders that nobody can write to; without the right to make them, skip."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """Mount an empty disk at a folder until the block ends."""
    path.mkdir(parents=True, exist_ok=True)
    with mounted(path, "-t", "tmpfs", "-o", f"size={size}", "none"):
        yield path


@contextmanager
def mounted(path: Path, *what: str | Path) -> Iterator[None]:
    """Mount something at a folder until the block ends."""
    mount = shutil.which("mount") or "false"
    if subprocess.run([mount, *what, path], capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


@contextmanager
def immutable(path: Path) -> Iterator[None]:
    """Let nobody, not even root, write to a file or a folder."""
    chattr = shutil.which("chattr") or "false"
    if subprocess.run([chattr, "+i", path], capture_output=True, check=False).returncode:
        pytest.skip("needs chattr")
    try:
        yield
    finally:
        subprocess.run([chattr, "-i", path], check=True)
