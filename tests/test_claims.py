"""The five claims hold in the committed results, from which the committed report is made."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

import measure as claims_measure
import report as claims_report
from support.claim_folders import CLAIMS, FOLDERS, measured
from vanilla_lstm.task.params import parse_params
from vanilla_lstm.task.sequences import generate
from variants import read_plan, read_results

in_each_folder = pytest.mark.parametrize("folder", FOLDERS, ids=claims_report.FOLDERS)


@in_each_folder
def test_params_are_valid(folder: Path) -> None:
    """The params of each claim are valid, and so are those of its variants, seeds and tests."""
    text = (folder / "params.yaml").read_text()
    params, plan = parse_params(text), read_plan(folder)
    assert plan.jobs(text)
    assert len(set(plan.seeds)) == 5
    assert plan.fresh_seeds == [201, 202, 203, 204, 205]
    assert not set(plan.seeds) & {params.train.seed, params.train_data.seed, *plan.fresh_seeds}
    assert {"Claim", "Task", "Example", "Chance", "Time", "Lengths", "Note", "Source"} <= set(
        claims_report.read_head(text)
    )


@measured
@in_each_folder
def test_the_claim_holds(folder: Path) -> None:
    """With every seed, the model classifies at least 990 of 1,000 test sequences correctly."""
    plan, results = read_plan(folder), read_results(folder)
    (model, *_), own = plan.variants, plan.tests[0]
    scores = claims_report.scores(results, model, own)
    assert len(scores) == len(plan.seeds)
    assert min(scores) >= 990
    metrics = YAML(typ="safe").load(folder / "data/metrics.json")
    assert metrics["n_samples"] == 1000
    assert metrics["correctly_classified"] >= 990


@measured
@in_each_folder
def test_a_contrast_fails(folder: Path) -> None:
    """Each claim has a contrast, a model without the property, that stays below 450 of 1,000."""
    plan, results = read_plan(folder), read_results(folder)
    _, *contrasts = [*plan.variants, *plan.readers]
    assert min(max(claims_report.scores(results, c, plan.tests[0])) for c in contrasts) < 450


@measured
@in_each_folder
def test_results_are_those_of_the_plan(folder: Path) -> None:
    """Each variant, seed and test in variants.yaml has one row, and there are no other rows."""
    plan, results = read_plan(folder), read_results(folder)
    planned = {
        (*key, test)
        for key in plan.jobs((folder / "params.yaml").read_text())
        for test in plan.tests
    }
    assert {(r.variant, r.seed, r.test) for r in results} == planned
    assert len(results) == len(planned)


@measured
def test_report_is_of_these_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The committed README.md and pictures are made from the committed results, byte for byte."""
    copy = shutil.copytree(CLAIMS, tmp_path / "claims")
    made = [
        "README.md",
        *(f"{claims_report.PICTURES}/{name}.svg" for name in claims_report.FOLDERS),
    ]
    for name in made:
        (copy / name).unlink()
    monkeypatch.chdir(copy)
    claims_report.main()
    for name in made:
        assert (copy / name).read_bytes() == (CLAIMS / name).read_bytes(), name


@measured
def test_report_tells_what_does_not_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report marks a claim that fails with any seed, and a contrast that is as good."""
    copy = shutil.copytree(CLAIMS, tmp_path / "claims")
    file = copy / claims_report.FOLDERS[0] / "data/variants.csv"
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
    claims_report.main()
    row = (
        (copy / "README.md").read_text().split(f"(#{claims_report.FOLDERS[0]})")[1].splitlines()[0]
    )
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
    n_steps: int, targets: list[int]
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
    scores = claims_report.scores(results, unmarked, insert)
    assert max(scores) < 1000 * limit + 4 * np.sqrt(250)
