"""The five claims hold in the committed results, which the main pipeline's stages have made."""

import json
import re
import shutil
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ruamel.yaml import YAML

import measure as claims_measure
from support.clone import ROOT, Clone, make_clone
from support.imports import STAGES, covering
from vanilla_lstm.task.params import parse_params
from variants import read_plan, read_results

MAIN = YAML(typ="safe").load(ROOT / "dvc.yaml")
CLAIMS = ROOT / "claims"
DVC = YAML(typ="safe").load(CLAIMS / "dvc.yaml")["stages"]
NAMES: list[str] = DVC["measure"]["foreach"]
FOLDERS = [CLAIMS / name for name in NAMES]

measured = pytest.mark.skipif(
    not (CLAIMS / "dvc.lock").exists(),
    reason="no results in git: they have not been measured with this code (`make claims`)",
)


@pytest.fixture(scope="module")
def report() -> ModuleType:
    """The script that makes the report, which imports Matplotlib."""
    return import_module("report")


@pytest.mark.parametrize("folder", FOLDERS, ids=NAMES)
def test_params_are_valid(folder: Path, report: ModuleType) -> None:
    """The params of each claim are valid, and so are those of its variants, seeds and tests."""
    text = (folder / "params.yaml").read_text()
    params, plan = parse_params(text), read_plan(folder)
    assert len(set(plan.seeds)) == 5
    assert plan.fresh_seeds == [201, 202, 203, 204, 205]
    assert not set(plan.seeds) & {params.train.seed, params.train_data.seed, *plan.fresh_seeds}
    assert {"Claim", "Task", "Example", "Chance", "Time", "Lengths", "Note", "Source"} <= set(
        report.read_head(text)
    )
    jobs = plan.jobs(text)  # valid, all of them
    if (CLAIMS / "dvc.lock").exists():  # each has one result, and there are no others
        rows = [(r.variant, r.seed, r.test) for r in read_results(folder)]
        assert sorted(rows) == sorted((*key, test) for key in jobs for test in plan.tests)


@measured
@pytest.mark.parametrize("folder", FOLDERS, ids=NAMES)
def test_the_claim_holds(folder: Path, report: ModuleType) -> None:
    """With every seed, the model is right in 990 of 1,000 cases, and a contrast in under 450."""
    plan, results = read_plan(folder), read_results(folder)
    model, *contrasts = [*plan.variants, *plan.readers]
    scores = report.scores(results, model, plan.tests[0])
    assert len(scores) == len(plan.seeds)
    assert min(scores) >= 990
    metrics = json.loads((folder / "data/metrics.json").read_text())
    assert metrics["n_samples"] == 1000
    assert metrics["correctly_classified"] >= 990
    assert min(max(report.scores(results, c, plan.tests[0])) for c in contrasts) < 450


@measured
def test_report_is_of_these_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: ModuleType
) -> None:
    """The committed README.md and pictures are made from the committed results, byte for byte."""
    copy = shutil.copytree(CLAIMS, tmp_path / "claims")
    made = ["README.md", *(f"{report.PICTURES}/{name}.svg" for name in NAMES)]
    for name in made:
        (copy / name).unlink()
    monkeypatch.chdir(copy)
    report.main()
    for name in made:
        assert (copy / name).read_bytes() == (CLAIMS / name).read_bytes(), name


@measured
def test_report_tells_what_does_not_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: ModuleType
) -> None:
    """The report marks a claim that fails with any seed, and a contrast that is as good."""
    copy = shutil.copytree(CLAIMS, tmp_path / "claims")
    file = copy / NAMES[0] / "data/variants.csv"
    plan = read_plan(file.parents[1])
    model, contrast = list(plan.variants)[:2]
    rows = file.read_text().splitlines()
    for i, row in enumerate(rows):
        match row.split(","):
            case [name, seed, test, _, n, epochs] if test == str(plan.tests[0]):
                correct = {model: "989", contrast: "990"}.get(name, "250")
                rows[i] = ",".join([name, seed, test, correct, n, epochs])
    file.write_text("\n".join(rows))
    monkeypatch.chdir(copy)
    report.main()
    row = (copy / "README.md").read_text().split(f"(#{NAMES[0]})")[1].splitlines()[0]
    assert "989, **does not hold**" in row
    assert f"{contrast}: 990, **as good**" in row
    assert row.count("as good") == 1


@pytest.mark.parametrize("name", MAIN["stages"])
def test_stages_are_those_of_the_main_job(name: str) -> None:
    """The four stages of a claim are the main pipeline's: same scripts, inputs and outputs."""
    stage = dict(DVC[name]["do"])
    assert stage.pop("wdir") == "${item}"
    # DVC's artifacts have no foreach, so the stage declares the model.
    model = stage.get("meta", {}).get("mlflow", {}).pop("model", None)
    moved = json.dumps([stage, model]).replace("${item}: ", "").replace("-claims", "")
    stage, model = json.loads(re.sub(r"(\.\./)+(stages|requirements)", r"\2", moved))
    main = json.loads(json.dumps(MAIN["stages"][name]))
    for each in (stage, main):  # the claims compare other params
        each.get("meta", {}).get("mlflow", {}).pop("columns", None)
    assert stage == main
    artifact = MAIN["artifacts"]["vanilla-lstm"]
    assert model == ({"path": artifact["path"], **artifact["meta"]} if name == "train" else None)
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


@pytest.mark.pipeline
@pytest.mark.rest
def test_measuring_is_what_the_stages_do(tmp_path: Path) -> None:
    """`measure` gets the score that the stages get."""
    clone = Clone(make_clone(tmp_path / "clone", {}).path / "claims")
    folder = clone.path / "sequence-prediction"
    Clone(folder).set({"train.epochs": 3})
    clone.dvc("repro", "-f", "evaluate@sequence-prediction")
    metrics = json.loads((folder / "data/metrics.json").read_text())
    n_epochs = len((folder / "data/training.csv").read_text().splitlines()) - 1
    params = parse_params((folder / "params.yaml").read_text())
    score = claims_measure.train_and_test([params])
    assert score == [(metrics["correctly_classified"], metrics["n_samples"], n_epochs)]
