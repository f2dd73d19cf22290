"""A database that is made, of another version, or left half made."""

import os
from pathlib import Path

import pytest

from dvc_mlflow import processes


def test_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes that name a clone at the same moment give it one name."""
    (tmp_path / ".git").mkdir()
    first: list[str] = []
    link = os.link

    def late(*paths: str) -> None:
        monkeypatch.setattr(os, "link", link)
        first.append(processes.clone(tmp_path))
        link(*paths)

    monkeypatch.setattr(os, "link", late)
    assert [processes.clone(tmp_path)] == first
    assert processes.clone(tmp_path) == first[0]
    assert len(first[0]) == 32
    assert [path.name for path in (tmp_path / ".git/dvc-mlflow").iterdir()] == ["clone"]
