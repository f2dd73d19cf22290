"""Copies of the example in examples/, for tests and pictures."""

import shutil
from pathlib import Path

from support.clone import ROOT, Clone

EXAMPLE = ROOT / "examples" / "digits"


def plain_example(path: Path) -> Clone:
    """Make a repository with the example, without results; nothing is committed."""
    results = ("cache", "tmp", "dvc.lock", "model.pkl", "train", "validation", "test")
    project = Clone(shutil.copytree(EXAMPLE, path, ignore=shutil.ignore_patterns(*results)))
    project.git("init", "-q", "-b", "main")
    return project


def add_prefix(project: Clone) -> None:
    """Put the prefix before two commands of the example."""
    file = project.path / "dvc.yaml"
    text = file.read_text()
    for stage in ("train", "evaluate"):
        command = f"python scripts/{stage}.py"
        text = text.replace(command, f"dvc-mlflow run {command}")
    file.write_text(text)
