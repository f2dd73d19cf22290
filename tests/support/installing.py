"""The tool's source, copied to install it from there."""

import shutil
from pathlib import Path

from support.clone import ROOT, Clone

TOOL = ROOT / "dvc_mlflow"


def copy_tool(path: Path) -> Clone:
    """Copy the tool without what an installation leaves in its folder, to install it from there."""
    ignored = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    return Clone(shutil.copytree(TOOL, path, ignore=ignored))


def copied_repository(path: Path) -> str:
    """Make a git repository that has the tool where this one does; return its address."""
    path.mkdir()
    made = Clone(path)
    copy_tool(path / "dvc_mlflow")
    made.git("init", "-q")
    made.commit("The tool")
    return path.as_uri()
