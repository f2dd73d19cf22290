"""The claims' pipeline runs the main pipeline's stages, and re-runs when its code changes."""

import hashlib
import json
import multiprocessing
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import measure
import report
from claim_folders import FOLDERS, PROPERTIES, measured
from clone import ROOT, Clone, make_clone
from imports import STAGES, covering
from vanilla_lstm.task.params import parse_params

DVC = YAML(typ="safe").load(PROPERTIES / "dvc.yaml")["stages"]
MAIN = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]


def files_of(stage: str, entries: list[dict[str, Any]]) -> dict[Path, str]:
    """Return the md5s of a stage's deps or outs in properties/dvc.lock, by path."""
    claim = stage.partition("@")[2]
    folder = PROPERTIES / report.CLAIMS / claim if claim else PROPERTIES
    return {(folder / e["path"]).resolve(): e["md5"] for e in entries if "md5" in e}


@pytest.fixture(scope="module")
def git_files() -> set[Path]:
    """The files of this repository that git tracks."""
    listed = Clone(ROOT).git("ls-files")
    return {ROOT / name for name in listed.splitlines()}


@measured
@pytest.mark.usefixtures("as_committed")
def test_lock_is_of_these_files(git_files: set[Path]) -> None:
    """The committed code made the committed results; if this fails, run `make properties`."""
    lock = YAML(typ="safe").load(PROPERTIES / "dvc.lock")["stages"]
    assert len(lock) == 5 * len(FOLDERS) + 1
    files: dict[Path, str] = {}
    for name, stage in lock.items():
        files |= files_of(name, stage["deps"] + stage["outs"])
    stale = {
        path.relative_to(ROOT)
        for path, md5 in files.items()
        if path in git_files and hashlib.md5(path.read_bytes()).hexdigest() != md5  # noqa: S324
    }
    assert stale == set()
    assert PROPERTIES / "README.md" in files
    assert len(git_files & files.keys()) > 20


@pytest.mark.parametrize("name", MAIN)
def test_stages_are_those_of_the_main_job(name: str) -> None:
    """The four stages of a claim are the main pipeline's: same scripts, inputs and outputs."""
    stage = dict(DVC[name]["do"])
    assert stage.pop("wdir") == "claims/${item}"
    # DVC's artifacts have no foreach, so the stage declares the model.
    model = stage.get("meta", {}).get("mlflow", {}).pop("model", None)
    moved = json.dumps([stage, model]).replace("${item}: ", "").replace("-properties", "")
    stage, model = json.loads(re.sub(r"(\.\./)+(stages|requirements)", r"\2", moved))
    assert stage == MAIN[name]
    if name == "train":
        artifact = YAML(typ="safe").load(ROOT / "dvc.yaml")["artifacts"]["vanilla-lstm"]
        assert model == {"path": artifact["path"], **artifact["meta"]}
    else:
        assert model is None
    assert DVC[name]["foreach"] == list(report.FOLDERS)


@pytest.mark.parametrize(
    ("stage", "folder"), [(DVC["measure"]["do"], FOLDERS[0]), (DVC["report"], PROPERTIES)]
)
def test_deps_are_what_decides_the_bytes(stage: dict[str, Any], folder: Path) -> None:
    """`measure` and `report` re-run when code that they import changes, and only then."""
    assert len(stage["deps"]) <= 6
    script = folder / stage["cmd"].split()[-1]
    paths = {(folder / dep).resolve() for dep in stage["deps"]} - {PROPERTIES / report.CLAIMS}
    assert paths == covering(script.resolve(), [STAGES, PROPERTIES])


@pytest.mark.pipeline
@pytest.mark.rest
def test_measuring_is_what_the_stages_do(tmp_path: Path) -> None:
    """`measure` gets the score that the stages get, which give the same bytes when repeated."""
    clone = Clone(make_clone(tmp_path / "clone", {}).path / "properties")
    clone.dvc("repro", "-f", "evaluate@sequence-prediction")
    lock = clone.lock
    clone.dvc("repro", "-f", "--no-run-cache", "evaluate@sequence-prediction")
    assert clone.lock == lock
    folder = clone.path / "claims" / "sequence-prediction"
    metrics = YAML(typ="safe").load(folder / "data/metrics.json")
    n_epochs = len((folder / "data/training.csv").read_text().splitlines()) - 1
    params = parse_params((folder / "params.yaml").read_text())
    with multiprocessing.get_context("spawn").Pool(1) as pool:  # as `measure` does
        score = pool.apply(measure.train_and_test, ([params],))
    assert score == [(metrics["correctly_classified"], metrics["n_samples"], n_epochs)]
