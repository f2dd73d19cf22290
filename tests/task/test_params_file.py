"""params.yaml is read as DVC reads it."""

import math
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import parse_yaml
from hypothesis import example, given
from hypothesis import strategies as st

from vanilla_lstm.task.errors import FileError, ParamsError
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


@pytest.mark.parametrize("scalar", SCALARS)
def test_scalars_are_those_of_dvc(scalar: str) -> None:
    """A stage and DVC read a scalar as the same number, truth value or text."""
    text = f"a: {scalar}\n"
    try:
        theirs = parse_yaml(text, "params.yaml")["a"]
    except Exception:
        with pytest.raises(ParamsError):
            parse(text)
        return
    assert same(parse(text)["a"], theirs), (parse(text)["a"], theirs)


@given(st.text(st.sampled_from("0123456789+-_.eExobfnaltruINyos~:"), min_size=1, max_size=8))
@example("1_")
@example("0.1e+1")
def test_any_scalar_is_that_of_dvc(scalar: str) -> None:
    """The same holds for any other text, unless one of the two refuses it."""
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
    """Nested mappings, lists, anchors and folded text are read the same way."""
    text = "a: {b: [1, 2.5, {c: yes}], d: &x [1]}\ne: *x\nf: >\n  two\n  lines\n1: one\n"
    assert parse(text) == parse_yaml(text, "params.yaml")


@pytest.mark.parametrize(
    ("text", "cause"),
    [("a: 1\na: 2", "duplicate key"), ("a: &x {b: 1}\nc:\n  <<: *x", "merge key")],
)
def test_refused_keys(text: str, cause: str) -> None:
    """A duplicate key is refused, as by DVC; so is a merge key, which can grow too large."""
    with pytest.raises(ParamsError, match=cause):
        parse(text)


def test_another_name(tmp_path: Path) -> None:
    """The file can have any name, and errors name it."""
    with pytest.raises(FileError, match=r"other\.yaml: cannot be read"):
        read(tmp_path / "other.yaml")
    (tmp_path / "other.yaml").write_text("a: {b: 1}\n")
    assert read(tmp_path / "other.yaml") == "a: {b: 1}\n"


def test_flatten() -> None:
    """`flatten` returns values by dotted key."""
    assert flatten({"a": {"b": 1, "c": {"d": []}}, "e": {}}) == {"a.b": 1, "a.c.d": [], "e": {}}
