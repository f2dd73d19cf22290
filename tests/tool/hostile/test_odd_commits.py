"""One commit that cannot be read costs a line, and no other commit."""

import json
from typing import Any

import pytest

from support.hostile import Place

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

TOP: dict[str, Any] = {"params": ["top.yaml"], "metrics": ["new.json"]}
IN_THE_CLOUD = {
    "get": {"cmd": "get x", "deps": ["gs://bucket/x"], "outs": ["x"]},  # dvc-gs is not installed
}
COMMITS: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "a list": ({"top.yaml": "[1, 2]\n"}, TOP),
    "a text": ({"top.yaml": "text\n"}, TOP),
    "a number": ({"top.yaml": "17\n"}, TOP),
    "nothing": ({"top.yaml": ""}, TOP),
    "a cloud": ({}, {"stages": IN_THE_CLOUD}),
    "no YAML": ({"dvc.yaml": "a: [\n"}, {}),
    "no stages": ({"dvc.yaml": "stages: 17\n"}, {}),
    "no lock": ({"dvc.lock": "stages: [1]\nschema: '2.0'\n"}, {}),
}
REFUSED = {
    "a list": "params top.yaml: must be a mapping; received [1, 2]",
    "a text": "params top.yaml: must be a mapping; received 'text'",
    "a number": "params top.yaml: must be a mapping; received 17",
    "a cloud": "gs",
    "no YAML": "dvc.yaml",
    "no stages": "dvc.yaml",
    "no lock": "dvc.lock",
}


def test_one_bad_commit(place: Place) -> None:
    """Between two results, each kind of bad commit is named in a line; both results have rows."""
    project = place.project
    whole = json.loads((project.path / "dvc.yaml").read_text())
    good = {name: (project.path / name).read_text() for name in ("dvc.yaml", "dvc.lock")}
    project.write({"new.json": '{"n": 2}'})
    commits = {}
    for what, (files, top) in COMMITS.items():
        merged = {**whole, **top, "stages": {**whole["stages"], **top.get("stages", {})}}
        project.write({**good, "dvc.yaml": json.dumps(merged), **files})
        project.commit(what)
        commits[what] = project.git("rev-parse", "--short=7", "HEAD")
    link = place.outside / "params.yaml"
    project.write({**good, "dvc.yaml": json.dumps({**whole, **TOP})})
    (project.path / "top.yaml").unlink()
    (project.path / "top.yaml").symlink_to(link)
    project.commit("a link")
    project.write(good)
    project.set({"rate": 2})
    project.run("sed", "-i", "s,echo 1 > d/x,echo 2 > d/x,", "dvc.yaml")
    project.dvc("repro", "-q")
    project.commit("Good")
    project.remove_store()
    project.add_store()
    said = place.tool("record", "--all")
    assert said.status == 0
    lines = said.error.splitlines()
    for what, part in REFUSED.items():
        (line,) = [line for line in lines if commits[what] in line]
        assert part in line
    assert len(lines) == len(REFUSED)
    rates = [row.data.params.get("rate") for row in project.rows()]
    assert {"1", "2"} <= {*rates}
    assert not any("99" in row.data.params.values() for row in project.rows())


def test_bad_checkout(place: Place) -> None:
    """A checkout with a stage in a cloud whose package is missing is refused in a line."""
    project = place.project
    found = json.loads((project.path / "dvc.yaml").read_text())
    found["stages"] |= IN_THE_CLOUD
    project.write({"dvc.yaml": json.dumps(found)})
    said = place.tool("record")
    (line,) = said.error.splitlines()
    assert said.status == 1
    assert "gs" in line
