"""The metrics of a row are those in dvc.lock: all numbers, and no others."""

import re
from pathlib import Path

import pytest

from support.pipelines import makes
from support.row_content import UNCACHED, lines, ran, recorded

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


BRING = (
    "not as in dvc.lock; bring them back with dvc checkout, dvc pull or git checkout, "
    "and record again"
)


def test_metrics(tmp_path: Path) -> None:
    """Metrics in JSON, YAML and TOML are named `<stage>/<key>`, wherever dvc.yaml declares them."""
    mixed = (
        '{"a": {"b": 1, "c": {"d": 2}}, "t": "text", "l": [1], "f": true, "n": NaN, "i": -Infinity}'
    )
    stages = {
        "one": makes({"m.json": mixed}, metrics=["m.json"]),
        "several": makes(
            {"m1.yaml": "a: 1.5\n", "m2.toml": "[b]\nc = 2\n", "m3": "0"},
            metrics=["m1.yaml", {"m2.toml": UNCACHED}],
            outs=["m3"],
        ),
        "same": makes(
            {"x/m.json": '{"a": 1}', "y/m.json": '{"a": 2}'}, metrics=["x/m.json", "y/m.json"]
        ),
        "kinds": makes({"k.json": '{"a": 8}', "k.yaml": "a: 9"}, metrics=["k.json", "k.yaml"]),
        "folder": makes({"f/x.json": '{"a": 3}', "f/y/z.yaml": "a: 4"}, metrics=["f"]),
        "inside": makes({"out/m.json": '{"a": 5}', "out/large": "x" * 10}, outs=["out"]),
        "alone": makes({"alone.json": "0.5"}, metrics=["alone.json"]),
        "zero": makes({"zero.yaml": "0\n"}, metrics=["zero.yaml"]),
        "bare": makes({"bare.json": '{"a": {"b": 6}}'}, metrics=["bare.json"]),
        "called": makes({"called.json": '{"a": 7}'}, metrics=["called.json"]),
    }
    stages["bare"]["meta"] = {"mlflow": {"prefix": ""}}
    stages["called"]["meta"] = {"mlflow": {"prefix": "valid/"}}
    top = ["m3", "out/m.json", "missing.json"]
    project = ran(tmp_path, stages, metrics=top)
    said = project.record()
    metrics = {k: v for row in project.rows() for k, v in row.data.metrics.items()}
    assert metrics.pop("one/n") != metrics.get("one/n")  # NaN
    assert metrics == {
        "one/a/b": 1,
        "one/a/c/d": 2,
        "one/f": 1,
        "one/i": -1.7976931348623157e308,
        "several/m1/a": 1.5,
        "several/m2/b/c": 2,
        "several/m3/m3": 0,
        "same/x/m/a": 1,
        "same/y/m/a": 2,
        "kinds/k.json/a": 8,
        "kinds/k.yaml/a": 9,
        "folder/x/a": 3,
        "folder/y/z/a": 4,
        "inside/a": 5,
        "alone/alone": 0.5,
        "zero/zero": 0,
        "a/b": 6,
        "valid/a": 7,
    }
    assert {*lines(said)} == {
        "metrics: 'missing.json' is not there, and no stage makes it",
        "metric 'i' of m.json is infinite; MLflow shows ±1.8e308",
        "metrics ['t', 'l'] of m.json are not numbers",
    }


def test_unreadable_metrics(tmp_path: Path) -> None:
    """A metrics file that cannot be parsed is reported in one line; the rest is recorded."""
    bomb = "a0: &a0 {x: 1}\n"
    for i in range(30):
        bomb += f"a{i + 1}: &a{i + 1} {{{', '.join(f'k{j}: *a{i}' for j in range(10))}}}\n"
    files = {
        "good.json": '{"a": 1}',
        "broken.json": "{",
        "broken.yaml": "a: [\n",
        "broken.toml": "a = \n",
        "bomb.yaml": bomb,
        "circle.yaml": "a: &a\n  b: *a\n",
        "deep.json": '{"a":' * 5000 + "1" + "}" * 5000,
        "keys.json": '{"a@b": 1, "a#b": 2, "": 3, "a/b": 4, "a": {"b": 5}}',
        "empty.json": "",
    }
    stages = {"train": {"cmd": "cp made/* .", "metrics": [*files]}}
    made = {f"made/{name}": text for name, text in files.items()}
    project = ran(tmp_path, stages, files=made)
    row, said = recorded(project)
    assert row.data.metrics == {
        "train/good/a": 1,
        "train/keys/a_b": 1,
        "train/keys": 3,
        "train/keys/a/b": 4,
    }
    assert "dvc-mlflow.lock.train" in row.data.tags
    readable = ("good.json", "keys.json")
    told = {re.sub(r"cannot be read: .*", "cannot be read", line) for line in lines(said)}
    assert told == {
        *(f"metrics {name} cannot be read" for name in files if name not in readable),
        "metric 'a#b' of keys.json: the key 'train/keys/a_b' is taken; it is left out",
        "metric 'a/b' of keys.json: the key 'train/keys/a/b' is taken; it is left out",
    }
    assert (
        "metrics bomb.yaml cannot be read: its aliases unfold to more than 1,000,000 values"
        in said.error
    )


def test_edited_metrics(tmp_path: Path) -> None:
    """A row gets the metrics in dvc.lock or none; it is completed once they are back."""
    stages = {
        "cached": makes({"a.json": '{"n": 1}'}, metrics=["a.json"]),
        "uncached": makes({"b.json": '{"n": 2}'}, metrics=[{"b.json": UNCACHED}]),
        "folder": makes({"out/c.json": '{"n": 3}'}, outs=["out"]),
    }
    project = ran(tmp_path, stages, metrics=["out/c.json"])
    project.commit("The results")
    project.write({"a.json": '{"n": 99}', "b.json": '{"n": 99}'})
    project.run("rm", "-r", "out")
    said = project.record()
    found = {row.data.tags["dvc.stage"]: row for row in project.rows()}
    # Metrics that DVC's cache has are read from there.
    assert found["cached"].data.metrics == {"cached/n": 1}
    assert found["folder"].data.metrics == {"folder/n": 3}
    assert found["uncached"].data.metrics == {}
    assert "dvc-mlflow.lock.uncached" not in found["uncached"].data.tags
    assert lines(said) == [f"b.json: {BRING}"]
    assert lines(project.record()) == [f"b.json: {BRING}"]
    project.git("checkout", "b.json")
    said = project.record()
    assert "completed" in said.out
    assert len(project.rows()) == 3
    assert repr(found["uncached"].info.run_name) in said.out
    assert project.record().out == "nothing to do: MLflow has these 3 results\n"


def test_metrics_that_are_not_here(tmp_path: Path) -> None:
    """A row waits for metrics that only a remote has, but not for other outputs."""
    stages = {
        "train": makes({"a.json": '{"n": 1}', "m": "model"}, metrics=["a.json"], outs=["m"]),
        "folder": makes({"out/c.json": '{"n": 3}'}, outs=["out"]),
        "model": makes({"model": "m"}, outs=["model"]),
    }
    project = ran(tmp_path, stages, metrics=["out/c.json"])
    project.dvc("remote", "add", "-q", "-d", "there", str(tmp_path / "remote"))
    project.dvc("push", "-q")
    for path in ("a.json", "m", "out", "model", ".dvc/cache"):
        project.run("rm", "-r", path)
    assert {*lines(project.record())} == {f"a.json: {BRING}", f"out: {BRING}"}
    project.dvc("pull", "-q")
    said = project.record()
    assert (said.error, said.out.count(": completed")) == ("", 2)
    metrics = {k: v for row in project.rows() for k, v in row.data.metrics.items()}
    assert metrics == {"train/n": 1, "folder/n": 3}
