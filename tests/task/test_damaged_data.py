"""A data file is never trusted: whatever is not a data set is refused, and no code in it runs."""

import io
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.clone import contents
from support.params import SECTIONS, X, Y
from vanilla_lstm.task.artifacts import TEST_DATA, TRAIN_DATA, read_dataset
from vanilla_lstm.task.errors import FileError

pytestmark = pytest.mark.usefixtures("folder")


class RunsCode:
    """An object whose pickle runs a command when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch data/code-was-run",)


def npz(**arrays: Any) -> bytes:
    """Return the content of a data set's .npz with some arrays replaced (None: removed)."""
    buffer = io.BytesIO()
    members = {"x": X, "y": Y, "params": np.array(json.dumps(SECTIONS)), **arrays}
    np.savez(buffer, **{name: array for name, array in members.items() if array is not None})
    return buffer.getvalue()


def params(**sections: Any) -> bytes:
    """Return the content of a .npz with some sections of its params replaced."""
    return npz(params=np.array(json.dumps(SECTIONS | sections)))


def claiming(n_elements: int) -> bytes:
    """Return the content of a .npz whose headers announce `n_elements` that are missing."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("x", "y", "params"):
            member = io.BytesIO()
            header = {"descr": "|u1", "fortran_order": False, "shape": (n_elements,)}
            np.lib.format.write_array_header_1_0(member, header)
            archive.writestr(f"{name}.npy", member.getvalue() + bytes(1000))
    return buffer.getvalue()


def compressed() -> bytes:
    """Return the content of a compressed .npz."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=X, y=Y, params=np.array(json.dumps(SECTIONS)))
    return buffer.getvalue()


def npy(array: Any) -> bytes:
    """Return the content of a .npy."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def other(array: Any, value: int) -> Any:
    """Return a copy of an array with another value in its last row."""
    copy = array.copy()
    copy[-1] = value
    return copy


DAMAGED = {
    "empty": b"",
    "random bytes that begin as a zip": b"PK\x03\x04" + np.random.default_rng(0).bytes(5000),
    "truncated": npz()[:-20],
    "a changed digit": npz().replace(X.tobytes(), bytes(X.size)),
    "an array of its own": npy(X),
    "an empty archive": b"PK\x05\x06" + bytes(18),
    "compressed": compressed(),
    "announcing 10^12 elements": claiming(10**12),
    "announcing 10^30 elements": claiming(10**30),
    "announcing a negative number": claiming(-1),
    "without params": npz(params=None),
    "int64 digits": npz(x=X.astype(np.int64)),
    "too short sequences": npz(x=X[:, :-1]),
    "no sequences": npz(x=X[:0], y=Y[:0]),
    "a digit out of range": npz(x=other(X, 5)),
    "a label out of range": npz(y=other(Y, 5)),
    "labels a step": npz(y=X),
    "no label in a sequence of labelled steps": npz(
        y=np.full_like(X, 255),
        params=np.array(json.dumps(SECTIONS | {"data": SECTIONS["data"] | {"per_step": True}})),
    ),
    "params of the test data": params(train_data=None, test_data={}),
    "params that break a rule": params(data=SECTIONS["data"] | {"n_max": 2}),
    "params with an unknown key": params(data=SECTIONS["data"] | {"n_min": 2}),
    "params that are a list": npz(params=np.array("[1]")),
    "params that are nested deeply": npz(params=np.array("[" * 100_000)),
    "pickled digits that run code": npz(x=np.array([RunsCode()], dtype=object)),
    "pickled params that run code": npz(params=np.array(RunsCode(), dtype=object)),
    "a pickle that runs code": pickle.dumps(RunsCode()),
    "a pickled array that runs code": npy(np.array([RunsCode()], dtype=object)),
}


def test_damaged_data() -> None:
    """Anything but a data set is refused in one line with file and cure; no code in it runs."""
    TRAIN_DATA.parent.mkdir()
    for name, content in DAMAGED.items():
        TRAIN_DATA.write_bytes(content)
        before = contents(Path())
        try:
            read_dataset(TRAIN_DATA)
        except FileError as error:
            check_line(str(error), "data/train.npz")
        else:
            raise AssertionError(f"accepted: {name}")
        assert contents(Path()) == before, name


def check_line(line: str, path: str) -> None:
    """Assert that a line names the file, a cause and the cure."""
    cure = "`make heal` and then `dvc repro` make it again"
    assert line.startswith(f"{path}: cannot be read (")
    assert line.endswith(f"); {cure}")
    assert "\n" not in line
    assert len(line) < 350


def test_missing_data() -> None:
    """A missing file, or a folder in its place, is reported in one line with the same cure."""
    with pytest.raises(FileError, match="No such file or directory"):
        read_dataset(TEST_DATA)
    TEST_DATA.mkdir(parents=True)
    with pytest.raises(FileError, match="Is a directory") as caught:
        read_dataset(TEST_DATA)
    check_line(str(caught.value), "data/test.npz")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_any_damage(data: st.DataObject) -> None:
    """A file cut or overwritten anywhere is refused, or its arrays are still the same."""
    content = bytearray(npz())
    start = data.draw(st.integers(0, len(content)))
    if data.draw(st.booleans()):
        del content[start:]
    else:
        part = data.draw(st.binary(min_size=1, max_size=16))
        content[start : start + len(part)] = part
    TRAIN_DATA.parent.mkdir(exist_ok=True)
    TRAIN_DATA.write_bytes(content)
    try:
        read = read_dataset(TRAIN_DATA)
    except FileError as error:
        check_line(str(error), "data/train.npz")
    else:
        np.testing.assert_array_equal(read.x, X)
        np.testing.assert_array_equal(read.y, Y)
