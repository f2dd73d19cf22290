"""Every path of the pipeline, and its file formats: the same values give the same bytes."""

import csv
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from voluptuous import MultipleInvalid

from vanilla_lstm.task.errors import FileError
from vanilla_lstm.task.schema import DataParams, TestDataParams, TrainDataParams
from vanilla_lstm.task.sequences import NO_LABEL, PAD, UInt8Array, generate

TRAIN_DATA = Path("data/train.npz")
TEST_DATA = Path("data/test.npz")
MODEL = Path("data/model.keras")
TRAINING = Path("data/training.csv")
MODEL_SUMMARY = Path("data/model_summary.txt")
METRICS = Path("data/metrics.json")
PREDICTIONS = Path("data/predictions.csv")
CONFUSION_MATRIX = Path("data/confusion_matrix.html")


class DataSet(NamedTuple):
    """Sequences, their labels, and the parameters that they were drawn with."""

    x: UInt8Array
    """Symbols `[n_samples, n_steps]`."""
    y: UInt8Array
    """Labels `[n_samples]` or `[n_samples, n_steps]`."""
    data: DataParams
    own: TrainDataParams | TestDataParams
    """The data set's own section, `train_data` or `test_data`."""

    @classmethod
    def draw(cls, data: DataParams, own: TrainDataParams | TestDataParams) -> Self:
        """Draw the data set that the two sections describe."""
        task = asdict(own.applied_to(data))  # n_max, n_steps, targets, …
        x, y = generate(own.n_samples, own.seed, min_insert=own.min_insert, **task)
        return cls(x, y, data, own)

    @property
    def sequences(self) -> DataParams:
        """The params of this data set's sequences."""
        return self.own.applied_to(self.data)


def write_dataset(path: Path, dataset: DataSet) -> None:
    """Write a data set, including its parameters; raises `FileError`."""
    sections = {"data": asdict(dataset.data), dataset.own.name: asdict(dataset.own)}
    arrays = {"x": dataset.x, "y": dataset.y, "params": np.array(json.dumps(sections))}
    with writing(path), zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            # Not `np.savez`: its zip64 headers differ between versions of Python.
            member = zipfile.ZipInfo(f"{name}.npy")
            member.file_size = array.nbytes  # zip64 where that is needed
            with archive.open(member, "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def read_dataset(path: Path) -> DataSet:
    """Read a data set and check it against the parameters that it carries; raises `FileError`."""
    try:
        with zipfile.ZipFile(path) as archive:
            # A small compressed file could hold more than fits in memory.
            if any(member.compress_type for member in archive.infolist()):
                raise ValueError("it is compressed, which no stage does")
        with np.load(path, allow_pickle=False) as file:
            x, y, text = file["x"], file["y"], str(file["params"])
        dataset = DataSet(x, y, *_sections(text, path))
        _check(dataset)
    except Exception as error:  # whatever zipfile, NumPy and JSON raise
        raise unreadable(path, error) from None
    return dataset


def _sections(text: str, path: Path) -> tuple[DataParams, TrainDataParams | TestDataParams]:
    kind = TrainDataParams if path == TRAIN_DATA else TestDataParams
    try:
        values = json.loads(text)
        return DataParams.of(values["data"]), kind.of(values[kind.name])
    except (KeyError, TypeError, ValueError, MultipleInvalid):
        raise ValueError(f"its params are not those of a {kind.name}") from None


def _check(dataset: DataSet) -> None:
    x, y, data = dataset.x, dataset.y, dataset.sequences
    shape = (dataset.own.n_samples, data.n_steps + data.insert)
    if x.dtype != np.uint8 or x.shape != shape:
        raise ValueError(f"x is {x.dtype} {list(x.shape)}, not uint8 {list(shape)}")
    if y.dtype != np.uint8 or y.shape != (shape if data.per_step else shape[:1]):
        raise ValueError(f"y is {y.dtype} {list(y.shape)}")
    symbols = x if dataset.own.min_insert is None else x[x != PAD]
    if symbols.max(initial=0) >= data.n_symbols:
        raise ValueError(f"x holds the symbol {symbols.max()}")
    if data.per_step and (y == NO_LABEL).all(axis=1).any():
        raise ValueError("y holds no label for a sequence")
    labels = y[y != NO_LABEL] if data.per_step else y
    if labels.max(initial=0) >= data.n_max:
        raise ValueError(f"y holds the label {labels.max()}")


def write_json(path: Path, values: Mapping[str, float]) -> None:
    """Write a small mapping; raises `FileError`."""
    write_text(path, json.dumps(values, indent=2) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table, each row as soon as `rows` yields it; raises `FileError`."""
    with writing(path), path.open("w", buffering=1, encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_text(path: Path, text: str) -> None:
    """Write a text; raises `FileError`."""
    with writing(path):
        path.write_text(text, encoding="utf-8", newline="")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Make the folder of a file that the block writes; raise `FileError` if that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        cause = error.strerror or " ".join(str(error).split())[:200]
        cure = "make room on the disk, or make it writable"
        raise FileError(path, f"cannot be written ({cause})", cure) from None


def unreadable(path: Path, error: Exception) -> FileError:
    """Return the error for a file that cannot be read, and the commands that repair it."""
    text = getattr(error, "strerror", None) or (error.args and error.args[0]) or ""
    cause = " ".join(str(text).split())[:200] or type(error).__name__
    # On its own, DVC would restore a damaged object from its cache again and again.
    cure = "`make heal` and then `dvc repro` make it again"
    return FileError(path, f"cannot be read ({cause})", cure)
