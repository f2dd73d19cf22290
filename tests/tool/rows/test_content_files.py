"""A row's artifacts and data sets: small outputs, plots, and inputs with their md5."""

import json
import re
from contextlib import chdir
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run

from dvc_mlflow.project.files import address_of
from dvc_mlflow.project.project import Project
from support.pipelines import Repository, Stages, evaluate, makes, repository, train
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


def load(row: Run, name: str) -> str:
    """Return the text that the source of a row's data set loads."""
    (dataset,) = [i.dataset for i in row.inputs.dataset_inputs if i.dataset.name == name]
    return Path(mlflow.data.get_source(dataset).load()).read_text()


def md5s(project: Repository) -> dict[str, str]:
    """Return the md5s of all files in dvc.lock, by path."""
    entries = re.findall(r"path: (\S+)\n\s+hash: md5\n\s+md5: (\S+)", project.lock)
    return dict(entries)


def test_data_sets(tmp_path: Path) -> None:
    """A data set loads the bytes whose md5 is in dvc.lock, even if its file changed, or fails."""
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
    assert load(row, "raw.txt") == "1\n"
    assert load(row, "d/x.txt") == "x\n"
    assert load(row, "model.txt") == "1\ngit\nx\n"
    assert [file["relpath"] for file in json.loads(load(row, "folder"))] == ["raw2.txt"]
    project.run("rm", "-rf", ".dvc/cache")
    for name in (*found,):
        with pytest.raises((mlflow.MlflowException, OSError)):
            load(row, name)


def test_address_of_data(tmp_path: Path) -> None:
    """A data set's source is its file in the default remote, if MLflow can read from there."""
    project = repository(tmp_path / "project", {"train": train("raw.txt")})
    file, found = "files/md5/b0/26324c", {}
    for url in (
        "s3://bucket/some/",
        "https://example.org/d",
        "https://me:secret@example.org/d",
        "ssh://example.org/d",
        "../remote",
    ):
        remote = f"[core]\n    remote = there\n['remote \"there\"']\n    url = {url}\n"
        project.write({".dvc/config": remote})
        with chdir(project.path), Project() as opened:
            found[url] = address_of(opened, "b026324c")
    assert found == {
        "s3://bucket/some/": ("s3", f"s3://bucket/some/{file}"),
        "https://example.org/d": ("http", f"https://example.org/d/{file}"),
        "https://me:secret@example.org/d": ("local", f"{project.path}/.dvc/cache/{file}"),
        "ssh://example.org/d": ("local", f"{project.path}/.dvc/cache/{file}"),
        "../remote": ("local", f"{project.path}/remote/{file}"),
    }
