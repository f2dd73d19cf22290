"""The metrics of a row are those in dvc.lock: all numbers, and no others."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from support.locked import locked, read, row
from support.pipelines import Stages, makes
from support.row_content import UNCACHED, lines, ran, recorded

pytestmark = pytest.mark.filterwarnings("ignore")  # warnings from MLflow


BRING = "not as in dvc.lock; `git checkout`, `dvc pull` or `dvc repro` brings them back"


def declares(*metrics: Any, **more: Any) -> dict[str, Any]:
    """Return a stage that declares these metrics."""
    return {"cmd": "python run.py", "metrics": [*metrics], **more}


def test_metrics(tmp_path: Path) -> None:
    """Metrics in JSON, YAML and TOML are named `<stage>/<key>`, wherever dvc.yaml declares them."""
    mixed = (
        '{"a": {"b": 1, "c": {"d": 2}}, "t": "text", "l": [1], "f": true, "n": NaN, "i": -Infinity}'
    )
    stages: Stages = {
        "one": declares("m.json"),
        "several": declares("m1.yaml", {"m2.toml": UNCACHED}, outs=["m3"]),
        "same": declares("x/m.json", "y/m.json"),
        "kinds": declares("k.json", "k.yaml"),
        "folder": declares("f"),
        "inside": declares(outs=["out"]),
        "alone": declares("alone.json"),
        "zero": declares("zero.yaml"),
        "bare": declares("bare.json"),
        "called": declares("called.json"),
    }
    files = {
        "m.json": mixed,
        "m1.yaml": "a: 1.5\n",
        "m2.toml": "[b]\nc = 2\n",
        "m3": "0",
        "x/m.json": '{"a": 1}',
        "y/m.json": '{"a": 2}',
        "k.json": '{"a": 8}',
        "k.yaml": "a: 9",
        "f/x.json": '{"a": 3}',
        "f/y/z.yaml": "a: 4",
        "out/m.json": '{"a": 5}',
        "out/large": "x" * 10,
        "alone.json": "0.5",
        "zero.yaml": "0\n",
        "bare.json": '{"a": {"b": 6}}',
        "called.json": '{"a": 7}',
    }
    stages["bare"]["meta"] = {"mlflow": {"prefix": ""}}
    stages["called"]["meta"] = {"mlflow": {"prefix": "valid/"}}
    top = ["m3", "out/m.json", "missing.json"]
    found = read(locked(tmp_path / "project", stages, files=files, metrics=top))
    metrics = {k: v for each in found.rows for k, v in each.metrics.items()}
    assert math.isnan(metrics.pop("one/n"))
    assert metrics == {
        "one/a/b": 1,
        "one/a/c/d": 2,
        "one/f": 1,
        "one/i": -math.inf,
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
    assert found.problems == ["metrics: 'missing.json' is not there, and no stage makes it"]
    assert {note for each in found.rows for note in each.notes} == {
        "metric 'i' of m.json is infinite; MLflow shows ±1.8e308",
        "metrics ['t', 'l'] of m.json are not numbers",
    }


@pytest.mark.pipeline
def test_metrics_in_a_store(tmp_path: Path) -> None:
    """MLflow has NaN, and the greatest number for what is infinite; each line is said."""
    stage = makes({"m.json": '{"n": NaN, "i": -Infinity, "t": "text"}'}, metrics=["m.json"])
    project = ran(tmp_path, {"one": stage}, metrics=["missing.json"])
    found, said = recorded(project)
    assert math.isnan(found.data.metrics["one/n"])
    assert found.data.metrics["one/i"] == -1.7976931348623157e308
    assert {*lines(said)} == {
        "metrics: 'missing.json' is not there, and no stage makes it",
        "metric 'i' of m.json is infinite; MLflow shows ±1.8e308",
        "metrics ['t'] of m.json are not numbers",
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
    found = row(locked(tmp_path / "project", {"train": declares(*files)}, files=files))
    assert found.metrics == {
        "train/good/a": 1,
        "train/keys/a_b": 1,
        "train/keys": 3,
        "train/keys/a/b": 4,
    }
    assert found.complete == {"train"}
    readable = ("good.json", "keys.json")
    notes = {re.sub(r"cannot be read: .*", "cannot be read", line) for line in found.notes}
    assert notes == {
        *(f"{name} cannot be read" for name in files if name not in readable),
        "metric 'a#b' of keys.json: the key 'train/keys/a_b' is taken; it is left out",
        "metric 'a/b' of keys.json: the key 'train/keys/a/b' is taken; it is left out",
    }
    aliases = "its aliases unfold to more than 1,000,000 values"
    assert f"bomb.yaml cannot be read: {aliases}" in found.notes


def test_edited_metrics(tmp_path: Path) -> None:
    """A row gets the metrics in dvc.lock or none; it is completed once they are back."""
    stages = {
        "cached": declares("a.json"),
        "uncached": declares({"b.json": UNCACHED}),
        "folder": declares(outs=["out"]),
    }
    files = {"a.json": '{"n": 1}', "b.json": '{"n": 2}', "out/c.json": '{"n": 3}'}
    project = locked(tmp_path / "project", stages, files=files, metrics=["out/c.json"])
    project.add_store()
    project.commit("The results")
    project.write({"a.json": '{"n": 99}', "b.json": '{"n": 99}'})
    project.run("rm", "-r", "out")
    said = project.record()
    found = {row.data.tags["dvc.stage"]: row for row in project.rows()}
    # Metrics that DVC's cache has are read from there.
    assert found["cached"].data.metrics == {"cached/n": 1}
    assert found["folder"].data.metrics == {"folder/n": 3}
    assert found["uncached"].data.metrics == {}
    assert found["uncached"].data.tags["dvc-mlflow.unread"] == "b.json"
    assert lines(said) == [f"b.json: {BRING}"]
    project.git("checkout", "b.json")
    said = project.record()
    assert "completed" in said.out
    assert len(project.rows()) == 3
    assert repr(found["uncached"].info.run_name) in said.out


def test_metrics_that_are_not_here(tmp_path: Path) -> None:
    """A row waits for metrics that only a remote has, but not for other outputs."""
    stages = {
        "train": declares("a.json", outs=["m"]),
        "folder": declares(outs=["out"]),
        "model": declares(outs=["model"]),
    }
    files = {"a.json": '{"n": 1}', "m": "model", "out/c.json": '{"n": 3}', "model": "m"}
    project = locked(tmp_path / "project", stages, files=files, metrics=["out/c.json"])
    for path in ("a.json", "m", "out", "model", ".dvc/cache"):
        project.run("rm", "-r", path)
    rows = read(project).rows
    assert {note for each in rows for note in each.notes} == {f"a.json: {BRING}", f"out: {BRING}"}
    assert [each.complete for each in rows] == [frozenset()] * 2
    project.write({path: files[path] for path in ("a.json", "out/c.json")})
    rows = read(project).rows
    assert [(each.notes, {*each.complete}) for each in rows] == [
        ([], {*each.digests}) for each in rows
    ]
    metrics = {k: v for each in rows for k, v in each.metrics.items()}
    assert metrics == {"train/n": 1, "folder/n": 3}


def test_output_that_dvc_yaml_has_gained(tmp_path: Path) -> None:
    """A stage is as dvc.lock has it, though dvc.yaml declares an output more since it ran."""
    stages: Stages = {"train": {"cmd": "run", "metrics": [{"m.json": UNCACHED}]}}
    files = {"m.json": '{"f1": 0.5}\n', "late.csv": "step,x\n1,2\n"}
    project = locked(tmp_path / "project", stages, files=files)
    before = row(project)
    stages["train"]["plots"] = [{"late.csv": UNCACHED}]
    project.write({"dvc.yaml": json.dumps({"stages": stages})})
    found = row(project)
    assert (found.digests, found.curves) == (before.digests, before.curves)
    assert found.metrics == {"train/f1": 0.5}
    assert found.notes == []


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_final_newline(tmp_path: Path, end: str) -> None:
    """The last line of a file of metrics can have been ended since, as by a hook of pre-commit."""
    stages: Stages = {"train": {"cmd": "run", "metrics": [{"m.json": UNCACHED}]}}
    project = locked(tmp_path / "project", stages, files={"m.json": '{\n"f1": 0.5}'})
    (project.path / "m.json").write_bytes(f'{{\n"f1": 0.5}}{end}'.encode())
    found = row(project)
    assert (found.metrics, found.notes) == ({"train/f1": 0.5}, [])
    project.commit("With a hook")
    assert row(project, rev="HEAD").metrics == {"train/f1": 0.5}


def test_folder_that_git_has_too(tmp_path: Path) -> None:
    """Metrics in a folder whose list DVC's cache lacks are read from git, if that has all of it."""
    stages: Stages = {"train": {"cmd": "run", "outs": ["made"]}}
    files = {"made/m.json": '{"f1": 0.5}\n', "made/b.txt": "b\n"}
    project = locked(tmp_path / "project", stages, files=files, metrics=["made/m.json"])
    (project.path / ".gitignore").unlink()
    project.commit("All of it")
    project.run("rm", "-r", ".dvc/cache", "made")
    found = row(project, rev="HEAD")
    assert (found.metrics, found.notes) == ({"train/f1": 0.5}, [])
