"""params.yaml is read as DVC reads it, and a file that cannot be read is refused with the cure."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import pytest
from dvc.utils.serialize import parse_yaml
from voluptuous import Range

from support.clone import ROOT
from support.params import KEYS, TEXT, changed, line_of, of, refusal
from vanilla_lstm.task.errors import FileError, ParamsError
from vanilla_lstm.task.params import parse_params
from vanilla_lstm.task.params_file import parse, read
from vanilla_lstm.task.schema import Params

SCALARS = [
    *("1e-3", "1E5", "+1.5e+3", "-.5", "1.", ".inf", "-.INF", ".nan", "1_000", "1_0.5", "1e5_0"),
    *("0", "-0", "+12", "010", "08", "0o17", "0x1F", "-0b11", "0b12", "1:30", "1__", "_1", "--1"),
    *("yes", "no", "on", "Off", "y", "true", "True", "TRUE", "tRUE", "false", "null", "~", "Null"),
    *("''", "'5'", "2.5e", "1e", "e5", ".", "-", "+", "0x", "12e03", "1.5_5", "nan", "inf"),
]


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


def test_structures_are_those_of_dvc() -> None:
    """Nested mappings, lists, anchors and folded text are read as DVC reads them."""
    text = "a: {b: [1, 2.5, {c: yes}], d: &x [1]}\ne: *x\nf: >\n  two\n  lines\n1: one\n"
    assert parse(text) == parse_yaml(text, "params.yaml")


def test_refused_keys() -> None:
    """A duplicate key is refused, as by DVC; so is a merge key, which could grow without bound."""
    for text, cause in [
        ("a: 1\na: 2", "duplicate key"),
        ("a: &x {b: 1}\nc:\n  <<: *x", "merge key"),
    ]:
        with pytest.raises(ParamsError, match=cause):
            parse(text)


def test_numbers_are_those_of_dvc() -> None:
    """`1e-3`, `250.0` and `2.5e2` are the numbers that DVC reads, and `yes` is text."""
    params = parse_params(changed(train__learning_rate="1e-3", train__epochs="2.5e2"))
    assert (params.train.learning_rate, params.train.epochs) == (0.001, 250)
    assert params == parse_params(of("train.epochs", "250.0"))
    assert "must be true or false; received 'yes'" in refusal(of("data.marked", "yes"))[0]


def test_file_that_is_no_text(tmp_path: Path) -> None:
    """A file that is missing, not UTF-8 or too large is refused, by its name and with the cure."""
    path = tmp_path / "other.yaml"
    with pytest.raises(FileError, match=r"other\.yaml: .*No such file or directory.*git checkout"):
        read(path)
    with pytest.raises(FileError, match=r"Is a directory.*git checkout"):
        read(tmp_path)
    path.write_bytes(TEXT.encode("utf-16"))
    with pytest.raises(FileError, match=r"cannot be read \(it is not UTF-8\); `git checkout "):
        read(path)
    path.write_bytes(b"#" * 10_000_000)
    with pytest.raises(ParamsError, match="must be at most 20000 bytes"):
        read(path)
    path.write_text("a: {b: 1}\n")
    assert read(path) == "a: {b: 1}\n"


def parts_of(hint: Any) -> list[Any]:
    """Return a type and all that it is made of."""
    return [hint, *(part for each in get_args(hint) for part in parts_of(each))]


def in_words(key: str) -> str:
    """Return the schema's range for a key, in the words that the key's comment must use."""
    section, name = key.split(".")
    hint = Params.__annotations__[section].__annotations__[name]
    if hint is bool:
        return "true or false"
    if get_origin(hint) is Literal:
        *others, last = get_args(hint)
        return f"{', '.join(others)} or {last}"
    parts = parts_of(hint)
    null = "null or " if NoneType in parts else ""
    (limits,) = (part for part in parts if isinstance(part, Range))
    low = f"{limits.min:f}".rstrip("0").rstrip(".")
    low = low if limits.min_included else f"above {low}"
    if not limits.max_included:
        return f"{null}{low}, below {limits.max:g}"
    if limits.max == 10**15:  # memory runs out sooner
        return f"{null}{low} or more"
    return f"{null}{low} to {limits.max:.0f}"


def test_each_key_gives_its_range() -> None:
    """A key's comment says what the key is, the schema's range for it, and why it has its value."""
    commented = (ROOT / "params.yaml").read_text()
    for key in KEYS:
        line = commented.splitlines()[line_of(key, commented)]
        what, _, why = line.partition(" # ")[2].partition("; ")
        assert why, key
        if key == "train.curriculum":
            assert "{n_steps, epochs, learning_rate}" in what
        else:
            assert re.search(rf"(^|[ ,]){re.escape(in_words(key))}$", what), key
