"""What DVC's rwlock says, on values: what stands, and what can be concluded from half a file."""

import json
import os
from pathlib import Path

import pytest

from dvc_mlflow import work_tree
from dvc_mlflow.follow.rwlock import Held, RWLock, last_dvc, stamp

ENTRY = {"pid": 7, "cmd": "dvc repro"}
CONTENT = {"write": {"/p/model": ENTRY}, "read": {"/p/data": [ENTRY, {"pid": 8, "cmd": "dvc"}]}}


def held(writes: str = "", reads: str = "") -> Held:
    """Return what holds these files, by letters."""
    return Held(frozenset(writes), frozenset(reads))


@pytest.mark.parametrize(
    ("own", "now", "stands"),
    [
        (held("m", "d"), held("m", "d"), True),
        (held("m", "d"), held(), False),
        (held("m", "d"), held("", "m"), False),  # the next stage reads what this one has written
        (held("m", "d"), held("ms", "d"), True),  # an entry of a dead process with the same id
        (held("mc", "d"), held("m", "d"), False),
        (held("", "d"), held("", "d"), True),
        (held("", "d"), held("m", ""), False),
    ],
)
def test_stands(own: Held, now: Held, stands: bool) -> None:
    """An entry stands while its outputs are held for writing."""
    assert own.is_part_of(now) is stands


def lock(folder: Path, text: str) -> RWLock:
    """Write a project's rwlock."""
    file = folder / ".dvc/tmp/rwlock"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return RWLock(f"{folder}")


def test_read(tmp_path: Path) -> None:
    """Each process has what it holds; without the file, nothing is held."""
    read = lock(tmp_path, json.dumps(CONTENT))
    assert read.read()
    assert read.held == {
        7: Held(frozenset({"/p/model"}), frozenset({"/p/data"})),
        8: Held(frozenset(), frozenset({"/p/data"})),
    }
    (tmp_path / ".dvc/tmp/rwlock").unlink()
    assert read.read()
    assert read.held == {}


@pytest.mark.parametrize("text", [json.dumps(CONTENT)[:-9], "", "[]", '{"write": []}', "{" * 9999])
def test_half_written(tmp_path: Path, text: str) -> None:
    """Of a file that DVC is writing, what could be read last is known, and that it is not now."""
    read = lock(tmp_path, json.dumps(CONTENT))
    read.read()
    before = read.held
    lock(tmp_path, text)
    assert not read.read()
    assert read.held == before
    os.utime(tmp_path / ".dvc/tmp/rwlock", (1, 1))  # nobody completes it any more
    assert read.read()
    assert read.held == {}


def test_truncated_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is if DVC begins to write between a look at an old file and its reading."""
    read = lock(tmp_path, json.dumps(CONTENT))
    assert read.read()
    before, file = read.held, tmp_path / ".dvc/tmp/rwlock"
    os.utime(file, ns=(0, 10**9))  # an old file that was not read yet

    def truncated(*_: object, **__: object) -> bytes:
        file.write_text("")
        return b""

    monkeypatch.setattr(work_tree, "read", truncated)
    assert not read.read()
    assert read.held == before


@pytest.mark.parametrize(
    ("text", "pid"), [(" 123\n", 123), ("", 0), ("x", 0), ("9" * 99, 999999999)]
)
def test_last(tmp_path: Path, text: str, pid: int) -> None:
    """The lock names the last `dvc`, if it names any."""
    lock(tmp_path, "{}")
    (tmp_path / ".dvc/tmp/lock").write_text(text)
    assert last_dvc(f"{tmp_path}") == pid
    assert stamp(f"{tmp_path}/none") is None
