"""Numbers in files, and what dvc.yaml may say to the tool: without DVC, MLflow or files."""

import csv
import io
import itertools
import json
import math
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from dvc_mlflow.settings import Model, Settings, read, read_artifacts
from dvc_mlflow.tables import Curve, curves, flatten, is_table, numbers

FLOATS = st.floats(allow_nan=False)
KEYS = st.text(string.ascii_uppercase, min_size=1, max_size=4)
NESTED = st.recursive(
    st.dictionaries(KEYS, FLOATS | st.integers(-(2**53), 2**53)),
    lambda inner: st.dictionaries(KEYS, inner, min_size=1, max_size=3),
    max_leaves=8,
)
TABLES = st.dictionaries(KEYS, FLOATS, min_size=1).flatmap(
    lambda row: st.lists(st.fixed_dictionaries(dict.fromkeys(row, FLOATS)), min_size=1)
)


def table(rows: list[dict[str, Any]], delimiter: str = ",") -> str:
    """Return the text of a table with these rows."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*rows[0]], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def steps() -> SearchStrategy[list[int]]:
    """Return whole numbers that grow."""
    return st.sets(st.integers(-(2**52), 2**52), min_size=1).map(sorted)


@given(NESTED)
def test_flatten(values: dict[str, Any]) -> None:
    """A joined key leads to its value; nothing is added and nothing is lost."""
    flat = flatten(values)
    for joined, value in flat.items():
        inner: Any = values
        for key in joined.split("."):
            inner = inner[key]
        assert inner == value
    leaves = json.dumps(values).count(":") - json.dumps(values).count(": {")
    empty = sum(value == {} for value in flat.values())
    assert len(flat) == leaves + empty


def test_flatten_is_bounded() -> None:
    """YAML's aliases can stand for any number of keys, or for a mapping in itself."""
    bomb: dict[str, Any] = {"a": 1}
    for _ in range(50):
        bomb = dict.fromkeys("abcdefghij", bomb)
    with pytest.raises(ValueError, match="more than 10000 keys"):
        flatten(bomb)
    circle: dict[str, Any] = {}
    circle["a"] = circle
    with pytest.raises(ValueError, match="nested too deeply"):
        flatten(circle)
    assert len(flatten({str(i): i for i in range(10_000)})) == 10_000


@given(NESTED)
def test_numbers(values: dict[str, Any]) -> None:
    """Each number of a metrics file is a metric, and only a number is."""
    found, others = numbers(values, "metrics.json")
    flat = flatten(values, "/")
    assert dict(found) == {k: v for k, v in flat.items() if v != {}}
    assert others == [k for k, v in flat.items() if v == {}]


def test_what_is_a_number() -> None:
    """Text, lists, nothing and an int beyond floats are no numbers; NaN and infinity are."""
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


def test_numbers_with_one_key() -> None:
    """Two numbers whose joined keys are the same are both given."""
    assert numbers({"a/b": 1, "a": {"b": 2}}, "m.json")[0] == [("a/b", 1.0), ("a/b", 2.0)]


@given(TABLES, st.data(), st.sampled_from([",", "\t"]))
def test_curves(rows: list[dict[str, float]], data: st.DataObject, delimiter: str) -> None:
    """Every number of a table is a point of its column's curve, at its line's step."""
    count = len(rows)
    growing = data.draw(st.sets(st.integers(0, 10**6), min_size=count, max_size=count).map(sorted))
    lines = [{"step": step, **row} for step, row in zip(growing, rows, strict=True)]
    expected = {key: [(line["step"], line[key]) for line in lines] for key in rows[0]}
    name = "curve.csv" if delimiter == "," else "curve.tsv"
    assert dict(curves(name, table(lines, delimiter))) == expected
    as_json = "".join(f"{json.dumps(line)}\n" for line in lines)
    assert dict(curves("curve.jsonl", as_json, "step")) == expected


@given(
    st.text(), st.sampled_from(["a.csv", "a.tsv", "a.jsonl"]), st.text(max_size=3), st.booleans()
)
def test_any_text_is_read(text: str, path: str, x: str, header: bool) -> None:
    """Whatever a file holds, it has curves or none; steps are whole numbers that grow."""
    for curve in curves(path, text, x, header=header):
        own = [step for step, _ in curve.points]
        assert own
        assert all(isinstance(step, int) for step in own)
        assert all(a < b for a, b in itertools.pairwise(own))


@given(steps())
def test_which_column_is_x(growing: list[int]) -> None:
    """The declared x, or else `step`, or else the first column of whole numbers that grow."""
    lines = [{"loss": 0.5, "n": s, "step": s + 1, "t": s + 2} for s in growing]
    text = table(lines)
    assert {c.column for c in curves("a.csv", text)} == {"loss", "n", "t"}
    assert {c.column for c in curves("a.csv", text, "t")} == {"loss", "n", "step"}
    assert curves("a.csv", text, "loss") == []
    assert curves("a.csv", text, "missing") == []
    without = table([{"loss": 0.5, "n": s} for s in growing])
    assert curves("a.csv", without) == [Curve("loss", [(s, 0.5) for s in growing])]


@pytest.mark.parametrize(
    "text",
    [
        "actual,predicted\n0,0\n1,2\n1,1\n",  # a confusion matrix
        "feature,weight\nage,0.5\nsize,0.2\n",
        "step,loss\n1,0.5\n1,0.4\n",
        "step,loss\n2,0.5\n1,0.4\n",
        "step,loss\n1.5,0.5\n2.5,0.4\n",
        "step,loss\n1,0.5\n,0.4\n",
        "step,loss\nnan,0.5\n",
        "step,loss\ninf,0.5\n",
        "step,loss\n1e30,0.5\n",
        "step,loss\n",
        "step\n1\n2\n",
        "step,name\n1,x\n2,y\n",
        "",
        "\n\n",
        f"step,loss\n1,{'9' * 200_000}\n",  # a field beyond csv's limit
    ],
)
def test_no_curve(text: str) -> None:
    """A table without whole numbers that grow, or without other numbers, has no curve."""
    assert curves("a.csv", text) == []


def test_lines_of_a_table() -> None:
    """Cells can be empty or missing; lines end as anybody ends them, also the last one."""
    text = "step,loss,note\r\n1,0.5,first\r\n\r\n2,,\r\n3,0.25\r\n4,nan,x,y"
    (curve,) = curves("a.csv", text)
    assert curve.column == "loss"
    assert repr(curve.points) == "[(1, 0.5), (3, 0.25), (4, nan)]"
    assert curves("a.csv", 'step,"a,b"\n1,"2"\n') == [Curve("a,b", [(1, 2.0)])]
    timed = "timestamp,step,loss\n17,0,0.5\n18,1,0.4\n"  # DVCLive's
    assert curves("a.csv", timed) == [Curve("loss", [(0, 0.5), (1, 0.4)])]


def test_table_without_header() -> None:
    """Columns without names are called by their numbers, as DVC calls them."""
    text = "1,0.5\n2,0.25\n"
    assert curves("a.csv", text, header=False) == [Curve("1", [(1, 0.5), (2, 0.25)])]
    assert curves("a.csv", text, "1", header=False) == []
    assert curves("a.csv", "", header=False) == []


def test_json_lines() -> None:
    """Objects can be nested and lack keys; a line that is none makes the file no table."""
    text = '{"step": 1, "a": {"b": 0.5}}\n\n{"step": 2, "c": true, "n": "x\u2028y"}\n'
    text += '{"step": 3, "c": 4}'
    assert curves("a.jsonl", text) == [Curve("a/b", [(1, 0.5)]), Curve("c", [(3, 4.0)])]
    assert curves("a.jsonl", text + "\n[1]") == []
    assert curves("a.jsonl", text + "\n{") == []
    assert curves("a.jsonl", '{"a":' * 10_000) == []


def test_which_files_are_tables() -> None:
    """CSV, TSV and JSON lines can hold curves."""
    assert [p for p in ("a.csv", "b.tsv", "c.jsonl", "d.json", "e.png", "csv") if is_table(p)] == [
        "a.csv",
        "b.tsv",
        "c.jsonl",
    ]


def settings(given: object, outs: tuple[str, ...] = ("m.bin",)) -> tuple[Settings, list[str]]:
    """Return what the tool reads from a stage's `meta.mlflow`."""
    return read({"mlflow": given}, "dvc.yaml: stages.train", "", outs)


LOADED = {"loader_module": "load", "pip_requirements": ["numpy"]}
AN_OUTPUT = "must be an output of the stage"
PACKAGES = "must list the packages that loading the model needs"
METRICS = "must be a list of metrics such as [test/score, -test/loss]"


def test_all_settings() -> None:
    """Everything that a stage can say is read; paths are relative to its working directory."""
    meta = {
        "mlflow": {
            "experiment": "mine",
            "prefix": "",
            "columns": ["-metrics.test/loss", "params.rate"],
            "data": ["raw.txt", "../b/raw.txt"],
            "open": "first",
            "promote": ["test/score", "-test/loss"],
            "model": {
                **LOADED,
                "code_paths": ["src/"],
                "pip_requirements": "requirements.txt",
                "signature": {"inputs": []},
            },
        },
        "owner": "me",
    }
    found, problems = read(meta, "dvc.yaml: stages.train", "a", ["a/m.bin"])
    assert problems == []
    assert found == Settings(
        "mine",
        "",
        ["-metrics.test/loss", "params.rate"],
        ("a/raw.txt", "b/raw.txt"),
        "first",
        (Model("a/m.bin", "load", ("a/src",), "a/requirements.txt", {"inputs": []}),),
        ["test/score", "-test/loss"],
    )


@pytest.mark.parametrize("meta", [None, {}, {"owner": "me"}, "text", {"mlflow": None}])
def test_no_settings(meta: object) -> None:
    """All settings are optional, and the rest of `meta` is the user's."""
    assert read(meta, "dvc.yaml: stages.train", "", []) == (Settings(), [])


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("text", ": must be a mapping; received 'text'"),
        ({"experiment": 5}, ".experiment: must be a name; received 5"),
        ({"experiment": "x" * 501}, f".experiment: must be a name; received '{'x' * 99}"),
        ({"experiment": " "}, ".experiment: must be a name; received ' '"),
        ({"prefix": None}, ".prefix: must be text, or empty for no prefix; received None"),
        ({"data": "raw.txt"}, ".data: must be a list of paths; received 'raw.txt'"),
        ({"data": ["/etc/passwd"]}, ".data: must be in the repository; received '/etc/passwd'"),
        ({"data": ["a/../../b"]}, ".data: must be in the repository; received 'a/../../b'"),
        ({"open": "last"}, ".open: must be `first`; received 'last'"),
        ({"promote": "test/loss"}, f".promote: {METRICS}; received 'test/loss'"),
        ({"promote": ["-metrics.loss"]}, f".promote: {METRICS}; received ['-metrics.loss']"),
        ({"model": "m.bin"}, ".model: must be a mapping; received 'm.bin'"),
        ({"model": {"path": "n.bin"}}, f".model.path: {AN_OUTPUT}; received 'n.bin'"),
        ({"model": {"path": ["m.bin"]}}, f".model.path: {AN_OUTPUT}; received ['m.bin']"),
        (
            {"model": {"loader_module": "load"}},
            f".model.pip_requirements: {PACKAGES}; received None",
        ),
        (
            {"model": {**LOADED, "code_paths": ["../src"]}},
            ".model.code_paths: must be in the repository; received '../src'",
        ),
        (
            {"model": {**LOADED, "pip_requirements": "/etc/passwd"}},
            ".model.pip_requirements: must be in the repository; received '/etc/passwd'",
        ),
    ],
)
def test_wrong_settings(given: object, problem: str) -> None:
    """What is wrong is said in one line with its place, the rule and the value, and left out."""
    found, problems = settings(given)
    assert problems == [f"dvc.yaml: stages.train.meta.mlflow{problem}"]
    assert found in (Settings(), Settings(models=(Model("m.bin"),)))


@pytest.mark.parametrize(
    "requirements",
    [["numpy", "-r /etc/passwd"], [" --index-url=x"], ["numpy\n-r x"], ["a\x0b-r x"], 5],
)
def test_options_are_no_requirements(requirements: object) -> None:
    """An option would let MLflow read any file of this machine."""
    found, problems = settings({"model": {**LOADED, "pip_requirements": requirements}})
    assert len(problems) == 1
    assert "must be a list of requirements without options, or a path" in problems[0]
    assert found.models == (Model("m.bin"),)


def test_model_that_needs_nothing() -> None:
    """No packages at all is an answer, too."""
    found, problems = settings({"model": {**LOADED, "pip_requirements": []}})
    assert (found.models, problems) == ((Model("m.bin", "load", (), []),), [])


def test_unknown_settings() -> None:
    """An unknown key is named with the known ones; the others count."""
    found, problems = settings({"experiment": "mine", "colums": [], 5: 6, "model": {"loader": "x"}})
    assert found == Settings("mine", models=(Model("m.bin"),))
    known = "known are experiment, prefix, columns, data, open, promote, model"
    start = "dvc.yaml: stages.train.meta.mlflow"
    assert problems == [
        f"{start}.colums: unknown key; {known}",
        f"{start}.5: unknown key; {known}",
        f"{start}.model.loader: unknown key; known are path, loader_module, code_paths, "
        "pip_requirements, signature",
    ]


@pytest.mark.parametrize("columns", [["loss"], "metrics.loss", ["metrics.a", 5], [""], [None]])
def test_wrong_columns(columns: object) -> None:
    """A column says which kind of value it has."""
    found, problems = settings({"columns": columns})
    assert found == Settings()
    assert len(problems) == 1
    assert "must be a list such as [-metrics.test/loss, params.train.rate]" in problems[0]


def test_model_without_a_path() -> None:
    """A model without a path is the stage's only output; of several, one must be named."""
    assert settings({"model": LOADED})[0].models[0].path == "m.bin"
    for outs in ((), ("a", "b")):
        found, problems = settings({"model": LOADED}, outs)
        assert (found.models, len(problems)) == ((), 1)
    named, problems = settings({"model": {**LOADED, "path": "./b"}}, ("a", "b"))
    assert (named.models[0].path, problems) == ("b", [])


def test_artifacts() -> None:
    """`artifacts` of the type model are models, relative to their dvc.yaml; others are not."""
    artifacts = {
        "one": {"path": "m.bin", "type": "model", "meta": {**LOADED, "framework": "none"}},
        "two": {"path": "n.bin", "type": "model"},
        "data": {"path": "d.csv", "type": "dataset", "meta": LOADED},
        "plain": {"path": "p.bin"},
    }
    models, problems = read_artifacts(artifacts, "a/dvc.yaml", "a")
    assert models == [Model("a/m.bin", "load", (), ["numpy"]), Model("a/n.bin")]
    assert problems == []


def test_wrong_artifacts() -> None:
    """A misspelt key of an artifact is asked about; the rest of its `meta` is the user's."""
    meta = {"loader_modul": "load", "pip_requirments": [], "owner": "me", 5: 6}
    artifacts = {
        "one": {"path": "m.bin", "type": "model", "meta": meta},
        "two": {"path": "../m.bin", "type": "model", "meta": "text"},
        "three": {"path": "n.bin", "type": "model", "meta": {"loader_module": "load"}},
    }
    models, problems = read_artifacts(artifacts, "dvc.yaml", "")
    assert models == [Model("m.bin"), Model("n.bin")]
    start = "dvc.yaml: artifacts"
    assert problems == [
        f"{start}.one.meta.loader_modul: unknown key; did you mean loader_module?",
        f"{start}.one.meta.pip_requirments: unknown key; did you mean pip_requirements?",
        f"{start}.two.path: must be in the repository; received '../m.bin'",
        f"{start}.three.meta.pip_requirements: {PACKAGES}; received None",
    ]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["experiment", "prefix", "columns", "data", "open", "model", "path"]
                )
                | st.sampled_from(["loader_module", "code_paths", "pip_requirements", "signature"])
                | st.text(max_size=5),
                inner,
                max_size=4,
            )
        ),
    )
)
def test_any_settings(given: object) -> None:
    """Whatever stands there, each problem is one line, and no path leads out of the project."""
    found, problems = settings(given)
    assert all("\n" not in problem for problem in problems)
    paths = [*found.data, *(p for model in found.models for p in model.code_paths)]
    assert not [path for path in paths if path.startswith(("/", "../")) or path == ".."]
