"""Numbers and curves are read from any file that a stage may write."""

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvc_mlflow.pipeline.numbers import Curve, curves, flatten, numbers
from dvc_mlflow.pipeline.stages import is_table


def test_flatten() -> None:
    """A joined key leads to its value, and no mapping is lost that is empty.

    YAML's aliases may not expand to too many keys, or to a mapping that contains itself.
    """
    nested = {"a": 1, "b": {"c": {"d": [2], "e": {}}, "f": None}}
    assert flatten(nested) == {"a": 1, "b.c.d": [2], "b.c.e": {}, "b.f": None}
    bomb: dict[str, Any] = {"a": 1}
    for _ in range(50):
        bomb = dict.fromkeys("abcdefghij", bomb)
    with pytest.raises(ValueError, match="more than 10,000 keys"):
        flatten(bomb)
    circle: dict[str, Any] = {}
    circle["a"] = circle
    with pytest.raises(ValueError, match="nested too deeply"):
        flatten(circle)
    assert len(flatten({str(i): i for i in range(10_000)})) == 10_000


def test_what_is_a_number() -> None:
    """Text, lists, null and integers beyond floats are not numbers; NaN and infinity are.

    Two numbers with the same joined key are both returned.
    """
    content = {
        "whole": 3,
        "flag": True,
        "nan": math.nan,
        "inf": math.inf,
        "text": "0.5",
        "list": [1.0],
        "none": None,
        "huge": 10**400,
        "empty": {},
    }
    found, others = numbers(content, "m.json")
    assert repr(found) == "[('whole', 3.0), ('flag', 1.0), ('nan', nan), ('inf', inf)]"
    assert others == ["text", "list", "none", "huge", "empty"]
    assert numbers(0.5, "scores/f1.json") == ([("f1", 0.5)], [])
    assert numbers([1, 2], "scores/f1.json") == ([], ["f1"])
    assert numbers({"a/b": 1, "a": {"b": 2}}, "m.json")[0] == [("a/b", 1.0), ("a/b", 2.0)]


@given(
    st.text(), st.sampled_from(["a.csv", "a.tsv", "a.jsonl"]), st.text(max_size=3), st.booleans()
)
def test_any_text_is_read(text: str, path: str, x: str, header: bool) -> None:
    """Any text can be read; the steps of its curves are growing whole numbers."""
    for curve in curves(path, text, x, header=header):
        own = [step for step, _ in curve.points]
        assert own
        assert all(isinstance(step, int) for step in own)
        assert all(a < b for a, b in itertools.pairwise(own))


def test_which_column_is_x() -> None:
    """The x is the declared column, else `step`, else the first column of growing whole numbers."""
    text = "loss,n,step,t\n0.5,1,2,3\n0.5,5,6,7\n"
    for x, others in {"": "loss n t", "t": "loss n step", "loss": "", "missing": ""}.items():
        assert [curve.column for curve in curves("a.csv", text, x)] == others.split(), x
    without = "loss,n\n0.5,1\n0.25,5\n"
    assert curves("a.csv", without) == [Curve("loss", [(1, 0.5), (5, 0.25)])]
    timed = "timestamp,step,loss\n17,0,0.5\n18,1,0.4\n"  # DVCLive's
    assert curves("a.csv", timed) == [Curve("loss", [(0, 0.5), (1, 0.4)])]


@pytest.mark.parametrize(
    "text",
    [
        "actual,predicted\n0,0\n1,2\n1,1\n",  # a confusion matrix
        "step,loss\n2,0.5\n1,0.4\n",
        "step,loss\n1.5,0.5\n2.5,0.4\n",
        "step,loss\n1,0.5\n,0.4\n",
        "step,loss\n1e30,0.5\n",
        "step,loss\n",
        "step\n1\n2\n",
        "step,name\n1,x\n2,y\n",
        "",
        f"step,loss\n1,{'9' * 200_000}\n",  # a field beyond csv's limit
    ],
)
def test_no_curve(text: str) -> None:
    """A table without whole numbers that grow, or without other numbers, has no curve."""
    assert curves("a.csv", text) == []


def test_lines_of_a_table() -> None:
    """Cells can be empty or missing, and lines can have any line ending.

    Columns without names are named by their numbers, as in DVC.
    """
    text = "step,loss,note\r\n1,0.5,first\r\n\r\n2,,\r\n3,0.25\r\n4,nan,x,y"
    (curve,) = curves("a.csv", text)
    assert curve.column == "loss"
    assert repr(curve.points) == "[(1, 0.5), (3, 0.25), (4, nan)]"
    assert curves("a.csv", 'step,"a,b"\n1,"2"\n') == [Curve("a,b", [(1, 2.0)])]
    tabs = "step\tloss\tacc\n1\t0.5\t-inf\n2\t1e-7\t1\n"
    expected = [Curve("loss", [(1, 0.5), (2, 1e-7)]), Curve("acc", [(1, -math.inf), (2, 1.0)])]
    assert curves("a.tsv", tabs) == expected
    text = "1,0.5\n2,0.25\n"
    assert curves("a.csv", text, header=False) == [Curve("1", [(1, 0.5), (2, 0.25)])]
    assert curves("a.csv", text, "1", header=False) == []
    assert curves("a.csv", "", header=False) == []


def test_json_lines() -> None:
    """Objects can be nested and lack keys; a file with any other line is not a table."""
    text = '{"step": 1, "a": {"b": 0.5}}\n\n{"step": 2, "c": true, "n": "x\u2028y"}\n'
    text += '{"step": 3, "c": 4}'
    assert curves("a.jsonl", text) == [Curve("a/b", [(1, 0.5)]), Curve("c", [(3, 4.0)])]
    assert curves("a.jsonl", text + "\n[1]") == []
    assert curves("a.jsonl", text + "\n{") == []
    assert curves("a.jsonl", '{"a":' * 10_000) == []
    files = ("a.csv", "b.tsv", "c.jsonl", "d.json", "e.png", "csv")
    assert [path for path in files if is_table(path)] == ["a.csv", "b.tsv", "c.jsonl"]
