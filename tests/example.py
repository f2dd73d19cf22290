"""Copies of the example in examples/, with or without the tool, for tests and pictures."""

import shutil
from pathlib import Path

from clone import ROOT, Clone

EXAMPLE = ROOT / "examples" / "digits"


def copy_example(path: Path) -> Clone:
    """Copy the example without results, in case somebody has run it."""
    results = ("cache", "tmp", "dvc.lock", "model.pkl", "train", "validation", "test")
    return Clone(shutil.copytree(EXAMPLE, path, ignore=shutil.ignore_patterns(*results)))


def plain_example(path: Path) -> Clone:
    """Make a repository with the example as it was before the tool; nothing is committed."""
    project = copy_example(path)
    project.git("init", "-q", "-b", "main")
    project.git("apply", "-R", "adoption.diff")
    return project
