"""The files between the stages keep what is written, and a failed write names the file."""

import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from support.clone import contents
from support.kills import small_disk
from support.params import DATA, DATASET, OWN, X, Y
from vanilla_lstm.task.artifacts import (
    METRICS,
    TRAIN_DATA,
    DataSet,
    read_dataset,
    write_csv,
    write_dataset,
    write_json,
)
from vanilla_lstm.task.errors import FileError
from vanilla_lstm.task.sequences import generate

pytestmark = pytest.mark.usefixtures("folder")


def test_round_trip() -> None:
    """A data set reads back unchanged, params included; written again, it has the same bytes."""
    write_dataset(TRAIN_DATA, DATASET)
    first = TRAIN_DATA.read_bytes()
    read = read_dataset(TRAIN_DATA)
    np.testing.assert_array_equal(read.x, X)
    np.testing.assert_array_equal(read.y, Y)
    assert (read.data, read.own) == (DATA, OWN)
    write_dataset(TRAIN_DATA, read)
    assert TRAIN_DATA.read_bytes() == first
    assert [*contents(Path())] == ["data", "data/train.npz"]


def test_headers_are_those_of_any_python() -> None:
    """No part of the zip uses zip64, whose headers Python 3.11.4 changed."""
    write_dataset(TRAIN_DATA, DATASET)
    with zipfile.ZipFile(TRAIN_DATA) as archive:
        members = archive.infolist()
    assert [member.filename for member in members] == ["x.npy", "y.npy", "params.npy"]
    content = TRAIN_DATA.read_bytes()
    for member in members:
        version, size = content[member.header_offset + 4], content[member.header_offset + 18 :][:4]
        assert (version, int.from_bytes(size, "little")) == (20, member.file_size)


def test_rows_are_there_at_once() -> None:
    """Each row of a table is written before the next one is computed, so curves are live."""
    seen = []

    def rows() -> Iterator[tuple[int, float]]:
        for i in range(3):
            seen.append(METRICS.read_text())
            yield i, i / 4

    write_csv(METRICS, ("epoch", "loss"), rows())
    assert seen == ["epoch,loss\n", "epoch,loss\n0,0.0\n", "epoch,loss\n0,0.0\n1,0.25\n"]
    assert METRICS.read_text() == "epoch,loss\n0,0.0\n1,0.25\n2,0.5\n"


def test_folder_where_a_file_is_to_be() -> None:
    """A folder in the place of an output is reported with its path and left alone."""
    METRICS.mkdir(parents=True)
    with pytest.raises(FileError) as caught:
        write_json(METRICS, {})
    cure = "make room on the disk, or make it writable"
    assert str(caught.value) == f"{METRICS}: cannot be written (Is a directory); {cure}"
    assert METRICS.is_dir()


def test_full_disk(folder: Path) -> None:
    """On a full disk, the error names the file that could not be written."""
    large = DataSet(*generate(50_000, 1, **asdict(DATA)), DATA, OWN)
    wrong = f"^{TRAIN_DATA}: cannot be written .No space left on device"
    with small_disk(folder / "data", "64k"), pytest.raises(FileError, match=wrong):
        write_dataset(TRAIN_DATA, large)
