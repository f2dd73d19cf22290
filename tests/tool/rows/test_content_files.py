"""A row's artifacts and data sets: small outputs, plots, and inputs with their md5."""

import json
import re
from pathlib import Path

import pytest

from support.pipelines import Repository, Stages, evaluate, makes
from support.row_content import UNCACHED, lines, ran, recorded

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


def test_artifacts(tmp_path: Path) -> None:
    """Small outputs and all plots in the project are artifacts, under their own paths."""
    outside = tmp_path / "absolute.txt"
    files = {"m.json": '{"n": 1}', "d/a b/#ü%.txt": "odd", "d/e": "", "small.bin": "s"}
    stage = makes(
        files,
        outs=["d", "small.bin", "large.bin", "f", {"../x.txt": UNCACHED}, {str(outside): UNCACHED}],
        metrics=["m.json", {"../m.json": UNCACHED}],
        plots=["large.png", "huge.csv"],
    )
    large = (
        "; head -c 1000001 /dev/zero | tee large.png > large.bin; mkdir f; cp large.bin m.json f"
    )
    large += "; truncate -s 51M huge.csv"
    stage["cmd"] += f"{large}; cp m.json ../; echo x > ../x.txt; echo x > {outside}"
    project = ran(tmp_path, {"train": stage})
    row, said = recorded(project)
    assert project.artifacts(row) == ["d/a b/#ü%.txt", "d/e", "large.png", "m.json", "small.bin"]
    assert row.data.metrics == {"train/m/n": 1}
    assert lines(said) == [
        "../m.json is not in the repository; it is left out",
        "huge.csv has more than 50 MB; it is left out",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "absolute.txt",
        "m.json",
        "project",
        "x.txt",
    ]


def md5s(project: Repository) -> dict[str, str]:
    """Return the md5s of all files in dvc.lock, by path."""
    entries = re.findall(r"path: (\S+)\n\s+hash: md5\n\s+md5: (\S+)", project.lock)
    return dict(entries)


def test_data_sets(tmp_path: Path) -> None:
    """A data set has the path and the md5 that are in dvc.lock, even if its file changed."""
    stages: Stages = {
        "prepare": makes({"d/x.txt": "x\n", "d/y.txt": "y\n"}, deps=["code.sh"], outs=["d"]),
        "train": {
            "cmd": "cat raw.txt in.git.txt d/x.txt > model.txt; echo '{\"n\": 1}' > m.json",
            "deps": ["raw.txt", "in.git.txt", "d/x.txt", "d", "code.sh"],
            "outs": ["model.txt"],
            "metrics": [{"m.json": UNCACHED}],
            "meta": {"mlflow": {"data": ["in.git.txt", "not.there.txt"]}},
        },
        "a": evaluate("a", "model.txt", "folder"),
    }
    files = {"in.git.txt": "git\n", "code.sh": "", "folder/raw2.txt": "2\n"}
    project = ran(tmp_path, stages, {"a": 1}, files, data=["raw.txt", "folder"])
    known = md5s(project)
    project.write({"raw.txt": "changed\n", "d/x.txt": "changed\n", "in.git.txt": "changed\n"})
    project.run("rm", "model.txt")
    row, said = recorded(project)
    problem = "dvc.yaml: stages.train.meta.mlflow.data: 'not.there.txt' is not a dep of the stage"
    changed = "what train, a ran with: code or inputs have changed since"
    assert lines(said) == [problem, f"not kept for `dvc-mlflow restore`: {changed}"]
    inputs = row.inputs.dataset_inputs
    found = {i.dataset.name: (i.dataset.digest, i.tags[0].value) for i in inputs}
    assert found == {
        "raw.txt": (known["raw.txt"], "train"),
        "in.git.txt": (known["in.git.txt"], "train"),
        "d/x.txt": (known["d/x.txt"], "train"),
        "d": (known["d"], "train"),
        "model.txt": (known["model.txt"], "a"),
        "folder": (known["folder"], "a"),
    }
    outputs = {key.removeprefix("md5."): v for key, v in row.data.tags.items() if "md5." in key}
    assert outputs == {name: known[name] for name in ("d", "model.txt", "m.json", "a.json")}
    sources = {i.dataset.name: json.loads(i.dataset.source) for i in inputs}
    assert sources == {name: {"uri": name} for name in found}
