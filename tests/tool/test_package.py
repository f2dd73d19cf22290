"""The tool where it is installed, without this repository beside it."""

import sys
import sysconfig
from pathlib import Path

import pytest

from support.clone import copy_tool, environment
from support.pipelines import evaluate, repository, train

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.versions,
]


@pytest.mark.rest
def test_installed(tmp_path: Path) -> None:
    """The package has the command, which records live and after the fact."""
    source = copy_tool(tmp_path / "source")
    bin_, others = tmp_path / "environment" / "bin", sysconfig.get_path("purelib")
    source.run(sys.executable, "-m", "venv", "--without-pip", bin_.parent)
    source.run(
        *(sys.executable, "-m", "pip", "--python", bin_ / "python", "install", "-q", "--no-index"),
        *("--no-deps", "--no-build-isolation", "."),
        PYTHONPATH=others,  # setuptools, which builds it
    )
    (packages,) = bin_.parent.glob("lib/*/site-packages")
    # It finds DVC and MLflow there; this repository's own tool is behind a file *.pth, and unseen.
    (packages / "others.pth").write_text(others)
    path = f"{bin_}:{environment()['PATH']}"
    stages = {"train": train("raw.txt"), "a": evaluate("a")}
    project = repository(tmp_path / "project", stages)
    found = project.run("python", "-c", "import dvc_mlflow as d; print(d.__file__)", PATH=path)
    assert Path(found.stdout).is_relative_to(packages)
    project.run("dvc-mlflow", "run", "dvc", "repro", PATH=path)
    project.run("dvc-mlflow", "record", PATH=path)
    (row,) = project.rows()
    assert row.data.metrics == {"train/loss": 0.25, "a/score": 1}
