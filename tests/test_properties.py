"""The five claims: their committed results, and how these were made."""

import hashlib
import json
import multiprocessing
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

import measure
import report
from clone import ROOT, Clone, make_clone
from imports import STAGES, covering
from sections import RECIPE, data_params, model_params
from vanilla_lstm.task.params import parse_params
from vanilla_lstm.task.sequences import NO_LABEL, PAD, generate
from variants import read_plan, read_results

PROPERTIES = ROOT / "properties"
FOLDERS = [PROPERTIES / report.CLAIMS / name for name in report.FOLDERS]
in_each_folder = pytest.mark.parametrize("folder", FOLDERS, ids=report.FOLDERS)

measured = pytest.mark.skipif(
    not (PROPERTIES / "dvc.lock").exists(),
    reason="no results in git: they have not been measured with this code (`make properties`)",
)

DVC = YAML(typ="safe").load(PROPERTIES / "dvc.yaml")["stages"]
MAIN = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]


@in_each_folder
def test_params_are_valid(folder: Path) -> None:
    """Each folder's params are valid, as are those of its variants with every seed and test."""
    text = (folder / "params.yaml").read_text()
    params, plan = parse_params(text), read_plan(folder)
    assert plan.jobs(text)
    assert len(set(plan.seeds)) == 5
    assert plan.fresh_seeds == [201, 202, 203, 204, 205]
    assert not set(plan.seeds) & {params.train.seed, params.train_data.seed, *plan.fresh_seeds}
    assert {"Claim", "Task", "Example", "Chance", "Time", "Lengths", "Note", "Source"} <= set(
        report.read_head(text)
    )


@measured
@in_each_folder
def test_the_claim_holds(folder: Path) -> None:
    """With every seed, including the committed one, at least 990 of 1,000 are right."""
    plan, results = read_plan(folder), read_results(folder)
    (model, *_), own = plan.variants, plan.tests[0]
    scores = report.scores(results, model, own)
    assert len(scores) == len(plan.seeds)
    assert min(scores) >= 990
    metrics = YAML(typ="safe").load(folder / "data/metrics.json")
    assert metrics["n_samples"] == 1000
    assert metrics["correctly_classified"] >= 990


@measured
@in_each_folder
def test_a_contrast_fails(folder: Path) -> None:
    """Each claim is measured against a model that lacks the property."""
    plan, results = read_plan(folder), read_results(folder)
    _, *contrasts = [*plan.variants, *plan.readers]
    assert min(max(report.scores(results, c, plan.tests[0])) for c in contrasts) < 450


@measured
@in_each_folder
def test_results_are_those_of_the_plan(folder: Path) -> None:
    """Each variant, seed and test of variants.yaml has one row; there are no other rows."""
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
    """The committed results give the committed README.md and pictures, byte for byte."""
    copy = shutil.copytree(PROPERTIES, tmp_path / "properties")
    made = ["README.md", *(f"{report.PICTURES}/{name}.svg" for name in report.FOLDERS)]
    for name in made:
        (copy / name).unlink()
    monkeypatch.chdir(copy)
    report.main()
    for name in made:
        assert (copy / name).read_bytes() == (PROPERTIES / name).read_bytes(), name


@measured
def test_report_tells_what_does_not_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report marks a claim whose worst seed is below 990, and a contrast that is as good."""
    copy = shutil.copytree(PROPERTIES, tmp_path / "properties")
    file = copy / report.CLAIMS / report.FOLDERS[0] / "data/variants.csv"
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
    row = (copy / "README.md").read_text().split(f"(#{report.FOLDERS[0]})")[1].splitlines()[0]
    assert "989, **does not hold**" in row
    assert f"{contrast}: 990, **as good**" in row
    assert row.count("as good") == 1


def files_of(stage: str, entries: list[dict[str, Any]]) -> dict[Path, str]:
    """Return the md5s of a stage's deps or outs in properties/dvc.lock, by path."""
    claim = stage.partition("@")[2]
    folder = PROPERTIES / report.CLAIMS / claim if claim else PROPERTIES
    return {(folder / e["path"]).resolve(): e["md5"] for e in entries if "md5" in e}


@measured
@pytest.mark.usefixtures("as_committed")
def test_lock_is_of_these_files(git_files: set[Path]) -> None:
    """The committed code made the committed results: if not, run `make properties`."""
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


@pytest.fixture(scope="module")
def git_files() -> set[Path]:
    """The files of this repository that git tracks."""
    listed = Clone(ROOT).git("ls-files")
    return {ROOT / name for name in listed.splitlines()}


@pytest.mark.parametrize("name", MAIN)
def test_stages_are_those_of_the_main_job(name: str) -> None:
    """A folder's four stages are the main job's: the same scripts, inputs and outputs."""
    stage = dict(DVC[name]["do"])
    assert stage.pop("wdir") == "claims/${item}"
    # DVC's artifacts know no foreach, so that the model stands in the stage.
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
    """`measure` and `report` re-run when code that they import changes, and for no other folder."""
    assert len(stage["deps"]) <= 6
    script = folder / stage["cmd"].split()[-1]
    paths = {(folder / dep).resolve() for dep in stage["deps"]} - {PROPERTIES / report.CLAIMS}
    assert paths == covering(script.resolve(), [STAGES, PROPERTIES])


@pytest.mark.pipeline
def test_measuring_is_what_the_stages_do(tmp_path: Path) -> None:
    """With params.yaml's seeds, `measure` gets the stages' score; repeated, they make the same."""
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


def test_readers_by_hand() -> None:
    """A reader answers with the label that it counted most often for the symbol."""
    symbols, labels = np.array([0, 0, 0, 3], np.uint8), np.array([1, 1, 2, 0], np.uint8)
    counts = measure.count(symbols, labels)
    assert counts.shape == (256, 256)
    assert counts[0, 1] == 2
    assert counts.argmax(1)[[0, 3]].tolist() == [1, 0]


@measured
@pytest.mark.parametrize(("n_steps", "targets"), [(10, [1]), (1, [0])])
def test_no_variant_beats_chance_where_distractors_look_like_digits(
    n_steps: int, targets: list[int]
) -> None:
    """Without marks no variant scores more than Bayes' rule: the generator leaks no hint."""
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


PADDED: dict[str, Any] = {"n_max": 5, "n_steps": 3, "targets": [1], "insert": 4, "min_insert": 1}


@pytest.mark.parametrize("per_step", [False, True])
def test_each_sequence_has_its_own_number_of_distractors(per_step: bool) -> None:
    """Numbers in the range are equally frequent, padding is on the left, digits are the same."""
    x, y = generate(4000, 7, **PADDED, per_step=per_step)
    is_pad, is_core = x == PAD, x < 4
    n_inserted = (~is_pad & ~is_core).sum(1)
    assert (is_pad[:, :-1] >= is_pad[:, 1:]).all()
    assert (x[~is_pad & ~is_core] >= 5).all()
    counts = np.bincount(n_inserted, minlength=5)
    assert counts[0] == 0
    assert np.abs(counts[1:] - 1000).max() < 5 * np.sqrt(750)
    plain = {**PADDED, "insert": 0, "min_insert": None}
    digits, labels = generate(4000, 7, **plain, per_step=per_step)
    assert (x[is_core].reshape(-1, 3) == digits).all()
    if per_step:
        assert (y[is_core].reshape(-1, 3) == labels).all()
        assert (y[~is_core] == NO_LABEL).all()
    else:
        assert (y == labels).all()


def test_padded_digits_are_at_random_places() -> None:
    """The core digit is equally often at each of the steps that are not padding."""
    x, _ = generate(30_000, 3, **{**PADDED, "n_steps": 1, "targets": [0], "min_insert": 0})
    for n_pads in range(5):
        rows = x[(x == PAD).sum(1) == n_pads] < 4
        n_steps = 5 - n_pads
        expected = len(rows) / n_steps
        assert (rows[:, :n_pads].sum(0) == 0).all()
        assert np.abs(rows[:, n_pads:].sum(0) - expected).max() < 5 * np.sqrt(expected)


@pytest.mark.pipeline
@pytest.mark.parametrize("cell", ["lstm", "simple_rnn"])
def test_padding_is_skipped(cell: Any) -> None:
    """Padding changes no probability of a sequence, and the layer survives a round trip."""
    from vanilla_lstm.learning.backend import keras
    from vanilla_lstm.learning.model import build_model, predict

    data, params = data_params(insert=3), model_params(cell=cell, units=4)
    model = build_model(data, params, seed=1, padded=True)
    plain = build_model(data, params, seed=1)
    rng = np.random.default_rng(0)  # for weights too: with biases of 0, padding has no effect
    plain.set_weights([rng.normal(size=weights.shape) for weights in plain.get_weights()])
    model.set_weights(plain.get_weights())
    x = rng.integers(0, 10, (6, 5)).astype(np.uint8)
    padded = np.concatenate([np.full((6, 3), PAD, np.uint8), x], 1)
    expected = predict(plain, x, 6)
    np.testing.assert_allclose(predict(model, padded, 6), expected, atol=1e-6)
    np.testing.assert_allclose(predict(model, x, 6), expected, atol=1e-6)
    assert np.abs(predict(plain, padded, 6) - expected).max() > 1e-3
    layer = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(model.get_layer("one_hot"))
    )
    assert layer.mask_padding
    assert "mask_padding" not in plain.get_layer("one_hot").get_config()


def test_what_the_post_leaves_implicit() -> None:
    """As docs/POST.md says: four digits, an unused class, one test sequence in training."""
    task: dict[str, Any] = {"n_max": 5, "n_steps": 10, "targets": [1]}
    x, y = generate(1000, RECIPE["train_data"]["seed"], **task)
    x_test, y_test = generate(1000, RECIPE["test_data"]["seed"], **task)
    assert np.unique(np.concatenate([x, x_test])).tolist() == [0, 1, 2, 3]
    assert np.bincount(y, minlength=5).tolist() == [242, 251, 241, 266, 0]
    assert np.bincount(y_test, minlength=5).tolist() == [233, 247, 247, 273, 0]
    seen = {sequence.tobytes() for sequence in x}
    assert sum(sequence.tobytes() in seen for sequence in x_test) == 1


def test_the_posts_test_data_depend_on_the_training() -> None:
    """One shuffle between the two draws from the global generator changes the test set."""

    def test_set(shuffles: int) -> Any:
        generator = np.random.RandomState(1234)
        generator.randint(0, 4, 10_000)
        for _ in range(shuffles):
            generator.permutation(800)
        return generator.randint(0, 4, (1000, 10))

    assert (test_set(0) == test_set(0)).all()
    assert (test_set(0) == test_set(1)).mean() < 0.3
