"""The files between the stages: written row by row, and never trusted."""

import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sections import data_params
from vanilla_lstm.task.artifacts import (
    METRICS,
    TEST_DATA,
    TRAIN_DATA,
    DataSet,
    read_dataset,
    write_csv,
    write_dataset,
    write_json,
)
from vanilla_lstm.task.errors import FileError
from vanilla_lstm.task.schema import TrainDataParams
from vanilla_lstm.task.sequences import generate

DATA = data_params(n_steps=4)


def md5(path: Path) -> str:
    """Return the md5 of a file."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


OWN = TrainDataParams(n_samples=6, seed=1, min_insert=None)
X, Y = generate(6, 1, **DATA.model_dump())
DATASET = DataSet(X, Y, DATA, OWN)
SECTIONS = {"data": DATA.model_dump(mode="json"), "train_data": OWN.model_dump(mode="json")}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files() -> dict[str, str]:
    """Return the md5 of every file below the working directory."""
    return {str(path): md5(path) for path in Path().rglob("*") if path.is_file()}


def test_round_trip() -> None:
    """A data set reads back unchanged, params included; written again, it has the same bytes."""
    write_dataset(TRAIN_DATA, DATASET)
    first = md5(TRAIN_DATA)
    read = read_dataset(TRAIN_DATA)
    np.testing.assert_array_equal(read.x, X)
    np.testing.assert_array_equal(read.y, Y)
    assert (read.data, read.own) == (DATA, OWN)
    write_dataset(TRAIN_DATA, read)
    assert md5(TRAIN_DATA) == first
    assert list(files()) == ["data/train.npz"]


class RunsCode:
    """An object whose pickle runs a command when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch data/code-was-run",)


def npz(**arrays: Any) -> bytes:
    """Return the content of a data set's .npz with some arrays replaced (None: left out)."""
    buffer = io.BytesIO()
    members = {"x": X, "y": Y, "params": np.array(json.dumps(SECTIONS)), **arrays}
    np.savez(buffer, **{name: array for name, array in members.items() if array is not None})
    return buffer.getvalue()


def params(**sections: Any) -> bytes:
    """Return the content of a data set with some sections of its params replaced."""
    return npz(params=np.array(json.dumps(SECTIONS | sections)))


def claiming(n_elements: int, compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return the content of an .npz whose headers announce `n_elements` that are not there."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name in ("x", "y", "params"):
            member = io.BytesIO()
            header = {"descr": "|u1", "fortran_order": False, "shape": (n_elements,)}
            np.lib.format.write_array_header_1_0(member, header)
            archive.writestr(f"{name}.npy", member.getvalue() + bytes(1000))
    return buffer.getvalue()


def compressed() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=X, y=Y, params=np.array(json.dumps(SECTIONS)))
    return buffer.getvalue()


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def other(array: Any, value: int) -> Any:
    copy = array.copy()
    copy[-1] = value
    return copy


DAMAGED = {
    "empty": b"",
    "text": b"actual,predicted\n1,1\n",
    "random bytes": np.random.default_rng(0).bytes(5000),
    "random bytes that begin as a zip": b"PK\x03\x04" + np.random.default_rng(0).bytes(5000),
    "truncated": npz()[:-20],
    "half": npz()[: len(npz()) // 2],
    "without its head": npz()[100:],
    "a changed digit": npz().replace(X.tobytes(), bytes(X.size)),
    "an array of its own": npy(X),
    "an empty archive": b"PK\x05\x06" + bytes(18),
    "compressed": compressed(),
    "announcing 10^12 elements": claiming(10**12),
    "announcing 10^12 elements, compressed": claiming(10**12, zipfile.ZIP_DEFLATED),
    "announcing 10^30 elements": claiming(10**30),
    "announcing a negative number": claiming(-1),
    "without labels": npz(y=None),
    "without params": npz(params=None),
    "int64 digits": npz(x=X.astype(np.int64)),
    "float labels": npz(y=Y.astype(np.float32)),
    "text digits": npz(x=X.astype(str)),
    "too few sequences": npz(x=X[:-1], y=Y[:-1]),
    "too short sequences": npz(x=X[:, :-1]),
    "no sequences": npz(x=X[:0], y=Y[:0]),
    "one-hot digits": npz(x=np.eye(5, dtype=np.uint8)[X]),
    "a digit out of range": npz(x=other(X, 5)),
    "a label out of range": npz(y=other(Y, 5)),
    "a missing label": npz(y=other(Y, 255)),
    "labels a step": npz(y=X),
    "no label in a sequence of labelled steps": npz(
        y=np.full_like(X, 255),
        params=np.array(json.dumps(SECTIONS | {"data": SECTIONS["data"] | {"per_step": True}})),
    ),
    "params of the test data": params(train_data=None, test_data={}),
    "params that break a rule": params(data=SECTIONS["data"] | {"n_max": 2}),
    "params with an unknown key": params(data=SECTIONS["data"] | {"n_min": 2}),
    "params that are a list": npz(params=np.array("[1]")),
    "params that are no JSON": npz(params=np.array("{")),
    "params that are nested deeply": npz(params=np.array("[" * 100_000)),
    "params that are numbers": npz(params=X),
    "pickled digits that run code": npz(x=np.array([RunsCode()], dtype=object)),
    "pickled params that run code": npz(params=np.array(RunsCode(), dtype=object)),
    "a pickle that runs code": pickle.dumps(RunsCode()),
    "a pickled array that runs code": npy(np.array([RunsCode()], dtype=object)),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_data(content: bytes) -> None:
    """Anything but a data set is refused in one line with file and cure; none of its code runs."""
    TRAIN_DATA.parent.mkdir()
    TRAIN_DATA.write_bytes(content)
    before = files()
    with pytest.raises(FileError) as caught:
        read_dataset(TRAIN_DATA)
    check_line(str(caught.value), "data/train.npz")
    assert files() == before


def check_line(line: str, path: str) -> None:
    """Assert that a line names the file, a cause and the cure."""
    cure = "`make heal` and then `dvc repro` make it again"
    assert line.startswith(f"{path}: cannot be read (")
    assert line.endswith(f"); {cure}")
    assert "\n" not in line
    assert len(line) < 350


def test_missing_data() -> None:
    """A missing file, or a folder in its place, is reported in the same words."""
    with pytest.raises(FileError, match="No such file or directory"):
        read_dataset(TEST_DATA)
    TEST_DATA.mkdir(parents=True)
    with pytest.raises(FileError, match="Is a directory") as caught:
        read_dataset(TEST_DATA)
    check_line(str(caught.value), "data/test.npz")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_forbidden_data() -> None:
    """A file without read permission is reported as such."""
    write_dataset(TRAIN_DATA, DATASET)
    TRAIN_DATA.chmod(0)
    with pytest.raises(FileError, match="Permission denied"):
        read_dataset(TRAIN_DATA)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_any_damage(data: st.DataObject) -> None:
    """Wherever a file is cut or overwritten, it is refused or its arrays are unchanged."""
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


# Writing


def test_rows_are_there_at_once() -> None:
    """A row of a table is in its file before the next one is computed, so curves are live."""
    seen = []

    def rows() -> Iterator[tuple[int, float]]:
        for i in range(3):
            seen.append(METRICS.read_text())
            yield i, i / 4

    write_csv(METRICS, ("epoch", "loss"), rows())
    assert seen == ["epoch,loss\n", "epoch,loss\n0,0.0\n", "epoch,loss\n0,0.0\n1,0.25\n"]
    assert METRICS.read_text() == "epoch,loss\n0,0.0\n1,0.25\n2,0.5\n"


def test_folder_where_a_file_is_to_be() -> None:
    """A folder in place of an output is reported with its path, and stays."""
    METRICS.mkdir(parents=True)
    with pytest.raises(FileError) as caught:
        write_json(METRICS, {})
    cure = "make room on the disk, or make it writable"
    assert str(caught.value) == f"{METRICS}: cannot be written (Is a directory); {cure}"
    assert METRICS.is_dir()


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 64 kB, mounted at data/."""
    (folder / "data").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder / "data")]
    if (
        not shutil.which("mount")
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("mounting a file system needs root")
    yield folder / "data"
    subprocess.run(["umount", folder / "data"], check=True)


LARGE = generate(50_000, 1, **DATA.model_dump())


@pytest.mark.parametrize(
    "fill",
    [
        lambda: write_csv(METRICS, ["a"], [[i] for i in range(50_000)]),
        lambda: write_dataset(METRICS, DataSet(*LARGE, DATA, OWN)),
    ],
    ids=["table", "data set"],
)
@pytest.mark.usefixtures("small_disk")
def test_full_disk(fill: Callable[[], None]) -> None:
    """On a full disk the error names the file."""
    with pytest.raises(FileError, match=f"^{METRICS}: cannot be written .No space left on device"):
        fill()
