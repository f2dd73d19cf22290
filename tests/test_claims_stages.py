"""The claims' pipeline runs the main pipeline's stages, and re-runs when its code changes."""

import hashlib
import json
import multiprocessing
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import measure as claims_measure
from support.claim_folders import CLAIMS, DVC, FOLDERS, NAMES, measured
from support.clone import ROOT, Clone, make_clone
from support.imports import STAGES, covering
from vanilla_lstm.task.params import parse_params

MAIN = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]


def files_of(stage: str, entries: list[dict[str, Any]]) -> dict[Path, str]:
    """Return the md5s of a stage's deps or outs in claims/dvc.lock, by path."""
    claim = stage.partition("@")[2]
    folder = CLAIMS / claim
    return {(folder / e["path"]).resolve(): e["md5"] for e in entries if "md5" in e}


@pytest.fixture(scope="module")
def git_files() -> set[Path]:
    """The files of this repository that git tracks."""
    listed = Clone(ROOT).git("ls-files")
    return {ROOT / name for name in listed.splitlines()}


@measured
@pytest.mark.usefixtures("as_committed")
def test_lock_is_of_these_files(git_files: set[Path]) -> None:
    """The committed code made the committed results; if this fails, run `make claims`."""
    lock = YAML(typ="safe").load(CLAIMS / "dvc.lock")["stages"]
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
    assert CLAIMS / "README.md" in files
    assert len(git_files & files.keys()) > 20


@pytest.mark.parametrize("name", MAIN)
def test_stages_are_those_of_the_main_job(name: str) -> None:
    """The four stages of a claim are the main pipeline's: same scripts, inputs and outputs."""
    stage = dict(DVC[name]["do"])
    assert stage.pop("wdir") == "${item}"
    # DVC's artifacts have no foreach, so the stage declares the model.
    model = stage.get("meta", {}).get("mlflow", {}).pop("model", None)
    moved = json.dumps([stage, model]).replace("${item}: ", "").replace("-claims", "")
    stage, model = json.loads(re.sub(r"(\.\./)+(stages|requirements)", r"\2", moved))
    main = json.loads(json.dumps(MAIN[name]))
    for each in (stage, main):  # the claims compare other params
        each.get("meta", {}).get("mlflow", {}).pop("columns", None)
    assert stage == main
    if name == "train":
        artifact = YAML(typ="safe").load(ROOT / "dvc.yaml")["artifacts"]["vanilla-lstm"]
        assert model == {"path": artifact["path"], **artifact["meta"]}
    else:
        assert model is None
    assert DVC[name]["foreach"] == NAMES


@pytest.mark.parametrize(
    ("stage", "folder", "read"),
    [(DVC["measure"]["do"], FOLDERS[0], []), (DVC["report"], CLAIMS, FOLDERS)],
    ids=["measure", "report"],
)
def test_deps_are_what_decides_the_bytes(
    stage: dict[str, Any], folder: Path, read: list[Path]
) -> None:
    """`measure` and `report` re-run when code that they import changes; `report`, a claim too."""
    script = folder / stage["cmd"].split()[-1]
    deps = {(folder / dep).resolve() for dep in stage["deps"]}
    assert deps == covering(script.resolve(), [STAGES, CLAIMS]) | set(read)
    assert len(deps) <= 6 + len(read)


@measured
@pytest.mark.pipeline
def test_stray_files_run_nothing(tmp_path: Path) -> None:
    """Files that Python and editors leave in the stages' code re-run no claim.

    The stages' folder is reached through a link, because DVC ignores nothing outside of a project.
    """
    clone = make_clone(tmp_path / "clone", params={})
    for name in ("__pycache__/x.pyc", "sequences.py~"):
        stray = clone.path / "stages/vanilla_lstm/task" / name
        stray.parent.mkdir(exist_ok=True)
        stray.write_text("stray")
    claims = Clone(clone.path / "claims")
    assert claims.repro("--dry", "--allow-missing", "evaluate", "measure") == []


@pytest.mark.pipeline
@pytest.mark.rest
def test_measuring_is_what_the_stages_do(tmp_path: Path) -> None:
    """`measure` gets the score that the stages get."""
    clone = Clone(make_clone(tmp_path / "clone", {}).path / "claims")
    folder = clone.path / "sequence-prediction"
    Clone(folder).set({"train.epochs": 3})
    clone.dvc("repro", "-f", "evaluate@sequence-prediction")
    metrics = YAML(typ="safe").load(folder / "data/metrics.json")
    n_epochs = len((folder / "data/training.csv").read_text().splitlines()) - 1
    params = parse_params((folder / "params.yaml").read_text())
    with multiprocessing.get_context("spawn").Pool(1) as pool:  # as `measure` does
        score = pool.apply(claims_measure.train_and_test, ([params],))
    assert score == [(metrics["correctly_classified"], metrics["n_samples"], n_epochs)]
