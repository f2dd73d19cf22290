"""params.yaml is read as DVC reads it, and a file that cannot be read is refused with the cure."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import parse_yaml
from hypothesis import example, given
from hypothesis import strategies as st

from support.params_text import TEXT, changed, of, refusal
from vanilla_lstm.task.errors import FileError, ParamsError
from vanilla_lstm.task.params import parse_params, read_params
from vanilla_lstm.task.params_file import flatten, parse, read

SCALARS = [
    *("1e-3", "1E5", "+1.5e+3", "-.5", "1.", ".inf", "-.INF", ".nan", "1_000", "1_0.5", "1e5_0"),
    *("0", "-0", "+12", "010", "08", "0o17", "0x1F", "-0b11", "0b12", "1:30", "1__", "_1", "--1"),
    *("yes", "no", "on", "Off", "y", "true", "True", "TRUE", "tRUE", "false", "null", "~", "Null"),
    *("''", "'5'", "2.5e", "1e", "e5", ".", "-", "+", "0x", "12e03", "1.5_5", "nan", "inf"),
]


def same(ours: Any, theirs: Any) -> bool:
    """Whether two values are equal and of the same type."""
    if isinstance(ours, float) and math.isnan(ours):
        return isinstance(theirs, float) and math.isnan(theirs)
    return type(ours) is type(theirs) and bool(ours == theirs)


def test_scalars_are_those_of_dvc() -> None:
    """A stage and DVC read a scalar as the same number, boolean or text, or both refuse it."""

    def read_by(reader: Callable[[str], Any], error: type[BaseException], scalar: str) -> str:
        try:
            value = reader(f"a: {scalar}\n")["a"]
        except error:
            return "refused"
        return f"{type(value)} {value!r}"

    ours = {scalar: read_by(parse, ParamsError, scalar) for scalar in SCALARS}
    dvc = partial(parse_yaml, path="params.yaml")
    assert ours == {scalar: read_by(dvc, Exception, scalar) for scalar in SCALARS}


@given(st.text(st.sampled_from("0123456789+-_.eExobfnaltruINyos~:"), min_size=1, max_size=8))
@example("1_")
@example("0.1e+1")
def test_any_scalar_is_that_of_dvc(scalar: str) -> None:
    """The same holds for any other scalar, unless one of the two refuses it."""
    text = f"a: {scalar}\n"
    try:
        theirs = parse_yaml(text, "params.yaml")
    except Exception:
        return
    try:
        ours = parse(text)
    except ParamsError:
        return  # refused rather than understood differently
    assert ours.keys() == theirs.keys()
    assert same(ours["a"], theirs["a"]), (ours["a"], theirs["a"])


def test_structures_are_those_of_dvc() -> None:
    """Nested mappings, lists, anchors and folded text are read as DVC reads them."""
    text = "a: {b: [1, 2.5, {c: yes}], d: &x [1]}\ne: *x\nf: >\n  two\n  lines\n1: one\n"
    assert parse(text) == parse_yaml(text, "params.yaml")


@pytest.mark.parametrize(
    ("text", "cause"),
    [("a: 1\na: 2", "duplicate key"), ("a: &x {b: 1}\nc:\n  <<: *x", "merge key")],
)
def test_refused_keys(text: str, cause: str) -> None:
    """A duplicate key is refused, as by DVC; so is a merge key, which could grow without bound."""
    with pytest.raises(ParamsError, match=cause):
        parse(text)


def test_numbers_are_those_of_dvc() -> None:
    """`1e-3`, `250.0` and `2.5e2` are the numbers that DVC reads, and `yes` is text."""
    params = parse_params(changed(train__learning_rate="1e-3", train__epochs="2.5e2"))
    assert (params.train.learning_rate, params.train.epochs) == (0.001, 250)
    assert params == parse_params(of("train.epochs", "250.0"))
    assert "must be true or false; received 'yes'" in refusal(of("data.marked", "yes"))[0]


def test_anchors_and_merges_are_followed() -> None:
    """An alias stands for the value of its anchor."""
    text = changed(train_data__seed="&seed 7", test_data__seed="*seed")
    assert parse_params(text).test_data.seed == 7


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"data: \xff\xfe", "cannot be read (it is not UTF-8); `git checkout "),
        (TEXT.encode("utf-16"), "cannot be read (it is not UTF-8); `git checkout "),
        (b"#" * 10_000_000, "must be at most 20000 bytes"),
    ],
    ids=["bytes", "UTF-16", "ten megabytes"],
)
def test_file_that_is_no_text(tmp_path: Path, content: bytes, problem: str) -> None:
    """A file that is not UTF-8, or larger than params can be, is refused."""
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises((FileError, ParamsError)) as caught:
        read_params(path)
    assert str(caught.value).startswith(f"{path}: {problem}")


def test_file_that_is_not_there(tmp_path: Path) -> None:
    """A missing file, or a folder in its place, is reported with the cure."""
    with pytest.raises(FileError, match=r"No such file or directory.*git checkout"):
        read_params(tmp_path / "params.yaml")
    with pytest.raises(FileError, match=r"Is a directory.*git checkout"):
        read_params(tmp_path)


def test_another_name(tmp_path: Path) -> None:
    """The file can have any name, and errors use that name."""
    with pytest.raises(FileError, match=r"other\.yaml: cannot be read"):
        read(tmp_path / "other.yaml")
    (tmp_path / "other.yaml").write_text("a: {b: 1}\n")
    assert read(tmp_path / "other.yaml") == "a: {b: 1}\n"


def test_flatten() -> None:
    """`flatten` returns values by dotted key."""
    assert flatten({"a": {"b": 1, "c": {"d": []}}, "e": {}}) == {"a.b": 1, "a.c.d": [], "e": {}}
