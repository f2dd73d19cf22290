"""Settings in dvc.yaml are read, and each mistake in them is reported in one line."""

import json
from pathlib import Path
from typing import Any

import pytest

from dvc_mlflow.pipeline.stages import Model, Settings
from dvc_mlflow.project.settings import models_in, settings_of
from support.locked import evaluated, locked, trained
from support.pipelines import evaluate, train
from support.rebuilding import columns, experiments, lines, recorded

pytestmark = pytest.mark.filterwarnings("ignore")  # warnings from MLflow

STAGE, MODEL = "dvc.yaml: stages.train.meta.mlflow", "dvc.yaml: artifacts.m.meta"


def settings(given: object) -> tuple[Settings, list[str]]:
    """Return what the tool reads from a stage's `meta.mlflow`."""
    return settings_of({"mlflow": given}, "dvc.yaml: stages.train", "")


def artifact(meta: object) -> tuple[Model, list[str]]:
    """Return the model that the tool reads from `artifacts`."""
    artifacts = {"m": {"path": "m.bin", "type": "model", "meta": meta}}
    (found,), problems = models_in(artifacts, "dvc.yaml")
    return found, problems


def test_all_settings() -> None:
    """All settings are optional and read; paths are relative to the stage's working directory."""
    mine: dict[str, Any] = {
        "experiment": "mine",
        "prefix": "",
        "columns": ["-metrics.test/loss", "params.rate"],
        "data": ["raw.txt", "../b/raw.txt"],
        "promote": ["test/score", "-test/loss"],
    }
    found = settings_of({"mlflow": mine, "owner": "me"}, "dvc.yaml: stages.train", "a")
    assert found == (Settings(**{**mine, "data": ("a/raw.txt", "b/raw.txt")}), [])
    for meta in (None, {}, {"owner": "me"}, "text", {"mlflow": None}):
        assert settings_of(meta, "dvc.yaml: stages.train", "") == (Settings(), [])


NAME, COLUMNS = "must be a name", "must be a list such as [-metrics.test/loss, params.train.rate]"
METRICS = "must be a list of metrics such as [test/score, -test/loss]"
UNKNOWN = "unknown key; known are experiment, prefix, columns, data, record, promote"
INSIDE = "must be in the repository"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("text", ": must be a mapping; received 'text'"),
        ({"colums": []}, f".colums: {UNKNOWN}"),
        ({"experiment": 5}, f".experiment: {NAME}; received 5"),
        ({"experiment": "x" * 501}, f".experiment: {NAME}; received '{'x' * 99}"),
        ({"prefix": None}, ".prefix: must be text, or empty for no prefix; received None"),
        ({"record": "no"}, ".record: must be true or false; received 'no'"),
        ({"columns": ["loss"]}, f".columns: {COLUMNS}; received ['loss']"),
        ({"data": "raw.txt"}, ".data: must be a list of paths; received 'raw.txt'"),
        ({"data": ["/etc/passwd"]}, f".data: {INSIDE}; received '/etc/passwd'"),
        ({"promote": "test/loss"}, f".promote: {METRICS}; received 'test/loss'"),
    ],
)
def test_wrong_settings(given: object, problem: str) -> None:
    """Each mistake is left out, and reported in one line with key, rule and value."""
    assert settings(given) == (Settings(), [f"{STAGE}{problem}"])


def test_artifacts() -> None:
    """`artifacts` of the type model are models, relative to their dvc.yaml; others are not."""
    loaded = {"loader_module": "load", "pip_requirements": []}
    artifacts = {
        "one": {"path": "m.bin", "type": "model", "meta": {**loaded, "framework": "none"}},
        "two": {"path": "n.bin", "type": "model", "meta": "text"},
        "data": {"path": "d.csv", "type": "dataset", "meta": loaded},
        "out": {"path": "../../o.bin", "type": "model"},
    }
    models, problems = models_in(artifacts, "a/dvc.yaml", "own")
    assert models == [
        Model("a/m.bin", "load", (), [], name="own/a:one"),
        Model("a/n.bin", name="own/a:two"),
        Model("../o.bin", name="own/a:out"),
    ]
    assert problems == []
    (problem,) = models_in(artifacts, "dvc.yaml")[1]
    assert problem == f"dvc.yaml: artifacts.out.path: {INSIDE}; received '../../o.bin'"


LOADER = {"loader_module": "load"}
LOADED = {**LOADER, "pip_requirements": ["numpy"]}
PACKAGES = "pip_requirements: must list the packages that loading the model needs"
PLAIN = "pip_requirements: must be a list of requirements without options, or a path"


@pytest.mark.parametrize(
    ("meta", "problem"),
    [
        (LOADER, f"{PACKAGES}; received None"),
        ({**LOADED, "code_paths": ["../src"]}, f"code_paths: {INSIDE}; received '../src'"),
        ({**LOADED, "pip_requirements": "/x"}, f"pip_requirements: {INSIDE}; received '/x'"),
        ({"loader_modul": "load"}, "loader_modul: unknown key; did you mean loader_module?"),
        *(
            ({**LOADED, "pip_requirements": given}, f"{PLAIN}; received {given!r}")
            for given in (["a", "-r /x"], [" --index-url=x"], ["a\n-r x"], ["a\x0b-r x"], 5)
        ),
    ],
)
def test_wrong_loaders(meta: object, problem: str) -> None:
    """A model that would be loaded wrongly is not loaded at all, and one line says why.

    With options among requirements, MLflow would read any file.
    """
    assert artifact(meta) == (Model("m.bin", name="m"), [f"{MODEL}.{problem}"])


@pytest.mark.pipeline
def test_in_the_store(tmp_path: Path) -> None:
    """A stage can choose its experiment and the table's columns, sorted by the first one.

    What is wrong in dvc.yaml is said once, and the row is there all the same.
    """
    meta = {"mlflow": {"experiment": "mine", "columns": ["-metrics.train/loss", "params.rate"]}}
    stages = {"train": {**train("raw.txt"), "meta": meta}, "a": evaluate("a")}
    stages["a"]["meta"] = {"mlflow": {"columns": ["params.rate", "metrics.a/score"]}}
    item = {**evaluate("${item}", "model.txt"), "meta": {"mlflow": "text"}}
    stages["b"] = {"foreach": ["x", "y"], "do": item}
    files = evaluated() | {f"{name}.json": '{"score": 1}\n' for name in "xy"}
    project = locked(tmp_path / "project", stages, {"rate": 1, "a": 1, "x": 1, "y": 1}, files)
    project.commit()
    project.add_store()
    row, said = recorded(project)
    assert lines(said) == ["dvc.yaml: stages.b.meta.mlflow: must be a mapping; received 'text'"]
    assert said.out.startswith("mine: added ")
    scores = {"a/score": 1, "b/x/score": 1, "b/y/score": 1}
    assert row.data.metrics == {"train/loss": 0.25, **scores}
    assert columns(project, row) == {
        "selectedColumns": ["metrics.`train/loss`", "params.`rate`", "metrics.`a/score`"],
        "searchFilter": "tags.`dvc.stage` != ''",
        "orderByKey": "metrics.`train/loss`",
        "orderByAsc": True,
    }


def test_of_today(tmp_path: Path) -> None:
    """What today's dvc.yaml says of a stage counts for its older results, too."""
    project = locked(tmp_path / "project", {"train": train("raw.txt")}, {"rate": 1}, trained())
    project.add_store()
    project.commit("Without settings")
    meta = {"mlflow": {"experiment": "mine", "prefix": ""}}
    stages = {"train": {**train("raw.txt"), "meta": meta}}
    project.again(trained(2) | {"dvc.yaml": json.dumps({"stages": stages})}, {"rate": 2})
    project.commit("With settings")
    assert project.record("--all").out.startswith("mine: 2 rows added")
    assert experiments(project) == ["mine"]
    assert {key for row in project.rows() for key in row.data.metrics} == {"loss"}
