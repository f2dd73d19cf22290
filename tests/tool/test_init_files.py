"""`dvc-mlflow init` adds lines to ignore files, and leaves unusual files alone."""

import json
from pathlib import Path

import pytest

from init_projects import MARK, SCORE, command, one
from pipelines import repository

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from DVC and MLflow
]


LINES = "/mlflow.db*\n/mlartifacts/\n/restored/\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, f"{MARK}{LINES}"),
        ("", f"{MARK}{LINES}".removesuffix("\n")),
        ("a\n", f"a\n{MARK}{LINES}"),
        ("a", f"a\n{MARK}{LINES}".removesuffix("\n")),
        ("a\r\n", f"a\n{MARK}{LINES}".replace("\n", "\r\n")),
        ("/mlartifacts/\n", f"/mlartifacts/\n{MARK}/mlflow.db*\n/restored/\n"),
        (LINES, LINES),
    ],
)
def test_ignore_files(tmp_path: Path, before: str | None, after: str) -> None:
    """Missing lines are added to both ignore files, and nothing else in them changes."""
    project = repository(tmp_path / "project", {"train": one({"cmd": SCORE})})
    files = [project.path / ".gitignore", project.path / ".dvcignore"]
    old = None if before is None else before.encode()
    for file in files:
        file.unlink()
        if old is not None:
            file.write_bytes(old)
    assert project.tool("init", "--yes").status == 0
    for file in files:
        assert file.read_bytes() == after.encode()
    assert project.tool("deinit", "--yes").status == 0
    assert [file.read_bytes() if file.exists() else None for file in files] == [old, old]


def test_links(tmp_path: Path) -> None:
    """A file that is a symbolic link, which may lead elsewhere, is left alone."""
    project = repository(tmp_path / "project", {"train": one({"cmd": SCORE})})
    for name in ("dvc.yaml", ".gitignore"):
        elsewhere = (project.path / name).rename(tmp_path / name)
        before = elsewhere.read_bytes()
        (project.path / name).symlink_to(elsewhere)
        said = project.tool("init", "--yes")
        assert said.status == 1
        assert f"{name}: is a link, which may lead elsewhere" in said.error
        assert elsewhere.read_bytes() == before
        (project.path / name).unlink()
        elsewhere.rename(project.path / name)
    assert project.git("status", "--porcelain") == ""


@pytest.mark.parametrize("n", [400, 900])
def test_deep(tmp_path: Path, n: int) -> None:
    """A deeply nested dvc.yaml costs at most one line."""
    project = repository(tmp_path / "project", {})
    text = json.dumps({"stages": {"train": one({"cmd": SCORE}, meta={"a": "deep"})}})
    project.write({"dvc.yaml": text.replace('"deep"', "[" * n + "]" * n)})
    said = project.tool("init", "--yes")
    assert (said.error, said.status) in [
        ("", 0),
        ("dvc-mlflow: dvc.yaml is nested too deeply\n", 1),
    ]


@pytest.mark.parametrize("file", ["dvc.yaml", "params.yaml"])
def test_yaml_at_which_dvc_fails(tmp_path: Path, file: str) -> None:
    """A file at which DVC itself ends with a traceback costs one line."""
    project = repository(tmp_path / "project", {"train": one({"cmd": SCORE})})
    project.write({file: "? - ?\n"})
    said = project.tool("init", "--yes")
    why = "DVC's files cannot be read (TypeError: unhashable type: 'dict')"
    assert (said.error, said.status) == (f"dvc-mlflow: {why}\n", 1)


def test_enormous(tmp_path: Path) -> None:
    """A file of more than 10 MB is not read."""
    project = repository(tmp_path / "project", {"train": one({"cmd": SCORE})})
    with (project.path / ".gitignore").open("a") as file:
        file.write("#" * 10_000_000)
    said = project.tool("init", "--yes")
    assert said.error.endswith(".gitignore: is not a file, or is larger than 10 MB\n")
    assert command(project) == SCORE
