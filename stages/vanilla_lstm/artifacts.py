"""Every path and file format of the pipeline: atomic, deterministic writes and checked reads."""

import csv
import io
import json
import os
import zipfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from vanilla_lstm import stage
from vanilla_lstm.errors import FileError
from vanilla_lstm.params import DataParams, Section, TestDataParams, TrainDataParams
from vanilla_lstm.sequences import NO_LABEL, PAD, UInt8Array, generate

TRAIN_DATA = Path("data/train.npz")
TEST_DATA = Path("data/test.npz")
MODEL = Path("data/model.keras")
TRAINING = Path("data/training.csv")
METRICS = Path("data/metrics.json")
PREDICTIONS = Path("data/predictions.csv")

_MADE_BY = {TRAIN_DATA: "generate-train-data", TEST_DATA: "generate-test-data", MODEL: "train"}


class DataSet(NamedTuple):
    """Sequences, their labels, and the parameters that made them."""

    x: UInt8Array
    """Symbols `[n_samples, n_steps]`."""
    y: UInt8Array
    """Labels `[n_samples]` or `[n_samples, n_steps]`."""
    data: DataParams
    own: TrainDataParams | TestDataParams
    """What made it: the sections `data`, and `train_data` or `test_data`."""

    @classmethod
    def draw(cls, data: DataParams, own: TrainDataParams | TestDataParams) -> Self:
        """Draw the data set that the two sections describe."""
        task = own.applied_to(data).model_dump()  # n_max, n_steps, targets, …
        x, y = generate(own.n_samples, own.seed, min_insert=own.min_insert, **task)
        return cls(x, y, data, own)

    @property
    def sequences(self) -> DataParams:
        """What one sequence is."""
        return self.own.applied_to(self.data)

    @property
    def padded(self) -> bool:
        """Whether sequences shorter than the longest have `PAD` before them."""
        return self.own.min_insert is not None

    @property
    def sections(self) -> dict[str, Section]:
        """The sections that made it, by their names in params.yaml."""
        return {"data": self.data, self.own.name: self.own}


def write_dataset(path: Path, dataset: DataSet) -> None:
    """Write a data set; raises `FileError`."""
    sections = {name: section.model_dump(mode="json") for name, section in dataset.sections.items()}
    buffer = io.BytesIO()
    np.savez(buffer, x=dataset.x, y=dataset.y, params=np.array(json.dumps(sections)))
    write(path, buffer.getbuffer())


def read_dataset(path: Path) -> DataSet:
    """Read a data set and check it against the parameters that it carries; raises `FileError`."""
    try:
        with zipfile.ZipFile(path) as archive:
            # Compressed, a small file could be more than fits in memory.
            if any(member.compress_type for member in archive.infolist()):
                raise ValueError("it is compressed, which no stage does")
        with np.load(path, allow_pickle=False) as file:
            x, y, text = file["x"], file["y"], str(file["params"])
        dataset = DataSet(x, y, *_sections(text, path))
        _check(dataset)
    except Exception as error:  # whatever the readers of zip, NumPy and JSON raise
        raise unreadable(path, error) from None
    return dataset


def _sections(text: str, path: Path) -> tuple[DataParams, TrainDataParams | TestDataParams]:
    kind = TrainDataParams if path == TRAIN_DATA else TestDataParams
    try:
        values = json.loads(text)
        data = DataParams.model_validate(values["data"])
        return data, kind.model_validate(values[kind.name])
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"its params are not those of a {kind.name}") from None


def _check(dataset: DataSet) -> None:
    x, y, data = dataset.x, dataset.y, dataset.sequences
    shape = (dataset.own.n_samples, data.n_steps + data.insert)
    if x.dtype != np.uint8 or x.shape != shape:
        raise ValueError(f"x is {x.dtype} {list(x.shape)}, not uint8 {list(shape)}")
    if y.dtype != np.uint8 or y.shape != (shape if data.per_step else shape[:1]):
        raise ValueError(f"y is {y.dtype} {list(y.shape)}")
    symbols = x[x != PAD] if dataset.padded else x
    if symbols.max(initial=0) >= data.n_symbols:
        raise ValueError(f"x holds the symbol {symbols.max()}")
    if data.per_step and (y == NO_LABEL).all(axis=1).any():
        raise ValueError("y holds no label for a sequence")
    labels = y[y != NO_LABEL] if data.per_step else y
    if labels.max(initial=0) >= data.n_max:
        raise ValueError(f"y holds the label {labels.max()}")


def write_json(path: Path, values: dict[str, float]) -> None:
    """Write a small mapping; raises `FileError`."""
    write(path, (json.dumps(values, indent=2) + "\n").encode())


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table; raises `FileError`."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write(path, buffer.getvalue().encode())


def write(path: Path, content: bytes | memoryview) -> None:
    """Give `path` the content whole or not at all; raises `FileError`."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        stage.check()
        partial.replace(path)
    except OSError as error:
        raise FileError(
            path, f"cannot be written ({error.strerror})", "what was there is kept"
        ) from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def unreadable(path: Path, error: Exception) -> FileError:
    """Return the error of a file that a stage made and that cannot be read."""
    text = getattr(error, "strerror", None) or (error.args and error.args[0]) or ""
    cause = " ".join(str(text).split())[:200] or type(error).__name__
    cure = "fetch it again"
    if path in _MADE_BY:
        cure = f"`dvc checkout -f {path}` or `dvc repro -f {_MADE_BY[path]}` makes it whole"
    return FileError(path, f"cannot be read ({cause})", cure)
