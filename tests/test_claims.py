"""The five claims hold in the committed results, from which the committed report is made."""

import json
import shutil
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import measure as claims_measure
from support.claim_folders import CLAIMS, FOLDERS, NAMES, measured
from vanilla_lstm.task.params import parse_params
from vanilla_lstm.task.sequences import generate
from variants import read_plan, read_results


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
    made = [
        "README.md",
        *(f"{report.PICTURES}/{name}.svg" for name in NAMES),
    ]
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


def test_readers_by_hand() -> None:
    """A reader predicts the label that it counted most often for the symbol."""
    symbols, labels = np.array([0, 0, 0, 3], np.uint8), np.array([1, 1, 2, 0], np.uint8)
    counts = claims_measure.count(symbols, labels)
    assert counts.shape == (256, 256)
    assert counts[0, 1] == 2
    assert counts.argmax(1)[[0, 3]].tolist() == [1, 0]


@measured
@pytest.mark.parametrize(("n_steps", "targets"), [(10, [1]), (1, [0])])
def test_no_variant_beats_chance_where_distractors_look_like_digits(
    n_steps: int, targets: list[int], report: ModuleType
) -> None:
    """Without marks no variant beats Bayes' rule, so the generator leaks no hint."""
    folder = FOLDERS[3] if n_steps == 10 else FOLDERS[4]
    plan, results = read_plan(folder), read_results(folder)
    insert = plan.tests[0]
    # How often each step is the target, over all choices of the core's steps.
    marked, _ = generate(200_000, 1, n_max=5, n_steps=n_steps, targets=targets, insert=insert)
    is_core = marked < 5
    is_target = is_core & (is_core.cumsum(1) == targets[0] + 1)
    weights = is_target.mean(0)
    assert weights.sum() == pytest.approx(1)
    digits = np.random.default_rng(2).integers(0, 4, (100_000, n_steps + insert))
    posterior = np.stack([(weights * (digits == d)).sum(1) for d in range(4)], 1)
    limit = posterior.max(1).mean()
    unmarked = next(v for v in plan.variants if "unmarked" in v)
    scores = report.scores(results, unmarked, insert)
    assert max(scores) < 1000 * limit + 4 * np.sqrt(250)
