"""The metrics of a row are those in dvc.lock: all numbers, and no others."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from dvc_mlflow.pipeline.tags import STAGE, UNREAD
from support.locked import locked, read, row
from support.rebuilding import UNCACHED, lines

pytestmark = pytest.mark.filterwarnings("ignore")  # warnings from MLflow


def declares(*metrics: Any, **more: Any) -> dict[str, Any]:
    """Return a stage that declares these metrics."""
    return {"cmd": "python run.py", "metrics": [*metrics], **more}


def test_metrics(tmp_path: Path) -> None:
    """Metrics in JSON, YAML and TOML are named `<stage>/<key>`, wherever dvc.yaml declares them."""
    mixed = (
        '{"a": {"b": 1, "c": {"d": 2}}, "t": "text", "l": [1], "f": true, "n": NaN, "i": -Infinity}'
    )
    stages = {
        "one": declares("m.json"),
        "several": declares("m1.yaml", {"m2.toml": UNCACHED}, outs=["m3"]),
        "same": declares("x/m.json", "y/m.json"),
        "kinds": declares("k.json", "k.yaml"),
        "folder": declares("f"),
        "inside": declares(outs=["out"]),
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
        "a/b": 6,
        "valid/a": 7,
    }
    assert found.problems == ["metrics: 'missing.json' is not there, and no stage makes it"]
    assert {note for each in found.rows for note in each.notes} == {
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


@pytest.mark.pipeline
def test_edited_metrics(tmp_path: Path) -> None:
    """A row gets the metrics in dvc.lock or none; it is completed once they are back.

    MLflow has NaN, and the greatest number for what is infinite.
    """
    stages = {
        "cached": declares("a.json"),
        "uncached": declares({"b.json": UNCACHED}),
        "folder": declares(outs=["out"]),
    }
    files = {"a.json": '{"n": NaN, "i": -Infinity}', "b.json": '{"n": 2}', "out/c.json": '{"n": 3}'}
    project = locked(tmp_path / "project", stages, files=files, metrics=["out/c.json"])
    project.add_store()
    project.commit("The results")
    project.write({"a.json": '{"n": 99}', "b.json": '{"n": 99}'})
    project.run("rm", "-r", "out")
    said = project.record()
    found = {row.data.tags[STAGE]: row for row in project.rows()}
    # Metrics that DVC's cache has are read from there.
    assert math.isnan(found["cached"].data.metrics["cached/n"])
    assert found["cached"].data.metrics["cached/i"] == -1.7976931348623157e308
    assert found["folder"].data.metrics == {"folder/n": 3}
    assert found["uncached"].data.metrics == {}
    assert found["uncached"].data.tags[UNREAD] == "b.json"
    infinite = "metric 'i' of a.json is infinite; MLflow shows ±1.8e308"
    bring = "not as in dvc.lock; `git checkout`, `dvc pull` or `dvc repro` brings them back"
    other = "a.json: not as in dvc.lock; the row has dvc.lock's numbers"
    assert sorted(lines(said)) == [other, f"b.json: {bring}", infinite]
    project.git("checkout", "b.json")
    said = project.record()
    assert "completed" in said.out
    assert len(project.rows()) == 3
    assert repr(found["uncached"].info.run_name) in said.out


def test_output_that_dvc_yaml_has_gained(tmp_path: Path) -> None:
    """A stage is as dvc.lock has it, though dvc.yaml declares an output more since it ran."""
    stages = {"train": declares({"m.json": UNCACHED})}
    files = {"m.json": '{"f1": 0.5}\n', "late.csv": "step,x\n1,2\n"}
    project = locked(tmp_path / "project", stages, files=files)
    before = row(project)
    stages["train"]["plots"] = [{"late.csv": UNCACHED}]
    project.write({"dvc.yaml": json.dumps({"stages": stages})})
    assert row(project) == before


def test_what_the_cache_lacks(tmp_path: Path) -> None:
    """Metrics that DVC's cache lacks are read from the workspace, and folders from git, if whole.

    The last line of a file can have been ended since, as by a hook of pre-commit.
    """
    files = {"m.json": '{\n"f1": 0.5}', "c.json": '{"f1": 1}'}
    files |= {"made/m.json": '{"f1": 0.25}\n', "made/b.txt": "b\n"}
    stages = {"train": declares({"m.json": UNCACHED}, "c.json", outs=["made"])}
    project = locked(tmp_path / "project", stages, files=files, metrics=["made/m.json"])
    (project.path / ".gitignore").unlink()
    project.commit("All of it")
    project.run("rm", "-r", ".dvc/cache", "made")
    for end in ("\n", "\r\n"):
        (project.path / "m.json").write_bytes(f'{{\n"f1": 0.5}}{end}'.encode())
        found = row(project).metrics
        assert (found["train/m/f1"], found["train/c/f1"]) == (0.5, 1)
        project.git("commit", "-qm", "With a hook", "--", "m.json")
        found = row(project, rev="HEAD").metrics
        assert (found["train/m/f1"], found["train/made/m/f1"]) == (0.5, 0.25)
