"""The committed dvc.lock matches the committed code, params and results."""

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from support.clone import ROOT, environment
from vanilla_lstm.task.params import parse_params

DVC: dict[str, Any] = YAML(typ="safe").load(ROOT / "dvc.yaml")
LOCK: dict[str, Any] = YAML(typ="safe").load(ROOT / "dvc.lock")


def stale(lock: dict[str, Any], root: Path) -> set[str]:
    """Return the files in git whose md5 differs from the one in dvc.lock."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=root, env=environment(), capture_output=True, text=True, check=True
    )
    in_git = set(listed.stdout.splitlines())
    return {
        entry["path"]
        for stage in lock["stages"].values()
        for entry in stage.get("deps", []) + stage["outs"]
        if entry["path"] in in_git
        and hashlib.md5((root / entry["path"]).read_bytes()).hexdigest() != entry["md5"]  # noqa: S324
    }


@pytest.mark.usefixtures("as_committed")
def test_lock_is_of_these_files() -> None:
    """The committed code made the committed results; if this fails, run `make repro`."""
    assert stale(LOCK, ROOT) == set()


def test_lock_is_of_these_files_can_fail() -> None:
    """A dep and an output with another md5 are found; a file outside git is not compared."""
    entries = [{"path": name, "md5": "0"} for name in ("dvc.yaml", "Makefile", "data/train.npz")]
    lock = {"stages": {"a": {"outs": entries[:1]}, "b": {"deps": entries[1:], "outs": []}}}
    assert stale(lock, ROOT) == {"dvc.yaml", "Makefile"}


@pytest.mark.usefixtures("as_committed")
def test_lock_is_of_these_params() -> None:
    """The committed results were made with the committed params.yaml, which the schema accepts."""
    text = (ROOT / "params.yaml").read_text()
    assert parse_params(text)
    values = YAML(typ="safe").load(text)
    for name, stage in LOCK["stages"].items():
        locked = stage["params"]["params.yaml"]
        assert locked == {key: values[key] for key in DVC["stages"][name]["params"]}
