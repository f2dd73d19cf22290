"""What tests write in place of DVC is what DVC writes."""

from pathlib import Path

import pytest
import yaml
from dvc.utils.serialize import dumps_yaml

from dvc_mlflow.pipeline.tags import STAGE
from support.locked import Locked, locked, read
from support.pipelines import Stages, makes

pytestmark = [
    pytest.mark.versions,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

FOLDER = {"out/a.json": '{"n": 1}', "out/é/b": "2\n", "out/a": "", "out/a-b/c": "3\n"}
ITEMS = {f"{item}.{end}": f'{{"n": {item}}}' for item in (1, 2.5) for end in ("txt", "json")}
CURVE = {"curve.csv": "step,loss\n1,0.5\n"}
STAGES: Stages = {
    "folder": makes(
        FOLDER,
        deps=["raw.txt", "data"],
        outs=["out"],
        params=["rate", "model.units", {"other.yaml": ["n.rate"]}, {"whole.json": None}],
        metrics=[{"out-1.json": {"cache": False}}],
    ),
    "items": {
        "foreach": [1, 2.5],
        "do": makes(
            {f"${{item}}.{end}": '{"n": ${item}}' for end in ("txt", "json")},
            deps=["out", "out/a.json"],
            outs=["${item}.txt"],
            metrics=[{"${item}.json": {"cache": False}}],
        ),
    },
    "grid": {
        "matrix": {"size": [1], "data": ["p", {"q": 2}]},
        **makes({"grid-${key}": "${rate} ${item.size}\n"}, outs=["grid-${key}"]),
    },
    "inside": makes(
        CURVE, wdir="sub", deps=["../out", "../1.txt"], params=["x"], plots=["curve.csv"]
    ),
}
STAGES["folder"]["cmd"] += "; echo '{\"n\": 1}' > out-1.json"
FILES = {
    **FOLDER,
    **ITEMS,
    "out-1.json": '{"n": 1}\n',
    "grid-1-p": "1e-05 1\n",
    "grid-1-data1": "1e-05 1\n",
    "sub/curve.csv": CURVE["curve.csv"],
    "data/one": "1\n",
    "data/two/three": "3\n",
    "other.yaml": "n:\n  rate: 0.1\n",
    "whole.json": '{"s": "text: odd", "a": {"b": 25.0, "c": [1, null, true, "5"]}}',
    "sub/params.yaml": "x: {a: 1, b: [1, {c: 2}]}\n",
}
PARAMS = {"rate": 1e-05, "model": {"units": 3}, "unread": 1}


def written(project: Locked) -> dict[str, bytes]:
    """Return the content of all files, but what git and DVC keep for themselves."""
    hidden = (".git/", ".dvc/tmp/", ".dvc/cache/runs/")
    files = {f"{p.relative_to(project.path)}": p for p in project.path.rglob("*") if p.is_file()}
    return {name: p.read_bytes() for name, p in files.items() if not name.startswith(hidden)}


@pytest.mark.pipeline
def test_as_dvc_writes_it(tmp_path: Path) -> None:
    """DVC finds all up to date, and when it runs all stages, all files stay the same.

    The tool reads it without a complaint, and writes nothing.
    """
    project = locked(tmp_path / "project", STAGES, PARAMS, FILES, tracked=["data"])
    before = written(project)
    found = read(project)
    assert (found.problems, found.reasons) == ([], {})
    assert [(row.tags[STAGE], row.notes) for row in found.rows] == [
        ("inside", []),
        ("items@2.5", []),
    ]
    assert written(project) == before
    assert "up to date" in project.dvc("status").stdout
    ours = dumps_yaml(yaml.load(before.pop("dvc.lock"), yaml.CSafeLoader))
    (project.path / "dvc.lock").unlink()
    project.dvc("repro", "-f")
    after = written(project)
    assert after.pop("dvc.lock").decode() == ours
    uncached = {".dvc/cache/files/md5/b1/d1ee6db4a7a9c3150ed9c41ed4c891": b'{"n": 1}\n'}
    assert after == before | uncached  # DVC's run cache keeps what dvc.yaml does not
